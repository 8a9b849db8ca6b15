"""Clocks that timestamps are read by: a zone, and what a clock is ahead of it."""

from __future__ import annotations

import re
from contextlib import suppress
from zoneinfo import ZoneInfo

from grandbatch.errors import UsageError

_AHEAD = r"([+-])([01]\d|2[0-3]):([0-5]\d)"


def split_zone(name: str) -> tuple[str, int]:
    """Return a zone's IANA name and the nanoseconds that a clock set by it is ahead.

    Raises
    ------
    UsageError
        If there is no such zone.
    """
    if is_zone(name):
        return name, 0
    zone, ahead = name[:-6], re.fullmatch(_AHEAD, name[-6:])
    if ahead and is_zone(zone):
        minutes = int(ahead[2]) * 60 + int(ahead[3])
        return zone, minutes * 60_000_000_000 * (-1 if ahead[1] == "-" else 1)
    raise UsageError(
        f"timezone {name!r} is unknown; write an IANA name such as America/New_York, "
        "or one with what the clock is ahead of it, such as America/New_York+07:00 or UTC+05:30"
    )


def is_zone(name: str) -> bool:
    """Whether there is a zone of that IANA name."""
    with suppress(KeyError, ValueError, OSError):  # unknown, hostile, or a folder of zones
        ZoneInfo(name)
        return True
    return False
