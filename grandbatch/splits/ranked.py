"""Times that divide windows by their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from grandbatch.values.arrays import Int64

_BINS = 2**16


def times_of_ranks(
    blocks: Callable[[], Iterable[Int64]], ranks: Sequence[int], low: int, high: int
) -> list[int]:
    """Find the r-th smallest of many times, without keeping them.

    Times are counted in 65,536 equal stretches first; those of a stretch that a rank falls in are
    then sorted.

    Parameters
    ----------
    blocks : callable
        Gives all times, in pieces and in any order; called twice.
    ranks : sequence of int
        From 0 to the number of times less one.
    low, high : int
        No time is below or above.

    Returns
    -------
    list of int
        The time of each rank: at most `rank` times are smaller.
    """
    width = (high - low) // _BINS + 1
    counts = np.zeros(_BINS, np.int64)
    for times in blocks():
        counts += np.bincount((times - low) // width, minlength=_BINS)
    before = np.cumsum(counts) - counts
    chosen = np.searchsorted(before, np.asarray(ranks, np.int64), side="right") - 1
    wanted = np.unique(chosen)
    found: dict[int, list[Int64]] = {int(b): [] for b in wanted}
    for times in blocks():
        bins = (times - low) // width
        for b, parts in found.items():
            parts.append(times[bins == b])
    ordered = {b: np.sort(np.concatenate(parts)) for b, parts in found.items()}
    return [int(ordered[int(b)][rank - before[b]]) for rank, b in zip(ranks, chosen, strict=True)]
