"""Bars of a coarser timeframe, beside a loop over the finer ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from advice import offers, rules_of
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, Bars, find_bars, prepare_bars
from grandbatch.bars.building import making
from grandbatch.bars.resampling import build as resampling
from grandbatch.bars.resampling import gathering
from grandbatch.errors import InputError, MemoryLimitError, UsageError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
MINUTE = 60 * 10**9
Row = tuple[int, str, float, float, float, float, float, float, float]


def made_rows(minutes: list[int], symbols: str = "A", seed: int = 0) -> list[Row]:
    """Bars of some minutes since the 8th of March 2024; two extra columns."""
    rng = np.random.default_rng(seed)
    begin = int(datetime(2024, 3, 8, tzinfo=UTC).timestamp()) * 10**9
    rows = []
    for symbol in symbols:
        for minute in minutes:
            prices = np.sort(np.round(rng.uniform(90, 110, 4), 3)).tolist()
            low, opened, close, high = prices
            numbers = np.round(rng.uniform(0, 1_000, 3), 3).tolist()
            rows.append((begin + minute * MINUTE, symbol, opened, high, low, close, *numbers))
    return rows


def write(path: Path, rows: list[Row]) -> Path:
    lines = ["timestamp,symbol,open,high,low,close,volume,trades,spread"]
    for time, symbol, *numbers in rows:
        at = np.datetime64(time, "ns").astype("M8[s]")
        lines.append(",".join([f"{at}Z", symbol, *map(repr, numbers)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def prepare(path: Path, length: Any = "30min", schedule: Schedule = HERE, **rules: Any) -> Bars:
    options = {"extra": ["trades", "spread"], "aggregate": {"trades": "sum"}, **rules}
    return prepare_bars(
        path, path.parent / "cache", BarRules(resample=length, **options), schedule, 4_096
    )


def rows_of(bars: Bars) -> list[tuple[Any, ...]]:
    read = bars.read(0, bars.n_rows)
    names = [bars.symbols[code] for code in read["symbol"]]
    numbers = [read[name].tolist() for name in bars.columns if name not in ("symbol", "timestamp")]
    return list(zip(read["timestamp"].tolist(), names, *numbers, strict=True))


def expected_rows(
    rows: list[Row], length: timedelta, duration: timedelta, zone: str = "UTC", hour: int = 0
) -> list[tuple[Any, ...]]:
    """Gather rows in a loop. Days are those of a clock that is read for each bar."""
    out: dict[tuple[str, int], list[Any]] = {}
    ends: dict[str, tuple[int, int]] = {}
    for time, symbol, opened, high, low, close, volume, trades, spread in sorted(
        rows, key=lambda row: (row[1], row[0])
    ):
        start = start_of(time, length, zone, hour)
        known = out.setdefault((symbol, start), [opened, high, low, close, 0.0, 0.0, spread])
        known[1], known[2], known[3] = max(known[1], high), min(known[2], low), close
        known[4] += volume
        known[5] += trades
        known[6] = spread
        ends[symbol] = start, start_of(time + nanoseconds(duration), length, zone, hour)
    return [
        (start, symbol, *values)
        for (symbol, start), values in out.items()
        if start != ends[symbol][0] or start != ends[symbol][1]
    ]


def nanoseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1_000


def start_of(time: int, length: timedelta, zone: str, hour: int) -> int:
    local = datetime.fromtimestamp(time // 10**9, ZoneInfo(zone))
    day = (local.replace(tzinfo=None) - timedelta(hours=hour)).date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    begin = int((midnight + timedelta(hours=hour)).timestamp()) * 10**9
    return begin + (time - begin) // nanoseconds(length) * nanoseconds(length)


@pytest.mark.parametrize(
    ("length", "zone", "hour"),
    [("30min", "UTC", 0), ("4h", "America/New_York", 18), ("1D", "America/New_York", 18)],
)
def test_bars_are_those_of_a_loop_over_the_finer_ones(
    tmp_path: Path, length: str, zone: str, hour: int
) -> None:
    # five minutes each, without nights, half a day, and some at random; clocks change on the 10th
    rng = np.random.default_rng(1)
    minutes = [m for m in range(0, 5 * 1_440, 5) if m % 1_440 < 1_000 and rng.random() > 0.1]
    rows = made_rows([m for m in minutes if not 2_880 < m < 3_500], "BA")
    path = write(tmp_path / "bars.csv", rows)
    bars = prepare(path, length, timezone=zone, resample_offset=f"{hour}h" if hour else None)
    unit = timedelta(minutes=30) if length == "30min" else timedelta(hours=int(length[:-1]))
    unit = timedelta(days=1) if length == "1D" else unit
    assert rows_of(bars) == expected_rows(rows, unit, timedelta(minutes=5), zone, hour)
    assert bars.columns[-2:] == ("trades", "spread")


@settings(max_examples=12, deadline=None)
@given(
    minutes=st.lists(st.integers(0, 3_000), min_size=5, max_size=40, unique=True),
    piece=st.integers(3, 40),
    slab=st.integers(1, 40),
    step=st.integers(1, 5),
    workers=st.integers(1, 2),
)
def test_how_tasks_are_cut_changes_no_bit(
    tmp_path_factory: pytest.TempPathFactory,
    minutes: list[int],
    piece: int,
    slab: int,
    step: int,
    workers: int,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    rows = made_rows([0, 1, 2, 3, *(4 + m for m in sorted(minutes)), 3_100], "AB", len(minutes))
    path = write(folder / "bars.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "SLICE_ROWS", piece)
        patch.setattr(gathering, "SLAB_ROWS", slab)
        patch.setattr(gathering, "_STEP_ROWS", step)
        bars = prepare(path, "45min", Schedule.local(workers=workers), bar_duration="1min")
    assert rows_of(bars) == expected_rows(rows, timedelta(minutes=45), timedelta(minutes=1))


def test_the_last_interval_is_left_out_until_it_is_whole(tmp_path: Path) -> None:
    rows = made_rows(list(range(0, 300, 5)), "AB")
    seen = {}
    for count in (5, 6, 7, 11, 12):
        short = [row for row in rows if row[0] < rows[0][0] + count * 5 * MINUTE]
        whole = write(tmp_path / f"{count}.csv", short)
        if count == 5:
            with pytest.raises(InputError, match="fill no interval"):
                prepare(whole)
            continue
        bars = prepare(whole)
        seen[count] = bars.n_rows, bars.incomplete
        full = prepare(write(tmp_path / "all.csv", rows))
        for symbol in range(2):
            n = bars.n_rows // 2
            at = int(full.symbol_bounds[symbol])
            assert rows_of(bars)[symbol * n : symbol * n + n] == rows_of(full)[at : at + n]
    assert seen == {6: (2, 0), 7: (2, 2), 11: (2, 2), 12: (4, 0)}


def test_bars_that_carry_their_end_belong_to_the_interval_before(tmp_path: Path) -> None:
    rows = made_rows(list(range(5, 65, 5)))
    shifted = [(row[0] - 5 * MINUTE, *row[1:]) for row in rows]
    by_end = prepare(write(tmp_path / "end.csv", rows), bar_time="close")
    by_start = prepare(write(tmp_path / "start.csv", shifted))
    assert rows_of(by_end) == rows_of(by_start)
    assert by_end.n_rows == 2


def test_bars_that_end_after_the_interval_that_holds_them_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "bars.csv", made_rows(list(range(61)), "AB"))
    cut = prepare(path, "90s")
    assert cut.worth_a_look[-1].startswith("40 bars end up to 60 s later than the bar of 90 s ")
    for length, options in (("2min", {}), ("90s", {"bar_duration": "30s"})):
        assert not [
            line for line in prepare(path, length, **options).worth_a_look if "later" in line
        ]


def test_extra_columns_are_gathered_as_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "bars.csv", made_rows(list(range(60))))
    fine = prepare_bars(path, tmp_path / "cache", BarRules(extra=["trades", "spread"]), HERE)
    spread = fine.read(0, 60, ("spread",))["spread"].reshape(2, 30)
    expected = {
        "first": spread[:, 0],
        "last": spread[:, -1],
        "min": spread.min(1),
        "max": spread.max(1),
        "sum": [sum(row.tolist()) for row in spread],
        "mean": [sum(row.tolist()) / 30 for row in spread],
    }
    for how, values in expected.items():
        bars = prepare(path, aggregate={"spread": how})
        assert bars.read(0, 2, ("spread",))["spread"].tolist() == list(values)


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_a_sum_too_large_for_a_double_is_no_bar(tmp_path: Path, how: str) -> None:
    rows = [(*row[:-1], 9e307) for row in made_rows(list(range(65)))]
    path = write(tmp_path / "bars.csv", rows)
    with pytest.raises(InputError, match="spread: the sum over the interval of 2024-03-08") as told:
        prepare(path, aggregate={"spread": how})
    (offered,) = offers(str(told.value))
    assert rules_of(f"--extra spread {offered} --resample 30min").aggregate == {"spread": "last"}
    last = prepare(path, aggregate={"spread": "last"})
    assert last.read(0, 2, ("spread",))["spread"].tolist() == [9e307, 9e307]


def test_bars_that_outlast_an_interval_are_not_gathered_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "bars.csv", made_rows(list(range(0, 60, 5))))
    with pytest.raises(InputError, match=r"bars of the inputs last 5 min .*60 s of resample") as at:
        prepare(path, "1min")
    (offered,) = offers(str(at.value))
    assert prepare(path, "1min", bar_duration=rules_of(offered).bar_duration).n_rows == 12
    with pytest.raises(InputError, match=r"choose a longer timeframe$"):
        prepare(path, "30min", bar_duration="1h")
    assert prepare(path, "5min").n_rows == 12


def test_finer_bars_are_read_once_for_all_timeframes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "bars.csv", made_rows(list(range(0, 600, 5))))
    half = prepare(path)
    monkeypatch.setattr(making, "build_bars", None)
    hour = prepare(path, "1h")
    again = prepare(path)
    assert again.path == half.path != hour.path
    rules = BarRules(resample="1h", extra=["trades", "spread"], aggregate={"trades": "sum"})
    assert find_bars(path, tmp_path / "cache", rules) is not None
    assert (half.n_rows, hour.n_rows) == (20, 10)
    assert next(hour.problems(), None) is None


def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path) -> None:
    for options, told in [
        ({"resample": "25h"}, "up to a day, or whole days"),
        ({"resample": "0min"}, "must be positive"),
        ({"resample": "often"}, "resample must be a length of time"),
        ({"resample": "1h", "resample_offset": "24h"}, "below a day"),
        ({"resample_offset": "1h"}, "with resample only"),
        ({"resample": "1h", "aggregate": {"trades": "sum"}}, "no extra column"),
        ({"resample": "1h", "extra": ["trades"], "aggregate": {"trades": "all"}}, "one of last"),
        ({"bar_time": "middle"}, "open or close"),
        ({"bar_duration": "-1h"}, "bar_duration"),
    ]:
        with pytest.raises(UsageError, match=told):
            BarRules(**options)
    path = write(tmp_path / "bars.csv", made_rows(list(range(100))))
    bars = prepare_bars(path, tmp_path / "cache", BarRules(), HERE)
    small = resampling.MemoryLimit(2**20, "a test")
    with pytest.raises(MemoryLimitError, match="--memory-limit"):
        resampling.resample_bars(bars, BarRules(resample="1h"), HERE, small)
