"""Technical indicators as features, each in a finite form with a stated lookback.

| module | |
|---|---|
| `averages` | moving averages |
| `momentum` | oscillators |
| `ranges` | ranges, bands and directional movement |
| `volume` | what reads volume |
| `statistics` | regressions and correlations |

Every function returns a `Feature`, or a tuple of those that are computed together, for a
`FeatureSet`. Values are those of TA-Lib's function of the name given, from the bar on where its
start is forgotten, to float32; undefined ones are 0 where nothing else is said.

The parabolic SAR is left out: its path depends on all bars since the last reversal, however far
back, so no lookback bounds it.
"""

from __future__ import annotations

from grandbatch.features.sets import Feature
from grandbatch.indicators.averages import dema, ema, kama, sma, t3, tema, trima, wilder, wma
from grandbatch.indicators.momentum import (
    aroon,
    cci,
    cmo,
    macd,
    momentum,
    ppo,
    roc,
    rsi,
    stochastic,
    stochrsi,
    trix,
    ultimate,
    wilder_rsi,
    williams_r,
)
from grandbatch.indicators.ranges import adx, atr, bollinger, minus_di, natr, plus_di, true_range
from grandbatch.indicators.statistics import beta, correl, linreg, linreg_slope, stddev, variance
from grandbatch.indicators.volume import ad_change, adosc, mfi, obv_change, vwap_distance

__all__ = [
    "ad_change",
    "adosc",
    "adx",
    "aroon",
    "atr",
    "beta",
    "bollinger",
    "catalogue",
    "cci",
    "cmo",
    "correl",
    "dema",
    "ema",
    "kama",
    "linreg",
    "linreg_slope",
    "macd",
    "mfi",
    "minus_di",
    "momentum",
    "natr",
    "obv_change",
    "plus_di",
    "ppo",
    "roc",
    "rsi",
    "sma",
    "stddev",
    "stochastic",
    "stochrsi",
    "t3",
    "tema",
    "trima",
    "trix",
    "true_range",
    "ultimate",
    "variance",
    "vwap_distance",
    "wilder",
    "wilder_rsi",
    "williams_r",
    "wma",
]


def catalogue() -> tuple[Feature, ...]:
    """Return every indicator once, with its default parameters."""
    made = [globals()[name]() for name in __all__ if name != "catalogue"]
    flat = [one for each in made for one in ((each,) if isinstance(each, Feature) else each)]
    return tuple(dict.fromkeys(flat))
