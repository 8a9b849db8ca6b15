"""Oscillators: how fast, how far, how one-sided prices move. Scales are TA-Lib's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.features.formula import (
    feature,
    features,
    named,
    ratio,
    rises,
    shifted,
    true_ranges,
    whole,
)
from grandbatch.features.sets import Feature

F64 = npt.NDArray[np.float64]

_BARS = ("high", "low", "close")
_FINER = 1e-12
"""Weight below which a bar no longer counts where values may lie near 0."""


def momentum(period: int = 10, source: str = "close") -> Feature:
    """Return the change over `period` bars.

    Lookback: period. TA-Lib: MOM.
    """
    n = whole(period, 1)
    return feature(named(f"momentum_{n}", source), n, w.change, n, inputs=(source,))


def roc(period: int = 10, source: str = "close") -> Feature:
    """Return the change over `period` bars in percent; 0 where it is from 0.

    Lookback: period. TA-Lib: ROC.
    """
    n = whole(period, 1)
    return feature(named(f"roc_{n}", source), n, _roc, n, inputs=(source,))


def _roc(x: F64, n: int) -> F64:
    before = shifted(x, n)
    return 100.0 * ratio(x - before, before)


def rsi(period: int = 14, source: str = "close") -> Feature:
    """Return Wilder's relative strength index, 0 to 100; 50 where nothing moved in the lookback.

    100 * gains / (gains + losses), both averaged by `wilder`. Lookback: that of `wilder` + 1. 281
    for a period of 14. TA-Lib: RSI, which remembers moves older than a flat lookback.
    """
    n = whole(period)
    return feature(named(f"rsi_{n}", source), w.wilder_lookback(n) + 1, _rsi, n, inputs=(source,))


def _rsi(x: F64, n: int) -> F64:
    gains, losses = (w.wilder(side, n) for side in rises(x))
    return ratio(100.0 * gains, gains + losses, 50.0)


def wilder_rsi(period: int = 14, source: str = "close") -> Feature:
    """Return Wilder's RSI in 0..1, over one bar less than `rsi`; 1 where no price fell.

    Lookback: that of `wilder`, 280 for a period of 14. TA-Lib: RSI / 100.
    """
    n = whole(period)
    name, lookback = named(f"wilder_rsi_{n}", source), w.wilder_lookback(n)
    return feature(name, lookback, _wilder_rsi, n, inputs=(source,), version=2)


def _wilder_rsi(x: F64, n: int) -> F64:
    # begun at 0 and not at the oldest move, so that one bar less is read
    lookback = w.wilder_lookback(n)
    gains, losses = (w.decayed_sums(side, lookback, 1.0 - 1.0 / n) for side in rises(x))
    return np.where(losses > 0.0, ratio(gains, gains + losses), 1.0)


def cmo(period: int = 14, source: str = "close") -> Feature:
    """Return Chande's momentum oscillator, -100 to 100; 0 where nothing moved in the lookback.

    100 * (gains - losses) / (gains + losses), both averaged by Wilder's average. Lookback: until
    it has forgotten all but 1e-12, 374 for a period of 14. TA-Lib: CMO.
    """
    n = whole(period)
    lookback = w.lookback_of(1.0 / n, _FINER)
    return feature(named(f"cmo_{n}", source), lookback + 1, _cmo, n, lookback, inputs=(source,))


def _cmo(x: F64, n: int, lookback: int) -> F64:
    gains, losses = (w.exponential(side, 1.0 / n, lookback) for side in rises(x))
    return ratio(100.0 * (gains - losses), gains + losses)


def macd(
    fast: int = 12, slow: int = 26, signal: int = 9, source: str = "close"
) -> tuple[Feature, ...]:
    """Return three features: ema(fast) - ema(slow), its ema(signal), and their difference.

    Names: macd, macd_signal, macd_histogram, with the periods. Lookback: until the slower average
    has forgotten all but 1e-12, and the signal too. TA-Lib: MACD.
    """
    periods = (whole(fast), whole(slow), whole(signal))
    line = w.lookback_of(2.0 / (max(fast, slow) + 1.0), _FINER)
    both = line + w.lookback_of(2.0 / (signal + 1.0), _FINER)
    ending = "_".join(map(str, periods))
    names = [named(f"{kind}_{ending}", source) for kind in _MACD]
    return features(names, (line, both, both), _macd, *periods, inputs=(source,))


_MACD = ("macd", "macd_signal", "macd_histogram")


def _macd(x: F64, fast: int, slow: int, signal: int) -> tuple[F64, F64, F64]:
    look = w.lookback_of(2.0 / (max(fast, slow) + 1.0), _FINER)
    line = w.exponential(x, 2.0 / (fast + 1.0), look) - w.exponential(x, 2.0 / (slow + 1.0), look)
    smooth = 2.0 / (signal + 1.0)
    average = w.exponential(line, smooth, w.lookback_of(smooth, _FINER))
    return line, average, line - average


def ppo(fast: int = 12, slow: int = 26, source: str = "close") -> Feature:
    """Return 100 * (ema(fast) / ema(slow) - 1); 0 where the slower is 0.

    Lookback: that of the macd line. TA-Lib: PPO with matype 1.
    """
    whole(fast), whole(slow)
    look = w.lookback_of(2.0 / (max(fast, slow) + 1.0), _FINER)
    name = named(f"ppo_{fast}_{slow}", source)
    return feature(name, look, _ppo, fast, slow, look, inputs=(source,))


def _ppo(x: F64, fast: int, slow: int, look: int) -> F64:
    slower = w.exponential(x, 2.0 / (slow + 1.0), look)
    return 100.0 * ratio(w.exponential(x, 2.0 / (fast + 1.0), look) - slower, slower)


def trix(period: int = 30, source: str = "close") -> Feature:
    """Return the change of a threefold exponential average in percent; 0 where it is from 0.

    Lookback: three times that of `ema`, and 1. TA-Lib: TRIX.
    """
    n = whole(period)
    name = named(f"trix_{n}", source)
    return feature(name, 3 * w.ema_lookback(n) + 1, _trix, n, inputs=(source,))


def _trix(x: F64, n: int) -> F64:
    return _roc(w.ema(w.ema(w.ema(x, n), n), n), 1)


def stochastic(period: int = 14, smooth: int = 3, signal: int = 3) -> tuple[Feature, ...]:
    """Return two features, 0 to 100: %K, smoothed over `smooth` bars, and its mean over `signal`.

    %K is the place of the close between the lowest low and the highest high; 0 where these are
    equal. Lookback: period + smooth - 2, and signal - 1 more. TA-Lib: STOCH, whose own defaults are
    5, 3, 3; with a smooth of 1: STOCHF.
    """
    n, a, b = whole(period), whole(smooth, 1, "smooth"), whole(signal, 1, "signal")
    names = [f"{kind}_{n}_{a}_{b}" for kind in ("stochastic_k", "stochastic_d")]
    lookbacks = (n + a - 2, n + a + b - 3)
    return features(names, lookbacks, _stochastic, n, a, b, inputs=_BARS, version=2)


def _stochastic(high: F64, low: F64, close: F64, n: int, a: int, b: int) -> tuple[F64, F64]:
    top, bottom = w.highest(high, n), w.lowest(low, n)
    k = w.mean(ratio(100.0 * (close - bottom), top - bottom), a)
    return k, w.mean(k, b)


def stochrsi(
    period: int = 14, stochastic: int = 5, signal: int = 3, source: str = "close"
) -> tuple[Feature, ...]:
    """Return two features, 0 to 100: the RSI's place in its range of `stochastic` bars; its mean.

    Lookback: that of the RSI, forgotten to 1e-12, and stochastic - 1, and signal - 1 more.
    TA-Lib: STOCHRSI.
    """
    n, k, d = whole(period), whole(stochastic, 2, "stochastic"), whole(signal, 1, "signal")
    look = w.lookback_of(1.0 / n, _FINER)
    names = [named(f"{kind}_{n}_{k}_{d}", source) for kind in ("stochrsi_k", "stochrsi_d")]
    lookbacks = (look + k, look + k + d - 1)
    return features(names, lookbacks, _stochrsi, n, look, k, d, inputs=(source,), version=2)


def _stochrsi(x: F64, n: int, look: int, k: int, d: int) -> tuple[F64, F64]:
    gains, losses = (w.exponential(side, 1.0 / n, look) for side in rises(x))
    index = ratio(100.0 * gains, gains + losses, 50.0)
    return _stochastic(index, index, index, k, 1, d)


def williams_r(period: int = 14) -> Feature:
    """Return Williams' %R, -100 to 0; 0 where highest and lowest are equal.

    Lookback: period - 1. TA-Lib: WILLR.
    """
    n = whole(period)
    return feature(f"williams_r_{n}", n - 1, _williams_r, n, inputs=_BARS)


def _williams_r(high: F64, low: F64, close: F64, n: int) -> F64:
    top = w.highest(high, n)
    return -100.0 * ratio(top - close, top - w.lowest(low, n))


def cci(period: int = 14) -> Feature:
    """Return the commodity channel index of the typical price; 0 where it is flat.

    (typical - mean) / (0.015 * mean distance from the mean). Lookback: period - 1. TA-Lib: CCI.
    """
    n = whole(period)
    return feature(f"cci_{n}", n - 1, _cci, n, inputs=_BARS, version=2)


def _cci(high: F64, low: F64, close: F64, n: int) -> F64:
    from grandbatch.kernels.formulas import mean_deviations

    typical = (high + low + close) / 3.0
    mean, distance = w.mean(typical, n), np.full(len(close), np.nan)
    mean_deviations(typical, mean, n, distance)
    return ratio(typical - mean, 0.015 * distance)


def ultimate(short: int = 7, middle: int = 14, long: int = 28) -> Feature:
    """Return Williams' ultimate oscillator, 0 to 100: three shares of buying pressure.

    Lookback: the longest period. TA-Lib: ULTOSC.
    """
    spans = tuple(whole(span) for span in (short, middle, long))
    name = "ultimate_" + "_".join(map(str, spans))
    return feature(name, max(spans), _ultimate, *spans, inputs=_BARS)


def _ultimate(high: F64, low: F64, close: F64, *spans: int) -> F64:
    ranges = true_ranges(high, low, close)
    pressure = close - np.minimum(low, shifted(close))
    short, middle, long = (ratio(w.sum(pressure, n), w.sum(ranges, n)) for n in spans)
    return 100.0 * (4.0 * short + 2.0 * middle + long) / 7.0


def aroon(period: int = 14) -> tuple[Feature, ...]:
    """Return three features: Aroon down and up, 0 to 100, and the oscillator, up - down.

    100 * (period - bars since the lowest low, or highest high, of period + 1 bars, the newest of
    equal ones) / period. Lookback: period. TA-Lib: AROON, AROONOSC.
    """
    n = whole(period)
    names = [f"{kind}_{n}" for kind in ("aroon_down", "aroon_up", "aroon_oscillator")]
    return features(names, (n, n, n), _aroon, n, inputs=("high", "low"))


def _aroon(high: F64, low: F64, n: int) -> tuple[F64, F64, F64]:
    down = 100.0 * (n - w.age_of_lowest(low, n + 1, newest=True)) / n
    up = 100.0 * (n - w.age_of_highest(high, n + 1, newest=True)) / n
    return down, up, up - down
