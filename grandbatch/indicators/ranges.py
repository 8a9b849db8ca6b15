"""Ranges, bands and directional movement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.features.formula import (
    feature,
    features,
    named,
    ratio,
    shifted,
    true_ranges,
    whole,
)
from grandbatch.features.sets import Feature

F64 = npt.NDArray[np.float64]

_BARS = ("high", "low", "close")


def true_range() -> Feature:
    """Return the bar's range, the close before it included.

    Lookback: 1. TA-Lib: TRANGE.
    """
    return feature("true_range", 1, true_ranges, inputs=_BARS)


def atr(period: int = 14) -> Feature:
    """Return Wilder's average of true ranges.

    Lookback: that of `wilder`, and 1. TA-Lib: ATR.
    """
    n = whole(period)
    return feature(f"atr_{n}", w.wilder_lookback(n) + 1, _atr, n, inputs=_BARS)


def _atr(high: F64, low: F64, close: F64, n: int) -> F64:
    return w.wilder(true_ranges(high, low, close), n)


def natr(period: int = 14) -> Feature:
    """Return the average true range in percent of the close; 0 where that is 0.

    Lookback: that of `atr`. TA-Lib: NATR.
    """
    n = whole(period)
    return feature(f"natr_{n}", w.wilder_lookback(n) + 1, _natr, n, inputs=_BARS)


def _natr(high: F64, low: F64, close: F64, n: int) -> F64:
    return 100.0 * ratio(_atr(high, low, close, n), close)


def adx(period: int = 14) -> tuple[Feature, ...]:
    """Return four features, 0 to 100: Wilder's +DI, -DI, DX and its average, ADX.

    DX is 0 where both sides are. Names: plus_di, minus_di, dx, adx, with the period. Lookback: that
    of `wilder` and 1; of adx, twice that of `wilder` and 1. TA-Lib: PLUS_DI, MINUS_DI, DX, ADX,
    which keep the last one where both sides are 0.
    """
    n = whole(period)
    names = [f"{kind}_{n}" for kind in ("plus_di", "minus_di", "dx", "adx")]
    look = w.wilder_lookback(n) + 1
    return features(names, (look, look, look, 2 * look - 1), _adx, n, inputs=_BARS)


def plus_di(period: int = 14) -> Feature:
    """Return +DI alone: the first of `adx`. TA-Lib: PLUS_DI."""
    return adx(period)[0]


def minus_di(period: int = 14) -> Feature:
    """Return -DI alone: the second of `adx`. TA-Lib: MINUS_DI."""
    return adx(period)[1]


def _adx(high: F64, low: F64, close: F64, n: int) -> tuple[F64, F64, F64, F64]:
    up, down = high - shifted(high), shifted(low) - low
    plus = np.where((up > down) & (up > 0.0), up, 0.0)
    minus = np.where((down > up) & (down > 0.0), down, 0.0)
    ranges = _atr(high, low, close, n)
    above = 100.0 * ratio(w.wilder(plus, n), ranges)
    below = 100.0 * ratio(w.wilder(minus, n), ranges)
    dx = 100.0 * ratio(np.abs(above - below), above + below)
    return above, below, dx, w.wilder(dx, n)


def bollinger(period: int = 20, width: float = 2.0, source: str = "close") -> tuple[Feature, ...]:
    """Return three features: the mean of `period` values, and `width` standard deviations about it.

    Order: upper, middle, lower. The deviation is the population's. Lookback: period - 1.
    TA-Lib: BBANDS.
    """
    n = whole(period)
    ending = f"{n}" if width == 2.0 else f"{n}_{width:g}"
    names = [named(f"bollinger_{kind}_{ending}", source) for kind in ("upper", "middle", "lower")]
    return features(names, (n - 1,) * 3, _bollinger, n, width, inputs=(source,), version=2)


def _bollinger(x: F64, n: int, width: float) -> tuple[F64, F64, F64]:
    middle, squares = w.moments(x, n)
    reach = width * np.sqrt(squares / n)
    return middle + reach, middle, middle - reach
