"""Labels of gathered windows, looked up when they are first asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from grandbatch.loader.labels import STORED_LABELS, Found, Records
from grandbatch.values.arrays import Array, Int64

_Part = Found | tuple[Int64, Records]


class SlabLabels:
    """Labels of the windows of a slab.

    Each record is a look into memory far away, all of them and the tensors over them a quarter of
    what a slab costs: who asks for no label doesn't pay for it. Those of slots that other chunks
    come to are looked up at once. Asking is thread-safe: two threads that are the first look the
    same up twice.

    Parameters
    ----------
    n_real : int
        Windows of the stream before the repeated ones, which weigh nothing.
    """

    def __init__(self, n_real: int):
        self._n_real = n_real
        self._parts: list[tuple[int, _Part]] = []
        self._tensors: tuple[torch.Tensor, ...] | None = None

    def add(self, found: Found, window: int) -> None:
        """Add windows, the first of which is number `window` of the stream."""
        # a few of their own, so that a batch that is kept does not keep a block's
        stays = found.stays
        self._parts.append((window, found.copied() if stays else found.look_up()))

    def columns(self) -> list[Array]:
        """Look up the labels, named by `grandbatch.batch.LABELS`, and the targets, if any."""
        return self._columns(self._parts)

    def _columns(self, parts: Sequence[tuple[int, _Part]]) -> list[Array]:
        looked_up = [part.look_up() if isinstance(part, Found) else part for _, part in parts]
        index = np.concatenate([index for index, _ in looked_up])
        records = np.concatenate([records for _, records in looked_up])
        weights = [
            np.arange(window, window + len(index)) < self._n_real
            for (window, _), (index, _) in zip(parts, looked_up, strict=True)
        ]
        # each in memory of its own, so that a batch's are a part of it, and no copy
        labels = [np.ascontiguousarray(records[name]) for name in STORED_LABELS]
        has_targets = "targets" in (records.dtype.names or ())
        targets = [np.ascontiguousarray(records["targets"])] if has_targets else []
        return [index, *labels, np.concatenate(weights).astype(np.float32), *targets]

    @torch.inference_mode(False)
    def __call__(self) -> tuple[torch.Tensor, ...]:
        """Return the labels as tensors."""
        parts = self._parts  # before it is seen whether they are still needed
        if self._tensors is None:
            self._tensors = tuple(map(torch.from_numpy, self._columns(parts)))
            self._parts = []
        return self._tensors
