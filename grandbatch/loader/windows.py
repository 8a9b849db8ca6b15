"""A rank's windows as one stream, gathered into slabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grandbatch.batch import ContextWindows
from grandbatch.loader.blocks import ShuffleBlock
from grandbatch.loader.device import Arrival, Bus
from grandbatch.loader.rows import RowBuffer
from grandbatch.loader.slab_labels import SlabLabels
from grandbatch.loader.slabs import Pools, SlabPool
from grandbatch.values.arrays import Array, Int64

Range = tuple[int, int]

SLAB_WINDOWS = 1024
"""Windows gathered at once, about; or one batch where that is larger."""


@dataclass(eq=False)
class Slab:
    """Gathered windows with their labels.

    Parameters
    ----------
    matrices : (n, L, F) tensor
    labels : callable
        Gives (n,) tensors, named by `grandbatch.batch.LABELS`; the targets behind them, where there
        are any.
    error : Exception, optional
        Why there are no more.
    context : mapping of str to ContextWindows
    arrival : Arrival, optional
        What the tensors wait for on their device.
    """

    matrices: torch.Tensor
    labels: Callable[[], tuple[torch.Tensor, ...]]
    error: Exception | None
    context: Mapping[str, ContextWindows]
    arrival: Arrival | None


class _Gathering:
    """Windows on their way into one slab.

    Parameters
    ----------
    n : int
        Windows in all.
    pool : SlabPool
    """

    def __init__(self, n: int, pool: SlabPool):
        self._n, self._pool = n, pool
        self._matrices: torch.Tensor | None = None

    def add(self, buffer: RowBuffer, starts: Int64, at: int) -> None:
        """Cut windows from a buffer to the places from `at` on."""
        if buffer.mirror is not None:
            if self._matrices is None:
                self._matrices = buffer.mirror.slab(self._n)
            buffer.mirror.cut_into(starts, self._matrices[at : at + len(starts)])
            return
        if len(starts) == self._n and self._pool.fresh:
            self._matrices = self._pool.adopt(buffer.cut(starts))
            return
        if self._matrices is None:
            self._matrices = self._pool.take(self._n)
        buffer.cut_into(starts, self._pool.items(self._matrices)[at : at + len(starts)])

    def first(self, n: int) -> torch.Tensor:
        """Return the first n windows, (n, L, F)."""
        return self._pool.take(0) if self._matrices is None else self._matrices[:n]


class WindowStream:
    """Reads ranges of a rank's windows, forward only.

    Parameters
    ----------
    blocks : iterator of ShuffleBlock
        Of the rank's shares, in order.
    n_real : int
        Windows before the repeated ones, which weigh nothing.
    bus : Bus, optional
        The way to the device that windows are cut on.
    """

    def __init__(
        self,
        blocks: Iterator[ShuffleBlock],
        n_real: int,
        bus: Bus | None = None,
    ):
        self._bus = bus
        self._blocks = blocks
        self._n_real = n_real
        self._block: ShuffleBlock | None = None
        self._first = 0
        self._stop = 0
        self._error: Exception | None = None

    @property
    def slab_factor(self) -> int:
        """How many times as many windows as usual are best gathered at once."""
        return 1 if self._bus is None else self._bus.lane.slab_factor

    @torch.inference_mode(False)
    def gather(self, ranges: Sequence[Range], pools: Pools) -> Slab:
        """Gather ranges of windows into one slab; it ends before the first that can't be read."""
        n = sum(stop - first for first, stop in ranges)
        own, labels = _Gathering(n, pools.matrices), SlabLabels(self._n_real)
        contexts = {name: _Gathering(n, pool) for name, pool in pools.contexts.items()}
        paired = {name: np.empty((2, n), np.int64) for name in contexts}
        at = 0
        for block, offset, size, window in self._within_blocks(ranges):
            table, entries = block.table, block.entries[offset : offset + size]
            labels.add(table.find(entries), window)
            own.add(table.buffer, table.starts(entries), at)
            for name, gathering in contexts.items():
                slow, here = table.contexts[name], slice(at, at + size)
                gathering.add(slow.buffer, slow.look_up(entries, *paired[name][:, here]), at)
            at += size
        matrices = own.first(at)
        pairs = [one[:at] for pair in paired.values() for one in pair]
        columns = labels.columns() if at and self._bus is not None else []
        tensors = self._tensors([*pairs, *columns])
        context = {
            name: ContextWindows(contexts[name].first(at), *tensors[place : place + 2])
            for name, place in zip(contexts, range(0, len(pairs), 2), strict=True)
        }
        error = None if at == n else self._error
        if self._bus is None or not columns:
            return Slab(matrices, labels, error, context, None)
        sent = tuple(tensors[len(pairs) :])
        whole = [windows.matrices for windows in context.values()]
        arrival = self._bus.arrival([matrices, sent[0], *whole])
        return Slab(matrices, lambda: sent, error, context, arrival)

    def _tensors(self, columns: Sequence[Array]) -> list[torch.Tensor]:
        return (
            list(map(torch.from_numpy, columns)) if self._bus is None else self._bus.carry(columns)
        )

    def _within_blocks(
        self, ranges: Sequence[Range]
    ) -> Iterator[tuple[ShuffleBlock, int, int, int]]:
        """Cut ranges at blocks, up to the first window that can't be read.

        Gives the block, the first window's place in it, how many windows, and the first's place
        in the stream.
        """
        for first, stop in ranges:
            at = first
            while at < stop:
                block = self._block_at(at)
                end = min(stop, self._stop)
                readable = min(end, self._first + block.readable)
                if at < readable:
                    yield block, at - self._first, readable - at, at
                if readable < end:
                    self._error = block.error
                    return
                at = end

    def _block_at(self, window: int) -> ShuffleBlock:
        while self._block is None or window >= self._stop:
            self._block = None  # its table may be used again from here on
            block = next(self._blocks)
            self._block, self._first = block, self._stop
            self._stop += len(block)
        return self._block
