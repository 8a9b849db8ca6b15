"""Fixtures that several test modules share: simulated bars, and stores built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import grandbatch as gb


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


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., gb.MatrixStore]:
    """Return a function that builds a small store of simulated bars."""

    def make(
        n_rows: int = 400,
        *,
        layout: str = "windows",
        feature_set: str = "strategic",
        overlap: int | None = None,
        chunk_windows: int = 16,
        symbols: int = 1,
        seed: int = 0,
        name: str | None = None,
        **options: object,
    ) -> gb.MatrixStore:
        source = tmp_path / f"bars-{n_rows}-{symbols}-{seed}.csv"
        if not source.exists():
            write_bars(source, n_rows, seed=seed, symbols=symbols)
        store = name or f"{feature_set}-{layout}-{overlap}-{chunk_windows}-{source.stem}.zarr"
        return gb.build_store(
            source,
            tmp_path / store,
            feature_set=feature_set,
            layout=layout,
            overlap=overlap,
            chunk_windows=chunk_windows,
            durable=False,
            **options,
        )

    return make
