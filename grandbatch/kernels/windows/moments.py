"""Spreads, regressions and correlations over windows of any length, by trees.

`passes` are those of `plans.moment_passes`. Scratch is flat: series lie `span` apart, and in each
of them the plan's rows behind one another.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.windows.merging import LANES, merge_moments, merge_products, merge_trends
from grandbatch.kernels.windows.plans import N_LEVELS

F64 = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

BLOCK = 2_040


@compiled
def moments(x: F64, passes: Int64Array, mean: F64, squares: F64) -> None:
    """Write the mean of each window, and the sum of squared deviations from it."""
    reach, size, span = _sizes(passes)
    w = np.empty(2 * span)
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        _copy(x[t - reach : t + m], w[:k])
        _clear_singles(w, passes, span, 1, k)
        at = reach
        for s in range(len(passes)):
            older, lag, to, count = _places(passes[s], span, k)
            parts, a, b = passes[s, 3], passes[s, 4], passes[s, 5]
            merge_moments(w, span, older, lag, to, count, parts, a, b)
            at = passes[s, 2] * (span // N_LEVELS) + reach
        _copy(w[at : at + m], mean[t : t + m])
        _copy(w[at + span : at + span + m], squares[t : t + m])


@compiled
def trends(x: F64, passes: Int64Array, mean: F64, squares: F64, trend: F64) -> None:
    """Do as `moments`, and sum the products of deviations of x and of the bars' numbers."""
    reach, size, span = _sizes(passes)
    w = np.empty(3 * span)
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        _copy(x[t - reach : t + m], w[:k])
        _clear_singles(w, passes, span, 1, k)
        at = reach
        for s in range(len(passes)):
            older, lag, to, count = _places(passes[s], span, k)
            parts, a, b = passes[s, 3], passes[s, 4], passes[s, 5]
            merge_trends(w, span, older, lag, to, count, parts, a, b)
            at = passes[s, 2] * (span // N_LEVELS) + reach
        _copy(w[at : at + m], mean[t : t + m])
        _copy(w[at + span : at + span + m], squares[t : t + m])
        _copy(w[at + 2 * span : at + 2 * span + m], trend[t : t + m])


@compiled
def products(
    x: F64, y: F64, passes: Int64Array, x_squares: F64, y_squares: F64, joint: F64
) -> None:
    """Sum the squared deviations of x, of y, and the products of both."""
    reach, size, span = _sizes(passes)
    w = np.empty(5 * span)
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        at = _products(x[t - reach : t + m], y[t - reach : t + m], passes, w, span) + reach
        _copy(w[at + 2 * span : at + 2 * span + m], x_squares[t : t + m])
        _copy(w[at + 3 * span : at + 3 * span + m], joint[t : t + m])
        _copy(w[at + 4 * span : at + 4 * span + m], y_squares[t : t + m])


@compiled
def correlations(x: F64, y: F64, passes: Int64Array, out: F64) -> None:
    """Divide the products by the roots of the squares, as `ratios` does."""
    reach, size, span = _sizes(passes)
    w = np.empty(5 * span)
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        at = _products(x[t - reach : t + m], y[t - reach : t + m], passes, w, span) + reach
        p = w[at + 2 * span : at + 2 * span + m]
        c, q = w[at + 3 * span :], w[at + 4 * span :]
        for i in range(m):
            p[i] = math.sqrt(p[i] * q[i])
        ratios(c, p, out[t : t + m])


@compiled
def _products(x: F64, y: F64, passes: Int64Array, w: F64, span: int) -> int:
    """Merge a block; return where the row of the whole windows begins in each series."""
    k, row = len(x), 0
    _copy(x, w[:k])
    _copy(y, w[span : span + k])
    _clear_singles(w, passes, span, 2, k)
    for s in range(len(passes)):
        older, lag, to, count = _places(passes[s], span, k)
        row, parts, a, b = passes[s, 2], passes[s, 3], passes[s, 4], passes[s, 5]
        merge_products(w, span, older, lag, to, count, parts, a, b)
    return row * (span // N_LEVELS)


@compiled
def _sizes(passes: Int64Array) -> tuple[int, int, int]:
    """Return how many bars a window reaches back, those of a block, and how far series lie apart.

    Rows have room for what is merged beyond their ends, in whole vectors.
    """
    s = len(passes) - 1
    reach = passes[s, 3] * passes[s, 4] + passes[s, 5] - 1 if s >= 0 else 0
    size = max(BLOCK, 2 * reach)
    return reach, size, N_LEVELS * (size + reach + LANES)


@compiled
def _places(a_pass: Int64Array, span: int, k: int) -> tuple[int, int, int, int]:
    """Return where the oldest part is, how far the next one, where results go, and their number."""
    level, newer, row, parts, a, b = a_pass
    reach, length = parts * a + b - 1, span // N_LEVELS
    older = level * length + a - 1
    lag = a if parts > 1 else newer * length + reach - older
    return older, lag, row * length + reach, k - reach


@compiled
def _clear_singles(w: F64, passes: Int64Array, span: int, first: int, k: int) -> None:
    """Write that single bars have no spread, from series `first` on, where it is read."""
    is_read = len(passes) == 0
    for s in range(len(passes)):
        is_read |= passes[s, 3] == 1 and min(passes[s, 4], passes[s, 5]) == 1
    if is_read:
        for begin in range(first * span, w.size, span):
            w[begin : begin + k] = 0.0


@compiled
def ratios(x: F64, y: F64, out: F64) -> None:
    """Write x / y, within -1 and 1, where y is above 0, and 0 elsewhere; nan where y is."""
    for i in range(len(y)):
        ratio = x[i] / y[i]
        ratio = 1.0 if ratio > 1.0 else ratio
        ratio = -1.0 if ratio < -1.0 else ratio
        flat = np.nan if y[i] != y[i] else 0.0
        out[i] = ratio if y[i] > 0.0 else flat


@compiled
def _copy(x: F64, to: F64) -> None:
    """Do as ``to[:] = x`` does, whose words about lengths take seconds to compile."""
    for i in range(len(to)):
        to[i] = x[i]
