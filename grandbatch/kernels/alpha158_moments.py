"""Alpha158's means, spreads, regressions, correlations and shares, by trees of five windows.

60 is 30 + 30, 30 is 10 + 20, 20 is 10 + 10, 10 is 5 + 5: each level is one of the windows wanted,
so nothing is computed for the tree alone (`windows.py` says why that keeps bits and digits). Sums
are kept, not means: those of 10 to 60 equal numbers are exact multiples of that of 5, so that flat
windows have exactly no spread here too.

Bars go in blocks that stay in the nearest caches. Arrays of a block begin 60 bars before it: item j
belongs to bar t - 60 + j. Nothing calls libm, so the bits are those of any processor.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.alpha158_columns import LOOKBACK, PLACE, WINDOWS
from grandbatch.kernels.compilation import compiled, inlined
from grandbatch.kernels.singles import single

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Place = tuple[F32, int, int]

BLOCK = 248
"""Bars done together. No power of two: rows 4 KiB apart would fall on the same cache lines."""
ITEMS = BLOCK + LOOKBACK + 4
EPS = 1e-12
SQRT_HALF = 0x3FE6A09E667F3BCD
"""The bits of the root of 1/2."""
MANTISSA = 0x000FFFFFFFFFFFFF
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

SIZES = np.array(WINDOWS, np.float64)
SPREADS = SIZES * (SIZES * SIZES - 1.0) / 12.0
"""Sums of squared deviations of 1 to n from their mean."""
MERGES = np.array([[0, 0, 1, 5, 10], [1, 1, 2, 10, 20], [1, 2, 3, 20, 30], [3, 3, 4, 30, 60]])
"""Rows of the older window, of the newer one and of both; the newer one's bars, and those of both.

Tables, and not code for each: that would take seconds more to compile.
"""
NEWER = np.array([1.0, 1.0, 0.5, 1.0])
"""What a sum of the newer window counts beside one of the older."""
WEIGHTS, SLANTS = np.array([0.1, 0.05, 1.0 / 15.0, 1.0 / 60.0]), np.array([2.5, 5.0, 10.0, 15.0])
"""What differences of the sums weigh in the spread, and in the trend, of both."""
ROC, MA, STD, BETA, RSQR, RESI = (PLACE[f] for f in ("ROC", "MA", "STD", "BETA", "RSQR", "RESI"))
CORR, CORD, VMA, VSTD, WVMA = (PLACE[f] for f in ("CORR", "CORD", "VMA", "VSTD", "WVMA"))
SHARES = np.array([PLACE["CNTP"], PLACE["SUMP"], PLACE["VSUMP"]])
"""Where ups begin; downs and differences follow them."""


@inlined
def column(to: Place, number: int) -> F32:
    """Return a block's numbers of a column: (out, first bar, bars), as a dense array."""
    out, at, m = to
    return out[number, at : at + m]


@compiled
def moment_columns(close: F64, volume: F64, first: int, out: F32) -> None:
    """Write the families of this file, of bars `first` to the last, into (157, n - first)."""
    work, series = np.empty((12, ITEMS)), np.empty((2, ITEMS))
    tree = np.empty((6, 5, ITEMS))
    for t in range(first, close.size, BLOCK):
        m = min(BLOCK, close.size - t)
        n = m + LOOKBACK
        # copies, so that all helpers are compiled for one type of array, and not for read-only too
        c, v = series[0, :n], series[1, :n]
        for i in range(n):
            c[i] = close[t - LOOKBACK + i]
            v[i] = volume[t - LOOKBACK + i]
        to = (out, t - first, m)
        inverse, turnover = work[0, :m], work[1, :m]
        for i in range(m):
            inverse[i] = 1.0 / c[i + LOOKBACK]
            turnover[i] = 1.0 / (v[i + LOOKBACK] + EPS)
        _changes(c, v, work[2:])
        _levels(c, v, inverse, work[2:], tree, to)
        _shares_of_bars(work[2:], tree, to, n)
        _volumes(v, turnover, work[2:], tree, to)


