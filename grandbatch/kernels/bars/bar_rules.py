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
OUT_OF_RANGE = 7
DUPLICATE_TIMESTAMP = 8
OUT_OF_ORDER = 9
SPIKE = 10
N_REASONS = 11
_WIDENED = 254
"""Accepted, once high and low hold the other prices."""

SMALLEST_PRICE, LARGEST_PRICE = 1e-18, 1e18
"""A price's magnitude, unless it is 0: the ratio of two prices is a float32, and whatever is made
of squares and products of prices and volumes neither vanishes nor overflows in float64."""
SMALLEST_VOLUME, LARGEST_VOLUME = 1e-12, 1e24
"""A volume's magnitude, unless it is 0."""

LEFT_OUT = 255
"""No reason: the row is none of those asked for."""

_TILE = 1024
"""Rows that are looked at together."""

NEVER = np.iinfo(np.int64).min
"""Stands for "no bar yet"; no timestamp has this value."""

Floats = npt.NDArray[np.float64]


@compiled
def _judge(  # type: ignore[no-untyped-def]  # noqa: PLR0911 (a reason each)
    o, h, l, c, v, allow_non_positive, tolerance
):
    """Reason code of one bar's numbers."""
    if (
        l >= SMALLEST_PRICE
        and h <= LARGEST_PRICE
        and l <= o
        and o <= h
        and l <= c
        and c <= h
        and (v == 0 or (v >= SMALLEST_VOLUME and v <= LARGEST_VOLUME))
    ):
        return ACCEPTED
    if not (
        np.isfinite(o) and np.isfinite(h) and np.isfinite(l) and np.isfinite(c) and np.isfinite(v)
    ):
        return NOT_FINITE
    if not allow_non_positive and (o <= 0 or h <= 0 or l <= 0 or c <= 0):
        return NON_POSITIVE_PRICE
    top, bottom = max(o, h, l, c), min(o, h, l, c)
    if top - h > tolerance * abs(top) or l - bottom > tolerance * abs(bottom):
        return OHLC_INCONSISTENT
    if v < 0:
        return NEGATIVE_VOLUME
    # what is 0 has no magnitude: it counts as 1
    least = min(abs(o) or 1.0, abs(h) or 1.0, abs(l) or 1.0, abs(c) or 1.0)
    most = max(abs(o), abs(h), abs(l), abs(c))
    size = abs(v) or 1.0
    if (
        least < SMALLEST_PRICE
        or most > LARGEST_PRICE
        or size < SMALLEST_VOLUME
        or size > LARGEST_VOLUME
    ):
        return OUT_OF_RANGE
    return _WIDENED if top > h or bottom < l else ACCEPTED


