"""Where local time stands on the circles of a day, a week and a year.

Whole numbers up to a share of the circle, then polynomials: no libm, whose last bits change between
its versions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled, inlined

Int64Array = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

_SECOND, _DAY = 1_000_000_000, 86_400
_MARCH = 719_468
"""Days from 1 March of the year 0 to 1970."""


@compiled
def day_circle(times: Int64Array, changes: Int64Array, offsets: Int64Array, out: F32) -> None:
    """Write sine and cosine of the time since local midnight, as a share of 24 hours.

    Parameters
    ----------
    times : (n,) int64
        Nanoseconds since 1970 UTC.
    changes, offsets : (k,) int64
        Seconds since 1970 UTC from which each offset holds, the first from before all times on;
        seconds that local time is ahead.
    out : (2, n) float32
        Overwritten.
    """
    place = np.searchsorted(changes, times[0] // _SECOND, "right") if times.size else 0
    for i in range(times.size):
        second = times[i] // _SECOND
        place = _place_of(changes, second, place)
        local = second + offsets[place - 1]
        since = (local - local // _DAY * _DAY) * _SECOND + (times[i] - second * _SECOND)
        out[0, i], out[1, i] = _circle(since / (_DAY * _SECOND))


@compiled
def week_circle(times: Int64Array, changes: Int64Array, offsets: Int64Array, out: F32) -> None:
    """Write sine and cosine of the local day of the week, Monday 0, as a share of 7."""
    place = np.searchsorted(changes, times[0] // _SECOND, "right") if times.size else 0
    for i in range(times.size):
        second = times[i] // _SECOND
        place = _place_of(changes, second, place)
        since_monday = (second + offsets[place - 1]) // _DAY + 3  # 1970 began on a Thursday
        out[0, i], out[1, i] = _circle((since_monday - since_monday // 7 * 7) / 7.0)


@compiled
def year_circle(times: Int64Array, changes: Int64Array, offsets: Int64Array, out: F32) -> None:
    """Write sine and cosine of the local day of the year, 1 January 0, as a share of its days.

    http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    """
    place = np.searchsorted(changes, times[0] // _SECOND, "right") if times.size else 0
    for i in range(times.size):
        second = times[i] // _SECOND
        place = _place_of(changes, second, place)
        days = (second + offsets[place - 1]) // _DAY + _MARCH
        of_era = days - days // 146_097 * 146_097
        year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
        of_year = of_era - (365 * year + year // 4 - year // 100)
        # years that begin in March; an era has 400 of them
        if of_year < 306:
            day = of_year + 59 + _is_leap(year)
        else:
            year, day = year + 1, of_year - 306
        out[0, i], out[1, i] = _circle(day / (365.0 + _is_leap(year)))


@inlined
def _place_of(changes, second, place):  # type: ignore[no-untyped-def]
    """Return how many changes there were until a second; bars follow each other in time."""
    while place < changes.size and changes[place] <= second:
        place += 1
    while place > 1 and changes[place - 1] > second:
        place -= 1
    return place


@inlined
def _is_leap(year):  # type: ignore[no-untyped-def]
    return 1 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 0


@inlined
def _circle(share):  # type: ignore[no-untyped-def]
    """Sine and cosine of a share of a whole turn, 0 to below 1: Taylor's within an eighth."""
    eighths = 8.0 * share
    k = int(eighths)
    rest = eighths - k
    if k & 1:
        rest = 1.0 - rest
    x = rest * 0.78539816339744831
    z = x * x
    s = 1.0 / 355687428096000.0
    s = z * s - 1.0 / 1307674368000.0
    s = z * s + 1.0 / 6227020800.0
    s = z * s - 1.0 / 39916800.0
    s = z * s + 1.0 / 362880.0
    s = z * s - 1.0 / 5040.0
    s = z * s + 1.0 / 120.0
    s = z * s - 1.0 / 6.0
    s = x + x * (z * s)
    c = 1.0 / 20922789888000.0
    c = z * c - 1.0 / 87178291200.0
    c = z * c + 1.0 / 479001600.0
    c = z * c - 1.0 / 3628800.0
    c = z * c + 1.0 / 40320.0
    c = z * c - 1.0 / 720.0
    c = z * c + 1.0 / 24.0
    c = z * c - 0.5
    c = 1.0 + z * c
    if (k + 1) & 2:
        s, c = c, s
    # not -s: of a half turn the sine is 0, and no zero of another sign
    sine = 0.0 - s if k & 4 else s
    cosine = 0.0 - c if (k + 2) & 4 else c
    return sine, cosine
