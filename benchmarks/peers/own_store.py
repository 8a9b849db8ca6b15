"""This project: a store from the CSV, and its loader with default settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import grandbatch as gb


def prepare(source: Path, folder: Path, layout: str) -> None:
    gb.build_store(
        source / "bars.csv", folder / "store.zarr", overlap=47, layout=layout, durable=False
    )


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int, rank: int = 0, world: int = 1):
        store = gb.MatrixStore.open(folder / "store.zarr")
        config = gb.BatchConfig(batch_size=batch, sequence_length=48, overlap=47)
        self._loader = gb.SlidingWindowDataLoader(
            store, config, shuffle=True, seed=seed, rank=rank, world_size=world
        )

    def epoch(self) -> Iterator[torch.Tensor]:
        for batch in self._loader:
            real = batch.weight > 0
            yield batch.matrices if bool(real.all()) else batch.matrices[real]

    def state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)
