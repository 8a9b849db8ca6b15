"""Timestamps in text to nanoseconds since 1970, one row at a time, without allocation.

Covers the forms of market files: ISO 8601, compact dates, year-first, day-first and month-first
dates with mixed widths, and epochs. Does not cover month names, two-digit years or named zones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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

DAY_FIRST_EVIDENCE = 0
MONTH_FIRST_EVIDENCE = 1
ORDERED_ROWS = 2

_SECOND = np.int64(1_000_000_000)
_DAY = np.int64(86_400_000_000_000)
_LARGEST = np.int64(2**63 - 1)
_FIRST_YEAR, _LAST_YEAR = 1678, 2261  # whole years within int64 nanoseconds


@compiled
def _digits(at, end):  # type: ignore[no-untyped-def]
    """Value of the digits at `at`, and where they stop; more than 19 digits wrap."""
    value = np.int64(0)
    while at < end and 48 <= byte_at(at) <= 57:
        value = value * np.int64(10) + (byte_at(at) - 48)
        at += 1
    return value, at


@compiled
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 of a Gregorian date.

    http://howardhinnant.github.io/date_algorithms.html#days_from_civil
    """
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    shifted = month + 9 if month <= 2 else month - 3
    of_year = (153 * shifted + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@compiled
def _is_date(year, month, day):  # type: ignore[no-untyped-def]
    if year < _FIRST_YEAR or year > _LAST_YEAR or month < 1 or month > 12 or day < 1:
        return False
    if day <= 28:
        return True
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return day == 29 and leap
    if month in (4, 6, 9, 11):
        return day <= 30
    return day <= 31


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
def _clock_digits(at, end):  # type: ignore[no-untyped-def]
    """Seconds since midnight of `HH:MM[:SS]` or `HHMM[SS]`, where it stops, if it has seconds.

    An hour of 24 and above is left for the caller to see. The place is -1 where there is no time.
    """
    start = at
    hour, at = _digits(at, end)
    width = at - start
    if width in (4, 6):
        if width == 4:
            hour *= 100
        minute, second = hour // 100 % 100, hour % 100
        hour //= 10_000
        good = minute <= 59 and second <= 59
        return hour * 3600 + minute * 60 + second, (at if good else -1), width == 6
    if width not in (1, 2) or at == end or byte_at(at) != 58:
        return np.int64(0), -1, False
    start = at + 1
    minute, at = _digits(start, end)
    if at - start != 2 or minute > 59:
        return np.int64(0), -1, False
    seconds = hour * 3600 + minute * 60
    if at == end or byte_at(at) != 58:
        return seconds, at, False
    start = at + 1
    second, at = _digits(start, end)
    good = at - start == 2 and second <= 59
    return seconds + second, (at if good else -1), True


@compiled
def _skip_blanks(at, end):  # type: ignore[no-untyped-def]
    while at < end and byte_at(at) == 32:
        at += 1
    return at


@compiled
def _clock(at, end):  # type: ignore[no-untyped-def]
    """Nanoseconds since midnight of a time with all that may follow but a zone, and its end.

    The place is -1 where there is no such time.
    """
    seconds, at, has_seconds = _clock_digits(at, end)
    nanos = np.int64(0)
    if at >= 0 and has_seconds and at < end and (byte_at(at) == 46 or byte_at(at) == 44):
        start = at + 1
        nanos, at = _fraction(start, end)
        if at == start:
            at = -1
    if at < 0:
        return np.int64(0), -1
    at = _skip_blanks(at, end)
    if (
        end - at >= 2 and (byte_at(at + 1) | 32) == 109 and (byte_at(at) | 32) in (97, 112)
    ):  # AM, PM
        if seconds < 3600 or seconds >= 13 * 3600:
            return np.int64(0), -1
        seconds = seconds % 43200 + (43200 if (byte_at(at) | 32) == 112 else 0)
        at = _skip_blanks(at + 2, end)
    if seconds >= 86400:
        return np.int64(0), -1
    return seconds * _SECOND + nanos, at


@compiled
def _epoch(value, negative, at, end):  # type: ignore[no-untyped-def]
    """Nanoseconds of an epoch in s, ms, us or ns by its magnitude, and its status."""
    unit = np.int64(1)
    if value < 100_000_000_000:
        unit = _SECOND
    elif value < 100_000_000_000_000:
        unit = np.int64(1_000_000)
    elif value < 100_000_000_000_000_000:
        unit = np.int64(1_000)
    part, stop = np.int64(0), at
    if at < end:
        part, stop = _fraction(at + 1, end)
    in_range = value >= 100_000_000 and value < _LARGEST // unit
    if not in_range or stop != end:
        return np.int64(0), UNPARSEABLE
    # without the cut of the product, which would leave int64
    ns = value * unit + (part if unit == _SECOND else part // (_SECOND // unit))
    return (-ns if negative else ns), ABSOLUTE


@compiled
def _compact(value, width):  # type: ignore[no-untyped-def]
    """Nanoseconds of YYYYMMDD[HHMM[SS]] written as one number, and whether it is one."""
    clock = np.int64(0)
    if width == 14:
        clock = value % 1_000_000
        value //= 1_000_000
    elif width == 12:
        clock = (value % 10_000) * 100
        value //= 10_000
    year, month, day = value // 10_000, value // 100 % 100, value % 100
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    good = _is_date(year, month, day) and hour <= 23 and minute <= 59 and second <= 59
    seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    return (seconds * _SECOND if good else np.int64(0)), good


@compiled
def _date(at, end, day_first, tally):  # type: ignore[no-untyped-def]
    """Days since 1970 of the date written at `at`, and where it stops; -1 if there is none."""
    start = at
    first, at = _digits(at, end)
    width = at - start
    if width == 8:
        year, month, day = first // 10_000, first // 100 % 100, first % 100
        return _days(year, month, day), (at if _is_date(year, month, day) else -1)
    if at == end or byte_at(at) < 45 or byte_at(at) > 47:  # - . /
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
    return _days(year, month, day), (at if _is_date(year, month, day) else -1)


@compiled
def _whole_number(start, stop, end):  # type: ignore[no-untyped-def]
    """Nanoseconds and status of a compact date or an epoch, digits from `start` to `stop`."""
    negative = byte_at(start) == 45
    if negative:
        start += 1
    value, _ = _digits(start, stop)
    if stop == end and not negative and stop - start in (8, 12, 14):
        ns, good = _compact(value, stop - start)
        if good:
            return ns, NAIVE
    if stop - start > 19 or stop == start or value < 0:
        return np.int64(0), UNPARSEABLE
    return _epoch(value, negative, stop, end)


@compiled
def _parse(at, end, day_first, tally):  # type: ignore[no-untyped-def]  # noqa: PLR0911 (a chain of refusals)
    """Nanoseconds and status of the text from address `at` up to `end`."""
    while at < end and (byte_at(at) == 32 or byte_at(at) == 9):
        at += 1
    while end > at and (byte_at(end - 1) == 32 or byte_at(end - 1) == 9):
        end -= 1
    if at == end:
        return np.int64(0), MISSING
    signed = byte_at(at) == 45
    _, stop = _digits(at + 1 if signed else at, end)
    if signed or stop == end or (byte_at(stop) == 46 and stop - at >= 9):
        if stop < end and byte_at(stop) != 46:
            return np.int64(0), UNPARSEABLE
        return _whole_number(at, stop, end)
    days, at = _date(at, end, day_first, tally)
    if at < 0:
        return np.int64(0), UNPARSEABLE
    ns = days * _DAY
    if at == end:
        return ns, NAIVE
    if byte_at(at) != 32 and (byte_at(at) | 32) != 116:  # a blank or T
        return np.int64(0), UNPARSEABLE
    clock, at = _clock(_skip_blanks(at + 1, end), end)
    if at < 0:
        return np.int64(0), UNPARSEABLE
    if at == end:
        return ns + clock, NAIVE
    east, good = _offset(at, end)
    return ns + clock - east, (ABSOLUTE if good else UNPARSEABLE)


@compiled
def parse_timestamps(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    day_first: bool,
    out: npt.NDArray[np.int64],
    status: npt.NDArray[np.uint8],
    tally: npt.NDArray[np.int64],
) -> None:
    """Read one timestamp per row.

    ISO 8601 (a date alone; `T` or a blank; minutes, seconds or fractions cut to nanoseconds; `Z`,
    `+HH:MM`, `+HHMM`, `+HH`, `UTC`, `GMT`), years first with `-`, `/` or `.`, days or months first
    with one or two digits, `YYYYMMDD[ HHMMSS]`, AM and PM, and epochs. An epoch is in seconds
    below 1e11, in ms below 1e14, in us below 1e17 and in ns above; numbers below 1e8 (1973 in
    seconds) are row numbers more often than times and are refused. A number of 8, 12 or 14 digits
    that is a date is one.

    Parameters
    ----------
    data : (B,) uint8
        Where the texts are.
    starts, stops : (T,) int64
        Where each row's text starts and stops in `data`.
    day_first : bool
        Read `a/b/yyyy` as day, month; else as month, day.
    out : (T,) int64
        Nanoseconds since 1970 in UTC, or in wall-clock time where the status is `NAIVE`.
    status : (T,) uint8
        `NAIVE`, `ABSOLUTE`, `MISSING` or `UNPARSEABLE`.
    tally : (3,) int64
        Added to: rows that can only be day-first, only month-first, and all of form `a/b/yyyy`
        with a unlike b.
    """
    base = address_of(data)
    before = np.zeros(3, np.int64)
    added = np.zeros(3, np.int64)
    date_at, date_width, date_ns = 0, 0, np.int64(0)
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
        out[row], status[row] = _parse(at, end, day_first, tally)
        if status[row] == NAIVE:
            for i in range(3):  # an expression of whole arrays takes a second to compile
                added[i] = tally[i] - before[i]
            date_at, date_width, date_ns = at, 0, out[row] - out[row] % _DAY
            while at + date_width < end and byte_at(at + date_width) not in (32, 84):
                date_width += 1
            if date_width > 10:  # no mark between date and time
                date_width = 0
