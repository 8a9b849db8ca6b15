"""The order of an epoch whose windows are drawn by weights, chunk by chunk.

Independent draws from a whole store would read a chunk for every window. So each chunk gets its
share of an epoch's draws first (`WeightedSelection.draws`), which are cut into visits of about as
many windows as a chunk has. Visits are permuted and grouped into blocks as chunks are without
weights; only then, in a block, windows are drawn from its chunks. A chunk that is drawn often
comes in many blocks, one that is never drawn in none: an epoch decodes at most twice as many chunks
as it would without weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grandbatch.order.epoch import EpochOrder, Order, expand
from grandbatch.order.permutation import permutation, stream_key, uniform
from grandbatch.order.selection import Selection
from grandbatch.order.settings import OrderSettings
from grandbatch.order.weights import WeightedSelection
from grandbatch.values.arrays import Int32, Int64

_SHARES, _VISITS, _DRAWS, _MIXED = 3, 4, 5, 6


def epoch_order(
    settings: OrderSettings, chosen: Selection | WeightedSelection, epoch: int
) -> Order:
    """Return the order of an epoch: drawn where windows have weights, each once otherwise."""
    if isinstance(chosen, WeightedSelection):
        return DrawnOrder(settings, chosen, epoch)
    return EpochOrder(settings, chosen, epoch)


@dataclass(frozen=True, eq=False)
class DrawnOrder:
    """An epoch of draws as a sequence of shuffle blocks.

    Positions name a block by its number. Of runs, the last that a block draws from a chunk is cut
    where the chunk's share ends.
    """

    settings: OrderSettings
    weighted: WeightedSelection
    epoch: int

    def following(self) -> DrawnOrder:
        """Return the order of the next epoch."""
        return DrawnOrder(self.settings, self.weighted, self.epoch + 1)

    @property
    def chunk_windows(self) -> int:
        """Windows in a chunk of the store."""
        return self.weighted.selection.chunk_windows

    def _key(self, *parts: int) -> int:
        return stream_key(self.settings.seed, self.epoch, *parts)

    @cached_property
    def _visits(self) -> tuple[Int32, Int64]:
        """The place of each visit's chunk in `weighted.chunks`, and its draws."""
        draws = self.weighted.draws(float(uniform(1, self._key(_SHARES))[0]))
        visits = -(-draws // self.chunk_windows)
        place = np.repeat(np.arange(len(draws), dtype=np.int32), visits)
        number = np.arange(len(place)) - np.repeat(np.cumsum(visits) - visits, visits)
        share, rest = np.divmod(draws[place], visits[place])
        mixed = permutation(len(place), self._key(_VISITS))
        return place[mixed], (share + (number < rest))[mixed]

    @property
    def n_blocks(self) -> int:
        """Blocks in the epoch."""
        return -(-len(self._visits[0]) // self.settings.shuffle_chunks)

    @cached_property
    def block_sizes(self) -> Int64:
        """Draws in each block, (n_blocks,) int64."""
        _, draws = self._visits
        firsts = np.arange(0, len(draws), self.settings.shuffle_chunks)
        return np.add.reduceat(draws, firsts, dtype=np.int64)

    @cached_property
    def block_named(self) -> dict[int, int]:
        """Blocks by their numbers."""
        return {block: block for block in range(self.n_blocks)}

    def block_name(self, block: int) -> int:
        """Return a block's number; -1 behind the last block."""
        return block if block < self.n_blocks else -1

    def first_chunk(self, block: int) -> int:
        """Return the first chunk that is visited in a block; -1 behind the last block."""
        at = block * self.settings.shuffle_chunks
        place, _ = self._visits
        return int(self.weighted.chunks[place[at]]) if at < len(place) else -1

    def _block(self, block: int) -> tuple[Int32, Int64]:
        """Places of a block's chunks, each once, and the draws from each."""
        size = self.settings.shuffle_chunks
        every, of_each = self._visits
        visited = slice(block * size, (block + 1) * size)
        place, draws = every[visited], of_each[visited]
        by_place = np.argsort(place, kind="stable")
        place, draws = place[by_place], draws[by_place]
        first = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
        return place[first], np.add.reduceat(draws, first, dtype=np.int64)

    def block_chunks(self, block: int) -> Int64:
        """Chunks of a block, each once, rising."""
        return self.weighted.chunks[self.block_places(block)]

    def block_places(self, block: int) -> Int32:
        """Places of a block's chunks in `weighted.chunks`."""
        return self._block(block)[0]

    def block_entries(self, block: int, slots: Int32 | None = None) -> Int32:
        """Draw the windows of a block, as places in a table of decoded chunks.

        As `EpochOrder.block_entries`.
        """
        places, draws = self._block(block)
        which, begin, length = self._runs(self.weighted.chunks[places], draws, block)
        begin += (np.arange(len(places)) if slots is None else slots)[which] * self.chunk_windows
        mixed = permutation(len(begin), self._key(_MIXED, block))
        if length is None:
            return begin[mixed].astype(np.int32)
        return expand(begin[mixed], length[mixed])

    def _runs(self, chunks: Int64, draws: Int64, block: int) -> tuple[Int64, Int64, Int64 | None]:
        """Draw runs until each chunk has its draws.

        A run is drawn as often as the weight of its windows says, however long it is.

        Returns
        -------
        which, begin, length : (n,) int64
            The run's chunk, its first window there, and its windows; None where each has one.
        """
        size = self.settings.run_length
        which, stretch, begin, end = self.weighted.selection.cut(chunks)
        n_runs = -(-(end - begin) // size)
        mass = n_runs * self.weighted.weight[stretch]
        first = np.searchsorted(which, np.arange(len(chunks)))
        last = np.append(first[1:], len(which)) - 1
        mass /= np.bincount(which, weights=mass)[which]
        edge = np.concatenate([np.zeros(1), np.cumsum(mass)])
        of = np.repeat(np.arange(len(chunks)), draws)
        at = uniform(len(of), self._key(_DRAWS, block))
        at += np.repeat(edge[first], draws)
        if size == 1:
            # they are mixed later, and found in a fifth of the time where they rise
            at.sort()
        piece = np.searchsorted(edge, at, side="right") - 1
        # the edge behind a chunk's last piece may be a little below what its draws reach
        np.minimum(piece, np.repeat(last, draws), out=piece)
        start = begin[piece]
        if n_runs.max() > 1:
            run = ((at - edge[piece]) / mass[piece] * n_runs[piece]).astype(np.int64)
            start += np.clip(run, 0, n_runs[piece] - 1) * size
        if size == 1:
            return of, start, None
        length = np.minimum(end[piece] - start, size)
        # more were drawn than can be needed: runs of one window each
        drawn = np.cumsum(length) - length
        drawn -= drawn[(np.cumsum(draws) - draws)][of]
        length = np.minimum(length, draws[of] - drawn)
        kept = length > 0
        return of[kept], start[kept], length[kept]
