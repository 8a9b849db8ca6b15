"""MosaicML Streaming: MDS shards with hashes, then its own dataset and loader.

https://docs.mosaicml.com/projects/streaming (basic dataset conversion; fast resumption).
`validate_hash` is checked where a shard is downloaded; shards that are local already are not.
Two worker processes: on two cores a little faster than none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from source import F, L, window_blocks
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset


def prepare(source: Path, folder: Path) -> None:
    columns = {"matrix": f"ndarray:float32:{L},{F}"}
    with MDSWriter(out=str(folder / "shards"), columns=columns, hashes=["xxh64"]) as writer:
        for block in window_blocks(source):
            for window in block:
                writer.write({"matrix": window})


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        dataset = StreamingDataset(
            local=str(folder / "shards"),
            shuffle=True,
            shuffle_seed=seed,
            batch_size=batch,
            validate_hash="xxh64",
        )
        self._loader = StreamingDataLoader(dataset, batch_size=batch, num_workers=2)

    def epoch(self) -> Iterator[torch.Tensor]:
        for sample in self._loader:
            yield sample["matrix"]

    def state(self) -> dict[str, Any] | None:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)
