"""Columns of numbers into rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.vectors import transpose_8x8

F32 = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@compiled
def write_rows(columns: F32, order: Int64Array, out: F32) -> None:
    """out[i, f] = columns[order[f], i], in squares of 8 so that both sides keep to the caches.

    Where the width is no multiple of 8, the last square overlaps the one before it.

    Parameters
    ----------
    columns : (C, m) float32, C-contiguous
    order : (F,) int64
        Numbers below C.
    out : (m, F) float32, C-contiguous
        Overwritten.
    """
    m, width = out.shape
    source, target = columns.reshape(-1), out.reshape(-1)
    starts = np.empty(max(width, 8), np.int64)
    for f in range(len(starts)):
        starts[f] = order[f if f < width else 0] * m
    last = max(0, width - 8)
    # of less than 8 columns a square's rows reach into the next ones, which are written later
    whole = max(0, m - 7 // width) // 8 * 8
    for i in range(0, whole, 8):
        for f in range(0, last, 8):
            transpose_8x8(source, starts, f, target, i * width + f, width)
        transpose_8x8(source, starts, last, target, i * width + last, width)
        starts += 8
    for f in range(width):
        column, to = columns[order[f]], target[f:]
        for i in range(whole, m):
            to[i * width] = column[i]
