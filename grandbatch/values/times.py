"""Times and lengths of time as people write them, in whole nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.values.arrays import Int64

if TYPE_CHECKING:
    import pandas as pd

    Time = str | int | datetime | pd.Timestamp | np.datetime64
    Duration = str | int | timedelta | pd.Timedelta | np.timedelta64


_DAY_NS = 86_400 * 10**9
_FIRST_MONDAY = 4
"""Days since 1970."""
_MONTHS_OF_YEAR = 12
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
_UNITS = {"s": 10**9, "min": 60 * 10**9, "h": 3_600 * 10**9, "D": _DAY_NS}
_PLAIN = re.compile(rf"(\d{{1,5}})({'|'.join(_UNITS)})")
"""A length of time as most people write it."""
_YEAR_LAST = re.compile(r"\s*(\d{1,2})([-/. ])(\d{1,2})\2(\d.*)", re.DOTALL)
_A_YEAR = re.compile(r"\d{4}")


def to_nanoseconds(value: Time, name: str, *, day_first: bool | None = None) -> int:
    """Read a time as ns since 1970 UTC; one without a zone is taken as UTC.

    A date in numbers begins with its year: 1/7/2024 is two days, and which of them, one time alone
    can't tell. `day_first` tells.

    Raises
    ------
    UsageError
        If it is none, or doesn't say which number is the month.
    """
    if isinstance(value, str):
        value = _year_first(value, name, day_first)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    import pandas as pd

    try:
        if isinstance(value, bool | float):
            value = str(value)
        time = pd.Timestamp(value)
        utc = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
        return int(utc.as_unit("ns").value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{name} must be a time such as 2024-01-31T09:30 or ns since 1970 UTC, "
            f"got {value!r} ({error})"
        ) from None


def refuse_year_last(text: str, name: str) -> None:
    """Refuse a date in numbers that doesn't begin with its year; say what is known of it.

    Raises
    ------
    UsageError
    """
    found = _YEAR_LAST.fullmatch(text)
    if found is None:
        return
    first, second = int(found[1]) > _MONTHS_OF_YEAR, int(found[3]) > _MONTHS_OF_YEAR
    known = "day and month can't be told apart"
    if first != second:
        known = f"the {'day' if first else 'month'} comes first"
    raise UsageError(
        f"{name} must be a date with its year first, such as 2024-01-31T09:30: in {text!r} {known}"
    )


def _year_first(text: str, name: str, day_first: bool | None) -> str:
    found = _YEAR_LAST.fullmatch(text)
    if day_first is None:
        refuse_year_last(text, name)
    # of a text without a date pandas makes a time of the day it is read on
    if _A_YEAR.search(text) is None:
        raise UsageError(
            f"{name} must be a time such as 2024-01-31T09:30, with its date: {text!r} names no year"
        )
    if found is None or not _A_YEAR.match(found[4]):
        return text
    day, month = (found[1], found[3]) if day_first else (found[3], found[1])
    return f"{found[4][:4]}-{month:0>2}-{day:0>2}{found[4][4:]}"


def to_duration(value: Duration, name: str, *, positive: bool = False) -> int:
    """Read a length of time in ns, 0 or more.

    Raises
    ------
    UsageError
        If it is none, or negative, or 0 where it must be positive.
    """
    plain = _PLAIN.fullmatch(value) if isinstance(value, str) else None
    if plain and int(plain[1]):
        return int(plain[1]) * _UNITS[plain[2]]
    # it takes a third of a second to import
    import pandas as pd

    try:
        if isinstance(value, bool | float):
            raise TypeError("a number needs a unit")
        length = pd.Timedelta(int(value), "ns") if isinstance(value, int) else pd.Timedelta(value)
        nanoseconds = int(length.as_unit("ns").value)
        if nanoseconds < 0:  # which NaT is too
            raise ValueError("it must be 0 or more")
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{name} must be a length of time such as 30min or 1D, or whole ns, "
            f"got {value!r} ({error})"
        ) from None
    if positive and nanoseconds == 0:
        raise UsageError(f"{name} must be positive, got {value!r}")
    return nanoseconds


def written_duration(ns: int) -> str:
    """Write a length of time as `to_duration` reads it: 14,400,000,000,000 ns are 4h."""
    for unit, length in sorted(_UNITS.items(), key=lambda pair: -pair[1]):
        if ns and ns % length == 0:
            return f"{ns // length}{unit}"
    return f"{ns}ns"


def calendar_period(text: str) -> tuple[int, str]:
    """Read a calendar period, such as 1M: how many, of which unit (D, W, M, Q or Y).

    Raises
    ------
    UsageError
        If it is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})?([DWMQY])", str(text).strip().upper())
    if found is None:
        raise UsageError(
            "a period must be calendar days, weeks, months, quarters or years, such as 1D, 1W, "
            f"1M, 1Q or 1Y, got {text!r}"
        )
    return int(found[1] or 1), found[2]


def period_starts(period: str, first: int, last: int) -> Int64:
    """Return when each calendar period (UTC) begins, from that of `first` to that of `last`.

    All are ns since 1970 UTC. Weeks begin on Mondays; several days, weeks, months, quarters or
    years are counted from 1970 on. Of the first period, no time before it is meant: it is the
    lowest there is.
    """
    count, unit = calendar_period(period)
    if unit in _MONTHS:
        months = np.array([first, last]).view("M8[ns]").astype("M8[M]").astype(np.int64)
        low, high = months // (count * _MONTHS[unit])
        numbers = np.arange(low, high + 1) * (count * _MONTHS[unit])
        starts = numbers.astype("M8[M]").astype("M8[ns]").astype(np.int64)
    else:
        days, origin = (count, 0) if unit == "D" else (7 * count, _FIRST_MONDAY)
        low, high = (np.array([first, last]) // _DAY_NS - origin) // days
        starts = (np.arange(low, high + 1) * days + origin) * _DAY_NS
    starts[0] = np.iinfo(np.int64).min
    return starts


def iso_time(ns: int) -> str:
    """Write nanoseconds since 1970 as ISO time, UTC."""
    seconds, rest = divmod(ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()
    return text.replace("+00:00", f".{rest:09d}+00:00") if rest else text


def moment(ns: int) -> str:
    """Write a time in ns since 1970 as date and time to the second, UTC."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def shown(time: int) -> str:
    """Write ns since 1970 UTC for people.

    The end of a stretch, which is no part of it, is often the nanosecond behind its last bar: that
    bar's time is written.
    """
    whole, rest = divmod(time, 10**9)
    if rest % 1000 == 1:
        rest -= 1
    text = str(np.datetime64(whole, "s"))
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else f"{text}Z"
