"""Bars sorted out of core against a sort of everything in memory."""

import random
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building.parts import sorting
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.errors import BadRowsError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
SORT = BarRules(sort=True, max_bad_fraction=1.0)
HEADER = "timestamp,symbol,open,high,low,close,volume"
NAMES = ("timestamp", "symbol", "volume")


def line_of(minute, symbol, volume):
    day, hour = 1 + minute // 1440, minute // 60 % 24
    return f"2024-01-{day:02d} {hour:02d}:{minute % 60:02d},{symbol},10,12,9,11,{volume}"


def contents(bars):
    rows = bars.read(0, len(bars), NAMES)
    start = np.datetime64("2024-01-01", "ns").astype(np.int64)
    minutes = ((rows["timestamp"] - start) // (60 * 10**9)).tolist()
    symbols = [bars.symbols[code] for code in rows["symbol"]]
    return list(zip(symbols, minutes, rows["volume"].tolist(), strict=True))


def sorted_in_memory(rows):
    """Bars in order, and numbers of those rows whose symbol and time stood there before."""
    seen, kept, again = set(), [], []
    for number, (minute, symbol, volume) in enumerate(rows):
        if (symbol, minute) in seen:
            again.append(number)
        else:
            seen.add((symbol, minute))
            kept.append((symbol, minute, volume))
    return sorted(kept), again


bars_rows = st.tuples(st.integers(0, 40), st.sampled_from("ABC"), st.integers(0, 1000))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(bars_rows, st.none()), min_size=1, max_size=60),
    st.integers(40, 600),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_any_order_cut_anywhere_is_sorted_and_the_first_of_equal_times_kept(
    rows, block_bytes, part_rows, sample_rows
):
    rows = [(50, "Z", 0), *rows]
    lines = ["rubbish" if row is None else line_of(*row) for row in rows]
    expected, again = sorted_in_memory([row for row in rows if row is not None])
    places = [number for number, row in enumerate(rows) if row is not None]
    bad = {places[number]: "duplicate_timestamp" for number in again}
    bad |= {number: "unparseable" for number, row in enumerate(rows) if row is None}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sorting, "PART_ROWS", part_rows),
        mock.patch.object(sorting, "SAMPLE_ROWS", sample_rows),
        mock.patch("grandbatch.bars.building.block.SAMPLE_ROWS", sample_rows),
    ):
        path = Path(folder) / "x.csv"
        path.write_text("\n".join([HEADER, *lines]))
        bars = prepare_bars(path, f"{folder}/cache", SORT, HERE, block_bytes)
        assert contents(bars) == expected
        assert [(row.line, row.reason, row.text) for row in iter_bad_rows(bars.path)] == [
            (number + 2, bad[number], lines[number]) for number in sorted(bad)
        ]
        assert (bars.first_time, bars.last_time) == (
            min(bars.read(0, len(bars))["timestamp"]),
            max(bars.read(0, len(bars))["timestamp"]),
        )


def test_files_in_any_order_are_sorted_together_and_cut_into_parts(tmp_path):
    rng = random.Random(0)
    rows = [(minute, symbol, minute) for minute in range(20_000) for symbol in "AB"]
    rng.shuffle(rows)
    for i in range(4):
        lines = [line_of(*row) for row in rows[i::4]]
        (tmp_path / f"{i}.csv").write_text("\n".join([HEADER, *lines]))
    with mock.patch.object(sorting, "PART_ROWS", 3000):
        bars = prepare_bars(
            [tmp_path / f"{i}.csv" for i in (2, 0, 3, 1)],
            tmp_path / "c",
            BarRules(sort=True),
            Schedule.local("threads", 2),
            64_000,
        )
    assert contents(bars) == sorted_in_memory(rows)[0]
    assert len(bars.parts) > 8
    assert max(part.rows for part in bars.parts) < 8000


def test_too_many_equal_times_are_an_error_with_sort_too(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *(line_of(i // 2, "A", 0) for i in range(100))]))
    with pytest.raises(BadRowsError, match="duplicate_timestamp 50"):
        prepare_bars(path, tmp_path / "c", BarRules(sort=True), HERE, 300)


@pytest.mark.slow
def test_sorting_takes_no_more_memory_for_a_larger_file(tmp_path):
    script = (
        "import sys, resource; from grandbatch.bars import *; "
        "from grandbatch.scheduling import Schedule; "
        "prepare_bars(sys.argv[1], sys.argv[2], BarRules(sort=True), Schedule.local('sync'), "
        "4 << 20); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    peaks = []
    for n_rows in (400_000, 2_400_000):
        path = tmp_path / f"{n_rows}.csv"
        times = np.datetime64("2000-01-01", "m") + np.arange(n_rows)[::-1]
        with path.open("w") as file:
            file.write("timestamp,open,high,low,close,volume\n")
            for some in np.array_split(times, 20):
                file.writelines(f"{time},10,12,9,11,5\n" for time in some)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(tmp_path / "c")],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks.append(int(done.stdout))
        path.unlink()
    assert peaks[1] < peaks[0] + 80 * 1024 * 1024
