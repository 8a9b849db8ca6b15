"""Windowed operations over whole arrays that keep the promises of a feature by construction.

``f(x, n)[k]`` depends on ``x[k - n + 1 : k + 1]`` alone, to the last bit of float64, wherever the
array begins. So a kernel written with these, with arithmetic and with ``numpy.where`` reads its own
lookback only, and is the same however bars are cut up. `change` reads one value more than n, and
`ema` and `wilder` read as many as their lookbacks say.

Each takes (T,) numbers and gives a new (T,) float64: nan before the first whole window, and where a
window holds a nan. A window costs 1 to 5 nanoseconds a value, hardly more for a longer one, but for
`rank`, which looks at each of its values, and `quantile`, which keeps a sorted window.

Examples
--------
>>> import numpy as np
>>> from grandbatch import windows as w
>>> w.mean([1.0, 2.0, 4.0, 8.0], 2)
array([nan, 1.5, 3. , 6. ])
>>> w.age_of_highest([1.0, 3.0, 2.0, 2.0], 3)
array([nan, nan,  1.,  2.])
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.kernels.windows.plans import moment_passes, window_passes, window_steps

__all__ = [
    "age_of_highest",
    "age_of_lowest",
    "change",
    "correlation",
    "ema",
    "ema_lookback",
    "highest",
    "lowest",
    "mean",
    "quantile",
    "rank",
    "rsquare",
    "slope",
    "std",
    "sum",
    "wilder",
    "wilder_lookback",
]

F64 = npt.NDArray[np.float64]

FORGOTTEN = 1e-9
"""Weight below which a value no longer counts in an exponential average."""


def sum(x: npt.ArrayLike, n: int) -> F64:  # noqa: A001 - read as windows.sum
    """Return the sums of n values."""
    return _decayed(x, n, 1.0, 1.0, rest=False)


def mean(x: npt.ArrayLike, n: int) -> F64:
    """Return the means of n values; that of equal values is the value, exactly."""
    from grandbatch.kernels.windows import averages as kernel

    x, out = _prepared(x, n)
    kernel.means(x, window_passes(n), out)
    return out


def std(x: npt.ArrayLike, n: int, ddof: int = 1) -> F64:
    """Return the standard deviations of n values, over n - `ddof`; exactly 0 of equal ones."""
    if _whole(n) <= ddof:
        raise UsageError(f"a spread with ddof={ddof} needs a window above {ddof}, got {n}")
    squares = moments(x, n)[1]
    squares /= n - ddof
    return np.sqrt(squares, out=squares)


def slope(x: npt.ArrayLike, n: int) -> F64:
    """Return the slopes of the least-squares lines through n values, per bar."""
    trend = trends(x, n)[2]
    trend /= _spread_of_numbers(n)
    return trend


def rsquare(x: npt.ArrayLike, n: int) -> F64:
    """Return the share of n values' variance that their least-squares line explains, 0 if flat."""
    from grandbatch.kernels.windows import moments as kernel

    _, squares, trend = trends(x, n)
    trend *= trend
    squares *= _spread_of_numbers(n)
    kernel.ratios(trend, squares, squares)
    return squares


def correlation(x: npt.ArrayLike, y: npt.ArrayLike, n: int) -> F64:
    """Return the Pearson correlations of n pairs; 0 where one side is flat. In -1..1."""
    from grandbatch.kernels.windows import moments as kernel

    x, y, out = _prepared_pair(x, y, n)
    kernel.correlations(x, y, moment_passes(n), out)
    return out


def highest(x: npt.ArrayLike, n: int) -> F64:
    """Return the greatest of n values."""
    from grandbatch.kernels.windows import order as kernel

    x, out = _prepared(x, n)
    kernel.highest(x, n, out)
    return out


def lowest(x: npt.ArrayLike, n: int) -> F64:
    """Return the least of n values."""
    out = highest(np.negative(x, dtype=np.float64), n)
    return np.negative(out, out=out)


def age_of_highest(x: npt.ArrayLike, n: int, *, newest: bool = False) -> F64:
    """Return the bars since the greatest of n values, the first of equal ones: 0 to n - 1.

    With `newest`, since the last of equal ones.
    """
    from grandbatch.kernels.windows import order as kernel

    x, out = _prepared(x, n)
    kernel.ages_of_highest(x, n, newest, out)
    return out


def age_of_lowest(x: npt.ArrayLike, n: int, *, newest: bool = False) -> F64:
    """Return the bars since the least of n values, as `age_of_highest`."""
    return age_of_highest(np.negative(x, dtype=np.float64), n, newest=newest)


def rank(x: npt.ArrayLike, n: int) -> F64:
    """Return the ranks of the newest of n values, mean ones of equals, as shares of n."""
    from grandbatch.kernels.windows import order as kernel

    x, out = _prepared(x, n)
    kernel.ranks(x, n, out)
    return out


def quantile(x: npt.ArrayLike, n: int, q: float) -> F64:
    """Return the quantiles of n values, linear between the two neighbours, for q in 0..1."""
    from grandbatch.kernels.windows import order as kernel

    if not 0.0 <= q <= 1.0:
        raise UsageError(f"a quantile must lie in 0..1, got {q!r}")
    x, out = _prepared(x, n)
    kernel.quantiles(x, n, float(q), out)
    return out


def change(x: npt.ArrayLike, n: int = 1) -> F64:
    """Return ``x[k] - x[k - n]``; nan for the first n."""
    x, out = _prepared(x, n)
    np.subtract(x[n:], x[:-n], out=out[n:])
    out[:n] = np.nan
    return out


