"""Alpha158's bar shapes, extremes, ranks and quantiles: what compares and rounds nothing.

Blocks and trees are those of `alpha158_moments.py`. A window's sorted numbers are merged of
those of its parts by Batcher's networks, one comparator after the other over all bars of a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.alpha158_columns import LOOKBACK, PLACE, WINDOWS
from grandbatch.kernels.compilation import compiled, inlined
from grandbatch.kernels.singles import single
from grandbatch.kernels.vectors import merge_columns
from grandbatch.kernels.windows.order import count_five_lags

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Place = tuple[F32, int, int]

BLOCK = 248
"""Bars done together. No power of two: rows 4 KiB apart would fall on the same cache lines."""
ITEMS = BLOCK + LOOKBACK + 4
EPS = 1e-12
SIZES = np.array(WINDOWS, np.float64)

MAX, MIN, QTLU, QTLD, RANK = (PLACE[f] for f in ("MAX", "MIN", "QTLU", "QTLD", "RANK"))
RSV, IMAX, IMIN, IMXD = (PLACE[f] for f in ("RSV", "IMAX", "IMIN", "IMXD"))

MERGES = np.array([[0, 0, 1, 5, 10], [1, 1, 2, 10, 20], [1, 2, 3, 20, 30], [3, 3, 4, 30, 60]])
"""As in `alpha158_moments.py`."""
# where the columns of sorted numbers of 5, 10, 20 and 30 bars begin, and how many there are
AT5, AT10, AT20, AT30 = 0, 5 * ITEMS, 15 * ITEMS, 35 * ITEMS
SORTED = 65
_merge10 = merge_columns(5, 5, ITEMS)
_merge20 = merge_columns(10, 10, ITEMS)
_merge30 = merge_columns(10, 20, ITEMS)
_merge60 = merge_columns(30, 30, ITEMS, ranks=(11, 12, 47, 48))  # the neighbours of both quantiles


@inlined
def column(to: Place, number: int) -> F32:
    """Return a block's numbers of a column: (out, first bar, bars), as a dense array."""
    out, at, m = to
    return out[number, at : at + m]


@compiled
def order_columns(open_: F64, high: F64, low: F64, close: F64, first: int, out: F32) -> None:
    """Write the families of this file, of bars `first` to the last, into (157, n - first)."""
    inverse, counts = np.empty(BLOCK), np.empty(BLOCK, np.int64)
    series = np.empty((2, ITEMS))
    tree = np.empty((4, 5, ITEMS))
    flat, four = np.empty(SORTED * ITEMS), np.empty(4 * ITEMS)
    for t in range(first, close.size, BLOCK):
        m = min(BLOCK, close.size - t)
        n = m + LOOKBACK
        to = (out, t - first, m)
        c, h, l = close[t - LOOKBACK : t + m], high[t - LOOKBACK : t + m], low[t - LOOKBACK : t + m]
        for i in range(m):
            inverse[i] = 1.0 / c[i + LOOKBACK]
        _bar_shapes(open_[t : t + m], h[LOOKBACK:], l[LOOKBACK:], c[LOOKBACK:], inverse, to)
        for i in range(n):
            series[0, i] = h[i]
            series[1, i] = -l[i]  # a low is a high of bars turned upside down
        for side in range(2):
            _extremes(series[side], tree[2 * side], tree[2 * side + 1], n)
        for j in range(5):
            _ranges(c[LOOKBACK:], tree[0, j, LOOKBACK:], tree[2, j, LOOKBACK:], inverse, j, to)
            _places(tree[1, j, LOOKBACK:], tree[3, j, LOOKBACK:], SIZES[j], j, to)
        _ranks(c, counts, to)
        _quantiles(c, flat, four, inverse, to, n)


