"""torchdata's StatefulDataLoader over the same memmap as the torch DataLoader.

https://docs.pytorch.org/data/beta/stateful_dataloader_tutorial.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch_memmap import Windows, as_is, prepare
from torchdata.stateful_dataloader import StatefulDataLoader

__all__ = ["Loader", "prepare"]


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        rng = torch.Generator().manual_seed(seed)
        self._loader = StatefulDataLoader(
            Windows(folder), batch, shuffle=True, collate_fn=as_is, generator=rng
        )

    def epoch(self) -> Iterator[torch.Tensor]:
        return iter(self._loader)

    def state(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)
