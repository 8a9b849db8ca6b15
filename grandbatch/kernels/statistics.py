"""Statistics of feature rows, each chunk for itself, combined in chunk order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

Float64Array = npt.NDArray[np.float64]


@compiled
def row_moments(
    rows: npt.NDArray[np.float32],
    mean: Float64Array,
    m2: Float64Array,
    low: Float64Array,
    high: Float64Array,
) -> None:
    """Mean, sum of squared deviations, smallest and largest value of each column.

    Parameters
    ----------
    rows : (T, F) float32, T >= 1
    mean, m2, low, high : (F,) float64
        Written.
    """
    n_rows, n_features = rows.shape
    for f in range(n_features):
        mean[f] = 0.0
        m2[f] = 0.0
        low[f] = np.inf
        high[f] = -np.inf
    for t in range(n_rows):
        for f in range(n_features):
            x = np.float64(rows[t, f])
            mean[f] += x
            low[f] = min(low[f], x)
            high[f] = max(high[f], x)
    for f in range(n_features):
        mean[f] /= n_rows
    for t in range(n_rows):
        for f in range(n_features):
            d = np.float64(rows[t, f]) - mean[f]
            m2[f] += d * d


def merge_moments(
    count: int,
    mean: Float64Array,
    m2: Float64Array,
    n: int,
    mean_n: Float64Array,
    m2_n: Float64Array,
) -> tuple[int, Float64Array, Float64Array]:
    """Combine the moments of two sets of rows.

    Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
    variances, 1979, equation 2.1.
    """
    if not n:
        return count, mean, m2
    total = count + n
    delta = mean_n - mean
    return total, mean + delta * (n / total), m2 + m2_n + delta * delta * (count * n / total)