@compiled
def _changes(c: F64, v: F64, work: F64) -> None:
    """Fill the series that windows are taken of.

    Rows of `work`: 0 up, 1 down, 2 rise, 3 fall, 4 and 5 those of the volume, 6 return by volume,
    7 return, 8 growth of the volume and 1. Item 0 has no bar before it, and is never read.
    """
    up, down, rise, fall = work[0], work[1], work[2], work[3]
    v_rise, v_fall, moved, change, grown = work[4], work[5], work[6], work[7], work[8]
    m = len(c) - 1
    for i in range(m):
        up[i + 1] = 1.0 if c[i + 1] > c[i] else 0.0
        down[i + 1] = 1.0 if c[i + 1] < c[i] else 0.0
        apart = c[i + 1] - c[i]
        rise[i + 1] = apart if apart > 0.0 else 0.0
        fall[i + 1] = -apart if apart < 0.0 else 0.0
    for i in range(m):
        apart = v[i + 1] - v[i]
        v_rise[i + 1] = apart if apart > 0.0 else 0.0
        v_fall[i + 1] = -apart if apart < 0.0 else 0.0
    for i in range(m):
        r = (c[i + 1] - c[i]) / c[i]  # c / c before, less a 1 that a correlation doesn't see
        change[i + 1] = r
        moved[i + 1] = abs(r) * v[i + 1]
    for i in range(m):
        growth = v[i + 1] / v[i]
        grown[i + 1] = (growth if v[i] > 0.0 else 0.0) + 1.0


@compiled
def _levels(c: F64, v: F64, inverse: F64, work: F64, tree: F64, to: Place) -> None:
    """ROC, MA, STD, BETA, RSQR, RESI; and correlations.

    CORR is of the close and ln(volume + 1), CORD of returns and ln(growth of the volume + 1).
    """
    n = len(c)
    s, q, trend, u, uq, joint = tree[0], tree[1], tree[2], tree[3], tree[4], tree[5]
    _sums(c, s, n)
    _squares(c, s, q, n)
    _trends(c, s, trend, n)
    for j in range(5):
        size = SIZES[j]
        _scaled(c[LOOKBACK - WINDOWS[j] :], 1.0, inverse, column(to, ROC + j))
        _scaled(s[j, LOOKBACK:], 1.0 / size, inverse, column(to, MA + j))
        _spread(q[j, LOOKBACK:], size, inverse, column(to, STD + j))
        _regression(
            c[LOOKBACK:], s[j, LOOKBACK:], q[j, LOOKBACK:], trend[j, LOOKBACK:], size, SPREADS[j],
            inverse, column(to, BETA + j), column(to, RSQR + j), column(to, RESI + j),
        )  # fmt: skip
    plus, logs = work[9], trend[0]
    for i in range(n):
        plus[i] = v[i] + 1.0
    # item 0 of the changes has none before it: as any number, it is in no window that is written
    work[7, 0], work[8, 0] = 0.0, 1.0
    for pair in range(2):
        x, y, family = (c, plus, CORR) if pair == 0 else (work[7, :n], work[8], CORD)
        if pair == 1:
            _sums(x, s, n)
            _squares(x, s, q, n)
        natural_logs(y, logs, n)
        _sums(logs, u, n)
        _squares(logs, u, uq, n)
        _products(x, logs, s, u, joint, n)
        for j in range(5):
            _correlation(
                joint[j, LOOKBACK:], q[j, LOOKBACK:], uq[j, LOOKBACK:], column(to, family + j)
            )


