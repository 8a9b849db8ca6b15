"""Memory for gathered windows, used again once nobody looks at it any more.

A slab is lent as a tensor over a numpy view made for that one loan. PyTorch holds the view as long
as any tensor, numpy array or DLPack capsule shares the tensor's memory; when the last goes, the
view dies, and only then does its memory return to the pool. A user who keeps a batch keeps its
slab, and the pool makes another.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

KEPT_SLABS = 4
"""Free slabs that a pool holds on to."""

Bytes = npt.NDArray[np.uint8]


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
        self._free: deque[Bytes] = deque(maxlen=KEPT_SLABS)

    @property
    def slab_bytes(self) -> int:
        """Bytes of a slab."""
        return self.n * math.prod(self._shape) * self._dtype.itemsize

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
        slab = torch.from_numpy(loan).view(self._dtype).view(self.n, *self._shape)
        return slab[:n]
