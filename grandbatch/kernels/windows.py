"""Windowed sums, spreads, regressions, extremes and ranks of any length, by trees.

A window of 20 bars is 10 + 10, 10 is 5 + 5, 5 is 4 + 1, 4 is 2 + 2. Each of these is kept for every
bar, so a bar costs one merge a level and not one addition a lag, and the order of additions
is the window's own: no bits depend on where a run or a block begins. What is merged are means and
deviations (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
variances, 1979), so nothing cancels, and a flat window has exactly no spread. An exponential
average doubles too: over 2 m bars it is that over m, and (1 - alpha)**m of that over the m before.

`steps` are the merges, (S, 5) int64: the rows of the older part, of the newer part and of the
result in the scratch, and the lengths of the two parts. The result's row is neither of the parts'.
`window_steps` of `grandbatch.windows` makes them. `passes` of `window_passes` merge up to 8 equal
parts at once, which spares what lies between from being written, (P, 6) int64: the rows of the
parts, of what is newer than they, and of the result; how many parts there are, their length, and
that of what is newer, 0 for nothing.

All arrays are contiguous and equally long. Of outputs the items before the first whole window are
left as they are. Ranks, extremes and quantiles round nothing: any algorithm gives their bits.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

N_LEVELS = 3
"""Rows of scratch that any `steps` get by with."""
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
        out[:] = x
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
def moments(x: F64, steps: Int64Array, mean: F64, squares: F64) -> None:
    """Write the mean of each window, and the sum of squared deviations from it."""
    reach = steps[-1, 3] + steps[-1, 4] - 1 if steps.size else 0
    size = max(BLOCK, 2 * reach)
    w, q = np.empty((N_LEVELS, size + reach)), np.empty((N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        w[0, :k] = x[t - reach : t + m]
        q[0, :k] = 0.0
        last = 0
        for s in range(len(steps)):
            old, new, last = steps[s, 0], steps[s, 1], steps[s, 2]
            a, b = steps[s, 3], steps[s, 4]
            e = a + b - 1
            older, newer = w[old, a - 1 :], w[new, e:k]
            _merge(older, newer, q[old, a - 1 :], q[new, e:], a, b, w[last, e:], q[last, e:])
        mean[t : t + m] = w[last, reach:k]
        squares[t : t + m] = q[last, reach:k]


@compiled
def _merge(
    older: F64, newer: F64, q_older: F64, q_newer: F64, a: int, b: int, to: F64, q_to: F64
) -> None:
    """Merge means, and squared deviations from them, of windows of a and of b."""
    weight, share = a * float(b) / (a + b), a / (a + b)
    for i in range(len(newer)):
        apart = newer[i] - older[i]
        q_to[i] = (q_older[i] + q_newer[i]) + apart * apart * weight
        to[i] = newer[i] + (older[i] - newer[i]) * share


@compiled
def trends(x: F64, steps: Int64Array, mean: F64, squares: F64, trend: F64) -> None:
    """Do as `moments`, and sum the products of deviations of x and of the bars' numbers."""
    reach = steps[-1, 3] + steps[-1, 4] - 1 if steps.size else 0
    size = max(BLOCK, 2 * reach)
    w, q = np.empty((N_LEVELS, size + reach)), np.empty((N_LEVELS, size + reach))
    c = np.empty((N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        k = m + reach
        w[0, :k] = x[t - reach : t + m]
        q[0, :k] = 0.0
        c[0, :k] = 0.0
        last = 0
        for s in range(len(steps)):
            old, new, last = steps[s, 0], steps[s, 1], steps[s, 2]
            a, b = steps[s, 3], steps[s, 4]
            e = a + b - 1
            older, newer = w[old, a - 1 :], w[new, e:k]
            c_older, c_newer, to = c[old, a - 1 :], c[new, e:], c[last, e:]
            weight = 0.5 * a * b
            for i in range(len(newer)):
                to[i] = (c_older[i] + c_newer[i]) + (newer[i] - older[i]) * weight
            _merge(older, newer, q[old, a - 1 :], q[new, e:], a, b, w[last, e:], q[last, e:])
        mean[t : t + m] = w[last, reach:k]
        squares[t : t + m] = q[last, reach:k]
        trend[t : t + m] = c[last, reach:k]


@compiled
def products(x: F64, y: F64, steps: Int64Array, x_squares: F64, y_squares: F64, joint: F64) -> None:
    """Sum the squared deviations of x, of y, and the products of both."""
    reach = steps[-1, 3] + steps[-1, 4] - 1 if steps.size else 0
    size = max(BLOCK, 2 * reach)
    w = np.empty((5, N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        p, q, c = _products(x[t - reach : t + m], y[t - reach : t + m], steps, w)
        x_squares[t : t + m] = p[reach:]
        y_squares[t : t + m] = q[reach:]
        joint[t : t + m] = c[reach:]


@compiled
def correlations(x: F64, y: F64, steps: Int64Array, out: F64) -> None:
    """Divide the products by the roots of the squares, as `ratios` does."""
    reach = steps[-1, 3] + steps[-1, 4] - 1 if steps.size else 0
    size = max(BLOCK, 2 * reach)
    w = np.empty((5, N_LEVELS, size + reach))
    for t in range(reach, x.size, size):
        m = min(size, x.size - t)
        p, q, c = _products(x[t - reach : t + m], y[t - reach : t + m], steps, w)
        p, q = p[reach:], q[reach:]
        for i in range(m):
            p[i] = math.sqrt(p[i] * q[i])
        ratios(c[reach:], p, out[t : t + m])


@compiled
def _products(x: F64, y: F64, steps: Int64Array, w: F64) -> tuple[F64, F64, F64]:
    k = len(x)
    u, v, p, q, c = w[0], w[1], w[2], w[3], w[4]
    u[0, :k] = x
    v[0, :k] = y
    w[2:, 0, :k] = 0.0
    last = 0
    for s in range(len(steps)):
        old, new, last = steps[s, 0], steps[s, 1], steps[s, 2]
        a, b = steps[s, 3], steps[s, 4]
        e = a + b - 1
        u_old, u_new = u[old, a - 1 :], u[new, e:k]
        v_old, v_new = v[old, a - 1 :], v[new, e:k]
        c_older, c_newer, to = c[old, a - 1 :], c[new, e:], c[last, e:]
        weight = a * float(b) / (a + b)
        for i in range(len(u_new)):
            both = (u_new[i] - u_old[i]) * (v_new[i] - v_old[i])
            to[i] = (c_older[i] + c_newer[i]) + both * weight
        _merge(u_old, u_new, p[old, a - 1 :], p[new, e:], a, b, u[last, e:], p[last, e:])
        _merge(v_old, v_new, q[old, a - 1 :], q[new, e:], a, b, v[last, e:], q[last, e:])
    return p[last, :k], q[last, :k], c[last, :k]


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
def highest(x: F64, n: int, out: F64) -> None:
    """Write the greatest of each window, the greater of two that overlap; nan if it holds one."""
    size = max(BLOCK, 2 * n)
    w = np.empty((2, size + n))
    for t in range(n - 1, x.size, size):
        m = min(size, x.size - t)
        k = m + n - 1
        a, b, width = w[0], w[1], 1
        a[:k] = x[t - n + 1 : t + m]
        while 2 * width <= n:
            _greater(a, a[width:k], b[width:])
            a, b = b, a
            width *= 2
        _greater(a[width - 1 :], a[n - 1 : k], out[t:])


@compiled
def _greater(older: F64, newer: F64, out: F64) -> None:
    for i in range(len(newer)):
        keep = (older[i] > newer[i]) | (older[i] != older[i])
        out[i] = older[i] if keep else newer[i]


@compiled
def ages_of_highest(x: F64, n: int, newest: bool, out: F64) -> None:
    """Count bars since the greatest of each window: the oldest or the newest of equal ones."""
    size = max(BLOCK, 2 * n)
    w = np.empty((4, size + n))
    for t in range(n - 1, x.size, size):
        m = min(size, x.size - t)
        k = m + n - 1
        a, age, b, age_b, width = w[0], w[1], w[2], w[3], 1
        a[:k] = x[t - n + 1 : t + m]
        age[:k] = 0.0
        while 2 * width <= n:
            _older_wins(a, age, a[width:k], age[width:], width, newest, b[width:], age_b[width:])
            a, age, b, age_b = b, age_b, a, age
            width *= 2
        old, lag = width - 1, n - width
        _older_wins(a[old:], age[old:], a[n - 1 : k], age[n - 1 :], lag, newest, b, age_b)
        to, best = out[t : t + m], b[:m]
        for i in range(m):
            to[i] = age_b[i] if best[i] == best[i] else np.nan


@compiled
def _older_wins(
    x: F64, age_x: F64, y: F64, age_y: F64, lag: int, newest: bool, out: F64, age: F64
) -> None:
    """X and y are the greatest of two windows, that of x `lag` bars earlier."""
    for i in range(len(y)):
        old = (x[i] > y[i]) | ((x[i] == y[i]) & (not newest)) | (x[i] != x[i])
        out[i] = x[i] if old else y[i]
        age[i] = age_x[i] + lag if old else age_y[i]


@compiled
def ranks(x: F64, n: int, out: F64) -> None:
    """Write the newest value's mean rank among its window, from 1 on, as a share of n.

    Twice the values below it, and once those that equal it, itself too, are counted.
    """
    for t in range(n - 1, x.size, BLOCK):
        m = min(BLOCK, x.size - t)
        now, count = x[t : t + m], out[t : t + m]
        count[:] = 0.0
        lag = 0
        while lag + 5 <= n:
            _five_lags(x[t - lag - 4 :], now, count)
            lag += 5
        while lag < n:
            past = x[t - lag :]
            for i in range(m):
                y, c = now[i], count[i]
                c += 1.0 if past[i] < y else 0.0
                c += 1.0 if past[i] <= y else 0.0
                count[i] = c
            lag += 1
        for i in range(m):
            count[i] = (count[i] + 1.0) * 0.5 / n
    _forget_unknown(x, n, out)


@compiled
def _five_lags(past: F64, now: F64, count: F64) -> None:
    for i in range(len(now)):
        y, c = now[i], count[i]
        for k in range(5):
            c += 1.0 if past[i + k] < y else 0.0
            c += 1.0 if past[i + k] <= y else 0.0
        count[i] = c


@compiled
def _forget_unknown(x: F64, n: int, out: F64) -> None:
    """Write nan where a window holds one."""
    for t in range(x.size):
        if x[t] != x[t]:
            out[t : t + n] = np.nan


@compiled
def quantiles(x: F64, n: int, q: float, out: F64) -> None:
    """Interpolate in a sorted window, from which one number goes as one comes.

    nan is sorted as infinity, and put back. Adding 0 makes one of the two zeros, so that the number
    that goes is the one that came. The window lies between two infinities, from one array into
    another and back.
    """
    now, then = np.empty(n + 2), np.empty(n + 2)
    for s in (now, then):
        s[0], s[n + 1] = -np.inf, np.inf
    place = q * (n - 1)
    k = min(int(place), max(0, n - 2)) + 1
    above, part = min(k + 1, n), place - (k - 1)
    now[1] = -np.inf
    for i in range(n - 1):
        now[i + 2] = np.inf if math.isnan(x[i]) else x[i] + 0.0
    now[1 : n + 1].sort()
    for t in range(n - 1, x.size):
        new = np.inf if math.isnan(x[t]) else x[t] + 0.0
        old = -np.inf
        if t >= n:
            old = np.inf if math.isnan(x[t - n]) else x[t - n] + 0.0
        if new >= old:
            _exchange_for_greater(now, old, new, then[1 : n + 1])
        else:
            _exchange_for_less(now, old, new, then[1 : n + 1])
        now, then = then, now
        out[t] = now[k] + part * (now[above] - now[k])
    _forget_unknown(x, n, out)


@compiled
def _exchange_for_greater(s: F64, old: float, new: float, to: F64) -> None:
    """Leave what lies below the old number; the others move down as far as the new one lets them.

    Each place on its own, without looking for the two: so it takes whole vectors, and no guesses.
    """
    for i in range(len(to)):
        here, above = s[i + 1], s[i + 2]
        moved = here if here > new else new
        moved = above if above < moved else moved
        to[i] = here if here < old else moved


@compiled
def _exchange_for_less(s: F64, old: float, new: float, to: F64) -> None:
    """Do as `_exchange_for_greater`, upwards."""
    for i in range(len(to)):
        below, here = s[i], s[i + 1]
        moved = here if here < new else new
        moved = below if below > moved else moved
        to[i] = here if here > old else moved
