"""Timestamps that are one number: epochs in s, ms, us or ns, and dates written as digits.

A number alone doesn't tell which of them it is: the numbers of a whole file do. What each row says
is counted here, and rows are read by what was decided.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.calendar import days_of, is_date
from grandbatch.kernels.bars.loads import address_of, byte_at
from grandbatch.kernels.bars.timestamps import ABSOLUTE, DIGITS, NAIVE, NUMBER, UNREADABLE
from grandbatch.kernels.compilation import compiled

NO_TIME, COMPACT = -1, 4
"""What numbers may mean besides 0 to 3: seconds, milliseconds, microseconds, nanoseconds."""

ROWS, COMPACT_ROWS, EARLY_ROWS, LOWEST, HIGHEST = range(5)
NEAREST = 5
"""The first of four slots, one for each unit, and so is `UNIT_ROWS`."""
UNIT_ROWS = NEAREST + 4
N_NUMBER_TALLY = UNIT_ROWS + 4

EARLY = 100_000_000
"""Numbers nearer to zero are row numbers more often than epochs."""

_SECOND = np.int64(1_000_000_000)
_LARGEST = np.int64(2**63 - 1)
_ROOM = (_LARGEST - 9) // 10
_TENS = np.array([10**i for i in range(19)], np.int64)
_LIMITS = np.array([(2**63 - 1) // 10 ** (9 - 3 * unit) for unit in range(4)], np.int64)
"""What an epoch of each unit is below, so that it fits into int64 nanoseconds."""
FLOORS = np.array([EARLY, *_LIMITS[:3]], np.int64)
"""Numbers nearer to zero are row numbers, epochs in a coarser unit, or in this one of the first
months of 1970."""


@compiled
def _number(at, end):  # type: ignore[no-untyped-def]
    """Whole part, billionths and form of the number at `at`; below 0 where it has too many digits.

    Form 0 is digits alone, or with decimals that are zeros; 1 is anything else.
    """
    while byte_at(at) == 32 or byte_at(at) == 9:
        at += 1
    negative = byte_at(at) == 45
    at += negative
    digits, scale = np.int64(0), np.int64(0)
    form = np.int64(negative)
    decimals = False
    while at < end and (byte_at(at) == 46 or 48 <= byte_at(at) <= 57):
        if byte_at(at) == 46:
            decimals = True
        elif digits <= _ROOM:
            digits = digits * 10 + (byte_at(at) - 48)
            scale -= decimals
        elif not decimals:
            scale += 1
        at += 1
    if at < end and (byte_at(at) | 32) == 101:
        form = np.int64(1)
        scale += _exponent(at + 1, end)
    if digits == 0 or scale < -36:
        return np.int64(0), np.int64(0), form, negative
    if scale >= 0:
        if scale > 18 or digits > _LARGEST // _TENS[scale]:
            return np.int64(-1), np.int64(0), form, negative
        return digits * _TENS[scale], np.int64(0), form, negative
    places = -scale
    if places > 18:
        part = digits // _TENS[places - 9] if places <= 27 else np.int64(0)
        return np.int64(0), part, np.int64(1), negative
    rest = digits % _TENS[places]
    part = rest * _TENS[9 - places] if places <= 9 else rest // _TENS[places - 9]
    return digits // _TENS[places], part, (form if rest == 0 else np.int64(1)), negative


@compiled
def _exponent(at, end):  # type: ignore[no-untyped-def]
    below = byte_at(at) == 45
    at += below or byte_at(at) == 43
    power = np.int64(0)
    while at < end and power < 1000 and 48 <= byte_at(at) <= 57:
        power = power * 10 + (byte_at(at) - 48)
        at += 1
    return -power if below else power


@compiled
def _compact(value):  # type: ignore[no-untyped-def]
    """Nanoseconds of YYYYMMDD[HH[MM[SS[mmm]]]], and whether it is a date."""
    date, clock, millis = value, np.int64(0), np.int64(0)
    if value >= 10**16:
        millis = value % 1000
        value //= 1000
    if value >= 10**13:
        date, clock = value // 1_000_000, value % 1_000_000
    elif value >= 10**11:
        date, clock = value // 10_000, value % 10_000 * 100
    elif value >= 10**9:
        date, clock = value // 100, value % 100 * 10_000
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    if not is_date(year, month, day):
        return np.int64(0), False
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    good = hour <= 23 and minute <= 59 and second <= 59 + (minute % 15 == 14)
    if not good and (clock != 240_000 or millis > 0):
        return np.int64(0), False
    seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    return seconds * _SECOND + millis * 1_000_000, True


@compiled
def _units(size, is_whole):  # type: ignore[no-untyped-def]
    """Bits of the units that a number of some size fits."""
    unit = 0
    while unit < 3 and size >= _LIMITS[unit]:
        unit += 1
    units = 1 << unit
    if is_whole and size % 60_000 == 0:
        while unit < 3:
            unit += 1
            units |= (size % (60 * _TENS[3 * unit]) == 0) << unit
    return units


@compiled
def read_numbers(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    meaning: int,
    early: bool,
    out: npt.NDArray[np.int64],
    status: npt.NDArray[np.uint8],
    tally: npt.NDArray[np.int64],
) -> None:
    """Read the rows that `parse_timestamps` has found to be numbers.

    Parameters
    ----------
    data : (B,) uint8
        Where the texts are.
    starts, stops : (T,) int64
        Where each row's text starts and stops in `data`.
    meaning : int
        What numbers are: an epoch's unit from 0 (seconds) to 3 (nanoseconds), `COMPACT`, or
        `NO_TIME`.
    early : bool
        Whether numbers nearer to zero than the unit's of `FLOORS` are epochs, too.
    out, status : (T,) int64, (T,) uint8
        Read and written, as `parse_timestamps` writes them, where the status is `DIGITS` or
        `NUMBER`.
    tally : (N_NUMBER_TALLY,) int64
        Added to, whatever the meaning: numbers; those that are a date; those nearer to zero than
        `EARLY`, and the lowest and the highest of these; for each unit the size of that nearest to
        zero of the others that lie within 1678 to 2261 in it and in none before it, 0 before
        there is one; and for each unit those that it fits: these, and whole minutes in it.
    """
    base = address_of(data)
    for row in range(len(starts)):
        if status[row] < DIGITS:
            continue
        whole, part, form, negative = out[row], np.int64(0), np.int64(0), False
        if status[row] == NUMBER:
            whole, part, form, negative = _number(base + starts[row], base + stops[row])
        out[row], status[row] = 0, UNREADABLE
        if whole < 0:
            continue
        date, is_compact = _compact(whole)
        is_compact &= form == 0
        tally[ROWS] += 1
        tally[COMPACT_ROWS] += is_compact
        value = -whole if negative else whole
        if whole < EARLY:
            is_first = tally[EARLY_ROWS] == 0
            tally[LOWEST] = value if is_first else min(tally[LOWEST], value)
            tally[HIGHEST] = value if is_first else max(tally[HIGHEST], value)
            tally[EARLY_ROWS] += 1
        units = _units(whole, part == 0)
        is_first = whole >= EARLY
        for unit in range(4):
            tally[UNIT_ROWS + unit] += units >> unit & 1
            if is_first and units >> unit & 1:
                is_first = False
                nearest = tally[NEAREST + unit]
                tally[NEAREST + unit] = whole if nearest == 0 else min(nearest, whole)
        is_epoch = meaning >= 0 and meaning < COMPACT and (early or whole >= FLOORS[meaning])
        if is_epoch and whole < _LIMITS[meaning]:
            ns = whole * _TENS[9 - 3 * meaning]
            if part > 0:
                ns += part // _TENS[3 * meaning]
            out[row], status[row] = (-ns if negative else ns), ABSOLUTE
        elif meaning == COMPACT and is_compact:
            out[row], status[row] = date, NAIVE
