"""Timestamps in text to nanoseconds since 1970, one row at a time, without allocation.

Covers the forms of market files: ISO 8601, year-first, day-first and month-first dates with mixed
widths, compact dates with a time behind them. A text that is one number is left to `epochs`. Does
not cover month names, two-digit years or named zones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.calendar import days_of, is_date
from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.loads import address_of, byte_at, word_at

NAIVE = 0
"""Read; wall-clock time without a zone."""
ABSOLUTE = 1
"""Read; UTC, because the text has an offset or is an epoch."""
MISSING = 2
"""Nothing but blanks."""
UNPARSEABLE = 3
"""No known form, or no such date."""
NUMBER = 4
"""Not read: an epoch or a compact date."""

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

NO_CLOCK, MINUTES, SECONDS, MILLIS = 0, 1, 2, 3
"""What times of day without colons and leading zeros mean: HHMM, HHMMSS or HHMMSSmmm."""

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
    elif stop - at == 3:
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
def _bare_clock(value, width, padded, meaning, tally):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of digits without colons; -1 where they are no time of day."""
    tally[CLOCK_ROWS] += 1
    tally[SHORT_CLOCKS] += width <= 2
    tally[PADDED_CLOCKS] += padded and width == 4
    tally[SECOND_CLOCKS] += width == 5 or width == 6 or (width <= 4 and value > 2400)  # noqa: PLR1714
    tally[MILLI_CLOCKS] += width > 6
    if width > 6 and meaning != MILLIS:
        return np.int64(-1)
    if width <= 3 and meaning == NO_CLOCK:
        return np.int64(-1)
    if width == 5 and meaning < SECONDS:
        return np.int64(-1)
    millis = np.int64(0)
    if meaning == MILLIS:
        millis = value % 1000
        value //= 1000
    elif width <= 4 and meaning < SECONDS:
        value *= 100
    hour, minute, second = value // 10_000, value // 100 % 100, value % 100
    if minute > 59 or second > 59 + (value == 235_960):
        return np.int64(-1)
    return ((hour * 60 + minute) * 60 + second) * _SECOND + millis * 1_000_000


@compiled
def _clock_digits(at, end, meaning, tally):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of `HH:MM[:SS]` or digits alone, where it stops, has it seconds.

    An hour of 24 and above is left for the caller to see. The place is -1 where there is no time.
    """
    start = at
    hour, at = _digits(at, end)
    width = at - start
    if width > 0 and width <= 9 and (at == end or byte_at(at) != 58):
        nanos = _bare_clock(hour, width, byte_at(start) == 48, meaning, tally)
        return nanos, (at if nanos >= 0 else -1), width > 4 or meaning >= SECONDS
    if width not in (1, 2) or at == end:
        return np.int64(0), -1, False
    start = at + 1
    minute, at = _digits(start, end)
    if at - start != 2 or minute > 59:
        return np.int64(0), -1, False
    seconds = hour * 3600 + minute * 60
    if at == end or byte_at(at) != 58:
        return seconds * _SECOND, at, False
    start = at + 1
    second, at = _digits(start, end)
    good = at - start == 2 and (second <= 59 or (second == 60 and seconds == 86340))
    return (seconds + second) * _SECOND, (at if good else -1), True


@compiled
def _skip_blanks(at, end):  # type: ignore[no-untyped-def]
    while at < end and byte_at(at) == 32:
        at += 1
    return at


@compiled
def _clock(at, end, meaning, tally):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of a time with all that may follow but a zone, and its end.

    24:00 and 23:59:60 are the end of the day. The place is -1 where there is no such time.
    """
    clock, at, has_seconds = _clock_digits(at, end, meaning, tally)
    if at >= 0 and at < end and (byte_at(at) == 46 or byte_at(at) == 44):
        start = at + 1
        part, at = _fraction(start, end)
        clock += part
        if at == start or not (has_seconds or part == 0):
            at = -1
    if at < 0:
        return np.int64(0), -1
    at = _skip_blanks(at, end)
    if (
        end - at >= 2 and (byte_at(at + 1) | 32) == 109 and (byte_at(at) | 32) in (97, 112)
    ):  # AM, PM
        if clock < 3600 * _SECOND or clock >= 13 * 3600 * _SECOND:
            return np.int64(0), -1
        afternoon = np.int64(43200) if (byte_at(at) | 32) == 112 else np.int64(0)
        clock = clock % (43200 * _SECOND) + afternoon * _SECOND
        at = _skip_blanks(at + 2, end)
    if clock > _DAY:
        return np.int64(0), -1
    return clock, at


