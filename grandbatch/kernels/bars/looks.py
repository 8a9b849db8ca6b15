"""A look over bars: leaps of the price, and how volumes are spread."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]

N_BINS = 160
"""Powers of two that volumes are counted by; the first bin is for no volume."""
LOWEST_POWER = -60
"""Bin 1 holds volumes below 2**(LOWEST_POWER + 1)."""


@compiled
def _leap(high_before: float, low_before: float, high: float, low: float, factor: float) -> float:
    """Return what a leap from a bar to the next multiplies or divides by; 0 if it is none."""
    leaps = high > factor * high_before or low * factor < low_before
    if leaps and low > 0.0 and low_before > 0.0:
        return max(high / high_before, low_before / low)
    return 0.0


@compiled
def find_leaps(high: F64, low: F64, factor: float) -> tuple[int, int, float]:
    """Find where the price leaps from a bar to the next: its high up, or its low down.

    Parameters
    ----------
    high, low : (T,) float64
        Only positive prices leap.
    factor : float
        A leap multiplies or divides by more.

    Returns
    -------
    count : int
    row : int
        The row behind the first leap; -1 where there is none.
    largest : float
        What the largest multiplies or divides by.
    """
    count, row, largest = 0, -1, 0.0
    for i in range(1, high.size):
        leap = _leap(high[i - 1], low[i - 1], high[i], low[i], factor)
        if leap > 0.0:
            count += 1
            row = i if count == 1 else row
            largest = max(leap, largest)
    return count, row, largest


@compiled
def find_leaps_between(last: F64, first: F64, factor: float, leaps: F64) -> None:
    """Find what the price leaps by from each run of bars to the next.

    Parameters
    ----------
    last, first : (n, 2) float64
        High and low of each run's last bar, and of its first.
    factor : float
        As in `find_leaps`.
    leaps : (n,) float64
        Written: what the leap before each run multiplies or divides by; 0 where there is none.
    """
    leaps[0] = 0.0
    for i in range(1, leaps.size):
        leaps[i] = _leap(last[i - 1, 0], last[i - 1, 1], first[i, 0], first[i, 1], factor)


@compiled
def count_volumes(volume: F64, bits: npt.NDArray[np.int64], bins: npt.NDArray[np.int64]) -> int:
    """Count volumes by their power of two; return the row of the first of the largest.

    Parameters
    ----------
    volume : (T,) float64
        At least one, none negative.
    bits : (T,) int64
        The same bytes.
    bins : (N_BINS,) int64
        Read and written.
    """
    most = 0
    for i in range(volume.size):
        power = (bits[i] >> 52) - (1023 + LOWEST_POWER) + 1
        place = min(max(power, 1), N_BINS - 1) if volume[i] > 0.0 else 0
        bins[place] += 1
        if volume[i] > volume[most]:
            most = i
    return most
