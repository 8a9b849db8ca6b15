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
        leaps = high[i] > factor * high[i - 1] or low[i] * factor < low[i - 1]
        if leaps and low[i] > 0.0 and low[i - 1] > 0.0:
            count += 1
            leap = max(high[i] / high[i - 1], low[i - 1] / low[i])
            row = i if count == 1 else row
            largest = max(leap, largest)
    return count, row, largest


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
