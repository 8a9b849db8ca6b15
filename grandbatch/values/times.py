"""Times and lengths of time as people write them, in whole nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from grandbatch.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    Time = str | int | datetime | pd.Timestamp | np.datetime64
    Duration = str | int | timedelta | pd.Timedelta | np.timedelta64


def to_nanoseconds(value: Time, name: str) -> int:
    """Read a time as ns since 1970 UTC; one without a zone is taken as UTC.

    Raises
    ------
    UsageError
        If it is none.
    """
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


def to_duration(value: Duration, name: str, *, positive: bool = False) -> int:
    """Read a length of time in ns, 0 or more.

    Raises
    ------
    UsageError
        If it is none, or negative, or 0 where it must be positive.
    """
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


def iso_time(ns: int) -> str:
    """Write nanoseconds since 1970 as ISO time, UTC."""
    seconds, rest = divmod(ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()
    return text.replace("+00:00", f".{rest:09d}+00:00") if rest else text


def moment(ns: int) -> str:
    """Write a time in ns since 1970 as date and time to the second, UTC."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def shown(time: int) -> str:
    """Write ns since 1970 UTC for people."""
    whole, rest = divmod(time, 10**9)
    text = str(np.datetime64(whole, "s"))
    return f"{text}.{rest:09d}Z" if rest else f"{text}Z"
