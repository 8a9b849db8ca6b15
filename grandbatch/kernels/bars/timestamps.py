"""Timestamps in text to nanoseconds since 1970, one row at a time, without allocation.

Covers the forms of market files: ISO 8601, year-first, day-first and month-first dates with mixed
widths, compact dates with a time behind them. A text that is one number is left to `epochs`. Does
not cover month names, two-digit years or named zones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.calendar import days_of, is_date
from grandbatch.kernels.bars.loads import address_of, byte_at, word_at
from grandbatch.kernels.compilation import compiled

NAIVE = 0
"""Read; wall-clock time without a zone."""
ABSOLUTE = 1
"""Read; UTC, because the text has an offset or is an epoch."""
EMPTY = 2
"""Nothing but blanks."""
UNREADABLE = 3
"""No known form, or no such date."""
DIGITS = 4
"""Not read: an epoch or a compact date of at most 18 digits, whose value stands in for the time."""
NUMBER = 5
"""Not read: a number with a sign, a point, an exponent, or more digits."""

DAY_FIRST_EVIDENCE = 0
MONTH_FIRST_EVIDENCE = 1
ORDERED_ROWS = 2
UNDATED_ROWS = 3
CLOCK_ROWS = 4
SHORT_CLOCKS = 5
PADDED_CLOCKS = 6
SECOND_CLOCKS = 7
MILLI_CLOCKS = 8
N_TALLY = 9
"""What is counted of rows. A row's marks have the bit of each that it adds to: arrays that a kernel
hands to others cost too much."""

NO_CLOCK, MINUTES, SECONDS, MILLIS = 0, 1, 2, 3
"""What times of day without colons and leading zeros mean: HHMM, HHMMSS or HHMMSSmmm."""

_NO_MARKS = np.int64(0)
_SECOND = np.int64(1_000_000_000)
_DAY = np.int64(86_400_000_000_000)


@compiled
def _digits(at, end):  # type: ignore[no-untyped-def]
    """Value of the digits at `at`, and where they stop; more than 19 digits wrap."""
    value = np.int64(0)
    while at < end and 48 <= byte_at(at) <= 57:
        value = value * np.int64(10) + (byte_at(at) - 48)
        at += 1
    return value, at


@compiled
def _fraction(at, end):  # type: ignore[no-untyped-def]
    """Digits after a decimal mark as billionths, cut after the ninth, and where they stop."""
    value = np.int64(0)
    scale = _SECOND
    while at < end and 48 <= byte_at(at) <= 57:
        if scale > 1:
            scale //= 10
            value += (byte_at(at) - 48) * scale
        at += 1
    return value, at


@compiled
def _offset(at, end):  # type: ignore[no-untyped-def]
    """Nanoseconds east of UTC written at `at` up to `end`, and whether they are well formed."""
    if (byte_at(at) | 32) == 122:  # Z
        return np.int64(0), at + 1 == end
    if end - at >= 3:
        a, b, c = byte_at(at) | 32, byte_at(at + 1) | 32, byte_at(at + 2) | 32
        named = (a == 117 and b == 116 and c == 99) or (a == 103 and b == 109 and c == 116)
        if named:  # UTC, GMT, alone or before an offset
            at += 3
            if at == end:
                return np.int64(0), True
    if byte_at(at) != 43 and byte_at(at) != 45:
        return np.int64(0), False
    sign = np.int64(1) if byte_at(at) == 43 else np.int64(-1)
    hours, stop = _digits(at + 1, end)
    minutes = np.int64(0)
    if stop - at == 5:
        minutes = hours % 100
        hours //= 100
    elif stop - at == 3 or stop - at == 2:
        if stop < end and byte_at(stop) == 58:
            at = stop
            minutes, stop = _digits(at + 1, end)
            if stop - at != 3:
                return np.int64(0), False
    else:
        return np.int64(0), False
    good = stop == end and hours <= 23 and minutes <= 59
    return sign * (hours * 3600 + minutes * 60) * _SECOND, good


@compiled
def _bare_clock(value, width, padded, meaning):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of digits without colons (-1 if they are no time), and marks."""
    marks = np.int64(1 << CLOCK_ROWS)
    millis = np.int64(0)
    if width == 5 or width == 6:  # noqa: PLR1714 (faster)
        marks |= 1 << SECOND_CLOCKS
        if width == 5 and meaning < SECONDS:
            return np.int64(-1), marks
    elif width <= 4:
        marks |= (width <= 2) << SHORT_CLOCKS
        marks |= (padded and width == 4) << PADDED_CLOCKS
        marks |= (value > 2400) << SECOND_CLOCKS
        if width != 4 and meaning == NO_CLOCK:
            return np.int64(-1), marks
        if meaning < SECONDS:
            value *= 100
    else:
        marks |= 1 << MILLI_CLOCKS
        if meaning != MILLIS:
            return np.int64(-1), marks
    if meaning == MILLIS:
        millis = value % 1000
        value //= 1000
    hour, minute, second = value // 10_000, value // 100 % 100, value % 100
    if minute > 59 or second > 59 + (minute % 15 == 14):
        return np.int64(-1), marks
    return (hour * 3600 + minute * 60 + second) * _SECOND + millis * 1_000_000, marks


