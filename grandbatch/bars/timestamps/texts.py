"""Columns of timestamps as text to UTC nanoseconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from grandbatch.bars.rules.clocks import split_zone
from grandbatch.bars.timestamps.evidence import UNSETTLED, Evidence, Meaning, Tally
from grandbatch.bars.timestamps.sessions import DAY
from grandbatch.errors import UsageError
from grandbatch.kernels.bars import timestamps as kernel
from grandbatch.kernels.bars.epochs import read_numbers
from grandbatch.kernels.bars.timestamps import parse_timestamps

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

_FIRST_SECOND = -(2**63) // 10**9 + 1
_LAST_SECOND = 2**63 // 10**9 - 1
_DAY_END = r"(?<!\d)24(:00(?::00(?:\.0+)?)?)(?![\d:.])"
_NAT = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TimeForm:
    """How a file's timestamps are read."""

    meaning: Meaning = UNSETTLED
    timezone: str = "UTC"
    strptime: str | None = None
    session_start: int | None = None
    """Nanoseconds since midnight from which on times belong to the day before their date."""
    calendar: tuple[int, ...] | None = None
    """Days since 1970 that stand in all inputs, once that is known."""


@dataclass(frozen=True)
class ClockChanges:
    """Times of rows that clocks in their zone skip, or show twice."""

    rows: Int64
    """Rows, ascending, whose time comes twice, (K,); they are read as the first of the two."""
    second: Int64
    """What the second would be, (K,)."""
    skipped: int = 0
    """Rows with a time that there is not."""

    def at(self, start: int) -> ClockChanges:
        """Return the same for rows that begin at another number."""
        return ClockChanges(self.rows + start, self.second, self.skipped)


NO_CHANGES = ClockChanges(np.empty(0, np.int64), np.empty(0, np.int64))


def join_changes(parts: Sequence[ClockChanges]) -> ClockChanges:
    """Join the changes of several sets of rows."""
    if not any(part.skipped or len(part.rows) for part in parts):
        return NO_CHANGES
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    second = np.concatenate([part.second for part in parts])[order]
    return ClockChanges(rows[order], second, sum(part.skipped for part in parts))


def read_times(column: Any, form: TimeForm) -> tuple[Int64, UInt8, Evidence, ClockChanges]:
    """Read a column of text.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of binary
        One text per row, none null.
    form : TimeForm
        How to read it.

    Returns
    -------
    times : (T,) int64
        Nanoseconds since 1970, UTC.
    status : (T,) uint8
        A status of `grandbatch.kernels.bars.timestamps`, not `NUMBER`.
    evidence : Evidence
    changes : ClockChanges
    """
    changes = []
    times = np.empty(len(column), np.int64)
    status = np.empty(len(column), np.uint8)
    tally = Tally()
    at = 0
    for chunk in column.chunks:
        rows = slice(at, at + len(chunk))
        at += len(chunk)
        _, offsets, data = chunk.buffers()
        edges = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        places = np.stack([edges[:-1], edges[1:]]).astype(np.int64)
        text = np.frombuffer(data if data is not None else b"", np.uint8)
        text.flags.writeable = False
        found = read_texts(text, places, form, times[rows], status[rows], tally)
        changes.append(found.at(rows.start))
    return times, status, tally.evidence(), join_changes(changes)


def read_texts(
    data: UInt8, places: Int64, form: TimeForm, times: Int64, status: UInt8, tally: Tally
) -> ClockChanges:
    """Read texts that lie scattered.

    Parameters
    ----------
    data : (B,) uint8, read-only
        Where the texts are.
    places : (2, T) int64
        Where they start and stop.
    form : TimeForm
        How to read them.
    times, status : (T,) int64, (T,) uint8
        Written, as `read_times` returns them.
    tally : Tally
        Added to.

    Returns
    -------
    ClockChanges
    """
    if form.strptime is None:
        starts, stops = places
        meaning, texts = form.meaning, tally.texts
        first = meaning.day_first, meaning.clocks
        if parse_timestamps(data, starts, stops, *first, times, status, texts):
            number = meaning.numbers, meaning.early
            read_numbers(data, starts, stops, *number, times, status, tally.numbers)
    else:
        raw = [data[a:b].tobytes() for a, b in places.T.tolist()]
        times[:], status[:] = _read_strptime(raw, form.strptime)
    if form.session_start is not None:
        _put_back(times, status, form, tally)
    return NO_CHANGES if form.timezone == "UTC" else _localize(times, status, form.timezone)