@compiled
def _bar_shapes(o: F64, h: F64, l: F64, c: F64, inverse: F64, to: Place) -> None:
    """KMID, KLEN, KMID2, KUP, KUP2, KLOW, KLOW2, KSFT, KSFT2, OPEN0, HIGH0, LOW0."""
    out, at, m = to
    stop = at + m
    mid, length, mid2 = out[0, at:stop], out[1, at:stop], out[2, at:stop]
    up, up2, low, low2 = out[3, at:stop], out[4, at:stop], out[5, at:stop], out[6, at:stop]
    shift, shift2 = out[7, at:stop], out[8, at:stop]
    o0, h0, l0 = out[9, at:stop], out[10, at:stop], out[11, at:stop]
    for i in range(m):
        by = 1.0 / o[i]
        mid[i] = single((c[i] - o[i]) * by)
        length[i] = single((h[i] - l[i]) * by)
        mid2[i] = single((c[i] - o[i]) / (h[i] - l[i] + EPS))
    for i in range(m):
        by, span, top = 1.0 / o[i], 1.0 / (h[i] - l[i] + EPS), h[i] - max(o[i], c[i])
        up[i] = single(top * by)
        up2[i] = single(top * span)
    for i in range(m):
        by, span, foot = 1.0 / o[i], 1.0 / (h[i] - l[i] + EPS), min(o[i], c[i]) - l[i]
        low[i] = single(foot * by)
        low2[i] = single(foot * span)
    for i in range(m):
        by, span, apart = 1.0 / o[i], 1.0 / (h[i] - l[i] + EPS), 2.0 * c[i] - h[i] - l[i]
        shift[i] = single(apart * by)
        shift2[i] = single(apart * span)
    for i in range(m):
        o0[i] = single(o[i] * inverse[i])
        h0[i] = single(h[i] * inverse[i])
        l0[i] = single(l[i] * inverse[i])


@compiled
def _extremes(x: F64, v: F64, age: F64, m: int) -> None:
    """v: the greatest of each window; age: how many bars ago the oldest of equal ones was."""
    for i in range(m - 5):
        best, old = x[i + 1], 4.0
        for k in range(4):
            newer = x[i + 2 + k]
            more = newer > best
            best = newer if more else best
            old = 3.0 - k if more else old
        v[0, i + 5], age[0, i + 5] = best, old
    for k in range(len(MERGES)):
        older, newer, row = MERGES[k, 0], MERGES[k, 1], MERGES[k, 2]
        _older_wins(v, age, older, newer, row, MERGES[k, 3], MERGES[k, 4], m)


@compiled
def _older_wins(
    v: F64, age: F64, older: int, newer: int, row: int, lag: int, size: int, m: int
) -> None:
    """Merge row `older`, `lag` bars earlier, and row `newer` into windows of `size`."""
    a, age_a, b, age_b = v[older, size - lag :], age[older, size - lag :], v[newer], age[newer]
    b, age_b, to, age_to = b[size:], age_b[size:], v[row, size:], age[row, size:]
    for i in range(m - size):
        old = a[i] >= b[i]
        to[i] = a[i] if old else b[i]
        age_to[i] = age_a[i] + lag if old else age_b[i]


@compiled
def _ranges(c: F64, high: F64, low: F64, inverse: F64, j: int, to: Place) -> None:
    """MAX, MIN, RSV; `low` is turned upside down."""
    top, bottom, rsv = (
        column(to, MAX + j),
        column(to, MIN + j),
        column(to, RSV + j),
    )
    for i in range(len(top)):
        top[i] = single(high[i] * inverse[i])
        bottom[i] = single(-low[i] * inverse[i])
        rsv[i] = single((c[i] + low[i]) / (high[i] + low[i] + EPS))


@compiled
def _places(age_high: F64, age_low: F64, n: float, j: int, to: Place) -> None:
    """IMAX, IMIN, IMXD."""
    i_max, i_min, i_mxd = (
        column(to, IMAX + j),
        column(to, IMIN + j),
        column(to, IMXD + j),
    )
    for i in range(len(i_max)):
        i_max[i] = (n - age_high[i]) / n
        i_min[i] = (n - age_low[i]) / n
        i_mxd[i] = (age_low[i] - age_high[i]) / n


