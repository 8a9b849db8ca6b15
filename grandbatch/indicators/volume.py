"""Indicators of volume.

On-balance volume and accumulation/distribution add up all history, so they have no lookback: their
changes over a number of bars say the same and have one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.features.formula import feature, ratio, shifted, whole
from grandbatch.features.sets import Feature

F64 = npt.NDArray[np.float64]

_BARS = ("high", "low", "close", "volume")
_FINER = 1e-15
"""Volumes are large and their differences may lie near 0."""


def obv_change(period: int = 20) -> Feature:
    """Return the change of on-balance volume over `period` bars.

    Lookback: period. TA-Lib: OBV, less that of `period` bars before.
    """
    n = whole(period, 1)
    return feature(f"obv_change_{n}", n, _obv_change, n, inputs=("close", "volume"))


def _obv_change(close: F64, volume: F64, n: int) -> F64:
    return w.sum(np.sign(close - shifted(close)) * volume, n)


def ad_change(period: int = 20) -> Feature:
    """Return the change of the accumulation/distribution line over `period` bars.

    Lookback: period - 1. TA-Lib: AD, less that of `period` bars before.
    """
    n = whole(period, 1)
    return feature(f"ad_change_{n}", n - 1, _ad_change, n, inputs=_BARS)


def _ad_change(high: F64, low: F64, close: F64, volume: F64, n: int) -> F64:
    return w.sum(_flows(high, low, close, volume), n)


def _flows(high: F64, low: F64, close: F64, volume: F64) -> F64:
    return ratio((close - low) - (high - close), high - low) * volume


def adosc(fast: int = 3, slow: int = 10) -> Feature:
    """Return Chaikin's oscillator: ema(fast) - ema(slow) of the accumulation/distribution line.

    The two weigh the line's level alike, so it falls out and what is left forgets. Lookback: until
    the slower average has forgotten all but 1e-15. TA-Lib: ADOSC.
    """
    whole(fast), whole(slow)
    look = w.lookback_of(2.0 / (max(fast, slow) + 1.0), _FINER)
    return feature(f"adosc_{fast}_{slow}", look, _adosc, fast, slow, look, inputs=_BARS)


def _adosc(high: F64, low: F64, close: F64, volume: F64, fast: int, slow: int, look: int) -> F64:
    flows = _flows(high, low, close, volume)
    kept = [1.0 - 2.0 / (n + 1.0) for n in (slow, fast)]
    slower, faster = (keep * w.decayed_sums(flows, look + 1, keep) for keep in kept)
    return slower - faster


def mfi(period: int = 14) -> Feature:
    """Return the money flow index, 0 to 100; 50 where no money flowed.

    100 * inflow / (inflow + outflow), of typical price times volume, by the sign of the typical
    price's change; one below 1e-14 of the price is rounding, and counts as none. Lookback: period.
    TA-Lib: MFI, which gives 0 where less than 1 flowed.
    """
    n = whole(period)
    return feature(f"mfi_{n}", n, _mfi, n, inputs=_BARS)


def _mfi(high: F64, low: F64, close: F64, volume: F64, n: int) -> F64:
    typical = (high + low + close) / 3.0
    change, flow = typical - shifted(typical), typical * volume
    least = 1e-14 * np.abs(typical)
    inflow = w.sum(np.where(change > least, flow, 0.0), n)
    outflow = w.sum(np.where(change < -least, flow, 0.0), n)
    return ratio(100.0 * inflow, inflow + outflow, 50.0)


def vwap_distance(period: int = 20) -> Feature:
    """Return the close over the volume-weighted average price of `period` bars, less 1.

    Of typical prices, (high + low + close) / 3; 0 where nothing was traded. Lookback: period - 1.
    TA-Lib has none.
    """
    n = whole(period, 1)
    return feature(f"vwap_distance_{n}", n - 1, _vwap_distance, n, inputs=_BARS)


def _vwap_distance(high: F64, low: F64, close: F64, volume: F64, n: int) -> F64:
    typical = (high + low + close) / 3.0
    traded, money = w.sum(volume, n), w.sum(typical * volume, n)
    return np.where(traded > 0.0, ratio(close * traded - money, money), 0.0)
