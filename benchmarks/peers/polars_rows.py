"""polars: features by rolling expressions, kept as Parquet, then read into RAM.

https://docs.pola.rs/api/python/stable/reference/expressions/computation.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from in_memory import shuffled_windows
from polars_features import features
from source import LOOKBACK


def prepare(source: Path, folder: Path) -> None:
    bars = pl.scan_csv(source / "bars.csv", try_parse_dates=True)
    features(bars).slice(LOOKBACK).sink_parquet(folder / "rows.parquet")


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        self._rows = np.ascontiguousarray(pl.read_parquet(folder / "rows.parquet").to_numpy())
        self._batch, self._rng = batch, np.random.default_rng(seed)

    def epoch(self) -> Iterator[torch.Tensor]:
        return shuffled_windows(self._rows, self._batch, self._rng)