def _put_back(times: Int64, status: UInt8, form: TimeForm, tally: Tally) -> None:
    """Put the evenings of trading days on the days before, in place."""
    assert form.session_start is not None
    rows = np.flatnonzero(status <= kernel.ABSOLUTE)
    wall, is_absolute = times[rows], status[rows] == kernel.ABSOLUTE
    wall[is_absolute] = to_wall(wall[is_absolute], form.timezone)
    moved = tally.placements.put_back(wall, form.session_start, form.calendar)
    times[rows[moved]] = wall[moved]
    status[rows[moved]] = kernel.NAIVE


def to_wall(times: Int64, timezone: str) -> Int64:
    """Turn UTC into what the clock of a zone shows."""
    zone, ahead = split_zone(timezone)
    zoned = pd.DatetimeIndex(times.view("datetime64[ns]")).tz_localize("UTC").tz_convert(zone)
    wall: Int64 = zoned.tz_localize(None).to_numpy().astype("datetime64[ns]").view(np.int64) + ahead
    return wall


def _read_strptime(texts: list[bytes], form: str) -> tuple[Int64, UInt8]:
    plain = pd.Series([text.decode("utf-8", "replace").strip() for text in texts], dtype="str")
    times, good = _strptime(plain, form)
    # pandas knows no end of a day
    start = plain[~good].str.replace(_DAY_END, r"00\1", regex=True)
    ends = start[start != plain[~good]]
    if len(ends):
        times[ends.index], good[ends.index] = _strptime(ends, form)
        times[ends.index] += DAY
    is_absolute = "%z" in form or "%Z" in form
    status = np.full(len(texts), kernel.UNREADABLE, np.uint8)
    status[good] = kernel.ABSOLUTE if is_absolute else kernel.NAIVE
    status[(plain == "").to_numpy()] = kernel.EMPTY
    return times, status


def _strptime(texts: pd.Series, form: str) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Nanoseconds since 1970 of texts, and which could be read."""
    is_absolute = "%z" in form or "%Z" in form
    try:
        read = pd.to_datetime(texts, format=form, errors="coerce", utc=is_absolute)
    except (ValueError, re.error) as error:
        raise UsageError(
            f"timestamp_format {form!r} is none that pandas.to_datetime understands: {error}; "
            "take one such as %d/%m/%Y %H:%M"
        ) from None
    if is_absolute:
        read = read.dt.tz_localize(None)
    values = read.to_numpy()
    seconds = values.astype("datetime64[s]").astype(np.int64)  # NaT lies outside all bounds
    good = (seconds >= _FIRST_SECOND) & (seconds <= _LAST_SECOND)
    times = np.where(good, values, values.dtype.type(0, "s")).astype("datetime64[ns]")
    return times.astype(np.int64), good


def _localize(times: Int64, status: UInt8, timezone: str) -> ClockChanges:
    """Turn wall-clock times into UTC, in place."""
    naive = np.flatnonzero(status == kernel.NAIVE)
    if not len(naive):
        return NO_CHANGES
    wall = pd.DatetimeIndex(times[naive].view("datetime64[ns]"))
    once = _to_utc(wall, timezone, "NaT")
    times[naive] = once
    unclear = np.flatnonzero(once == _NAT)  # skipped or shown twice
    if not len(unclear):
        return NO_CHANGES
    first, second = (
        _to_utc(wall[unclear], timezone, np.full(len(unclear), is_first))
        for is_first in (True, False)
    )
    is_skipped = first == _NAT
    rows = naive[unclear]
    times[rows] = first
    status[rows[is_skipped]] = kernel.UNREADABLE
    return ClockChanges(rows[~is_skipped], second[~is_skipped], int(is_skipped.sum()))


def _to_utc(wall: pd.DatetimeIndex, timezone: str, ambiguous: Any) -> Int64:
    zone, ahead = split_zone(timezone)
    wall = wall - np.timedelta64(ahead, "ns")
    zoned = wall.tz_localize(zone, ambiguous=ambiguous, nonexistent="NaT").tz_convert(None)
    return zoned.to_numpy().astype("datetime64[ns]").view(np.int64)
