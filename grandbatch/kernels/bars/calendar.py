"""Gregorian dates to days since 1970, for kernels that read text.

Whoever changes what these do must change the files that use them too: numba keeps compiled kernels
until their own file changes.
"""

from __future__ import annotations

from grandbatch.kernels.compilation import inlined

FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Whole years within int64 nanoseconds."""


@inlined
def days_of(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 of a date.

    http://howardhinnant.github.io/date_algorithms.html#days_from_civil
    """
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    shifted = month + 9 if month <= 2 else month - 3
    of_year = (153 * shifted + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@inlined
def is_date(year, month, day):  # type: ignore[no-untyped-def]
    """Whether there is such a date, within `FIRST_YEAR` and `LAST_YEAR`."""
    if year < FIRST_YEAR or year > LAST_YEAR or month < 1 or month > 12 or day < 1:
        return False
    if day <= 28:
        return True
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return day == 29 and leap
    if month in (4, 6, 9, 11):
        return day <= 30
    return day <= 31
