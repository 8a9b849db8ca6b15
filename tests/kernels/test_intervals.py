"""Claims about the intervals of a clock, beside one that is watched minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from grandbatch.kernels.bars.intervals import (
    FIRST,
    GREATEST,
    LAST,
    LEAST,
    SUM,
    gather_rows,
    interval_starts,
)
from grandbatch.values.zones import zone_of

MINUTE = 60_000_000_000
DAY = 1_440


def starts_of(times: np.ndarray, zone: str, length: int, shift: int, ahead: int = 0) -> np.ndarray:
    """Call the kernel; length, shift and ahead in minutes."""
    found = np.empty(len(times), np.int64)
    table = zone_of(zone).table
    interval_starts(times, *table, length * MINUTE, shift * MINUTE, ahead * MINUTE, found)
    return found


def watched_starts(first: datetime, n: int, zone: str, length: int, shift: int) -> list[int]:
    """Watch a clock for n minutes; the days before `first` are watched too, to know where it is."""
    days = max(1, length // DAY)
    begin = first - timedelta(days=days + 2)
    monday = datetime(1970, 1, 5)
    shown, anchor, found = None, None, []
    for minute in range(n + (days + 2) * DAY):
        now = begin + timedelta(minutes=minute)
        wall = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        day = (wall - timedelta(minutes=shift) - monday) // timedelta(days=days)
        if shown is None or day > shown:
            shown, anchor = day, minute
        if now >= first:
            assert anchor is not None
            at = begin + timedelta(minutes=anchor + (minute - anchor) // length * length)
            found.append(int(at.timestamp()) * 10**9)
    return found


@pytest.mark.parametrize("length", [5, 30, 45, 60, 240, 420, DAY, 7 * DAY])
@pytest.mark.parametrize(
    ("zone", "shift", "first"),
    [
        ("UTC", 0, "2024-02-27"),
        ("America/New_York", 0, "2024-03-08"),
        ("America/New_York", 18 * 60, "2024-11-01"),
        ("America/New_York", 90, "2024-11-01"),
        ("America/New_York", 150, "2024-03-08"),
        ("Australia/Lord_Howe", 105, "2024-04-05"),
        ("Asia/Kathmandu", 0, "2024-01-01"),
        ("America/Havana", 0, "2024-03-08"),
        ("America/Havana", 0, "2024-11-01"),
        ("Europe/Dublin", 60, "1971-10-29"),
    ],
)
def test_intervals_begin_where_clocks_pass_midnight_and_a_length_after_each_other(
    zone: str, shift: int, first: str, length: int
) -> None:
    begin = datetime.fromisoformat(first).replace(tzinfo=UTC)
    expected = watched_starts(begin, 4 * DAY, zone, length, shift)
    times = int(begin.timestamp()) * 10**9 + MINUTE * np.arange(4 * DAY)
    assert starts_of(times, zone, length, shift).tolist() == expected


def test_an_interval_never_ends_later_than_its_length_after_its_start() -> None:
    times = np.sort(np.random.default_rng(0).integers(0, 2 * 10**18, 5_000))
    for length, shift in [(30, 0), (240, 1_080), (DAY, 1_020), (7 * DAY, 0)]:
        starts = starts_of(times, "America/New_York", length, shift)
        assert (starts <= times).all()
        assert (times < starts + length * MINUTE).all()
        assert (np.diff(starts) >= 0).all()


def test_a_time_has_one_interval_whatever_was_asked_with_it() -> None:
    times = np.sort(np.random.default_rng(1).integers(10**18, 2 * 10**18, 999))
    together = starts_of(times, "America/New_York", 240, 1_080)
    alone = [starts_of(times[[i]], "America/New_York", 240, 1_080)[0] for i in range(len(times))]
    assert together.tolist() == alone


def test_a_clock_that_is_ahead_of_a_zone_has_its_midnight_earlier() -> None:
    times = MINUTE * np.arange(0, 3 * DAY, 17)
    found = starts_of(times, "UTC", DAY, 0, ahead=420)
    assert found.tolist() == [
        (t + 420 * MINUTE) // (DAY * MINUTE) * DAY * MINUTE - 420 * MINUTE for t in times.tolist()
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_rows_give_the_same_bars_in_whatever_pieces_they_come(size: int) -> None:
    rng = np.random.default_rng(2)
    starts = np.sort(rng.integers(0, 15, 60))
    values = rng.normal(size=(5, 60)) * 10.0 ** rng.integers(-9, 9, 60)
    made, out, counts = np.empty(60, np.int64), np.empty((5, 60)), np.empty(60, np.int64)
    ways = np.array([FIRST, LAST, GREATEST, LEAST, SUM])
    n = 0
    for at in range(0, 60, size):
        piece = slice(at, at + size)
        n = gather_rows(starts[piece], values[:, piece], ways, made, out, counts, n)
    expected = []
    for start in np.unique(starts):
        first, last, most, least, added = (column[starts == start].tolist() for column in values)
        total = 0.0
        for value in added:
            total += value
        expected.append([start, first[0], last[-1], max(most), min(least), total, len(first)])
    assert np.vstack([made[:n], out[:, :n], counts[:n]]).T.tolist() == expected
