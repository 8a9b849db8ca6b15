"""Statistics of one column, or of two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.features.formula import feature, named, ratio, shifted, whole
from grandbatch.features.sets import Feature

F64 = npt.NDArray[np.float64]


def stddev(period: int = 20, source: str = "close") -> Feature:
    """Return the population's standard deviation of `period` values.

    Lookback: period - 1. TA-Lib: STDDEV.
    """
    n = whole(period)
    return feature(named(f"stddev_{n}", source), n - 1, w.std, n, 0, inputs=(source,), version=2)


def variance(period: int = 20, source: str = "close") -> Feature:
    """Return the population's variance of `period` values.

    Lookback: period - 1. TA-Lib: VAR.
    """
    n = whole(period)
    return feature(named(f"variance_{n}", source), n - 1, _variance, n, inputs=(source,), version=2)


def _variance(x: F64, n: int) -> F64:
    return w.moments(x, n)[1] / n


def linreg_slope(period: int = 14, source: str = "close") -> Feature:
    """Return the slope of the least-squares line through `period` values, per bar.

    Lookback: period - 1. TA-Lib: LINEARREG_SLOPE.
    """
    n = whole(period)
    return feature(
        named(f"linreg_slope_{n}", source), n - 1, w.slope, n, inputs=(source,), version=2
    )


def linreg(period: int = 14, source: str = "close") -> Feature:
    """Return the newest bar's value on the least-squares line through `period` values.

    Lookback: period - 1. TA-Lib: LINEARREG.
    """
    n = whole(period)
    return feature(named(f"linreg_{n}", source), n - 1, _linreg, n, inputs=(source,), version=2)


def _linreg(x: F64, n: int) -> F64:
    mean, _, trend = w.trends(x, n)
    return mean + trend * (6.0 / (n * (n + 1.0)))


def correl(period: int = 30, x: str = "close", y: str = "volume") -> Feature:
    """Return Pearson's correlation of two columns; 0 where one is flat.

    Lookback: period - 1. TA-Lib: CORREL.
    """
    n = whole(period)
    return feature(f"correl_{n}_{x}_{y}", n - 1, w.correlation, n, inputs=(x, y), version=2)


def beta(period: int = 5, x: str = "high", y: str = "low") -> Feature:
    """Return the slope of y's simple returns over x's; 0 where x's are all equal.

    Lookback: period. TA-Lib: BETA.
    """
    n = whole(period)
    return feature(f"beta_{n}_{x}_{y}", n, _beta, n, inputs=(x, y), version=2)


def _beta(x: F64, y: F64, n: int) -> F64:
    x_returns, y_returns = (ratio(z - shifted(z), shifted(z)) for z in (x, y))
    x_squares, _, joint = w.products(x_returns, y_returns, n)
    return ratio(joint, x_squares)