@compiled
def _skip_blanks(at, end):  # type: ignore[no-untyped-def]
    while at < end and byte_at(at) == 32:
        at += 1
    return at


@compiled
def _is_half(at, end):  # type: ignore[no-untyped-def]
    """Whether AM or PM stands there."""
    return end - at >= 2 and (byte_at(at + 1) | 32) == 109 and (byte_at(at) | 32) in (97, 112)


@compiled
def _clock_digits(at, end, meaning):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of `HH:MM[:SS]` or digits, its end, has it seconds, marks.

    An hour of 24 and above is left for the caller to see. The place is -1 where there is no time.
    """
    start = at
    hour, at = _digits(at, end)
    width = at - start
    if width > 0 and width <= 9 and (at == end or byte_at(at) != 58):
        half = _skip_blanks(at + (at < end and byte_at(at) == 45), end)  # 5 PM, 05-PM
        if width <= 2 and _is_half(half, end):
            return hour * 3600 * _SECOND, half, False, _NO_MARKS
        nanos, marks = _bare_clock(hour, width, byte_at(start) == 48, meaning)
        return nanos, (at if nanos >= 0 else -1), width > 4 or meaning >= SECONDS, marks
    if width not in (1, 2) or at == end:
        return np.int64(0), -1, False, _NO_MARKS
    start = at + 1
    minute, at = _digits(start, end)
    if at - start != 2 or minute > 59:
        return np.int64(0), -1, False, _NO_MARKS
    seconds = hour * 3600 + minute * 60
    if at == end or byte_at(at) != 58:
        return seconds * _SECOND, at, False, _NO_MARKS
    start = at + 1
    second, at = _digits(start, end)
    good = at - start == 2 and (second <= 59 or (second == 60 and minute % 15 == 14))
    return (seconds + second) * _SECOND, (at if good else -1), True, _NO_MARKS


@compiled
def _clock(at, end, meaning):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of a time with all that may follow but a zone, its end, and marks.

    24:00 is the end of the day, and so is 23:59:60, or 18:59:60 in a zone five hours behind: a leap
    second ends a minute before a quarter of an hour, in any zone. The place is -1 where there
    is no such time.
    """
    clock, at, has_seconds, marks = _clock_digits(at, end, meaning)
    if at >= 0 and at < end and (byte_at(at) == 46 or byte_at(at) == 44):
        start = at + 1
        part, at = _fraction(start, end)
        clock += part
        if at == start or not (has_seconds or part == 0):
            at = -1
    if at < 0:
        return np.int64(0), -1, marks
    at = _skip_blanks(at, end)
    if _is_half(at, end):
        if clock < 3600 * _SECOND or clock >= 13 * 3600 * _SECOND:
            return np.int64(0), -1, marks
        afternoon = np.int64(43200) if (byte_at(at) | 32) == 112 else np.int64(0)
        clock = clock % (43200 * _SECOND) + afternoon * _SECOND
        at = _skip_blanks(at + 2, end)
    if clock > _DAY:
        return np.int64(0), -1, marks
    return clock, at, marks


