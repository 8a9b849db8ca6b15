"""LitData: `optimize` into chunks of 64 MB, then its own dataset and loader.

https://github.com/Lightning-AI/litData (README: speed up model training; pause and resume).
No worker processes: with two of them it is many times slower on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import numpy.typing as npt
import torch
from source import BLOCK, L, load_rows, windows_of


def _cut(first: int, source: Path) -> Iterator[npt.NDArray[np.float32]]:
    for window in windows_of(load_rows(source))[first : first + BLOCK]:
        yield np.ascontiguousarray(window)


def prepare(source: Path, folder: Path) -> None:
    n = len(load_rows(source)) - L + 1
    litdata.optimize(
        fn=partial(_cut, source=source),
        inputs=list(range(0, n, BLOCK)),
        output_dir=str(folder / "chunks"),
        chunk_bytes="64MB",
        num_workers=2,
        verbose=False,
    )


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        # by default several ranks drop their last windows, and a state of one rank is refused
        dataset = litdata.StreamingDataset(
            str(folder / "chunks"), shuffle=True, seed=seed, drop_last=False
        )
        self._loader = litdata.StreamingDataLoader(dataset, batch_size=batch)

    def epoch(self) -> Iterator[torch.Tensor]:
        return iter(self._loader)

    def state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)
