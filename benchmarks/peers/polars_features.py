"""The strategic features as a person would write them with polars' rolling expressions.

https://docs.pola.rs/api/python/stable/reference/expressions/computation.html
"""

from __future__ import annotations

import polars as pl


def features(bars: pl.LazyFrame) -> pl.LazyFrame:
    c, v = pl.col("close"), pl.col("volume")
    before, r = c.shift(1), c / c.shift(1) - 1
    mean20, std20 = before.rolling_mean(20), before.rolling_std(20, ddof=0)
    gain = c.diff().clip(0, None).shift(1).rolling_sum(14)
    loss = (-c.diff().clip(None, 0)).shift(1).rolling_sum(14)
    e12, e26 = before.ewm_mean(span=12), before.ewm_mean(span=26)
    s30 = r.shift(1).rolling_std(29, ddof=0)
    q = r.shift(1).rolling_quantile(0.05, "linear", window_size=14)
    ratio = v / v.shift(1).rolling_mean(10)
    return bars.select(
        r.alias("price_change"),
        ratio.alias("volume_ratio"),
        (std20 / mean20).alias("volatility"),
        (c / c.shift(10) - 1).alias("momentum"),
        (gain / (gain + loss)).fill_nan(1).alias("rsi"),
        ((e12 - e26) / e26).alias("macd"),
        ((c - mean20) / (2 * std20) + 0.5).alias("bollinger_position"),
        (10 * r.shift(1).rolling_mean(4)).tanh().alias("market_sentiment"),
        pl.rolling_corr(v.shift(1), before, window_size=20).alias("correlation_strength"),
        pl.when(s30 > 0.02).then(1).when(s30 < 0.01).then(-1).otherwise(0).alias("regime"),
        (-20 * q).clip(0, 1).alias("risk_score"),
        (ratio / 2).clip(None, 1).alias("liquidity_index"),
        (1 - pl.rolling_corr(c.shift(21), before, window_size=20)).alias("structural_break"),
    ).cast(pl.Float32)
