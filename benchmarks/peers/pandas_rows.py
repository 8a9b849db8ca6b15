"""pandas: features by `rolling`, kept as Parquet, then read into RAM.

https://pandas.pydata.org/docs/user_guide/window.html, .../user_guide/io.html#parquet
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from in_memory import shuffled_windows
from source import LOOKBACK


def features(bars: pd.DataFrame) -> pd.DataFrame:
    c, v = bars["close"], bars["volume"]
    before, r = c.shift(1), c.pct_change(fill_method=None)
    mean20, std20 = before.rolling(20).mean(), before.rolling(20).std(ddof=0)
    gain = c.diff().clip(lower=0).shift(1).rolling(14).sum()
    loss = (-c.diff()).clip(lower=0).shift(1).rolling(14).sum()
    e12, e26 = before.ewm(span=12).mean(), before.ewm(span=26).mean()
    s30 = r.shift(1).rolling(29).std(ddof=0)
    ratio = v / v.shift(1).rolling(10).mean()
    columns = {
        "price_change": r,
        "volume_ratio": ratio,
        "volatility": std20 / mean20,
        "momentum": c.pct_change(10, fill_method=None),
        "rsi": (gain / (gain + loss)).fillna(1),
        "macd": (e12 - e26) / e26,
        "bollinger_position": (c - mean20) / (2 * std20) + 0.5,
        "market_sentiment": np.tanh(10 * r.shift(1).rolling(4).mean()),
        "correlation_strength": v.shift(1).rolling(20).corr(before),
        "regime_indicator": np.select([s30 > 0.02, s30 < 0.01], [1, -1], 0),
        "risk_score": (-20 * r.shift(1).rolling(14).quantile(0.05)).clip(0, 1),
        "liquidity_index": (ratio / 2).clip(upper=1),
        "structural_break": 1 - c.shift(21).rolling(20).corr(before),
    }
    return pd.DataFrame(columns).astype("float32")


def prepare(source: Path, folder: Path) -> None:
    bars = pd.read_csv(source / "bars.csv", parse_dates=["timestamp"])
    features(bars).iloc[LOOKBACK:].to_parquet(folder / "rows.parquet", index=False)


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        self._rows = np.ascontiguousarray(pd.read_parquet(folder / "rows.parquet").to_numpy())
        self._batch, self._rng = batch, np.random.default_rng(seed)

    def epoch(self) -> Iterator[torch.Tensor]:
        return shuffled_windows(self._rows, self._batch, self._rng)
