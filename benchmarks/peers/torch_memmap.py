"""torch DataLoader over an `np.memmap` of the windows, a whole batch per `__getitems__`.

https://docs.pytorch.org/docs/stable/data.html. No worker processes: with two of them it is several
times slower here, since each batch is copied between processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from source import F, L, load_rows, window_blocks
from torch.utils.data import DataLoader, Dataset


def prepare(source: Path, folder: Path) -> None:
    n = len(load_rows(source)) - L + 1
    shape = (n, L, F)
    target = np.lib.format.open_memmap(folder / "windows.npy", "w+", np.float32, shape)
    first = 0
    for block in window_blocks(source):
        target[first : first + len(block)] = block
        first += len(block)
    target.flush()


class Windows(Dataset):  # type: ignore[type-arg]
    def __init__(self, folder: Path):
        self._windows = np.load(folder / "windows.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._windows)

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(self._windows[numbers])


def as_is(batch: torch.Tensor) -> torch.Tensor:
    return batch


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        rng = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            Windows(folder), batch, shuffle=True, collate_fn=as_is, generator=rng
        )

    def epoch(self) -> Iterator[torch.Tensor]:
        return iter(self._loader)
