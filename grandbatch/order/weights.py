"""How often windows are to come: their weights, and how many draws each chunk gets by them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grandbatch.order.selection import Selection
from grandbatch.values.arrays import Bool, Float64, Int64

_WINDOWS_AT_ONCE = 2**18


@dataclass(frozen=True, eq=False)
class WeightedSelection:
    """Windows that are drawn with replacement, each as often as its weight says.

    Parameters
    ----------
    selection : Selection
        Stretches of windows of one weight. Windows of weight 0 are in none.
    weight : (S,) float64
        The weight of a stretch's every window, above 0 and at most 1.
    n_draws : int
        Windows in an epoch.
    """

    selection: Selection
    weight: Float64
    n_draws: int

    @classmethod
    def of(cls, selection: Selection, changes: Int64, weights: Float64) -> WeightedSelection:
        """Weigh the windows that take part; an epoch stays as long as it is without.

        Parameters
        ----------
        selection : Selection
        changes : (K,) int64
            The window from which on each of `weights` holds; rising, the first is 0.
        weights : (K,) float64
            Not negative, finite, and not 0 for all windows that take part.
        """
        cuts = np.unique(np.concatenate([selection.begin, selection.end, changes]))
        begin, end = cuts[:-1], cuts[1:]
        stretch = np.searchsorted(selection.begin, begin, side="right") - 1
        weight = weights[np.searchsorted(changes, begin, side="right") - 1]
        inside = (stretch >= 0) & (begin < selection.end[stretch])
        weight = np.where(inside, weight, 0)
        weight = weight / weight.max()
        taken = weight > 0
        begin, end, weight, stretch = (part[taken] for part in (begin, end, weight, stretch))
        # runs never leave a stretch of those that take part; but what says the same weight in
        # more stretches must not be another order
        apart = (stretch[1:] != stretch[:-1]) | (begin[1:] != end[:-1])
        apart |= weight[1:] != weight[:-1]
        first, last = _edge(apart, before=True), _edge(apart, before=False)
        merged = Selection(begin[first], end[last], selection.chunk_windows)
        return cls(merged, weight[first], len(selection))

    def __len__(self) -> int:
        return self.n_draws

    @property
    def chunks(self) -> Int64:
        """Chunks with at least one window that may be drawn, rising, (n,) int64."""
        return self.selection.chunks

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory: so many for each stretch of windows of one weight."""
        return self.selection.begin.nbytes + self.selection.end.nbytes + self.weight.nbytes

    @cached_property
    def digest(self) -> str:
        """The weights' identity: the same for all that give the same draws, hexadecimal."""
        found = hashlib.sha256()
        for part in (self.selection.begin, self.selection.end, self.weight):
            found.update(part.astype(part.dtype.newbyteorder("<")).tobytes())
        return found.hexdigest()[:32]

    @cached_property
    def _edges(self) -> Float64:
        """Where the shares of `chunks` of an epoch's draws begin and end, (n + 1,) float64."""
        masses = np.empty(len(self.chunks))
        step = max(1, _WINDOWS_AT_ONCE // self.selection.chunk_windows)
        for at in range(0, len(masses), step):
            some = self.chunks[at : at + step]
            which, stretch, begin, end = self.selection.cut(some)
            mass = (end - begin) * self.weight[stretch]
            # adds one after the other, on any processor
            masses[at : at + step] = np.bincount(which, weights=mass, minlength=len(some))
        edges = np.concatenate([np.zeros(1), np.cumsum(masses)])
        shares: Float64 = edges / edges[-1] * self.n_draws
        return shares

    def draws(self, shift: float) -> Int64:
        """Share an epoch's draws out among `chunks`.

        Parameters
        ----------
        shift : float
            A random number from 0 to below 1. Each chunk's share is rounded up or down by it,
            so that its mean is the share itself.

        Returns
        -------
        (n,) int64
            They add up to `n_draws`.
        """
        behind = np.floor(self._edges + shift).astype(np.int64)
        return behind[1:] - behind[:-1]


def _edge(apart: Bool, *, before: bool) -> Bool:
    """Mark the first, or the last, of the items that belong together."""
    end = np.ones(1, np.bool_)
    return np.concatenate([end, apart] if before else [apart, end])