@compiled
def _are_plain(start, stop, times, o, h, l, c, v, codes, reasons):  # type: ignore[no-untyped-def]
    """Whether rows are bars of one symbol that rise in time and break no rule, nor need widening.

    Nothing leaves these loops early, so that the compiler can take several rows at a time.
    """
    if codes[start] != codes[stop - 1]:
        return False
    tile = slice(start, stop)
    times, codes, reasons = times[tile], codes[tile], reasons[tile]
    o, h, l, c, v = o[tile], h[tile], l[tile], c[tile], v[tile]
    count = stop - start
    odd = 0
    for row in range(count):
        odd |= (codes[row] ^ codes[0]) | reasons[row]
    for row in range(count - 1):
        odd |= times[row + 1] <= times[row]
    sound = 0
    for row in range(count):
        sound += (
            (l[row] >= SMALLEST_PRICE)
            & (h[row] <= LARGEST_PRICE)
            & (l[row] <= o[row])
            & (o[row] <= h[row])
            & (l[row] <= c[row])
            & (c[row] <= h[row])
        )
    for row in range(count):
        sound += (v[row] == 0) | ((v[row] >= SMALLEST_VOLUME) & (v[row] <= LARGEST_VOLUME))
    return odd == 0 and sound == 2 * count


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
    tolerance: float,
    keeps_last: bool,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    holders: npt.NDArray[np.int64],
    reasons: npt.NDArray[np.uint8],
    twins: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
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
    tolerance : float
        Share of a price by which high and low may miss the others.
    keeps_last : bool
        Of rows of one time the last stands, not the first.
    first : (S,) int64
        Written: the time of each symbol's first row that breaks no rule but those of time, or
        left as it is.
    last : (S,) int64
        Read and written: the latest such time, `NEVER` before the first.
    holders : (S,) int64
        Read and written: the last row of that time, -1 where there is none among these.
    reasons : (T,) uint8
        Read and written: rows that come with a reason keep it.
    twins : (2, T) int64
        Written: rows that have the time of a row before, and that row, or -1.

    Returns
    -------
    n_bad : int
        Rows that are no bars.
    n_widened : int
        Rows that break no rule but those of time once their high and low are widened.
    n_twins : int
        How many `twins` there are.
    """
    n_bad = n_widened = n_twins = 0
    row = 0
    while row < len(times):
        if row % _TILE == 0 and times[row] > last[codes[row]]:
            stop = min(row + _TILE, len(times))
            if _are_plain(row, stop, times, o, h, l, c, v, codes, reasons):
                code = codes[row]
                first[code] = times[row] if first[code] == NEVER else first[code]
                last[code] = times[stop - 1]
                holders[code] = stop - 1
                row = stop
                continue
        reason = reasons[row]
        if reason == ACCEPTED:
            reason = _judge(o[row], h[row], l[row], c[row], v[row], allow_non_positive, tolerance)
            n_widened += reason == _WIDENED
            reason = ACCEPTED if reason == _WIDENED else reason
            if reason == ACCEPTED:
                code = codes[row]
                if first[code] == NEVER:
                    first[code] = times[row]
                if times[row] > last[code]:
                    last[code] = times[row]
                    holders[code] = row
                elif times[row] == last[code]:
                    before = holders[code]
                    twins[0, n_twins] = row
                    twins[1, n_twins] = before
                    n_twins += 1
                    holders[code] = row
                    if not keeps_last:
                        reason = DUPLICATE_TIMESTAMP
                    elif before >= 0:
                        reasons[before] = DUPLICATE_TIMESTAMP
                        n_bad += 1
                else:
                    reason = OUT_OF_ORDER
            reasons[row] = reason
        if reason != ACCEPTED:
            n_bad += 1
        row += 1
    return n_bad, n_widened, n_twins


def widen(o: Floats, h: Floats, l: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Return high and low that hold the other prices; where they do so already, as they are."""
    top = np.maximum(np.maximum(o, c), np.maximum(h, l))
    bottom = np.minimum(np.minimum(o, c), np.minimum(h, l))
    return np.where(h < top, top, h), np.where(l > bottom, bottom, l)


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
    tolerance: float,
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
    o, h, l, c, v, codes, allow_non_positive, tolerance, reasons
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
        reason = reasons[row]
        if reason == ACCEPTED:
            reason = _judge(o[row], h[row], l[row], c[row], v[row], allow_non_positive, tolerance)
        if reason in (ACCEPTED, _WIDENED):
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
    total = at = 0
    size = len(data)
    # counts of so few fit a byte, and bytes are added many at once; texts mostly have no CR at all
    while at + 128 <= size:
        feeds = returns = np.uint8(0)
        for k in range(128):
            feeds = np.uint8(feeds + np.uint8(data[at + k] == 10))
            returns = np.uint8(returns | np.uint8(data[at + k] == 13))
        total += int(feeds)
        if returns:
            for place in range(at, at + 128):
                total += data[place] == 13 and (place + 1 == size or data[place + 1] != 10)
        at += 128
    for place in range(at, size):
        total += data[place] == 10
        total += data[place] == 13 and (place + 1 == size or data[place + 1] != 10)
    return total


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
