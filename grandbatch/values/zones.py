"""Time zones by their changes: a table of when clocks changed, and how far ahead of UTC they are.

The zone database is that of the package `tzdata`, never the system's: the same requirements give
the same times on every machine, and the package tells its version.
"""

from __future__ import annotations

import difflib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import tzdata

from grandbatch.errors import UsageError
from grandbatch.values.arrays import Int64

_FIRST, _LAST = -(2**63) // 10**9, 2**63 // 10**9
"""Seconds since 1970 that int64 nanoseconds reach."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK = 7 * 86_400
_HEADER = struct.Struct(">4sc15x6l")


@dataclass(frozen=True)
class Zone:
    """A time zone, as far as times in int64 nanoseconds reach. It can be hashed, and pickled.

    Parameters
    ----------
    name : str
        Of the zone database.
    database : str
        The database's version, such as "tzdata 2025b".
    changes : bytes
        Of (n,) int64: seconds since 1970 UTC from which each offset holds, rising, from before
        all times on.
    offsets : bytes
        Of (n,) int64: seconds that local time is ahead of UTC.
    """

    name: str
    database: str
    changes: bytes
    offsets: bytes

    @property
    def table(self) -> tuple[Int64, Int64]:
        """The changes and the offsets, (n,) int64 each, read-only."""
        return np.frombuffer(self.changes, np.int64), np.frombuffer(self.offsets, np.int64)


@lru_cache
def zone_of(name: str) -> Zone:
    """Read a zone of the database.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    raw = _read(name)
    changes, offsets = _recorded(raw)
    rules = ZoneInfo.from_file(BytesIO(raw), name)
    begin = changes[-1] if changes else 0
    first = _offset_at(rules, changes[0] - 1 if changes else 0)
    changes, offsets = [_FIRST - 1, *changes], [first, *offsets]
    # what is to come follows rules, which change clocks at most twice a year
    for low in range(begin, _LAST, _WEEK):
        high = min(low + _WEEK, _LAST)
        if _offset_at(rules, high) != offsets[-1]:
            change = _change_between(rules, low, high, offsets[-1])
            changes.append(change)
            offsets.append(_offset_at(rules, change))
    packed = (np.array(values, np.int64).tobytes() for values in (changes, offsets))
    return Zone(name, f"tzdata {tzdata.IANA_VERSION}", *packed)


def _read(name: str) -> bytes:
    package = Path(tzdata.__file__).parent
    known = (package / "zones").read_text("utf-8").split()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(
            f"timezone {name!r} is unknown{meant}; write an IANA name such as America/New_York"
        )
    return (package / "zoneinfo").joinpath(*name.split("/")).read_bytes()


def _recorded(raw: bytes) -> tuple[list[int], list[int]]:
    """Return the changes that a file lists (RFC 9636), and the offsets from each on."""
    n_ut, n_std, n_leap, n_times, n_types, n_chars = _HEADER.unpack_from(raw)[2:]
    # the first half is of 32 bits, for programs of long ago
    at = _HEADER.size + n_times * 5 + n_types * 6 + n_chars + n_leap * 8 + n_std + n_ut
    n_times, n_types = _HEADER.unpack_from(raw, at)[5:7]
    at += _HEADER.size
    times = np.frombuffer(raw, ">i8", n_times, at).astype(np.int64)
    kinds = np.frombuffer(raw, np.uint8, n_times, at + 8 * n_times)
    ahead = [struct.unpack_from(">l", raw, at + 9 * n_times + 6 * k)[0] for k in range(n_types)]
    shown = times >= _FIRST
    return times[shown].tolist(), [ahead[kind] for kind in kinds[shown].tolist()]


def _offset_at(rules: ZoneInfo, seconds: int) -> int:
    offset = (_EPOCH + timedelta(seconds=seconds)).astimezone(rules).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _change_between(rules: ZoneInfo, low: int, high: int, before: int) -> int:
    """Return the second from which on an offset is no longer what it was before."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset_at(rules, middle) == before else (low, middle)
    return high
