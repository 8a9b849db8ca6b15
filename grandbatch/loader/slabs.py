"""Memory for gathered windows, used again once nobody looks at it any more.

A slab is lent as a tensor over a numpy view made for that one loan. PyTorch holds the view as long
as any tensor, numpy array or DLPack capsule shares the tensor's memory; when the last goes, the
view dies, and only then does its memory return to the pool. A user who keeps a batch keeps its
slab, and the pool makes another.

Slabs of a few megabytes need no pool: the C library's allocator hands the same memory out again
where its thresholds are high enough, and indexing that allocates saves a copy. Above 32 MiB it maps
and clears fresh pages each time.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from grandbatch.memory.allocator import raise_thresholds
from grandbatch.values.arrays import UInt8

FRESH_BYTES = 16 * 2**20
"""Slabs up to this size are left to the allocator."""

KEPT_SLABS = 4
"""Free slabs that a pool holds on to."""


class Pools(NamedTuple):
    """Pools of slabs for windows, and for the contexts that come with them."""

    matrices: SlabPool
    contexts: Mapping[str, SlabPool]


class SlabPool:
    """Slabs of up to `n` windows. Thread-safe: loans may end in any thread.

    Parameters
    ----------
    n : int
        Windows in a slab.
    shape : tuple of int
        (L, F).
    dtype : torch.dtype
    pinned : bool
        Whether slabs lie in page-locked memory.
    """

    def __init__(self, n: int, shape: tuple[int, int], dtype: torch.dtype, *, pinned: bool):
        self.n = n
        self._shape = shape
        self._dtype = dtype
        self._pinned = pinned
        self._free: deque[UInt8] = deque(maxlen=KEPT_SLABS)
        raise_thresholds()

    @property
    def slab_bytes(self) -> int:
        """Bytes of a slab."""
        return self.n * math.prod(self._shape) * self._dtype.itemsize

    @property
    def fresh(self) -> bool:
        """Whether slabs may as well be new arrays."""
        return not self._pinned and self.slab_bytes <= FRESH_BYTES

    def adopt(self, items: npt.NDArray[np.void]) -> torch.Tensor:
        """Turn the bytes of n windows into a tensor (n, L, F) over the same memory."""
        return self._shaped(torch.from_numpy(items.view(np.uint8)), len(items))

    def items(self, slab: torch.Tensor) -> npt.NDArray[np.void]:
        """Return a slab's windows as n items of bytes, over the same memory."""
        window = math.prod(self._shape) * self._dtype.itemsize
        raw: UInt8 = slab.view(-1).view(torch.uint8).numpy()
        return raw.view(np.dtype((np.void, window)))

    def take(self, n: int) -> torch.Tensor:
        """Lend a tensor for n windows, (n, L, F), with arbitrary contents."""
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = torch.empty(
                self.slab_bytes, dtype=torch.uint8, pin_memory=self._pinned
            ).numpy()
        loan = memory.view()
        weakref.finalize(loan, self._free.append, memory).atexit = False
        return self._shaped(torch.from_numpy(loan), self.n)[:n]

    def _shaped(self, raw: torch.Tensor, n: int) -> torch.Tensor:
        return raw.view(self._dtype).view(n, *self._shape)