@compiled
def _date(at, end, day_first):  # type: ignore[no-untyped-def]
    """Days since 1970 of the date written at `at`, its end (-1 if there is none), and marks."""
    start = at
    first, at = _digits(at, end)
    width = at - start
    if width == 8:
        year, month, day = first // 10_000, first // 100 % 100, first % 100
        return days_of(year, month, day), (at if is_date(year, month, day) else -1), _NO_MARKS
    if at == end or byte_at(at) < 45 or byte_at(at) > 47:  # - . /
        undated = at < end and byte_at(at) == 58 and (width == 1 or width == 2)  # noqa: PLR1714
        return np.int64(0), -1, np.int64(undated << UNDATED_ROWS)
    mark = byte_at(at)
    start = at + 1
    second, at = _digits(start, end)
    if at - start < 1 or at - start > 2 or at == end or byte_at(at) != mark:
        return np.int64(0), -1, _NO_MARKS
    start = at + 1
    third, at = _digits(start, end)
    year, month, day = first, second, third
    marks = _NO_MARKS
    if width <= 2 and at - start == 4:
        marks |= (first != second) << ORDERED_ROWS
        marks |= (first > 12 and second <= 12) << DAY_FIRST_EVIDENCE
        marks |= (second > 12 and first <= 12) << MONTH_FIRST_EVIDENCE
        year, month, day = third, first, second
        if day_first:
            month, day = second, first
    elif width != 4 or at == start or at - start > 2:
        return np.int64(0), -1, _NO_MARKS
    return days_of(year, month, day), (at if is_date(year, month, day) else -1), marks


@compiled
def _is_number(start, at, end):  # type: ignore[no-untyped-def]
    """Whether digits, from `start` to `at`, and what follows up to `end` are one number."""
    count = at - start
    if at < end and byte_at(at) == 46:
        start = at + 1
        _, at = _digits(start, end)
        count += at - start
    if count > 0 and at < end and (byte_at(at) | 32) == 101:
        at += 1
        at += at < end and (byte_at(at) == 45 or byte_at(at) == 43)
        start = at
        _, at = _digits(start, end)
        count = at - start
    return at == end and count > 0


@compiled
def _parse(at, end, day_first, clocks):  # type: ignore[no-untyped-def]  # noqa: PLR0911 (a chain of refusals)
    """Nanoseconds, status, days and marks of the text from address `at` up to `end`."""
    none = np.int64(0)
    while at < end and (byte_at(at) == 32 or byte_at(at) == 9):
        at += 1
    while end > at and (byte_at(end - 1) == 32 or byte_at(end - 1) == 9):
        end -= 1
    if at == end:
        return none, EMPTY, none, none
    signed = byte_at(at) == 45
    value, stop = _digits(at + signed, end)
    if stop == end and not signed and end - at <= 18:
        return value, DIGITS, none, none
    is_open = stop == end or byte_at(stop) == 46 or (byte_at(stop) | 32) == 101
    if is_open and _is_number(at + signed, stop, end):
        return none, NUMBER, none, none
    days, at, marks = _date(at, end, day_first)
    if at < 0:
        return none, UNREADABLE, none, marks
    ns = days * _DAY
    if at == end:
        return ns, NAIVE, days, marks
    if byte_at(at) != 32 and (byte_at(at) | 32) != 116:  # a blank or T
        return none, UNREADABLE, none, marks
    clock, at, more = _clock(_skip_blanks(at + 1, end), end, clocks)
    marks |= more
    if at < 0:
        return none, UNREADABLE, none, marks
    if at == end:
        return ns + clock, NAIVE, days, marks
    east, good = _offset(at, end)
    return ns + clock - east, (ABSOLUTE if good else UNREADABLE), days, marks


