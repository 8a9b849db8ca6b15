"""From a stream of windows to batches: where they are cut, and the place behind each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.loader.slabs import Pools
from grandbatch.loader.windows import SLAB_WINDOWS, WindowStream
from grandbatch.order import Deal
from grandbatch.position import Position


class Handover(NamedTuple):
    """How far a deal was handed over."""

    deal: Deal
    consumed: int
    step: int
    rank: int
    batch_size: int

    def position(self) -> Position:
        """Return the position there."""
        position = self.deal.position(self.consumed, self.step, self.rank)
        return replace(position, batch_size=self.batch_size)

    def after(self, consumed: int, step: int, batch_size: int) -> Handover:
        """Return what is handed over once so much more was."""
        return Handover(self.deal, consumed, step, self.rank, batch_size)


class Turn(NamedTuple):
    """Which batches a worker process hands over: each `every`-th, from number `own` on."""

    own: int
    every: int


def slab_windows(batch_size: int, factor: int = 1) -> int:
    """Windows gathered at once: whole batches, about `factor` times `SLAB_WINDOWS`."""
    return max(1, factor * SLAB_WINDOWS // batch_size) * batch_size


def every_batch(
    handover: Handover,
    stream: WindowStream,
    pool: Callable[[int], Pools],
    batch_size: Callable[[], int],
) -> Iterator[MatrixBatch]:
    """Hand over all batches behind what was handed over.

    Parameters
    ----------
    handover : Handover
    stream : WindowStream
        Of the windows behind it.
    pool : callable
        Gives the pools of slabs for so many windows.
    batch_size : callable
        Asked before each batch. A smaller one cuts what was already gathered, so it takes effect
        at once.
    """
    consumed, step = handover.consumed, handover.step
    total = handover.deal.windows_per_rank
    while consumed < total:
        n = slab_windows(batch_size(), stream.slab_factor)
        slab = stream.gather([(consumed, min(consumed + n, total))], pool(min(n, total)))
        at, n = 0, slab.matrices.shape[0]
        complete = slab.error is None
        while at < n and (complete or n - at >= batch_size()):
            size = batch_size()
            for matrices in torch.split(slab.matrices[at:], size):
                own = min(size, n - at)
                if not complete and own < size:
                    break
                step += 1
                consumed += own
                behind = handover.after(consumed, step, size)
                yield MatrixBatch.cut(matrices, slab.labels, at, behind, slab.context, slab.arrival)
                at += own
                if batch_size() != size:
                    break
        if slab.error is not None:
            raise slab.error


def some_batches(
    handover: Handover,
    stream: WindowStream,
    pool: Callable[[int], Pools],
    batch_size: int,
    turn: Turn,
) -> Iterator[MatrixBatch]:
    """Hand over a worker's share of the batches: with the others', in turn, they are all."""
    first, total = handover.consumed, handover.deal.windows_per_rank
    n = slab_windows(batch_size)
    starts = range(first + turn.own * batch_size, total, turn.every * batch_size)
    per_slab = n // batch_size
    for number in range(0, len(starts), per_slab):
        some = starts[number : number + per_slab]
        ranges = [(start, min(start + batch_size, total)) for start in some]
        slab = stream.gather(ranges, pool(min(n, total)))
        at = 0
        for start, stop in ranges:
            end = at + stop - start
            if end > len(slab.matrices):
                break
            step = handover.step + (start - first) // batch_size + 1
            yield MatrixBatch.cut(
                slab.matrices[at:end],
                slab.labels,
                at,
                handover.after(stop, step, batch_size),
                slab.context,
            )
            at = end
        if slab.error is not None:
            raise slab.error
