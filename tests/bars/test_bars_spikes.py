"""Bars that leap out and back are quarantined where that is asked for, and told of in any case."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import write_rows

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building import block as pieces
from grandbatch.bars.building import build as building
from grandbatch.bars.building import memory as reading_plan
from grandbatch.bars.building.parts import looking, sorting
from grandbatch.bars.cache.extremes import ManyExtremes
from grandbatch.errors import BadRowsError, UsageError
from grandbatch.scheduling import Schedule

HEADER = "timestamp,symbol,open,high,low,close,volume"
START = np.datetime64("2024-01-01T00:00")


def line_of(minute, symbol, high, low, volume=7):
    return f"{START + minute},{symbol},{low},{high},{low},{high},{volume}"


def plainly(rows, max_jump):
    """Numbers of the rows that are spikes, one bar after the other."""
    spikes = set()
    for symbol in {row[1] for row in rows}:
        own = [number for number, row in enumerate(rows) if row[1] == symbol]
        for before, number, behind in zip(own, own[1:], own[2:], strict=False):
            near = rows[before], rows[behind]
            if all(rows[number][2] - one[2] > max_jump * abs(one[2]) for one in near):
                spikes.add(number)
            if all(one[3] - rows[number][3] > max_jump * abs(one[3]) for one in near):
                spikes.add(number)
    return sorted(spikes)


def write(folder, rows, cut=0):
    paths = []
    for number, part in enumerate(part for part in (rows[:cut], rows[cut:]) if part):
        paths.append(folder / f"{number}.csv")
        paths[-1].write_text("\n".join([HEADER, *(line_of(*row) for row in part)]) + "\n")
    return paths


def read(folder, paths, block_bytes=None, **options):
    rules = BarRules(**{"max_bad_fraction": 1.0, "allow_non_positive": True, **options})
    return prepare_bars(paths, folder, rules, Schedule.local("sync"), block_bytes)


@pytest.fixture(params=[(4, 3), (10**6, 10**6)], ids=["many parts", "one part"])
def sizes(request, monkeypatch):
    monkeypatch.setattr(pieces, "WHOLE_PART_ROWS", request.param[0])
    for module in (looking, sorting):
        monkeypatch.setattr(module, "PART_ROWS", request.param[1])
    monkeypatch.setattr(reading_plan, "_LEAST_PART_ROWS", request.param[1])
    monkeypatch.setattr(reading_plan, "PART_ROWS", request.param[1])
    monkeypatch.setattr(pieces, "SAMPLE_ROWS", 2)
    monkeypatch.setattr(sorting, "SAMPLE_ROWS", 2)


PRICES = st.sampled_from([-40, -10, -1, 0, 9, 10, 10, 10, 11, 12, 15, 16, 30, 100, 1000])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    prices=st.lists(st.tuples(PRICES, PRICES, st.sampled_from("AAB")), min_size=4, max_size=30),
    cut=st.integers(0, 30),
    block_bytes=st.integers(40, 700),
    max_jump=st.sampled_from([0.25, 0.5, 4.0]),
    is_sorted=st.booleans(),
)
@pytest.mark.usefixtures("sizes")
def test_they_are_those_of_a_plain_reading_wherever_blocks_and_parts_end(
    tmp_path_factory, prices, cut, block_bytes, max_jump, is_sorted
):
    rows = [(minute, symbol, max(pair), min(pair)) for minute, (*pair, symbol) in enumerate(prices)]
    spikes = plainly(rows, max_jump)
    folder = tmp_path_factory.mktemp("spikes")
    paths = write(folder, rows, cut)
    if is_sorted:
        paths = paths[::-1]
    bars = read(folder / "cache", paths, block_bytes, max_jump=max_jump, sort=is_sorted)
    kept = [row for number, row in enumerate(rows) if number not in spikes]
    found = bars.read(0, len(bars))
    assert sorted(zip(found["timestamp"], found["high"], found["low"], strict=True)) == sorted(
        (int((START + row[0]).astype("datetime64[ns]").astype(int)), row[2], row[3]) for row in kept
    )
    assert bars.quarantined.get("spike", 0) == len(spikes)
    bad = pq.read_table(bars.quarantine_path).to_pylist()
    assert sorted(row["text"] for row in bad) == sorted(line_of(*rows[n]) for n in spikes)
    assert {row["reason"] for row in bad} <= {"spike"}
    whole = read(folder / "whole", paths, max_jump=max_jump, sort=is_sorted)
    assert whole.worth_a_look == bars.worth_a_look
    assert list(bars.problems()) == []


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("keep", ["first", "last"])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_of_rows_of_one_time_the_one_that_stands_is_judged(tmp_path, keep, is_sorted):
    rows = [(0, "A", 10, 9), (1, "A", 99, 9), (1, "A", 11, 9), (2, "A", 12, 9), (3, "A", 10, 9)]
    bars = read(
        tmp_path / "c", write(tmp_path, rows), 60, max_jump=0.5, duplicates=keep, sort=is_sorted
    )
    wanted = {"first": {"duplicate_timestamp": 1, "spike": 1}, "last": {"duplicate_timestamp": 1}}
    assert bars.quarantined == wanted[keep]
    assert len(bars) == {"first": 3, "last": 4}[keep]
    lines = [
        (row["line"], row["reason"]) for row in pq.read_table(bars.quarantine_path).to_pylist()
    ]
    if keep == "first":
        assert lines == [(3, "spike"), (4, "duplicate_timestamp")]
    else:
        assert lines == [(3, "duplicate_timestamp")]


def test_too_many_spikes_are_too_many_bad_rows(tmp_path):
    rows = [(minute, "A", 100 if minute % 9 == 4 else 10, 9) for minute in range(90)]
    with pytest.raises(BadRowsError, match="spike 10"):
        read(tmp_path / "c", write(tmp_path, rows), max_jump=0.5, max_bad_fraction=0.01)


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf")])
def test_a_jump_that_is_no_share_is_refused(value):
    with pytest.raises(UsageError, match="max_jump must be a share"):
        BarRules(max_jump=value)


def usual(n=300):
    rng = np.random.default_rng(4)
    close = 100 + np.cumsum(rng.normal(0, 0.2, n))
    return [[c, c + 0.1, c - 0.1, c, int(v)] for c, v in zip(close, rng.integers(100, 900, n),
                                                           strict=True)]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: None, []),
        (
            lambda rows: rows[50].__setitem__(slice(0, 4), [p * 10 for p in rows[50][:4]]),
            ["price of default leaps from one bar to the next 2 times, first at "
             "2024-01-01T00:50:00Z"],
        ),
        (
            lambda rows: [r.__setitem__(slice(0, 4), [p / 10 for p in r[:4]]) for r in rows[70:]],
            ["price of default leaps from one bar to the next once, first at 2024-01-01T01:10:00Z"],
        ),
        (
            lambda rows: rows[60].__setitem__(4, 10**9),
            ["volume of default reaches 1,000,000,000 at 2024-01-01T01:00:00Z, where half its bars "
             "with volume have less than 1,024"],
        ),
        (lambda rows: [r.__setitem__(4, 0) for r in rows[4:]], ["98.7% of the bars of default"]),
        (lambda rows: [r.__setitem__(4, 0) for r in rows], ["100.0% of the bars of default"]),
    ],
)  # fmt: skip
def test_what_is_worth_a_look_is_said_and_nothing_is_dropped(tmp_path, caplog, change, said):
    rows = usual()
    change(rows)
    store = gb.build_store(write_rows(tmp_path / "b.csv", rows), tmp_path / "s.zarr")
    assert store.attrs["n_rows"] == len(rows)
    assert store.attrs["quarantined"] == {}
    lines = list(store.attrs["worth_a_look"])
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert words in line
        assert any(line in message for message in caplog.messages)


def test_a_feature_that_never_changes_is_named(tmp_path, caplog):
    rows = [[50, 50, 50, 50, 5 + number % 3] for number in range(200)]
    store = gb.build_store(write_rows(tmp_path / "b.csv", rows), tmp_path / "s.zarr")
    still = [name for name, of in store.feature_stats.items() if of["min"] == of["max"]]
    assert 2 < len(still) < 13
    said = next(line for line in caplog.messages if "never change" in line)
    assert f"{len(still)} of 13 features never change: {', '.join(still[:10])}" in said


def test_no_volume_is_no_news_where_it_was_said(tmp_path):
    lines = ["timestamp,open,high,low,close"]
    lines += [f"{START + minute},10,12,9,11" for minute in range(200)]
    (tmp_path / "b.csv").write_text("\n".join(lines) + "\n")
    bars = prepare_bars(tmp_path / "b.csv", tmp_path / "c", BarRules(no_volume=True))
    assert bars.worth_a_look == ()


@pytest.mark.parametrize("options", [{}, {"max_jump": 4.0}, {"sort": True}])
def test_what_was_seen_while_reading_is_what_the_parts_hold(tmp_path, monkeypatch, sizes, options):
    seen = []

    def look_at(target, parts, schedule, known):
        found = looking.look_at(target, parts, schedule, known)
        again = looking.look_at(target, parts, schedule, {})
        packed = [looking.pack_looks(ManyExtremes.of(of)) for of in (found, again)]
        seen.append((len(known), *packed))
        return found

    monkeypatch.setattr(building, "look_at", look_at)
    prices = [(10 + 9 * (n % 97 == 5) + 900 * (n in (30, 90)), n % 5) for n in range(200)]
    rows = [(n, "AB"[n > 150], price, price - 1, more) for n, (price, more) in enumerate(prices)]
    read(tmp_path, write(tmp_path, rows), block_bytes=900, **options)
    ((n_known, found, again),) = seen
    assert found == again
    assert n_known == 0 or "sort" not in options
    if pieces.WHOLE_PART_ROWS == 4 and "sort" not in options:
        assert n_known > 3
