"""What there is to tell of bars that follow each other: found where they are in memory anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.looks import (
    N_BINS,
    count_volumes,
    find_leaps,
    find_leaps_between,
)

LEAP = 5.0
"""A price that many times the one before, or a part of it, is worth a look."""

Floats = npt.NDArray[np.float64]
Prices = tuple[float, float]
"""High and low."""


@dataclass(frozen=True)
class Extremes:
    """What there is to tell of consecutive bars of one symbol."""

    n_leaps: int
    largest_leap: float
    leap_time: int
    """Behind the first."""
    most_volume: float
    most_time: int
    first: Prices
    last: Prices
    first_time: int
    least_whole: float
    """The least high or low, where all are whole numbers; else 0."""
    volumes: npt.NDArray[np.int64]
    """Bars by the power of two of their volume, (N_BINS,)."""


FACTS = np.dtype(
    [
        ("n_leaps", "<i8"),
        ("largest_leap", "<f8"),
        ("leap_time", "<i8"),
        ("most_volume", "<f8"),
        ("most_time", "<i8"),
        ("first", "<f8", 2),
        ("last", "<f8", 2),
        ("first_time", "<i8"),
        ("least_whole", "<f8"),
    ]
)
"""All of `Extremes` but its volumes, in its order."""


@dataclass(frozen=True, eq=False)
class ManyExtremes:
    """Extremes of many runs of bars, as columns: there may be thousands.

    Parameters
    ----------
    facts : (n,) FACTS
    volumes : (n, N_BINS) int64
    """

    facts: npt.NDArray[Any]
    volumes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, found: Sequence[Extremes]) -> ManyExtremes:
        """Gather what was found of each run."""
        names = FACTS.names or ()
        facts = np.array([tuple(getattr(one, name) for name in names) for one in found], FACTS)
        return cls(facts, np.array([one.volumes for one in found], np.int64).reshape(-1, N_BINS))

    def __len__(self) -> int:
        return len(self.facts)

    def taken(self, others: ManyExtremes, order: Sequence[int]) -> ManyExtremes:
        """Choose, by their numbers, of these with others behind."""
        facts = np.concatenate([self.facts, others.facts])[order]
        return ManyExtremes(facts, np.concatenate([self.volumes, others.volumes])[order])

    def joined(self, begins: npt.NDArray[np.intp]) -> list[Extremes]:
        """Join runs that follow each other, those from each of `begins` up to the next."""
        facts = self.facts
        if not len(facts):
            return []
        leaps = np.empty(len(facts))
        first, last = (np.ascontiguousarray(facts[name]) for name in ("first", "last"))
        find_leaps_between(last, first, LEAP, leaps)
        leaps[begins] = 0.0
        n_leaps = facts["n_leaps"] + (leaps > 0.0)
        leap_time = np.where(leaps > 0.0, facts["first_time"], facts["leap_time"])
        stops = np.append(begins[1:], len(facts))
        # the first that leaps, and the first with the most volume
        leapt = [b + int(np.argmax(n_leaps[b:e] > 0)) for b, e in zip(begins, stops, strict=True)]
        most = [
            b + int(np.argmax(facts["most_volume"][b:e]))
            for b, e in zip(begins, stops, strict=True)
        ]
        columns = (
            np.add.reduceat(n_leaps, begins),
            np.maximum.reduceat(np.maximum(facts["largest_leap"], leaps), begins),
            leap_time[leapt],
            facts["most_volume"][most],
            facts["most_time"][most],
            facts["first"][begins],
            facts["last"][stops - 1],
            facts["first_time"][begins],
            np.minimum.reduceat(facts["least_whole"], begins),
        )
        plain = (of.tolist() if of.ndim == 1 else map(tuple, of.tolist()) for of in columns)
        volumes = np.add.reduceat(self.volumes, begins)
        return [Extremes(*found) for found in zip(*plain, volumes, strict=True)]


def extremes_of(
    times: npt.NDArray[np.int64], high: Floats, low: Floats, volume: Floats
) -> Extremes:
    """Extremes of consecutive bars of one symbol, at least one; columns are C-contiguous."""
    n_leaps, row, largest = find_leaps(high, low, LEAP)
    bins = np.zeros(N_BINS, np.int64)
    most = count_volumes(volume, volume.view(np.int64), bins)
    return Extremes(
        n_leaps,
        float(largest),
        int(times[max(row, 0)]),
        float(volume[most]),
        int(times[most]),
        (float(high[0]), float(low[0])),
        (float(high[-1]), float(low[-1])),
        int(times[0]),
        _least_whole(high, low),
        bins,
    )


def _least_whole(high: Floats, low: Floats) -> float:
    is_whole = bool((low == np.floor(low)).all() and (high == np.floor(high)).all())
    return float(low.min()) if is_whole else 0.0