@compiled
def _shares_of_bars(work: F64, tree: F64, to: Place, n: int) -> None:
    """CNTP, CNTN, CNTD; SUMP, SUMN, SUMD; VSUMP, VSUMN, VSUMD: ups, downs and the difference."""
    a, b = tree[0], tree[1]
    for pair in range(3):
        _sums(work[2 * pair], a, n)
        _sums(work[2 * pair + 1], b, n)
        for j in range(5):
            first = SHARES[pair] + j
            up, down = a[j, LOOKBACK:], b[j, LOOKBACK:]
            p, q, d = column(to, first), column(to, first + 5), column(to, first + 10)
            total = SIZES[j] if pair == 0 else np.nan
            for i in range(len(p)):
                by = 1.0 / (total if total > 0.0 else up[i] + down[i] + EPS)
                p[i] = single(up[i] * by)
                q[i] = single(down[i] * by)
                d[i] = single((up[i] - down[i]) * by)


@compiled
def _volumes(v: F64, turnover: F64, work: F64, tree: F64, to: Place) -> None:
    """VMA, VSTD, WVMA."""
    n = len(v)
    s, q = tree[0], tree[1]
    for weighted in range(2):
        x = work[6, :n] if weighted else v
        _sums(x, s, n)
        _squares(x, s, q, n)
        for j in range(5):
            size, total, squares = SIZES[j], s[j, LOOKBACK:], q[j, LOOKBACK:]
            if not weighted:
                _scaled(total, 1.0 / size, turnover, column(to, VMA + j))
                _spread(squares, size, turnover, column(to, VSTD + j))
                continue
            wvma = column(to, WVMA + j)
            for i in range(len(wvma)):
                spread = math.sqrt(squares[i] * (1.0 / (size - 1.0)))
                wvma[i] = single(spread / (total[i] * (1.0 / size) + EPS))


@compiled
def _sums(x: F64, s: F64, m: int) -> None:
    """s[0..4]: sums of the last 5, 10, 20, 30, 60 items."""
    s5 = s[0]
    for i in range(m - 5):
        s5[i + 5] = ((x[i + 1] + x[i + 2]) + (x[i + 3] + x[i + 4])) + x[i + 5]
    for k in range(len(MERGES)):
        a, b, to = _parts(s, k)
        for i in range(m - MERGES[k, 4]):
            to[i] = a[i] + b[i]


@inlined
def _parts(s: F64, k: int) -> tuple[F64, F64, F64]:
    """Return merge k's older windows, newer ones, and the place of what both make."""
    lag, size = MERGES[k, 3], MERGES[k, 4]
    return s[MERGES[k, 0], size - lag :], s[MERGES[k, 1], size:], s[MERGES[k, 2], size:]


@compiled
def _squares(x: F64, s: F64, q: F64, m: int) -> None:
    """q: sums of (x - mean)**2 over each window, from the sums s."""
    q5 = q[0]
    for i in range(m - 5):
        a, b, c, d, e = x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5]
        ab, cd = a + b, c + d
        pairs = 0.5 * ((a - b) * (a - b) + (c - d) * (c - d)) + 0.25 * ((ab - cd) * (ab - cd))
        last = 0.25 * (ab + cd) - e
        q5[i + 5] = pairs + 0.8 * (last * last)
    for k in range(len(MERGES)):
        (older, newer, _), (q_older, q_newer, to) = _parts(s, k), _parts(q, k)
        part, weight = NEWER[k], WEIGHTS[k]
        for i in range(m - MERGES[k, 4]):
            d = older[i] - part * newer[i]
            to[i] = (q_older[i] + q_newer[i]) + d * d * weight


@compiled
def _products(x: F64, y: F64, s: F64, u: F64, q: F64, m: int) -> None:
    """q: sums of (x - mean x)(y - mean y) over each window, from the sums s of x and u of y."""
    q5 = q[0]
    for i in range(m - 5):
        a, b, c, d, e = x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5]
        f, g, h, k, l = y[i + 1], y[i + 2], y[i + 3], y[i + 4], y[i + 5]
        ab, cd, fg, hk = a + b, c + d, f + g, h + k
        pairs = 0.5 * ((a - b) * (f - g) + (c - d) * (h - k)) + 0.25 * ((ab - cd) * (fg - hk))
        q5[i + 5] = pairs + 0.8 * ((0.25 * (ab + cd) - e) * (0.25 * (fg + hk) - l))
    for j in range(len(MERGES)):
        (older, newer, _), (u_older, u_newer, _) = _parts(s, j), _parts(u, j)
        q_older, q_newer, to = _parts(q, j)
        part, weight = NEWER[j], WEIGHTS[j]
        for i in range(m - MERGES[j, 4]):
            both = (older[i] - part * newer[i]) * (u_older[i] - part * u_newer[i])
            to[i] = (q_older[i] + q_newer[i]) + both * weight


