"""What there is to tell of bars that follow each other: found where they are in memory anyway."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.looks import N_BINS, count_volumes, find_leaps

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

    def joined(self, following: Extremes) -> Extremes:
        """Join with the bars behind."""
        high, low = np.array([self.last, following.first]).T
        between, _, leap = find_leaps(high, low, LEAP)
        leap_time = following.first_time if between else following.leap_time
        volumes = [
            (self.most_volume, self.most_time),
            (following.most_volume, following.most_time),
        ]
        most = max(volumes, key=lambda entry: entry[0])
        return Extremes(
            self.n_leaps + between + following.n_leaps,
            max(self.largest_leap, leap, following.largest_leap),
            self.leap_time if self.n_leaps else leap_time,
            *most,
            self.first,
            following.last,
            self.first_time,
            min(self.least_whole, following.least_whole),
            self.volumes + following.volumes,
        )


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
