"""Sums and averages over windows of any length, exponential ones too, by trees.

`steps` and `passes` are those of `plans.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.windows.plans import N_LEVELS

F64 = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

BLOCK = 2_040


@compiled
def decayed_sums(
    x: F64, weight: float, steps: Int64Array, factors: F64, has_rest: bool, rest: float, out: F64
) -> None:
    """Sum weight * keep**age * x over each window; with a rest, and `rest` times the value before.

    `factors` are keep to the power of each step's newer part.
    """
    n = steps[-1, 3] + steps[-1, 4] if steps.size else 1
    reach = n if has_rest else n - 1
    size = max(BLOCK, 2 * n)
    w = np.empty((N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        part, first = x[t - reach : t + m], w[0]
        for i in range(k):
            first[i] = weight * part[i]
        last = 0
        for s in range(len(steps)):
            a, b, last = steps[s, 3], steps[s, 4], steps[s, 2]
            older, newer, to = w[steps[s, 0], a - 1 :], w[steps[s, 1], a + b - 1 :], w[last]
            to, factor = to[a + b - 1 :], factors[s]
            for i in range(k - (a + b - 1)):
                to[i] = newer[i] + factor * older[i]
        total, to = w[last, reach:], out[t : t + m]
        if has_rest:
            for i in range(m):
                to[i] = total[i] + rest * part[i]
        else:
            for i in range(m):
                to[i] = total[i]


@compiled
def means(x: F64, passes: Int64Array, out: F64) -> None:
    """Write the mean of each window; that of equal numbers is the number."""
    if passes.size == 0:
        _copy(x, out[:])
        return
    reach = passes[-1, 3] * passes[-1, 4] + passes[-1, 5] - 1
    size = max(BLOCK, 2 * reach)
    w = np.empty((N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        # the first pass reads the series itself, the last one writes the output itself
        source = x[t - reach : t + m]
        for s in range(len(passes)):
            level, total, row = passes[s, 0], passes[s, 1], passes[s, 2]
            parts, a, b = passes[s, 3], passes[s, 4], passes[s, 5]
            e = parts * a + b - 1
            to = w[row, e:k] if s < len(passes) - 1 else out[t : t + m]
            older = source if a == 1 else w[level, :k]
            if b:
                _mean(older[a - 1 :], (source if b == 1 else w[total, :k])[e:], a, b, to)
            else:
                _mean_of_parts(older[a - 1 :], parts, a, to)


@compiled
def _mean(older: F64, newer: F64, a: int, b: int, to: F64) -> None:
    share = a / (a + b)
    for i in range(len(newer)):
        to[i] = newer[i] + (older[i] - newer[i]) * share


@compiled
def _mean_of_parts(x: F64, parts: int, a: int, to: F64) -> None:
    """Average 2, 3, 4, 5 or 8 means of windows of `a` each, one after the other.

    Halves and quarters round once a sum, so that 4 parts have the bits of 2 of 2.
    """
    m = len(to)
    x1, x2, x3, x4 = x[a:], x[2 * a :], x[3 * a :], x[4 * a :]
    if parts == 2:
        for i in range(m):
            to[i] = 0.5 * (x[i] + x1[i])
    elif parts == 3:
        for i in range(m):
            newer = 0.5 * (x1[i] + x2[i])
            to[i] = newer + (x[i] - newer) * (1.0 / 3.0)
    elif parts == 4:
        for i in range(m):
            to[i] = 0.25 * ((x[i] + x1[i]) + (x2[i] + x3[i]))
    elif parts == 5:
        for i in range(m):
            newer = 0.25 * ((x1[i] + x2[i]) + (x3[i] + x4[i]))
            to[i] = newer + (x[i] - newer) * 0.2
    else:
        x5, x6, x7 = x[5 * a :], x[6 * a :], x[7 * a :]
        for i in range(m):
            older = (x[i] + x1[i]) + (x2[i] + x3[i])
            to[i] = 0.125 * (older + ((x4[i] + x5[i]) + (x6[i] + x7[i])))


@compiled
def _copy(x: F64, to: F64) -> None:
    """Do as ``to[:] = x`` does, whose words about lengths take seconds to compile."""
    for i in range(len(to)):
        to[i] = x[i]
