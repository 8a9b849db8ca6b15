"""Overlapping windows back to the rows they were cut from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled


@compiled
def pack_windows(
    windows: npt.NDArray[np.float32],
    first_row: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    start: npt.NDArray[np.int32],
) -> None:
    """Copy each distinct row of some windows once.

    Parameters
    ----------
    windows : (C, L, F) float32
        The first n are the windows, in order.
    first_row : (n,) int64
        Row number of each window's first row, rising. Windows whose row numbers overlap share
        those rows.
    rows : (R, F) float32
        Overwritten from its first row on; must have room.
    start : (n,) int32
        Overwritten with each window's first row in `rows`.
    """
    length = windows.shape[1]
    width = windows.shape[2]
    end = 0
    for window in range(first_row.size):
        new = length
        if window > 0:
            new = min(length, first_row[window] - first_row[window - 1])
        for row in range(length - new, length):
            for column in range(width):
                rows[end, column] = windows[window, row, column]
            end += 1
        start[window] = end - length
