"""Small files of random, consistent bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def write_bars(path: Path, n_rows: int, *, seed: int = 0, symbols: int = 1) -> Path:
    """Write a CSV of random, consistent bars; symbols follow each other."""
    rng = np.random.default_rng(seed)
    lines = ["timestamp,symbol,open,high,low,close,volume"]
    for symbol in range(symbols):
        close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n_rows))), 4)
        opened = np.round(close * (1 + rng.normal(0, 0.003, n_rows)), 4)
        high = np.round(np.maximum(opened, close) * (1 + rng.random(n_rows) * 0.004), 4)
        low = np.round(np.minimum(opened, close) * (1 - rng.random(n_rows) * 0.004), 4)
        high, low = (
            np.maximum(high, np.maximum(opened, close)),
            np.minimum(low, np.minimum(opened, close)),
        )
        volume = rng.integers(0, 5000, n_rows)
        times = np.datetime64("2024-01-01", "m") + 5 * np.arange(n_rows)
        rows = zip(times, opened, high, low, close, volume, strict=True)
        lines += [f"{t},S{symbol},{o},{h},{lo},{c},{v}" for t, o, h, lo, c, v in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_rows(path: Path, rows: Iterable[Sequence[object]], start: str = "2024-01-01") -> Path:
    """Write rows of open, high, low, close and volume, a minute apart, as a CSV of bars."""
    begin = np.datetime64(start, "m")
    lines = ["timestamp,open,high,low,close,volume"]
    lines += [",".join(map(str, (begin + number, *row))) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
