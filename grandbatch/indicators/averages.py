"""Moving averages of the close, or of another column.

Exponential ones read as far back as a value weighs 1e-9 together with all before it, and begin at
the oldest value they read. TA-Lib carries them from the first bar on: once that many bars have
passed, both are equal to float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.features.formula import feature, named, ratio, shifted, whole
from grandbatch.features.sets import Feature

F64 = npt.NDArray[np.float64]

_KAMA_LEVELS = 10


def sma(period: int = 20, source: str = "close") -> Feature:
    """Return the mean of `period` values.

    Lookback: period - 1. TA-Lib: SMA.
    """
    n = whole(period)
    return feature(named(f"sma_{n}", source), n - 1, w.mean, n, inputs=(source,), version=2)


def ema(period: int = 20, source: str = "close") -> Feature:
    """Return the exponential average, alpha = 2 / (period + 1).

    Lookback: ceil(ln 1e-9 / ln(1 - alpha)), 125 for a period of 12, 270 for 26. TA-Lib: EMA.
    """
    n = whole(period)
    lookback = w.ema_lookback(n)
    return feature(named(f"ema_{n}", source), lookback, w.ema, n, inputs=(source,), version=2)


def wilder(period: int = 14, source: str = "close") -> Feature:
    """Return Wilder's average, alpha = 1 / period.

    Lookback: ceil(ln 1e-9 / ln(1 - alpha)), 280 for a period of 14. TA-Lib has it inside others.
    """
    n = whole(period)
    return feature(
        named(f"wilder_{n}", source), w.wilder_lookback(n), w.wilder, n, inputs=(source,)
    )


def wma(period: int = 20, source: str = "close") -> Feature:
    """Return the mean that weighs values 1 for the oldest to `period` for the newest.

    Lookback: period - 1. TA-Lib: WMA.
    """
    n = whole(period)
    return feature(named(f"wma_{n}", source), n - 1, _wma, n, inputs=(source,), version=2)


def _wma(x: F64, n: int) -> F64:
    mean, _, trend = w.trends(x, n)
    return mean + trend / (0.5 * n * (n + 1))


def trima(period: int = 20, source: str = "close") -> Feature:
    """Return the mean of means, whose weights rise to the middle of the window and fall again.

    Lookback: period - 1. TA-Lib: TRIMA.
    """
    n = whole(period)
    return feature(named(f"trima_{n}", source), n - 1, _trima, n, inputs=(source,), version=2)


def _trima(x: F64, n: int) -> F64:
    return w.mean(w.mean(x, (n + 1) // 2), n // 2 + 1)


def dema(period: int = 20, source: str = "close") -> Feature:
    """Return 2 E - E(E), E the exponential average.

    Lookback: twice that of `ema`. TA-Lib: DEMA.
    """
    n = whole(period)
    return feature(named(f"dema_{n}", source), 2 * w.ema_lookback(n), _dema, n, inputs=(source,))


def _dema(x: F64, n: int) -> F64:
    once = w.ema(x, n)
    return 2.0 * once - w.ema(once, n)


def tema(period: int = 20, source: str = "close") -> Feature:
    """Return 3 E - 3 E(E) + E(E(E)), E the exponential average.

    Lookback: three times that of `ema`. TA-Lib: TEMA.
    """
    n = whole(period)
    return feature(named(f"tema_{n}", source), 3 * w.ema_lookback(n), _tema, n, inputs=(source,))


def _tema(x: F64, n: int) -> F64:
    once = w.ema(x, n)
    twice = w.ema(once, n)
    return 3.0 * once - 3.0 * twice + w.ema(twice, n)


def t3(period: int = 5, volume_factor: float = 0.7, source: str = "close") -> Feature:
    """Return Tillson's T3: six exponential averages, one of the other, put together.

    Lookback: six times that of `ema`. TA-Lib: T3.
    """
    n = whole(period)
    name = named(f"t3_{n}" if volume_factor == 0.7 else f"t3_{n}_{volume_factor:g}", source)
    return feature(name, 6 * w.ema_lookback(n), _t3, n, volume_factor, inputs=(source,))


def _t3(x: F64, n: int, v: float) -> F64:
    e = []
    for _ in range(6):
        x = w.ema(x, n)
        e.append(x)
    return (
        -v * v * v * e[5]
        + 3.0 * (v * v + v * v * v) * e[4]
        - (6.0 * v * v + 3.0 * v + 3.0 * v * v * v) * e[3]
        + (1.0 + 3.0 * v + v * v * v + 3.0 * v * v) * e[2]
    )


def kama(period: int = 10, source: str = "close") -> Feature:
    """Return Kaufman's adaptive average, from 2 (fast) to 30 (slow), over 1,024 bars.

    Its weight varies: pure noise keeps up to 1.4 % of what lies further back, prices that move
    hardly a billionth. Lookback: 1,024 + period. TA-Lib: KAMA.
    """
    n = whole(period)
    lookback = n + (1 << _KAMA_LEVELS)
    return feature(named(f"kama_{n}", source), lookback, _kama, n, inputs=(source,))


def _kama(x: F64, n: int) -> F64:
    from grandbatch.kernels.formulas import recurrences

    straight = np.abs(w.change(x, n))
    path = w.sum(np.abs(x - shifted(x)), n)
    efficiency = np.where(path > straight, ratio(straight, path), 1.0)
    weight = efficiency * (2.0 / 3.0 - 2.0 / 31.0) + 2.0 / 31.0
    weight *= weight
    out = np.full(len(x), np.nan)
    recurrences(1.0 - weight, weight * x, x, _KAMA_LEVELS, out)
    return out
