"""Which of two prices is reached first, found in trees of the highest highs and lowest lows.

A node of level k holds the extremes of 2**k bars, counted from the first bar of the array. Nodes
only say where to look on: what is found is a bar, so no bits depend on where the array begins, and
a barrier that is far away costs few looks more than one that is near.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]


@compiled
def first_barriers(
    high: F64, low: F64, close: F64, up: float, down: float, horizon: int, m: int
) -> F64:
    """Write 1 where the upper barrier is reached first, -1 where the lower, 0 where neither.

    Parameters
    ----------
    high, low, close : (n,) float64
    up, down : float
        Distances from the close, as shares of it.
    horizon : int
        Bars after each that count.
    m : int
        Bars to write, at most n - horizon.

    Returns
    -------
    (m,) float64
    """
    n = high.size
    levels = 1
    while (1 << levels) <= horizon and (1 << levels) < n:
        levels += 1
    begins = np.zeros(levels + 1, np.int64)
    for level in range(levels):
        begins[level + 1] = begins[level] + ((n - 1) >> level) + 1
    top, bottom = np.empty(begins[levels]), np.empty(begins[levels])
    top[:n] = high
    bottom[:n] = low
    for level in range(1, levels):
        below, count = begins[level - 1], begins[level] - begins[level - 1]
        for node in range(begins[level + 1] - begins[level]):
            one = below + 2 * node
            other = one + 1 if 2 * node + 1 < count else one
            top[begins[level] + node] = max(top[one], top[other])
            bottom[begins[level] + node] = min(bottom[one], bottom[other])
    out = np.empty(m)
    for t in range(m):
        above, under = close[t] * (1.0 + up), close[t] * (1.0 - down)
        out[t] = 0.0
        bar, last, level = t + 1, t + horizon, 0
        while bar <= last:
            node = begins[level] + (bar >> level)
            if top[node] >= above or bottom[node] <= under:
                if level == 0:
                    out[t] = -1.0 if low[bar] <= under else 1.0
                    break
                level -= 1
            else:
                bar += 1 << level
                if level + 1 < levels and (bar >> level) & 1 == 0:
                    level += 1
    return out
