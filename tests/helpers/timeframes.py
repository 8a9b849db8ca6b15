"""Five-minute bars of several symbols, with gaps of their own in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def gappy_bars(symbols: list[str], rows: int, seed: int = 0) -> pd.DataFrame:
    """Make bars whose timestamps are those of their openings."""
    random = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        step = np.where(random.random(rows) < 0.01, random.integers(2, 100, rows), 1)
        minutes = 5 * (np.cumsum(step) + int(random.integers(0, 50)))
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.001, rows)))
        opened = np.append(close[0], close[:-1])
        frames.append(
            pd.DataFrame(
                {
                    "timestamp": np.datetime64("2024-01-02", "ns")
                    + minutes * np.timedelta64(1, "m"),
                    "symbol": symbol,
                    "open": opened,
                    "high": np.maximum(opened, close) * 1.001,
                    "low": np.minimum(opened, close) * 0.999,
                    "close": close,
                    "volume": random.integers(1, 1000, rows),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def write_bars(path: Path, bars: pd.DataFrame) -> Path:
    """Write bars as a file of inputs."""
    bars.to_csv(path, index=False, date_format="%Y-%m-%dT%H:%M")
    return path
