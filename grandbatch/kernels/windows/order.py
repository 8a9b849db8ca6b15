"""Extremes, ranks and quantiles of windows: they round nothing, any algorithm gives their bits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
Int64Array = npt.NDArray[np.int64]

BLOCK = 2_040
N_CODES = 1 << 16
CODED = (40, 16_000)
"""Lengths of windows for which ranks count codes: shorter ones don't pay for making these, and of
longer ones the counts, up to two a value, or places in a block, would be beyond an int16."""
REST = 8
"""Blocks until codes are tried again, where they told too few values apart."""


@compiled
def highest(x: F64, n: int, out: F64) -> None:
    """Write the greatest of each window, the greater of two that overlap; nan if it holds one."""
    size = max(BLOCK, 2 * n)
    w = np.empty((2, size + n))
    for t in range(n - 1, x.size, size):
        m = min(size, x.size - t)
        k = m + n - 1
        a, b, width = w[0], w[1], 1
        _copy(x[t - n + 1 : t + m], a[:k])
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
        _copy(x[t - n + 1 : t + m], a[:k])
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
    is_long = CODED[0] <= n <= CODED[1] and x.size >= BLOCK
    latest = np.empty(N_CODES if is_long else 0, np.int16)
    codes, short = np.empty(BLOCK + n, np.int16), np.empty(BLOCK, np.int16)
    counts = np.empty(BLOCK, np.int64)
    n_plain = 0
    for t in range(n - 1, x.size, BLOCK):
        m = min(BLOCK, x.size - t)
        part, count = x[t - n + 1 : t + m], counts[:m]
        is_counted = False
        if is_long and n_plain == 0:
            is_counted = _count_codes(part, n, latest, codes, short, count)
            n_plain = 0 if is_counted else REST
        if not is_counted:
            _count_values(part, n, count)
            n_plain = max(0, n_plain - 1)
        to = out[t : t + m]
        for i in range(m):
            to[i] = (count[i] + 1.0) * 0.5 / n
    _forget_unknown(x, n, out)


@compiled
def _count_values(x: F64, n: int, count: Int64Array) -> None:
    now = x[n - 1 :]
    count[:] = 0
    lag = 0
    while lag + 5 <= n:
        count_five_lags(x[n - 1 - lag - 4 :], now, count)
        lag += 5
    while lag < n:
        past = x[n - 1 - lag :]
        for i in range(len(now)):
            count[i] += np.int64(past[i] < now[i]) + np.int64(past[i] <= now[i])
        lag += 1


@compiled
def count_five_lags(past: F64, now: F64, count: Int64Array) -> None:
    """Count, twice, values of five lags below each of `now`, and once those that equal it."""
    for i in range(len(now)):
        y, c = now[i], count[i]
        for k in range(5):
            c += np.int64(past[i + k] < y)
            c += np.int64(past[i + k] <= y)
        count[i] = c


@compiled
def _count_codes(x: F64, n: int, latest: I16, codes: I16, short: I16, count: Int64Array) -> bool:
    """Count in codes of 16 bits, four times as many at once; False where they tell too few apart.

    A code is a value's place between the block's least and greatest, so a greater code is a greater
    value. Values of a code that others share are counted themselves. `latest` is a table of codes:
    which item had it last, or -1 where its items differ.
    """
    k, m = len(x), len(count)
    codes, short = codes[:k], short[:m]
    _codes(x, codes)
    for i in range(k):
        latest[codes[i] + N_CODES // 2] = i
    n_mixed = 0
    for i in range(k):
        code = codes[i] + N_CODES // 2
        if latest[code] < 0 or x[latest[code]] != x[i]:
            latest[code] = -1
            n_mixed += 1
    tells = 8 * n_mixed <= k
    if tells:
        short[:] = 0
        lag = 0
        while lag + 5 <= n:
            _five_codes(codes[n - 1 - lag - 4 :], codes[n - 1 :], short)
            lag += 5
        while lag < n:
            _one_code(codes[n - 1 - lag :], codes[n - 1 :], short)
            lag += 1
        for i in range(m):
            count[i] = short[i]
        if n_mixed:
            for i in range(m):
                if latest[codes[n - 1 + i] + N_CODES // 2] < 0:
                    count[i] = _count_of(x[i : i + n])
    return tells


@compiled
def _codes(x: F64, codes: I16) -> None:
    """Write int16 that never fall where x rises: 0 to 65,535 of the way up, less 32,768."""
    least, greatest = np.inf, -np.inf
    for i in range(len(x)):
        least = x[i] if x[i] < least else least
        greatest = x[i] if x[i] > greatest else greatest
    scale = (N_CODES - 1.0) / (greatest - least)
    for i in range(len(x)):
        place = (x[i] - least) * scale
        place = place if place > 0.0 else 0.0  # nan too, of equal or infinite values
        place = place if place < N_CODES - 1.0 else N_CODES - 1.0
        codes[i] = np.int16(np.int32(place) - N_CODES // 2)


@compiled
def _five_codes(past: I16, now: I16, count: I16) -> None:
    for i in range(len(now)):
        y, c = now[i], count[i]
        for k in range(5):
            c = np.int16(c + np.int16(past[i + k] < y))
            c = np.int16(c + np.int16(past[i + k] <= y))
        count[i] = c


@compiled
def _one_code(past: I16, now: I16, count: I16) -> None:
    for i in range(len(now)):
        c = np.int16(count[i] + np.int16(past[i] < now[i]))
        count[i] = np.int16(c + np.int16(past[i] <= now[i]))


@compiled
def _count_of(x: F64) -> int:
    """Count of one window."""
    y, c = x[len(x) - 1], np.int64(0)
    for k in range(len(x)):
        c += np.int64(x[k] < y) + np.int64(x[k] <= y)
    return int(c)


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


@compiled
def _copy(x: F64, to: F64) -> None:
    """Do as ``to[:] = x`` does, whose words about lengths take seconds to compile."""
    for i in range(len(to)):
        to[i] = x[i]
