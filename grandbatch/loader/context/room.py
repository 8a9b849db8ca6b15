"""The memory that the contexts of a loader's windows need, and whether they are kept whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grandbatch.loader.context.pairing import Pairing
from grandbatch.loader.context.slots import CONTEXT_DTYPE, ChunkCache
from grandbatch.loader.context.whole import whole_bytes
from grandbatch.values.arrays import Int64

ID_BYTES = 4
"""Of what tells a window's context, in a table."""


@dataclass(frozen=True, eq=False)
class ContextRoom:
    """What the contexts of a loader's windows need in memory.

    Parameters
    ----------
    pairing : Pairing
    contexts, rows : (n,) int64
        Contexts of each chunk that takes part, and their distinct rows.
    """

    pairing: Pairing
    contexts: Int64
    rows: Int64

    def is_whole(self, n_slots: Sequence[int], dtype: torch.dtype, cache_bytes: int) -> bool:
        """Whether the coarser store is kept whole: where that takes no more than beside the slots.

        Or than may be kept to save work.
        """
        return whole_bytes(self.pairing.slow, dtype) <= max(
            self._of_slots(n_slots, dtype), cache_bytes
        )

    def n_bytes(self, n_slots: Sequence[int], dtype: torch.dtype, cache_bytes: int) -> int:
        """Bytes of all that tables of so many slots have of the coarser store."""
        ids = sum(n_slots) * int(self.pairing.fast.chunk_windows) * ID_BYTES
        if self.is_whole(n_slots, dtype, cache_bytes):
            return ids + whole_bytes(self.pairing.slow, dtype)
        return ids + self._of_slots(n_slots, dtype)

    def n_contexts(self, n_slots: int) -> int:
        """Contexts that suffice for any `n_slots` of the chunks."""
        return _most(self.contexts, n_slots)

    def n_rows(self, n_slots: int) -> int:
        """Rows that suffice for them."""
        return max(_most(self.rows, n_slots), int(self.pairing.slow.sequence_length))

    def _of_slots(self, n_slots: Sequence[int], dtype: torch.dtype) -> int:
        slow = self.pairing.slow
        rows = sum(map(self.n_rows, n_slots)) * slow.n_features * dtype.itemsize
        contexts = sum(map(self.n_contexts, n_slots)) * CONTEXT_DTYPE.itemsize
        return int(rows + contexts + ChunkCache.bytes_of(slow))


def _most(counts: Int64, n: int) -> int:
    return int(np.sort(counts)[max(0, len(counts) - n) :].sum())
