"""TorchRL's replay buffer on a memory-mapped storage, sampled without replacement.

https://docs.pytorch.org/rl/stable/reference/data_replaybuffers.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from source import L, load_rows, window_blocks
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement


def _buffer(n: int, **options: Any) -> TensorDictReplayBuffer:
    sampler = SamplerWithoutReplacement()
    return TensorDictReplayBuffer(storage=LazyMemmapStorage(n), sampler=sampler, **options)


def prepare(source: Path, folder: Path) -> None:
    buffer = _buffer(len(load_rows(source)) - L + 1)
    for block in window_blocks(source):
        windows = torch.from_numpy(block)
        buffer.extend(TensorDict({"matrices": windows}, batch_size=[len(block)]))
    buffer.storage.dumps(folder / "storage")


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        saved = TensorDict.load_memmap(folder / "storage")
        rng = torch.Generator().manual_seed(seed)
        self._buffer = _buffer(len(saved), batch_size=batch, generator=rng)
        self._buffer.storage.loads(folder / "storage")

    def epoch(self) -> Iterator[torch.Tensor]:
        for sample in self._buffer:
            yield sample["matrices"]

    def state(self) -> dict[str, Any]:
        return dict(self._buffer.sampler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        self._buffer.sampler.load_state_dict(state)
