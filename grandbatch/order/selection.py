"""Which windows of a store take part, as ranges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grandbatch.values.arrays import Int64


@dataclass(frozen=True, eq=False)
class Selection:
    """Stretches of consecutive windows, in the store's order. Runs never leave a stretch.

    Parameters
    ----------
    begin, end : (S,) int64
        Half-open ranges of windows: not empty, rising, disjoint.
    chunk_windows : int
        Windows in a chunk of the store.
    """

    begin: Int64
    end: Int64
    chunk_windows: int

    @classmethod
    def everything(cls, n_windows: int, chunk_windows: int) -> Selection:
        """All windows of a store, in one stretch."""
        filled = min(n_windows, 1)
        return cls(np.zeros(filled, np.int64), np.full(filled, n_windows, np.int64), chunk_windows)

    @cached_property
    def _kept_before_stretch(self) -> Int64:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.end - self.begin)])

    weight_bytes = 0
    """Bytes of weights: none."""

    def __len__(self) -> int:
        return int(self._kept_before_stretch[-1])

    @cached_property
    def chunks(self) -> Int64:
        """Chunks with at least one window that takes part, rising, (n,) int64."""
        first = self.begin // self.chunk_windows
        count = (self.end - 1) // self.chunk_windows - first + 1
        before = np.cumsum(count) - count
        every = np.repeat(first - before, count) + np.arange(count.sum())
        return np.unique(every)

    @cached_property
    def counts(self) -> Int64:
        """Windows that take part in each of `chunks`, (n,) int64."""
        borders = np.stack([self.chunks, self.chunks + 1]) * self.chunk_windows
        before = self.before(borders)
        counts: Int64 = before[1] - before[0]
        return counts

    def before(self, windows: Int64) -> Int64:
        """Count those that take part before each of some windows."""
        if not len(self.begin):
            return np.zeros_like(windows)
        at = np.maximum(np.searchsorted(self.begin, windows, side="right") - 1, 0)
        inside = np.clip(windows - self.begin[at], 0, self.end[at] - self.begin[at])
        kept: Int64 = self._kept_before_stretch[at] + inside
        return kept

    def cut(self, chunks: Int64) -> tuple[Int64, Int64, Int64, Int64]:
        """Cut the stretches at the borders of some chunks.

        Parameters
        ----------
        chunks : (m,) int64
            In any order.

        Returns
        -------
        which : (p,) int64
            Place in `chunks` of each piece.
        stretch : (p,) int64
            The stretch it was cut from.
        begin, end : (p,) int64
            The piece's windows, counted from its chunk's first.
        """
        low = chunks * self.chunk_windows
        high = low + self.chunk_windows
        first = np.searchsorted(self.end, low, side="right")
        count = np.searchsorted(self.begin, high, side="left") - first
        which = np.repeat(np.arange(len(chunks)), count)
        stretch = np.arange(len(which)) + np.repeat(first - (np.cumsum(count) - count), count)
        begin = np.maximum(self.begin[stretch], low[which]) - low[which]
        end = np.minimum(self.end[stretch], high[which]) - low[which]
        return which, stretch, begin, end