def ema(x: npt.ArrayLike, n: int) -> F64:
    """Return exponential averages with alpha 2 / (n + 1).

    They read `ema_lookback(n)` values before each one, and it. What lies further back weighs less
    than 1e-9 together; the oldest value read stands for it.
    """
    return exponential(x, 2.0 / (_whole(n) + 1.0), ema_lookback(n))


def wilder(x: npt.ArrayLike, n: int) -> F64:
    """Return Wilder's averages, alpha 1 / n, over `wilder_lookback(n)` values before and each."""
    return exponential(x, 1.0 / _whole(n), wilder_lookback(n))


def ema_lookback(n: int) -> int:
    """Return how many values before its own `ema(x, n)` reads: 125 for 12, 270 for 26."""
    return lookback_of(2.0 / (_whole(n) + 1.0))


def wilder_lookback(n: int) -> int:
    """Return how many values before its own `wilder(x, n)` reads: 280 for 14."""
    return lookback_of(1.0 / _whole(n))


def lookback_of(alpha: float, forgotten: float = FORGOTTEN) -> int:
    """Return after how many bars an exponential average has forgotten a value."""
    return math.ceil(math.log(forgotten) / math.log1p(-alpha)) if alpha < 1.0 else 1


def exponential(x: npt.ArrayLike, alpha: float, lookback: int) -> F64:
    """Return exponential averages over `lookback` values before and each, from the oldest on."""
    return _decayed(x, lookback, alpha, 1.0 - alpha, rest=True)


def moments(x: npt.ArrayLike, n: int) -> tuple[F64, F64]:
    """Return the means of n values, and the sums of squared deviations from them."""
    from grandbatch.kernels.windows import moments as kernel

    x, mean_ = _prepared(x, n)
    squares = _unknown(x, n)
    kernel.moments(x, moment_passes(n), mean_, squares)
    _unknown_of_one(x, n, squares)
    return mean_, squares


def trends(x: npt.ArrayLike, n: int) -> tuple[F64, F64, F64]:
    """Return `moments`, and sums of products of deviations of x and of the bars' numbers."""
    from grandbatch.kernels.windows import moments as kernel

    if _whole(n) < 2:
        raise UsageError(f"a line needs a window of at least 2 bars, got {n}")
    x, mean_ = _prepared(x, n)
    squares, trend = _unknown(x, n), _unknown(x, n)
    kernel.trends(x, moment_passes(n), mean_, squares, trend)
    return mean_, squares, trend


def products(x: npt.ArrayLike, y: npt.ArrayLike, n: int) -> tuple[F64, F64, F64]:
    """Return the sums of squared deviations of n values of x, of y, and of both's products."""
    from grandbatch.kernels.windows import moments as kernel

    x, y, x_squares = _prepared_pair(x, y, n)
    y_squares, joint = _unknown(x, n), _unknown(x, n)
    kernel.products(x, y, moment_passes(n), x_squares, y_squares, joint)
    _unknown_of_one(x, n, x_squares)
    _unknown_of_one(y, n, y_squares)
    return x_squares, y_squares, joint


def decayed_sums(x: npt.ArrayLike, n: int, keep: float) -> F64:
    """Return the sums of n values, each weighing keep**age."""
    return _decayed(x, n, 1.0, keep, rest=False)


def _decayed(x: npt.ArrayLike, n: int, weight: float, keep: float, *, rest: bool) -> F64:
    from grandbatch.kernels.windows import averages as kernel

    x, out = _prepared(x, n)
    if rest:
        out[n - 1 : n] = np.nan
    factors, beyond = _factors(n, keep)
    kernel.decayed_sums(x, weight, window_steps(n), factors, rest, beyond, out)
    return out


@lru_cache(maxsize=512)
def _factors(n: int, keep: float) -> tuple[F64, float]:
    """Return what the older part of each merge is multiplied with, and what lies before all."""
    factors = np.array([_power(keep, int(newer)) for newer in window_steps(n)[:, 4]])
    factors.flags.writeable = False
    return factors, _power(keep, n)


def _power(base: float, exponent: int) -> float:
    """Multiply, and not by pow: the last bits of libm's change between its versions."""
    power = 1.0
    while exponent:
        power *= base if exponent & 1 else 1.0
        base, exponent = base * base, exponent >> 1
    return power


def _prepared(x: npt.ArrayLike, n: int) -> tuple[F64, F64]:
    """Check a series and a window's length; return the series as kernels take it, and room.

    The series comes back read-only, so that each kernel is compiled for one type of array.
    """
    _whole(n)
    values = np.ascontiguousarray(x, np.float64).view()
    if values.ndim != 1 or np.ndim(x) != 1:
        raise UsageError(f"a series must have one dimension, got shape {np.shape(x)}")
    values.flags.writeable = False
    return values, _unknown(values, n)


def _prepared_pair(x: npt.ArrayLike, y: npt.ArrayLike, n: int) -> tuple[F64, F64, F64]:
    """Check two series and a window's length, as `_prepared` does one."""
    x, out = _prepared(x, n)
    y, _ = _prepared(y, n)
    if x.shape != y.shape:
        raise UsageError(f"both sides must be equally long, got {x.size} and {y.size} values")
    return x, y, out


def _unknown(x: F64, n: int) -> F64:
    """Return room for as many values, nan where there is no whole window."""
    out = np.empty(x.size)
    out[: n - 1] = np.nan
    return out


def _unknown_of_one(x: F64, n: int, squares: F64) -> None:
    """Put nan where a window of one value, which nothing is merged for, is not finite."""
    if n == 1:
        squares[~np.isfinite(x)] = np.nan


def _whole(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise UsageError(f"a window must be a whole number of bars, at least 1, got {n!r}")
    return n


def _spread_of_numbers(n: int) -> float:
    """Return the sum of squared deviations of 1 to n from their mean."""
    return n * (n * n - 1.0) / 12.0
