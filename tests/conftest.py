"""Fixtures that several test modules share: simulated bars, and stores built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb


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
