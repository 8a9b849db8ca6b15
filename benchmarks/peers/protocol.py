"""What a peer's module has, and who the peers are.

`prepare` turns a source folder (see `source.py`) into the peer's own form on disk. `Loader` hands
over one shuffled epoch after the other. Where the library can save and restore its place, `Loader`
has `state` and `restore` too, and the runner holds the rest of the epoch against an uninterrupted
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch


class Loader(Protocol):
    """One shuffled epoch after the other; `state` and `restore` are there or not."""

    def __init__(self, folder: Path, batch: int, seed: int): ...

    def epoch(self) -> Iterator[torch.Tensor]:
        """Hand over float32 batches (B, L, F)."""
        ...


class Peer(Protocol):
    """A module of this folder."""

    Loader: type[Loader]

    def prepare(self, source: Path, folder: Path, **options: Any) -> None:
        """Write the peer's own form of the source into an empty folder."""
        ...


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    module: str
    package: str
    """The distribution whose version is shown."""
    from_bars: bool = False
    """Whether `prepare` computes the features from the CSV, rather than storing ready windows."""
    own: bool = False
    """Whether it runs in this project's environment."""
    rejoins: bool = False
    """Whether it says that a state may go on under another number of ranks: then it is tried."""
    options: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("grandbatch, rows", "own_store", "grandbatch", True, True, True, {"layout": "rows"}),
    Case("grandbatch, windows", "own_store", "grandbatch", True, True, True, {"layout": "windows"}),
    Case("pandas, rows in RAM", "pandas_rows", "pandas", from_bars=True),
    Case("polars, rows in RAM", "polars_rows", "polars", from_bars=True),
    Case("torch DataLoader over memmap", "torch_memmap", "torch"),
    Case("torchdata StatefulDataLoader", "torchdata_memmap", "torchdata"),
    Case("TorchRL replay buffer", "torchrl_replay", "torchrl"),
    Case("LitData", "litdata_chunks", "litdata", rejoins=True),
    Case("MosaicML Streaming", "mosaic_shards", "mosaicml-streaming", rejoins=True),
    Case("xbatcher", "xbatcher_zarr", "xbatcher"),
)
