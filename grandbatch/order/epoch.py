"""The order of one epoch: a pure function of seed, epoch, chunks and settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from grandbatch.order.permutation import permutation, stream_key
from grandbatch.order.selection import Selection
from grandbatch.order.settings import OrderSettings
from grandbatch.values.arrays import Int32, Int64

_CHUNKS, _WINDOWS = 1, 2


class Order(Protocol):
    """One epoch as a sequence of shuffle blocks, whose chunks are read together."""

    @property
    def settings(self) -> OrderSettings:
        """What decides it, besides the epoch and the windows that take part."""

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""

    @property
    def chunk_windows(self) -> int:
        """Windows in a chunk of the store."""

    @property
    def n_blocks(self) -> int:
        """Blocks in the epoch."""

    @property
    def block_sizes(self) -> Int64:
        """Windows in each block, (n_blocks,) int64."""

    @property
    def block_named(self) -> dict[int, int]:
        """Blocks by their names, which are what positions hold."""

    def block_name(self, block: int) -> int:
        """Return a block's name; -1 behind the last block."""

    def first_chunk(self, block: int) -> int:
        """Return the chunk that a block starts with; -1 behind the last block."""

    def block_chunks(self, block: int) -> Int64:
        """Chunks of a block, each once."""

    def block_places(self, block: int) -> Int32:
        """Places of a block's chunks among all that take part."""

    def block_entries(self, block: int, slots: Int32 | None = None) -> Int32:
        """Windows of a block in their order, as places in a table of decoded chunks."""

    def following(self) -> Order:
        """Return the order of the next epoch."""


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """An epoch as a sequence of shuffle blocks.

    Chunks are permuted and cut into blocks of `shuffle_chunks`; a block's windows, or runs of
    them, are permuted within it. Without shuffling both stay in the order of the store.
    """

    settings: OrderSettings
    selection: Selection
    epoch: int

    @cached_property
    def _permutation(self) -> Int32:
        n = len(self.selection.chunks)
        if not self.settings.shuffle:
            return np.arange(n, dtype=np.int32)
        return permutation(n, stream_key(self.settings.seed, self.epoch, _CHUNKS))

    @cached_property
    def chunks(self) -> Int64:
        """Chunks that take part, in the order of the epoch, (n,) int64."""
        return self.selection.chunks[self._permutation]

    @property
    def chunk_windows(self) -> int:
        """Windows in a chunk of the store."""
        return self.selection.chunk_windows

    def following(self) -> EpochOrder:
        """Return the order of the next epoch."""
        return EpochOrder(self.settings, self.selection, self.epoch + 1)

    @property
    def n_blocks(self) -> int:
        """Blocks in the epoch."""
        return -(-len(self.selection.chunks) // self.settings.shuffle_chunks)

    @cached_property
    def block_sizes(self) -> Int64:
        """Windows in each block, (n_blocks,) int64."""
        counts = self.selection.counts[self._permutation]
        return (
            np.add.reduceat(
                counts, np.arange(0, len(counts), self.settings.shuffle_chunks), dtype=np.int64
            )
            if len(counts)
            else counts
        )

    def block_chunks(self, block: int) -> Int64:
        """Chunks of a block, in the order of the epoch."""
        size = self.settings.shuffle_chunks
        return self.chunks[block * size : (block + 1) * size]

    def block_places(self, block: int) -> Int32:
        """Places of a block's chunks in `selection.chunks`."""
        size = self.settings.shuffle_chunks
        return self._permutation[block * size : (block + 1) * size]

    def first_chunk(self, block: int) -> int:
        """Return the chunk that a block starts with; -1 behind the last block."""
        at = block * self.settings.shuffle_chunks
        return int(self.chunks[at]) if at < len(self.chunks) else -1

    def block_name(self, block: int) -> int:
        """Return the chunk that a block starts with, which names it; -1 behind the last block."""
        return self.first_chunk(block)

    @cached_property
    def block_named(self) -> dict[int, int]:
        """Blocks by the chunks that they start with."""
        return {self.first_chunk(block): block for block in range(self.n_blocks)}

    def block_entries(self, block: int, slots: Int32 | None = None) -> Int32:
        """Windows of a block in their order, as places in a table of decoded chunks.

        Parameters
        ----------
        block : int
        slots : (m,) int32, optional
            Where each of the block's chunks lies in the table; one after the other by default.

        Returns
        -------
        (block_sizes[block],) int32
            `slot * chunk_windows + w` for window w of the chunk in that slot.
        """
        chunks = self.block_chunks(block)
        which, _, begin, end = self.selection.cut(chunks)
        slot = which if slots is None else slots[which].astype(np.int64)
        begin, length = slot * self.selection.chunk_windows + begin, end - begin
        if not self.settings.shuffle:
            return expand(begin, length)
        key = stream_key(self.settings.seed, self.epoch, _WINDOWS, block)
        if self.settings.run_length == 1:
            entries = expand(begin, length)
            return entries[permutation(len(entries), key)]
        begin, length = _cut(begin, length, self.settings.run_length)
        runs = permutation(len(begin), key)
        return expand(begin[runs], length[runs])

    def block_windows(self, block: int) -> Int64:
        """Windows of a block in their order, numbered as in the store, int64."""
        size = self.selection.chunk_windows
        slot, window = np.divmod(self.block_entries(block).astype(np.int64), size)
        return self.block_chunks(block)[slot] * size + window


def _cut(begin: Int64, length: Int64, run_length: int) -> tuple[Int64, Int64]:
    """Cut ranges into runs; the last of a range may be shorter."""
    count = -(-length // run_length)
    step = (np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)) * run_length
    return np.repeat(begin, count) + step, np.minimum(np.repeat(length, count) - step, run_length)


def expand(begin: Int64, length: Int64) -> Int32:
    """List the members of ranges, one range after the other."""
    before = np.cumsum(length) - length
    steps = np.arange(int(length.sum()), dtype=np.int32)
    return steps + np.repeat((begin - before).astype(np.int32), length)
