"""Feature rows one behind the other in memory, and the windows copied out of them.

A window is `sequence_length` consecutive rows. Seen as a strided array whose items are as large as
a window and begin a row apart, one indexing cuts windows from anywhere: at memory speed, in one
thread, without the GIL. (PyTorch's `index_select` is as fast in one thread. Its own threads wait
for each other, which on cores that decode or train costs up to ten times more than they bring.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import as_strided

from grandbatch.loader.device import Bus, Mirror
from grandbatch.values.arrays import Int64

_CUT_WINDOWS = 48
"""Windows copied at once by way of a temporary array, small enough to stay in the cache."""


class RowBuffer:
    """Memory for feature rows.

    Parameters
    ----------
    n_rows : int
        At least a window's.
    window : tuple of int
        (L, F).
    dtype : torch.dtype
    bus : Bus, optional
        The way to the device that windows are cut on.

    Attributes
    ----------
    rows : (n_rows, F) tensor
        With arbitrary contents at first.
    mirror : Mirror or None
        The same rows on that device.
    """

    def __init__(
        self,
        n_rows: int,
        window: tuple[int, int],
        dtype: torch.dtype,
        bus: Bus | None = None,
    ):
        L, F = window
        row_bytes = F * dtype.itemsize
        # numpy asks the kernel for huge pages, PyTorch doesn't
        self._memory = np.empty(n_rows * row_bytes, np.uint8)
        self.rows = torch.from_numpy(self._memory).view(dtype).view(n_rows, F)
        self._windows = as_strided(
            self._memory[: L * row_bytes].view(np.dtype((np.void, L * row_bytes))),
            (n_rows - L + 1,),
            (row_bytes,),
        )
        self.mirror = None if bus is None else Mirror(bus, self._memory, window, dtype)

    def filled(self, first: int, stop: int) -> None:
        """Take note of rows that were filled. Thread-safe."""
        if self.mirror is not None:
            self.mirror.filled(first, stop)

    def cut(self, starts: Int64) -> npt.NDArray[np.void]:
        """Copy the bytes of windows into memory of their own, (n,) void."""
        windows: npt.NDArray[np.void] = self._windows[starts]
        return windows

    def cut_into(self, starts: Int64, out: npt.NDArray[np.void]) -> None:
        """Copy windows to a given place, a few at a time by way of the cache."""
        for first in range(0, len(starts), _CUT_WINDOWS):
            some = starts[first : first + _CUT_WINDOWS]
            out[first : first + len(some)] = self.cut(some)
