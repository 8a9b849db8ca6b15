"""The same features by other means: polars and pandas as one would write them, TA-Lib, KunQuant.

Each maker takes bars, a dict of (n,) float64, and returns a call without arguments, or None where
its library isn't installed. KunQuant compiles C++ when its call is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Bars = dict[str, np.ndarray]
Work = Callable[[], Any]

WINDOWS = (5, 10, 20, 30, 60)


def kunquant(bars: Bars) -> Work | None:
    """Alpha158 in float64, one thread, its predefined expressions but VWAP0."""
    try:
        from KunQuant.jit import cfake
        from KunQuant.Op import Builder, Input, Output
        from KunQuant.predefined.Alpha158 import AllData
        from KunQuant.runner import KunRunner
        from KunQuant.Stage import Function
    except ImportError:
        return None
    fields = ("open", "high", "low", "close", "volume", "amount")
    builder = Builder()
    with builder:
        data = AllData(**{name: Input(name) for name in fields})
        values, names = data.build(
            {
                "kbar": {},
                "price": {"windows": [0], "feature": [("OPEN", data.open), ("HIGH", data.high),
                                                     ("LOW", data.low)]},
                "rolling": {},
            }
        )  # fmt: skip
        for value, name in zip(values, names, strict=True):
            Output(value, name)
    compiling = cfake.KunCompilerConfig(
        dtype="double", partition_factor=4, input_layout="TS", output_layout="TS"
    )
    library = cfake.compileit(
        [("alpha158", Function(builder.ops), compiling)], "alpha158", cfake.CppCompilerConfig()
    )
    module = library.getModule("alpha158")
    executor = KunRunner.createSingleThreadExecutor()
    # it works across symbols: 8 of them side by side, each an eighth of the bars
    n = len(bars["close"]) // 8
    given = {**bars, "amount": bars["close"] * bars["volume"]}
    inputs = {name: np.ascontiguousarray(given[name][: 8 * n].reshape(8, n).T) for name in fields}
    return lambda: KunRunner.runGraph(executor, module, inputs, 0, n)


def polars(bars: Bars) -> Work | None:
    """Alpha158 as expressions, without the 15 columns of places, for which it has none."""
    try:
        import polars as pl
    except ImportError:
        return None
    frame = pl.DataFrame(bars)
    o, h, l, c, v = (pl.col(name) for name in ("open", "high", "low", "close", "volume"))
    eps = 1e-12
    span, top, foot = h - l + eps, h - pl.max_horizontal(o, c), pl.min_horizontal(o, c) - l
    made = [
        (c - o) / o, (h - l) / o, (c - o) / span, top / o, top / span, foot / o, foot / span,
        (2 * c - h - l) / o, (2 * c - h - l) / span, o / c, h / c, l / c,
    ]  # fmt: skip
    rise, v_rise, ratio = c - c.shift(1), v - v.shift(1), c / c.shift(1)
    moved, logs = (ratio - 1).abs() * v, (v + 1).log()
    grown = (v / v.shift(1) + 1).log()
    numbers = pl.int_range(pl.len()).cast(pl.Float64)
    for d in WINDOWS:
        mean, spread = c.rolling_mean(d), c.rolling_std(d)
        low, high = l.rolling_min(d), h.rolling_max(d)
        line = pl.rolling_corr(c, numbers, window_size=d)
        slope = line * spread / np.arange(d).std(ddof=1)
        made += [
            c.shift(d) / c, mean / c, spread / c, slope / c, line**2,
            (c - mean - slope * (d - 1) / 2) / c, high / c, low / c,
            c.rolling_quantile(0.8, "linear", window_size=d) / c,
            c.rolling_quantile(0.2, "linear", window_size=d) / c,
            c.rolling_rank(d) / d, (c - low) / (high - low + eps),
            pl.rolling_corr(c, logs, window_size=d), pl.rolling_corr(ratio, grown, window_size=d),
        ]  # fmt: skip
        up, down = ((x.cast(pl.Float64)).rolling_mean(d) for x in (rise > 0, rise < 0))
        made += [up, down, up - down]
        for x in (rise, v_rise):
            gain, loss = (side.clip(0).rolling_sum(d) for side in (x, -x))
            made += [y / (gain + loss + eps) for y in (gain, loss, gain - loss)]
        made += [v.rolling_mean(d) / (v + eps), v.rolling_std(d) / (v + eps)]
        made.append(moved.rolling_std(d) / (moved.rolling_mean(d) + eps))
    named = [each.cast(pl.Float32).alias(f"x{k}") for k, each in enumerate(made)]
    return lambda: frame.select(named)


def indicators(bars: Bars) -> dict[str, tuple[Work, Work | None, Work]]:
    """A few indicators as (ours, TA-Lib's, pandas') calls, by name; TA-Lib's None without it."""
    import pandas as pd

    from grandbatch import windows as w

    try:
        import talib
    except ImportError:
        talib = None
    x, v = bars["close"], bars["volume"]
    series, volumes = pd.Series(x), pd.Series(v)

    def of_talib(name: str, *arguments: float, second: Any = None) -> Work | None:
        read = (x,) if second is None else (x, second)
        return None if talib is None else lambda: getattr(talib, name)(*read, *arguments)

    return {
        "mean 20": (lambda: w.mean(x, 20), of_talib("SMA", 20),
                    lambda: series.rolling(20).mean()),
        "mean 200": (lambda: w.mean(x, 200), of_talib("SMA", 200),
                     lambda: series.rolling(200).mean()),
        "ema 12": (lambda: w.ema(x, 12), of_talib("EMA", 12),
                   lambda: series.ewm(span=12, adjust=False).mean()),
        "ema 26": (lambda: w.ema(x, 26), of_talib("EMA", 26),
                   lambda: series.ewm(span=26, adjust=False).mean()),
        "std 20": (lambda: w.std(x, 20, 0), of_talib("STDDEV", 20),
                   lambda: series.rolling(20).std()),
        "max 20": (lambda: w.highest(x, 20), of_talib("MAX", 20),
                   lambda: series.rolling(20).max()),
        "slope 14": (lambda: w.slope(x, 14), of_talib("LINEARREG_SLOPE", 14),
                     lambda: series.rolling(14).cov(pd.Series(np.arange(len(x))))),
        **{f"correlation {n}": (lambda n=n: w.correlation(x, v, n), of_talib("CORREL", n, second=v),
                                lambda n=n: series.rolling(n).corr(volumes)) for n in (20, 200)},
        **{f"rank {n}": (lambda n=n: w.rank(x, n), None,
                         lambda n=n: series.rolling(n).rank(pct=True)) for n in (20, 60, 200)},
        **{f"quantile {n}": (lambda n=n: w.quantile(x, n, 0.8), None,
                             lambda n=n: series.rolling(n).quantile(0.8)) for n in (20, 60, 200)},
    }  # fmt: skip
