"""Loops over the rows and the bytes of a block of bars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

ACCEPTED = 0
UNPARSEABLE = 1
MISSING = 2
NOT_FINITE = 3
NON_POSITIVE_PRICE = 4
OHLC_INCONSISTENT = 5
NEGATIVE_VOLUME = 6
DUPLICATE_TIMESTAMP = 7
OUT_OF_ORDER = 8

LEFT_OUT = 255
"""No reason: the row is none of those asked for."""

NEVER = np.iinfo(np.int64).min
"""Stands for "no bar yet"; no timestamp has this value."""

Floats = npt.NDArray[np.float64]


@compiled
def _judge(o, h, l, c, v, allow_non_positive):  # type: ignore[no-untyped-def]
    """Reason code of one bar's numbers."""
    # a sum is finite unless one of its terms is not, or it overflows
    total = o + h + l + c + v
    if not np.isfinite(total) and not (
        np.isfinite(o) and np.isfinite(h) and np.isfinite(l) and np.isfinite(c) and np.isfinite(v)
    ):
        return NOT_FINITE
    if not allow_non_positive and (o <= 0 or h <= 0 or l <= 0 or c <= 0):
        return NON_POSITIVE_PRICE
    if h < o or h < c or h < l or l > o or l > c:
        return OHLC_INCONSISTENT
    if v < 0:
        return NEGATIVE_VOLUME
    return ACCEPTED


@compiled
def judge_rows(
    times: npt.NDArray[np.int64],
    o: Floats,
    h: Floats,
    l: Floats,
    c: Floats,
    v: Floats,
    codes: npt.NDArray[np.int32],
    allow_non_positive: bool,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    reasons: npt.NDArray[np.uint8],
) -> int:
    """Give each row the reason why it is no bar, or `ACCEPTED`.

    A row's time is compared with the latest time among the symbol's rows before it that break no
    other rule: that is its last accepted bar. A maximum needs no order of evaluation, so blocks
    can be judged apart and joined through `last`.

    Parameters
    ----------
    times : (T,) int64
        Nanoseconds since 1970.
    o, h, l, c, v : (T,) float64
        Open, high, low, close, volume.
    codes : (T,) int32
        Index of each row's symbol in `first` and `last`.
    allow_non_positive : bool
        Accept prices at or below zero.
    first : (S,) int64
        Written: the time of each symbol's first row that breaks no rule but those of time, or
        left as it is.
    last : (S,) int64
        Read and written: the latest such time, `NEVER` before the first.
    reasons : (T,) uint8
        Read and written: rows that come with a reason keep it.

    Returns
    -------
    int
        Rows that are no bars.
    """
    n_bad = 0
    for row in range(len(times)):
        reason = reasons[row]
        if reason == ACCEPTED:
            reason = _judge(o[row], h[row], l[row], c[row], v[row], allow_non_positive)
            if reason == ACCEPTED:
                code = codes[row]
                if first[code] == NEVER:
                    first[code] = times[row]
                if times[row] > last[code]:
                    last[code] = times[row]
                elif times[row] == last[code]:
                    reason = DUPLICATE_TIMESTAMP
                else:
                    reason = OUT_OF_ORDER
            reasons[row] = reason
        if reason != ACCEPTED:
            n_bad += 1
    return n_bad


@compiled
def choose_second_times(
    times: npt.NDArray[np.int64],
    o: Floats,
    h: Floats,
    l: Floats,
    c: Floats,
    v: Floats,
    codes: npt.NDArray[np.int32],
    allow_non_positive: bool,
    first: npt.NDArray[np.int64],
    latest: npt.NDArray[np.int64],
    reasons: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
) -> None:
    """Settle the times of rows that clocks show twice, before `judge_rows`.

    A row keeps the first of its two times where that is later than its symbol's last accepted bar;
    else it gets the second.

    Parameters
    ----------
    times : (T,) int64
        Read and written.
    o, h, l, c, v, codes, allow_non_positive, reasons
        As of `judge_rows`; only read.
    first : (S,) int64
        Written as by `judge_rows`, with the first of two times.
    latest : (S,) int64
        As `last` of `judge_rows`; used up.
    rows, second : (K,) int64
        Rows whose time comes twice, ascending, and their second times.
    """
    at = row = 0
    while at < len(rows):
        if (
            reasons[row] == ACCEPTED
            and _judge(o[row], h[row], l[row], c[row], v[row], allow_non_positive) == ACCEPTED
        ):
            code = codes[row]
            if first[code] == NEVER:
                first[code] = times[row]
            if row == rows[at] and times[row] <= latest[code]:
                times[row] = second[at]
            latest[code] = max(latest[code], times[row])
        at += row == rows[at]
        row += 1


@compiled
def count_line_ends(data: npt.NDArray[np.uint8]) -> int:
    """Count the ends of lines in a text: LF, CR LF or CR."""
    feeds = 0
    for at in range(len(data)):
        feeds += data[at] == 10
    returns = 0
    for at in range(len(data) - 1):
        returns += (data[at] == 13) & (data[at + 1] != 10)
    if len(data) and data[-1] == 13:
        returns += 1
    return feeds + returns


@compiled
def locate_lines(
    data: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
) -> None:
    """Find some of a text's lines that are not empty.

    Parameters
    ----------
    data : (B,) uint8
        The text; its last line may lack an end.
    rows : (n,) int64
        Indices among the lines that are not empty; ascending.
    starts, stops, numbers : (n,) int64
        Written: where each line starts and stops (without its end), and which line of the text it
        is, from 0, empty ones counted.
    """
    found = row = number = start = at = 0
    size = len(data)
    while at <= size and found < len(rows):
        if at == size or data[at] == 10 or data[at] == 13:
            if at > start:
                if row == rows[found]:
                    starts[found] = start
                    stops[found] = at
                    numbers[found] = number
                    found += 1
                row += 1
            if at + 1 < size and data[at] == 13 and data[at + 1] == 10:
                at += 1
            start = at + 1
            number += 1
        at += 1
