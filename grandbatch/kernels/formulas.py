"""What formulas of indicators need beside windows: each value from a window of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.singles import single

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

BLOCK = 2_040


@compiled
def write_finite(x: F64, out: F32) -> None:
    """Write float32, limited to its range, and 0 for what is undefined."""
    for i in range(len(out)):
        out[i] = single(x[i])


@compiled
def mean_deviations(x: F64, mean: F64, n: int, out: F64) -> None:
    """Write the mean distance of each window's values from the window's mean, oldest first."""
    for t in range(n - 1, x.size, BLOCK):
        m = min(BLOCK, x.size - t)
        middle, to = mean[t : t + m], out[t : t + m]
        to[:] = 0.0
        for lag in range(n - 1, -1, -1):
            past = x[t - lag : t - lag + m]
            for i in range(m):
                to[i] += abs(past[i] - middle[i])
        for i in range(m):
            to[i] /= n


@compiled
def recurrences(a: F64, b: F64, x: F64, levels: int, out: F64) -> None:
    """Y = a y' + b over 2**levels bars, begun at the x before them; out is after so many bars."""
    n = 1 << levels
    size = max(BLOCK, 2 * n)
    w = np.empty((4, size + n))
    for t in range(n, x.size, size):
        m = min(size, x.size - t)
        k = m + n
        f, g, f2, g2 = w[0], w[1], w[2], w[3]
        f[:k] = a[t - n : t + m]
        g[:k] = b[t - n : t + m]
        lag = 1
        for _ in range(levels):
            f1, g1, f3, g3 = f[lag:k], g[lag:k], f2[lag:k], g2[lag:k]
            for i in range(k - lag):
                g3[i] = g1[i] + f1[i] * g[i]
            for i in range(k - lag):
                f3[i] = f1[i] * f[i]
            f, g, f2, g2 = f2, g2, f, g
            lag += lag
        f, g, before, to = f[n:], g[n:], x[t - n : t + m], out[t : t + m]
        for i in range(m):
            to[i] = g[i] + f[i] * before[i]