@compiled
def _trends(x: F64, s: F64, c: F64, m: int) -> None:
    """c: sums of (number - mean number)(x - mean x), the bars of each window being numbered."""
    c5 = c[0]
    for i in range(m - 5):
        c5[i + 5] = 2.0 * (x[i + 5] - x[i + 1]) + (x[i + 4] - x[i + 2])
    for k in range(len(MERGES)):
        (older, newer, _), (c_older, c_newer, to) = _parts(s, k), _parts(c, k)
        part, weight = NEWER[k], SLANTS[k]
        for i in range(m - MERGES[k, 4]):
            to[i] = (c_older[i] + c_newer[i]) + (part * newer[i] - older[i]) * weight


@compiled
def natural_logs(x: F64, out: F64, m: int) -> None:
    """Write natural logarithms of positive normal numbers, by arithmetic alone.

    x = 2**k * f, f from the root of 1/2 to that of 2; ln f = 2 artanh(z), z = (f - 1) / (f + 1), by
    its series to z**21; the rest is below 1e-17 of it.
    """
    bits, made = x.view(np.int64), out.view(np.int64)
    for i in range(m):
        made[i] = ((bits[i] - SQRT_HALF) & MANTISSA) + SQRT_HALF
    for i in range(m):
        exponent = float((bits[i] - SQRT_HALF) >> 52)
        f = out[i]
        z = (f - 1.0) / (f + 1.0)
        w = z * z
        p = 1.0 / 19.0 + w * (1.0 / 21.0)
        p = 1.0 / 15.0 + w * (1.0 / 17.0 + w * p)
        p = 1.0 / 11.0 + w * (1.0 / 13.0 + w * p)
        p = 1.0 / 7.0 + w * (1.0 / 9.0 + w * p)
        p = 1.0 / 3.0 + w * (1.0 / 5.0 + w * p)
        out[i] = exponent * LN2_HIGH + (2.0 * z + (2.0 * z * (w * p) + exponent * LN2_LOW))


@compiled
def _scaled(x: F64, factor: float, by: F64, out: F32) -> None:
    for i in range(len(out)):
        out[i] = single(x[i] * factor * by[i])


@compiled
def _spread(q: F64, n: float, by: F64, out: F32) -> None:
    for i in range(len(out)):
        out[i] = single(math.sqrt(q[i] * (1.0 / (n - 1.0))) * by[i])


@compiled
def _regression(
    c: F64, s: F64, q: F64, trend: F64,
    n: float, sxx: float, inverse: F64, beta: F32, rsqr: F32, resi: F32,
) -> None:  # fmt: skip
    for i in range(len(beta)):
        slope = trend[i] * (1.0 / sxx)
        beta[i] = single(slope * inverse[i])
        resi[i] = single(((c[i] - s[i] * (1.0 / n)) - slope * (0.5 * (n - 1.0))) * inverse[i])
        share = trend[i] * slope / q[i]
        rsqr[i] = (share if share < 1.0 else 1.0) if q[i] > 0.0 else 0.0


@compiled
def _correlation(xy: F64, xx: F64, yy: F64, out: F32) -> None:
    for i in range(len(out)):
        size = math.sqrt(xx[i] * yy[i])
        r = xy[i] / size
        r = r if r < 1.0 else 1.0
        r = r if r > -1.0 else -1.0
        out[i] = r if (size > 0.0) & (size < np.inf) else 0.0
