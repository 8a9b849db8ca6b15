"""Local times where clocks change: the stated rule, its counts, and block and file borders."""

import datetime as dt
import tempfile
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
CHICAGO = BarRules(timezone="America/Chicago", max_bad_fraction=1.0)
AUTUMN = dt.datetime(2024, 11, 3, 5, 30, tzinfo=dt.UTC)  # half an hour before 1:00 comes
SPRING = dt.datetime(2024, 3, 10, 7, 30, tzinfo=dt.UTC)


def prepare(rows, folder, rules=CHICAGO, block_bytes=None, name="x.csv"):
    lines = [f"{time},{symbol},10,12,9,11,{i}" for i, (time, symbol) in enumerate(rows)]
    path = Path(folder) / name
    path.write_text("\n".join(["timestamp,symbol,open,high,low,close,volume", *lines]) + "\n")
    return prepare_bars(path, Path(folder) / "cache", rules, HERE, block_bytes)


def wall(moment):
    return moment.astimezone(ZoneInfo("America/Chicago")).strftime("%Y-%m-%d %H:%M")


def times_of(bars):
    return [pd.Timestamp(t, tz="UTC") for t in bars.read(0, len(bars))["timestamp"].tolist()]


@pytest.mark.parametrize("minutes", [1, 5, 30, 60])
@pytest.mark.parametrize("block_bytes", [40, 100, 300, None])
def test_bars_without_a_gap_come_through_both_changes_as_they_were(tmp_path, minutes, block_bytes):
    for begin in (AUTUMN, SPRING):
        moments = [begin + dt.timedelta(minutes=i * minutes) for i in range(240 // minutes)]
        bars = prepare([(wall(m), "A") for m in moments], tmp_path, block_bytes=block_bytes)
        assert times_of(bars) == moments
        assert bars.quarantined == {}
        repeated = 120 // minutes if begin is AUTUMN else 0
        assert bars.clock_changes == ({"repeated": repeated} if repeated else {})


def test_an_hour_that_does_not_exist_is_quarantined_and_counted(tmp_path):
    rows = [(f"2024-03-10 {hour:02d}:{minute:02d}", "A") for hour in range(4) for minute in (0, 30)]
    bars = prepare(rows, tmp_path)
    assert [wall(t) for t in times_of(bars)] == [time for time, _ in rows if " 02:" not in time]
    assert bars.quarantined == {"unparseable": 2}
    assert bars.clock_changes == {"skipped": 2}
    assert [bad.line for bad in iter_bad_rows(bars.path)] == [6, 7]


def test_each_symbol_has_its_own_second_hour(tmp_path):
    moments = [AUTUMN + dt.timedelta(minutes=i * 15) for i in range(16)]
    rows = [(wall(m), symbol) for m in moments for symbol in "AB"]
    rows.remove((wall(moments[3]), "A"))  # A's last of the first hour
    for block_bytes in (50, None):
        bars = prepare(rows, tmp_path, block_bytes=block_bytes)
        assert times_of(bars) == [*(m for m in moments if m is not moments[3]), *moments]


def test_with_sort_the_first_of_two_times_is_meant(tmp_path):
    moments = [AUTUMN + dt.timedelta(minutes=i * 30) for i in range(8)]
    rules = BarRules(timezone="America/Chicago", max_bad_fraction=1.0, sort=True)
    bars = prepare([(wall(m), "A") for m in reversed(moments)], tmp_path, rules)
    assert bars.quarantined == {"duplicate_timestamp": 2}
    assert times_of(bars) == [m for m in moments if m not in moments[3:5]]


def naive_reading(rows):
    """Times by symbol and bad rows, by the stated rule, one row at a time."""
    zone, last, found, bad = ZoneInfo("America/Chicago"), {}, {}, []
    for number, (time, symbol) in enumerate(rows, start=2):
        local = dt.datetime.fromisoformat(time).replace(tzinfo=zone)
        first, second = (local.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
        if first.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            bad.append((number, "unparseable"))
            continue
        before = last.get(symbol)
        moment = first if before is None or first > before else second
        if before is not None and moment <= before:
            late = moment < before
            bad.append((number, "out_of_order" if late else "duplicate_timestamp"))
        else:
            last[symbol] = moment
            found.setdefault(symbol, []).append(moment)
    return found, bad


minutes_of_day = st.integers(0, 23).map(lambda quarter: dt.timedelta(minutes=15 * quarter))
days = st.sampled_from([dt.datetime(2024, 11, 3), dt.datetime(2024, 3, 10)])
local_times = st.builds(lambda day, at: f"{day + at:%Y-%m-%d %H:%M}", days, minutes_of_day)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(local_times, st.sampled_from("AB")), min_size=1, max_size=30),
    st.booleans(),
    st.integers(30, 400),
)
def test_any_block_size_follows_the_rule_row_by_row(rows, is_sorted, block_bytes):
    if is_sorted:
        rows = sorted(rows)
    rows = [("2024-01-01 00:00", "Z"), *rows]
    expected, bad = naive_reading(rows)
    with tempfile.TemporaryDirectory() as folder:
        bars = prepare(rows, folder, block_bytes=block_bytes)
        found = np.split(np.array(times_of(bars)), bars.symbol_bounds[1:-1])
        assert {s: list(t) for s, t in zip(bars.symbols, found, strict=True)} == expected
        assert [(row.line, row.reason) for row in iter_bad_rows(bars.path)] == bad
