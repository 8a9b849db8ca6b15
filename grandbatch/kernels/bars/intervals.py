"""Intervals of a clock: where each time's begins, and what the bars of one sum up to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

FIRST, LAST, GREATEST, LEAST, SUM = range(5)
"""What a column of a bar may be made of, of its rows in order."""

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_MONDAY = 4
"""Days from 1970, a Thursday, to its first Monday."""


@compiled
def interval_starts(
    times: Int64Array,
    changes: Int64Array,
    offsets: Int64Array,
    length: int,
    shift: int,
    ahead: int,
    out: Int64Array,
) -> None:
    """Write where the interval of each time begins.

    A day's intervals follow each other from the instant at which clocks pass midnight and `shift`,
    until they pass it again: the last may be shorter. So none lasts longer than `length`.

    Parameters
    ----------
    times : (n,) int64
        Nanoseconds since 1970 UTC, rising.
    changes, offsets : (k,) int64
        Seconds since 1970 UTC from which each offset holds, the first from before all times on;
        seconds that local time is ahead.
    length : int
        Of an interval, in nanoseconds. If more than a day, a whole number of days: these are
        counted from Monday, 5 January 1970.
    shift : int
        Nanoseconds after midnight, below a day.
    ahead : int
        Nanoseconds that the clock is ahead of local time besides.
    out : (n,) int64
        Overwritten with nanoseconds since 1970 UTC.
    """
    days = max(1, length // _DAY)
    place = 0
    for i in range(times.size):
        time = times[i]
        second = time // _SECOND
        while place + 1 < changes.size and changes[place + 1] <= second:
            place += 1
        wall = time + offsets[place] * _SECOND + ahead
        if place:
            # an hour that clocks show twice belongs to the day that they have begun already
            passed = (changes[place] + offsets[place - 1]) * _SECOND + ahead
            wall = max(wall, passed)
        day = (wall - shift) // _DAY
        day = (day - _MONDAY) // days * days + _MONDAY
        mark = day * _DAY + shift - ahead
        now = place
        while now and mark - offsets[now - 1] * _SECOND < changes[now] * _SECOND:
            now -= 1
        begin = mark - offsets[now] * _SECOND
        if now:
            begin = max(begin, changes[now] * _SECOND)  # clocks skipped it
        out[i] = begin + (time - begin) // length * length


@compiled
def gather_rows(
    starts: Int64Array,
    values: Float64Array,
    ways: Int64Array,
    out_starts: Int64Array,
    out: Float64Array,
    counts: Int64Array,
    n_out: int,
) -> int:
    """Add rows to the bars of their intervals; return how many bars there are then.

    The last bar goes on where a row has its interval: rows may come in any pieces.

    Parameters
    ----------
    starts : (n,) int64
        Where each row's interval begins, rising.
    values : (C, n) float64
    ways : (C,) int64
        `FIRST`, `LAST`, `GREATEST`, `LEAST` or `SUM`: what a column of a bar is made of.
    out_starts, out, counts : (m,) int64, (C, m) float64, (m,) int64
        Bars so far, and how many rows each has; at least n places are behind the first `n_out`.
    n_out : int
        Bars so far.
    """
    before = n_out
    for i in range(starts.size):
        if n_out == 0 or out_starts[n_out - 1] != starts[i]:
            out_starts[n_out] = starts[i]
            counts[n_out] = 0
            n_out += 1
        counts[n_out - 1] += 1
    for column in range(ways.size):
        way = ways[column]
        at = max(before - 1, 0)
        is_new = before == 0
        for i in range(starts.size):
            if out_starts[at] != starts[i]:
                at += 1
                is_new = True
            value = values[column, i]
            if is_new:
                out[column, at] = value
                is_new = False
            elif way == LAST:
                out[column, at] = value
            elif way == GREATEST:
                out[column, at] = max(out[column, at], value)
            elif way == LEAST:
                out[column, at] = min(out[column, at], value)
            elif way == SUM:
                out[column, at] += value
    return n_out
