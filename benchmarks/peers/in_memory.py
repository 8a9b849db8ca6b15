"""Batches from feature rows in RAM, as one writes them after pandas or polars: numpy indices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from source import L


def shuffled_windows(
    rows: npt.NDArray[np.float32], batch: int, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    order, steps = rng.permutation(len(rows) - L + 1), np.arange(L)
    for first in range(0, len(order), batch):
        starts = order[first : first + batch]
        yield torch.from_numpy(rows[starts[:, None] + steps])