@compiled
def _ranks(x: F64, counts: Int64Array, to: Place) -> None:
    """RANK: the values below the newest count twice, those that equal it, itself too, once."""
    m = to[2]
    now, counts = x[LOOKBACK : LOOKBACK + m], counts[:m]
    counts[:] = 0
    done = 0
    for j in range(5):
        for lag in range(done, WINDOWS[j], 5):
            count_five_lags(x[LOOKBACK - 4 - lag :], now, counts)
        done = WINDOWS[j]
        rank, scale = column(to, RANK + j), 0.5 / WINDOWS[j]
        for i in range(m):
            rank[i] = (counts[i] + 1.0) * scale


@compiled
def _quantiles(x: F64, flat: F64, four: F64, inverse: F64, to: Place, m: int) -> None:
    """QTLU and QTLD: quantiles 0.8 and 0.2, between neighbours."""
    _sort5(x, flat, m)
    for i in range(m - 10):
        _merge10(flat, AT5 + i + 5, AT5 + i + 10, flat, AT10 + i + 10)
    for i in range(m - 20):
        _merge20(flat, AT10 + i + 10, AT10 + i + 20, flat, AT20 + i + 20)
    for i in range(m - 30):
        _merge30(flat, AT10 + i + 10, AT20 + i + 30, flat, AT30 + i + 30)
    for i in range(m - 60):
        _merge60(flat, AT30 + i + 30, AT30 + i + 60, four, i)
    # 0.2 of the way up 5, 10, 20 and 30 numbers is 0.8 above number 0, 1, 3 and 5
    _between(flat, AT5 + LOOKBACK, 0.8, inverse, column(to, QTLD))
    _between(flat, AT5 + 3 * ITEMS + LOOKBACK, 0.2, inverse, column(to, QTLU))
    _between(flat, AT10 + ITEMS + LOOKBACK, 0.8, inverse, column(to, QTLD + 1))
    _between(flat, AT10 + 7 * ITEMS + LOOKBACK, 0.2, inverse, column(to, QTLU + 1))
    _between(flat, AT20 + 3 * ITEMS + LOOKBACK, 0.8, inverse, column(to, QTLD + 2))
    _between(flat, AT20 + 15 * ITEMS + LOOKBACK, 0.2, inverse, column(to, QTLU + 2))
    _between(flat, AT30 + 5 * ITEMS + LOOKBACK, 0.8, inverse, column(to, QTLD + 3))
    _between(flat, AT30 + 23 * ITEMS + LOOKBACK, 0.2, inverse, column(to, QTLU + 3))
    _between(four, 0, 0.8, inverse, column(to, QTLD + 4))
    _between(four, 2 * ITEMS, 0.2, inverse, column(to, QTLU + 4))


@compiled
def _sort5(x: F64, flat: F64, m: int) -> None:
    for i in range(m - 5):
        a, b, c, d, e = x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5]
        a, b = min(a, b), max(a, b)
        c, d = min(c, d), max(c, d)
        a, c = min(a, c), max(a, c)
        b, d = min(b, d), max(b, d)
        b, c = min(b, c), max(b, c)
        d, e = min(d, e), max(d, e)
        c, d = min(c, d), max(c, d)
        b, c = min(b, c), max(b, c)
        a, b = min(a, b), max(a, b)
        flat[i + 5] = a
        flat[i + 5 + ITEMS] = b
        flat[i + 5 + 2 * ITEMS] = c
        flat[i + 5 + 3 * ITEMS] = d
        flat[i + 5 + 4 * ITEMS] = e


@compiled
def _between(flat: F64, at: int, part: float, inverse: F64, out: F32) -> None:
    low, high = flat[at:], flat[at + ITEMS :]
    for i in range(len(out)):
        out[i] = single((low[i] + part * (high[i] - low[i])) * inverse[i])
