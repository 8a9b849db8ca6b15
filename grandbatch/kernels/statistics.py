"""Statistics of feature rows, each chunk for itself, combined in chunk order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@compiled
def row_moments(
    rows: npt.NDArray[np.float32],
    begin: Int64Array,
    stop: Int64Array,
    ends: Int64Array,
    count: Int64Array,
    mean: Float64Array,
    m2: Float64Array,
    low: Float64Array,
    high: Float64Array,
) -> None:
    """Count, mean, sum of squared deviations, smallest and largest value of each chunk's columns.

    Parameters
    ----------
    rows : (T, F) float32
    begin, stop : (R,) int64
        Runs of rows, at least one row in each.
    ends : (C,) int64
        Where each chunk's runs end; rising.
    count : (C,) int64
        Written.
    mean, m2, low, high : (C, F) float64
        Written.
    """
    n_features = rows.shape[1]
    first = 0
    for c in range(len(ends)):
        n_rows = 0
        for f in range(n_features):
            mean[c, f] = 0.0
            m2[c, f] = 0.0
            low[c, f] = np.inf
            high[c, f] = -np.inf
        for r in range(first, ends[c]):
            n_rows += stop[r] - begin[r]
            for t in range(begin[r], stop[r]):
                for f in range(n_features):
                    x = np.float64(rows[t, f])
                    mean[c, f] += x
                    low[c, f] = min(low[c, f], x)
                    high[c, f] = max(high[c, f], x)
        for f in range(n_features):
            mean[c, f] /= n_rows
        for r in range(first, ends[c]):
            for t in range(begin[r], stop[r]):
                for f in range(n_features):
                    d = np.float64(rows[t, f]) - mean[c, f]
                    m2[c, f] += d * d
        count[c] = n_rows
        first = ends[c]


@compiled
def merge_moments(
    count: int,
    mean: Float64Array,
    m2: Float64Array,
    n: Int64Array,
    mean_n: Float64Array,
    m2_n: Float64Array,
) -> int:
    """Add the moments of chunks, one after the other, to those of the rows before; return how many.

    Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
    variances, 1979, equation 2.1.

    Parameters
    ----------
    count : int
        Rows before; whole numbers and products here stay below 2**53, where doubles are exact.
    mean, m2 : (F,) float64
        Read and written.
    n : (C,) int64
        Rows of each chunk.
    mean_n, m2_n : (C, F) float64
    """
    for c in range(len(n)):
        if n[c] == 0:
            continue
        total = count + n[c]
        share, weight = n[c] / total, count * n[c] / total
        for f in range(len(mean)):
            delta = mean_n[c, f] - mean[f]
            mean[f] += delta * share
            m2[f] = m2[f] + m2_n[c, f] + delta * delta * weight
        count = total
    return count