@compiled
def _date(at, end, day_first, tally):  # type: ignore[no-untyped-def]
    """Days since 1970 of the date written at `at`, and where it stops; -1 if there is none."""
    start = at
    first, at = _digits(at, end)
    width = at - start
    if width == 8:
        year, month, day = first // 10_000, first // 100 % 100, first % 100
        return days_of(year, month, day), (at if is_date(year, month, day) else -1)
    if at == end or byte_at(at) < 45 or byte_at(at) > 47:  # - . /
        tally[UNDATED_ROWS] += at < end and byte_at(at) == 58 and (width == 1 or width == 2)  # noqa: PLR1714
        return np.int64(0), -1
    mark = byte_at(at)
    start = at + 1
    second, at = _digits(start, end)
    if at - start < 1 or at - start > 2 or at == end or byte_at(at) != mark:
        return np.int64(0), -1
    start = at + 1
    third, at = _digits(start, end)
    year, month, day = first, second, third
    if width <= 2 and at - start == 4:
        tally[ORDERED_ROWS] += first != second
        tally[DAY_FIRST_EVIDENCE] += first > 12 and second <= 12
        tally[MONTH_FIRST_EVIDENCE] += second > 12 and first <= 12
        year, month, day = third, first, second
        if day_first:
            month, day = second, first
    elif width != 4 or at == start or at - start > 2:
        return np.int64(0), -1
    return days_of(year, month, day), (at if is_date(year, month, day) else -1)


@compiled
def _is_number(at, end):  # type: ignore[no-untyped-def]
    """Whether a text is digits with no more than a minus, a point and an exponent."""
    start = at + (byte_at(at) == 45)
    count, at = np.int64(0), start
    while at < end and (48 <= byte_at(at) <= 57 or (byte_at(at) == 46 and count == at - start)):
        count += byte_at(at) != 46
        at += 1
    if count == 0:
        return False
    if at < end and (byte_at(at) | 32) == 101:
        at += 1
        at += at < end and (byte_at(at) == 45 or byte_at(at) == 43)
        start = at
        _, at = _digits(at, end)
        count = at - start
    return at == end and count > 0


@compiled
def _parse(at, end, day_first, clocks, tally):  # type: ignore[no-untyped-def]  # noqa: PLR0911 (a chain of refusals)
    """Nanoseconds, status and days of the text from address `at` up to `end`."""
    none = np.int64(0)
    while at < end and (byte_at(at) == 32 or byte_at(at) == 9):
        at += 1
    while end > at and (byte_at(end - 1) == 32 or byte_at(end - 1) == 9):
        end -= 1
    if at == end:
        return none, MISSING, none
    if _is_number(at, end):
        return none, NUMBER, none
    days, at = _date(at, end, day_first, tally)
    if at < 0:
        return none, UNPARSEABLE, none
    ns = days * _DAY
    if at == end:
        return ns, NAIVE, days
    if byte_at(at) != 32 and (byte_at(at) | 32) != 116:  # a blank or T
        return none, UNPARSEABLE, none
    clock, at = _clock(_skip_blanks(at + 1, end), end, clocks, tally)
    if at < 0:
        return none, UNPARSEABLE, none
    if at == end:
        return ns + clock, NAIVE, days
    east, good = _offset(at, end)
    return ns + clock - east, (ABSOLUTE if good else UNPARSEABLE), days


@compiled
def parse_timestamps(
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
        `NAIVE`, `ABSOLUTE`, `MISSING`, `UNPARSEABLE` or `NUMBER`.
    tally : (N_TALLY,) int64
        Added to, whatever `day_first` and `clocks`: rows that can only be day-first, only
        month-first, and all of form `a/b/yyyy` with a unlike b; times of day without a date;
        times of day without colons, and those of them below 100, of four digits with a zero
        before them, with seconds, with milliseconds.

    Returns
    -------
    int
        Rows with the status `NUMBER`.
    """
    base = address_of(data)
    before = np.zeros(3, np.int64)
    added = np.zeros(3, np.int64)
    date_at, date_width, date_ns = 0, 0, np.int64(0)
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
                for i in range(3):
                    tally[i] += added[i]
                continue
            at = base + starts[row]
        for i in range(3):
            before[i] = tally[i]
        out[row], status[row], days = _parse(at, end, day_first, clocks, tally)
        n_numbers += status[row] == NUMBER
        if status[row] == NAIVE:
            for i in range(3):  # an expression of whole arrays takes a second to compile
                added[i] = tally[i] - before[i]
            date_at, date_width, date_ns = at, 0, days * _DAY
            while at + date_width < end and byte_at(at + date_width) not in (32, 84):
                date_width += 1
            if date_width > 10:  # no mark between date and time
                date_width = 0
    return n_numbers