@compiled
def parse_timestamps(  # noqa: C901 (a call that is handed arrays costs too much)
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    day_first: bool,
    clocks: int,
    out: npt.NDArray[np.int64],
    status: npt.NDArray[np.uint8],
    tally: npt.NDArray[np.int64],
) -> int:
    """Read one timestamp per row.

    ISO 8601 (a date alone; `T` or a blank; minutes, seconds or fractions cut to nanoseconds; `Z`,
    `+HH:MM`, `+HHMM`, `+HH`, `UTC`, `GMT`), years first with `-`, `/` or `.`, days or months first
    with one or two digits, `YYYYMMDD HHMMSS`, AM and PM, 24:00 and 23:59:60.

    Parameters
    ----------
    data : (B,) uint8
        Where the texts are.
    starts, stops : (T,) int64
        Where each row's text starts and stops in `data`.
    day_first : bool
        Read `a/b/yyyy` as day, month; else as month, day.
    clocks : int
        What digits after a date are: `MINUTES`, `SECONDS`, `MILLIS`, or `NO_CLOCK`, where only four
        digits and six are a time of day.
    out : (T,) int64
        Nanoseconds since 1970 in UTC, or in wall-clock time where the status is `NAIVE`.
    status : (T,) uint8
        `NAIVE`, `ABSOLUTE`, `EMPTY`, `UNREADABLE`, `DIGITS` or `NUMBER`.
    tally : (N_TALLY,) int64
        Added to, whatever `day_first` and `clocks`: rows that can only be day-first, only
        month-first, and all of form `a/b/yyyy` with a unlike b; times of day without a date;
        times of day without colons, and those of them below 100, of four digits with a zero
        before them, with seconds, with milliseconds.

    Returns
    -------
    int
        Rows with the status `DIGITS` or `NUMBER`.
    """
    base = address_of(data)
    date_at, date_width, date_ns, date_marks = 0, 0, np.int64(0), _NO_MARKS
    n_numbers = 0
    for row in range(len(starts)):
        at, end = base + starts[row], base + stops[row]
        # Neighbouring bars share their date. Where its very characters stood in a row before, only
        # a plain H:MM, HH:MM or HH:MM:SS is left to read: an eighth of the time.
        width = end - at - date_width - 1
        if date_width > 0 and (width == 4 or width == 5 or width == 8):  # noqa: PLR1714 (faster)
            unlike = np.int64(word_at(at) ^ word_at(date_at))  # no date has less than 8 bytes
            at += date_width
            unlike |= byte_at(at - 1) ^ byte_at(date_at + date_width - 1)
            unlike |= byte_at(at - 2) ^ byte_at(date_at + date_width - 2)
            unlike |= (byte_at(at) != 32) & (byte_at(at) != 84)
            tens = byte_at(at + 1) - 48
            if width == 4:
                tens = np.int64(0)
                at -= 1
            ones = byte_at(at + 2) - 48
            tens_m, ones_m = byte_at(at + 4) - 48, byte_at(at + 5) - 48
            unlike |= (tens < 0) | (tens > 9) | (ones < 0) | (ones > 9) | (byte_at(at + 3) != 58)
            unlike |= (tens_m < 0) | (tens_m > 5) | (ones_m < 0) | (ones_m > 9)
            seconds = (tens * 10 + ones) * 3600 + (tens_m * 10 + ones_m) * 60
            if width == 8:
                tens_s, ones_s = byte_at(at + 7) - 48, byte_at(at + 8) - 48
                unlike |= (tens_s < 0) | (tens_s > 5) | (ones_s < 0) | (ones_s > 9)
                unlike |= byte_at(at + 6) != 58
                seconds += tens_s * 10 + ones_s
            if unlike == 0 and seconds < 86400:
                out[row] = date_ns + seconds * _SECOND
                status[row] = NAIVE
                if date_marks != 0:
                    for slot in range(3):
                        tally[slot] += date_marks >> slot & 1
                continue
            at = base + starts[row]
        out[row], status[row], days, marks = _parse(at, end, day_first, clocks)
        if marks != 0:
            for slot in range(N_TALLY):
                tally[slot] += marks >> slot & 1
        n_numbers += status[row] >= DIGITS
        if status[row] == NAIVE:
            date_at, date_width, date_ns, date_marks = at, 0, days * _DAY, marks
            while at + date_width < end and byte_at(at + date_width) not in (32, 84):
                date_width += 1
            if date_width > 10:  # no mark between date and time
                date_width = 0
    return n_numbers
