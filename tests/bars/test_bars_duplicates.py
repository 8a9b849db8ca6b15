"""Of several rows of one symbol and time the first stands, or the last, wherever blocks are cut."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.errors import BadRowsError, UsageError
from grandbatch.scheduling import Schedule

HEADER = "timestamp,symbol,open,high,low,close,volume"
START = np.datetime64("2024-01-01T00:00")


def line_of(minute, symbol, close):
    return f"{START + minute},{symbol},{close},{close + 1},{close - 1},{close},7"


def stand(rows, keep, *, is_sorted):
    """Closes of the bars by symbol, what is quarantined, and how many twins differ: naively."""
    bars, bad, n_differing, before = {}, {}, 0, {}
    for number, (minute, symbol, close) in enumerate(rows):
        of_symbol = bars.setdefault(symbol, {})
        if not is_sorted and of_symbol and minute < max(of_symbol):
            bad[number] = "out_of_order"
            continue
        if minute in of_symbol:
            n_differing += rows[before[symbol, minute]][2] != close
            loser = of_symbol[minute] if keep == "last" else number
            bad[loser] = "duplicate_timestamp"
            if keep == "last":
                of_symbol[minute] = number
        else:
            of_symbol[minute] = number
        before[symbol, minute] = number
    closes = {
        symbol: [(minute, rows[number][2]) for minute, number in sorted(found.items())]
        for symbol, found in sorted(bars.items())
    }
    return closes, sorted(bad.items()), n_differing


def read(folder, paths, block_bytes, scheduler="sync", **options):
    rules = BarRules(max_bad_fraction=1.0, **options)
    bars = prepare_bars(paths, folder, rules, Schedule.local(scheduler, 2), block_bytes)
    values = bars.read(0, bars.n_rows, ("timestamp", "symbol", "close"))
    minutes = (values["timestamp"] - START.astype("datetime64[ns]").astype(int)) // (60 * 10**9)
    closes = {}
    for minute, code, close in zip(minutes, values["symbol"], values["close"], strict=True):
        closes.setdefault(bars.symbols[code], []).append((int(minute), int(close)))
    for part in bars.parts:
        assert bars.first_time <= part.first_time <= part.last_time <= bars.last_time
    assert bars.last_time == values["timestamp"].max()
    return closes, pq.read_table(bars.quarantine_path).to_pylist(), bars.differing_duplicates


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from("AB"), st.integers(10, 12)),
    min_size=1,
    max_size=24,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    rises=st.booleans(),
    cut=st.integers(0, 24),
    block_bytes=st.integers(30, 400),
    keep=st.sampled_from(["first", "last"]),
    is_sorted=st.booleans(),
)
def test_the_one_that_stands_is_that_of_a_plain_reading(
    tmp_path_factory, rows, rises, cut, block_bytes, keep, is_sorted
):
    if rises:
        rows = sorted(rows, key=lambda row: row[0])
    folder = tmp_path_factory.mktemp("twins")
    parts = [part for part in (rows[:cut], rows[cut:]) if part]
    paths = []
    for number, part in enumerate(parts):
        paths.append(folder / f"{number}.csv")
        paths[-1].write_text("\n".join([HEADER, *(line_of(*row) for row in part)]) + "\n")
    closes, bad, n_differing = stand(rows, keep, is_sorted=is_sorted)
    found = read(folder / "cache", paths, block_bytes, duplicates=keep, sort=is_sorted)
    assert found[0] == closes
    assert [(row["text"], row["reason"]) for row in found[1]] == [
        (line_of(*rows[number]), reason) for number, reason in bad
    ]
    assert found[2] == n_differing


@pytest.mark.slow
def test_blocks_of_any_size_on_threads_give_the_same_files(tmp_path):
    """Runs of up to four rows of one time, thousands of them, cut everywhere."""
    rng = np.random.default_rng(0)
    minutes = np.repeat(np.arange(900), rng.integers(1, 5, 900))
    which, closes = rng.integers(0, 2, len(minutes)), rng.integers(10, 13, len(minutes))
    columns = minutes.tolist(), ["AB"[code] for code in which], closes.tolist()
    rows = list(zip(*columns, strict=True))
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([HEADER, *(line_of(*row) for row in rows)]) + "\n")
    closes, bad, n_differing = stand(rows, "last", is_sorted=False)
    for number, block_bytes in enumerate((97, 1000, 10_000, 1_000_000)):
        for is_sorted in (False, True):
            cache = tmp_path / f"{number}{is_sorted}"
            found = read(cache, path, block_bytes, "threads", duplicates="last", sort=is_sorted)
            assert found[0] == closes
            assert [row["line"] - 2 for row in found[1]] == [number for number, _ in bad]
            assert found[2] == n_differing


@pytest.mark.parametrize("way", [{}, {"sort": True}])
def test_raise_names_the_first_of_them(tmp_path, way):
    rows = [(0, "A", 10), (1, "A", 11), (1, "B", 11), (1, "A", 11), (2, "A", 10), (2, "A", 9)]
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([HEADER, *(line_of(*row) for row in rows)]) + "\n")
    with pytest.raises(BadRowsError, match=r"bars\.csv:5: duplicate_timestamp: 2024.*--duplicates"):
        gb.read_bars(path, cache=tmp_path / "cache", duplicates="raise", **way)
    path.write_text("\n".join([HEADER, *(line_of(*row) for row in rows[:3])]) + "\n")
    assert len(gb.read_bars(path, cache=tmp_path / "cache", duplicates="raise", **way)) == 3


def test_what_stands_is_said_where_two_differ(tmp_path, caplog):
    lines = [line_of(minute, "A", 100 + minute % 7) for minute in range(120)]
    same = [*lines[:50], lines[49], *lines[50:]]
    other = [*lines[:50], line_of(49, "A", 55), *lines[50:]]
    for name, rows in (("same", same), ("other", other)):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([HEADER, *rows]) + "\n")
        store = gb.build_store(path, tmp_path / f"{name}.zarr")
        assert store.attrs["quarantined"] == {"duplicate_timestamp": 1}
        assert store.attrs["differing_duplicates"] == (name == "other")
    said = [line for line in caplog.messages if "--duplicates last takes the other" in line]
    assert len(said) == 1
    assert said[0].startswith("other.zarr")


@pytest.mark.parametrize("name", ["middle", "", "First"])
def test_other_words_are_refused(name):
    with pytest.raises(UsageError, match="duplicates must be first, last or raise"):
        BarRules(duplicates=name)
