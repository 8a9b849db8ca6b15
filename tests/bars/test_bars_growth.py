"""Where files are added to inputs, only they are read, and bars are those of reading all."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.bars import prepare_bars
from grandbatch.bars.building.parts import assembly, looking
from grandbatch.bars.building.parts.looking import unpack_looks
from grandbatch.bars.cache import extremes, joining, parts
from grandbatch.bars.cache.bars import load_bars
from grandbatch.scheduling import Schedule

HEADER = "timestamp,symbol,open,high,low,close,volume\n"
FACTS = (
    "fingerprint", "symbols", "source", "day_first", "time_numbers", "quarantined", "clock_changes",
    "left_out", "widened", "differing_duplicates", "worth_a_look", "n_rows",
)  # fmt: skip


def rows(symbol, begin, stop, price=100.0, step=5):
    """Lines of bars of a symbol, from minute to minute."""
    start = np.datetime64("2024-01-01T00:00", "s")
    for minute in range(begin, stop, step):
        p = price + minute % 7
        yield f"{start + 60 * minute},{symbol},{p},{p + 1},{p - 1},{p + 0.5},{minute % 5 + 1}\n"


class Folder:
    """A folder of inputs, the cache that grows with it, and caches of the same from scratch."""

    def __init__(self, path, **rules):
        self.path, self.inputs = path, path / "in"
        self.inputs.mkdir()
        self.rules = gb.BarRules(max_bad_fraction=1, **rules)
        self.scratch = 0

    def write(self, name, *runs):
        lines = [line for run in runs for line in run]
        (self.inputs / f"{name}.csv").write_text(HEADER + "".join(lines))

    def prepare(self, cache="cache"):
        return prepare_bars(
            self.inputs, self.path / cache, self.rules, Schedule.local("sync"), block_bytes=2_000
        )

    def check(self):
        """Compare what grew with what is read anew."""
        grown = self.prepare()
        self.scratch += 1
        fresh = self.prepare(f"scratch-{self.scratch}")
        for name in FACTS:
            assert repr(getattr(grown, name)) == repr(getattr(fresh, name)), name
        for name, values in fresh.read(0, fresh.n_rows).items():
            np.testing.assert_array_equal(grown.read(0, grown.n_rows)[name], values)
        assert pq.read_table(grown.quarantine_path).equals(pq.read_table(fresh.quarantine_path))
        assert (grown.growth is None) == (fresh.growth is None)
        if fresh.growth is not None:
            assert {**grown.growth, "from": None, "looks": 0} == {**fresh.growth, "looks": 0}
            assert looks_of(grown) == looks_of(fresh)
        assert not list(grown.problems())
        return grown


def looks_of(bars):
    """What there is to tell of each symbol, however its bars are parted."""
    codes = [part.symbol for part in bars.parts]
    begins = [n for n, code in enumerate(codes) if n == 0 or code != codes[n - 1]]
    found = unpack_looks(bars.growth["looks"]).joined(np.array(begins))
    # of leaps that there are none of, none is the first
    return [
        vars(look)
        | {"leap_time": look.leap_time if look.n_leaps else 0, "volumes": look.volumes.tolist()}
        for look in found
    ]


def parts_of(bars):
    """Files of a cache, by what they are on the disk."""
    return {(bars.path / part.path).stat().st_ino for part in bars.parts}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def read_only(caplog, n, of):
    return f"the cache of bars grows: {n} of {of} inputs are read" in caplog.text


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("name", ["a", "m", "z"])
def test_a_new_symbol_is_read_alone_wherever_its_file_sorts(
    tmp_path, caplog, monkeypatch, name, sort
):
    monkeypatch.setattr(joining, "TAIL_ROWS", 0)
    folder = Folder(tmp_path, sort=sort)
    folder.write("b", rows("B", 0, 900))
    folder.write("n", rows("N", 0, 900))
    before = folder.check()
    folder.write(name, rows(name.upper(), 0, 500), rows("C", 0, 500))
    with caplog.at_level(logging.INFO, "grandbatch"):
        after = folder.check()
    assert read_only(caplog, 1, 3)
    assert parts_of(before) < parts_of(after)


@pytest.mark.slow
@pytest.mark.parametrize("sort", [False, True])
def test_a_file_each_day_is_read_alone_and_small_parts_are_joined(tmp_path, caplog, sort):
    folder = Folder(tmp_path, sort=sort)
    folder.write("2024", rows("A", 0, 30_000), rows("B", 0, 30_000))
    first = parts_of(folder.check())
    assert len(first) == 1
    for day in range(5):
        begin = 30_000 + 200 * day
        folder.write(f"day{day}", rows("B", begin, begin + 200), rows("A", begin, begin + 200))
        with caplog.at_level(logging.INFO, "grandbatch"):
            grown = folder.check()
        assert read_only(caplog, 1, day + 2)
        assert first < parts_of(grown)
        # the line keeps its last two
        assert len(list(folder.path.glob("cache/*/bars.json"))) == 2
    assert len(grown.parts) == 4
    assert len(parts_of(grown)) == len(first) + 1


def test_what_is_known_of_parts_that_stay_is_not_looked_at_again(folder, monkeypatch):
    monkeypatch.setattr(joining, "TAIL_ROWS", 0)
    folder.write("a", rows("M", 0, 400), rows("N", 0, 400))
    folder.prepare()
    folder.write("b", rows("A", 0, 300), rows("N", 400, 600))
    looked = []
    look = extremes.extremes_of
    for module in (looking, joining):
        monkeypatch.setattr(
            module, "extremes_of", lambda *given: looked.append(given) or look(*given)
        )
    grown = folder.prepare()
    assert len(looked) == 2
    assert len(grown.parts) == 4
    folder.check()


def test_a_small_last_part_is_written_anew_only_up_to_a_size(folder, monkeypatch):
    monkeypatch.setattr(joining, "TAIL_ROWS", 100)
    for day in range(8):
        folder.write(f"day{day}", rows("A", 200 * day, 200 * day + 200))
        grown = folder.check()
    assert [part.rows for part in grown.parts] == [80, 80, 80, 80]


def test_files_of_many_days_stay_few_and_bars_are_seldom_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "LAYER_ROWS", 12)
    folder = Folder(tmp_path)
    written = most = 0
    files = {}
    for day in range(64):
        folder.write(f"{day:02}", *(rows(name, 10 * day, 10 * day + 10) for name in "AB"))
        bars = folder.prepare()
        before, files = files, {p.path: (bars.path / p.path).stat().st_ino for p in bars.parts}
        new = {path for path, inode in files.items() if before.get(path) != inode}
        written += sum(part.rows for part in bars.parts if part.path in new)
        most = max(most, len(files))
    assert most <= 6
    # each bar as often as its day's number has digits in base 2, about
    assert written < 256 * 7
    folder.check()


def test_parts_of_many_symbols_lie_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "MOST_PARTS", 3)
    monkeypatch.setattr(assembly, "MOST_PARTS", 3)
    folder = Folder(tmp_path)
    for day, names in enumerate(("ABCDEFG", "BDF", "AHIJ", "ABCDEFGHIJ")):
        folder.write(f"{day}", *(rows(name, 50 * day, 50 * day + 50) for name in names))
        bars = folder.check()
        in_files = Counter(part.path for part in bars.parts)
        assert max(in_files.values()) <= 3
        assert len(bars.parts) == len(bars.symbols)


def test_bars_repeated_at_the_start_of_a_file_go_to_the_quarantine(folder, caplog):
    folder.write("1", rows("A", 0, 900))
    folder.check()
    folder.write("2", rows("A", 850, 1200), rows("A", 1100, 1150))
    with caplog.at_level(logging.INFO, "grandbatch"):
        grown = folder.check()
    assert read_only(caplog, 1, 2)
    assert grown.quarantined == {"duplicate_timestamp": 1, "out_of_order": 19}
    folder.write("3", rows("A", 1195, 1500, price=200.0))
    assert folder.check().differing_duplicates == 1


@pytest.mark.parametrize("sort", [False, True])
def test_a_file_that_brings_no_bar_is_read_alone(tmp_path, caplog, sort):
    folder = Folder(tmp_path, sort=sort)
    folder.write("1", rows("A", 0, 900))
    before = folder.check()
    folder.write("2", ["bad,A,1,1,1,1,1\n"])
    with caplog.at_level(logging.INFO, "grandbatch"):
        after = folder.check()
    assert read_only(caplog, 1, 2)
    assert (after.n_rows, after.quarantined) == (before.n_rows, {"unparseable": 1})


def test_reasons_stand_in_their_order_whichever_files_have_them(folder, caplog):
    folder.write("1", rows("A", 0, 900), rows("A", 895, 900))
    folder.check()
    folder.write("2", ["bad,A,1,1,1,1,1\n"], rows("A", 900, 1200))
    with caplog.at_level(logging.INFO, "grandbatch"):
        grown = folder.check()
    assert read_only(caplog, 1, 2)
    assert list(grown.quarantined) == ["unparseable", "duplicate_timestamp"]


@pytest.mark.parametrize(
    ("rules", "lines", "why"),
    [
        ({"duplicates": "last"}, [*rows("A", 895, 1200, price=90.0)], "A gives way to a later row"),
        ({"sort": True}, [*rows("A", 893, 1200)], "new rows of A lie among those"),
        ({}, [line.replace("-", "/")[:10] + line[10:] for line in rows("A", 900, 1200)], None),
    ],
)
def test_what_could_change_a_cached_bar_has_all_read_again(tmp_path, caplog, rules, lines, why):
    folder = Folder(tmp_path, **rules)
    folder.write("1", rows("A", 0, 900))
    folder.check()
    folder.write("2", lines)
    with caplog.at_level(logging.INFO, "grandbatch"):
        folder.check()
    assert (why is None) == read_only(caplog, 1, 2)
    assert why is None or why in caplog.text


def test_a_file_before_others_of_its_symbol_has_all_read_again(folder, caplog):
    folder.write("2", rows("A", 500, 900))
    folder.check()
    folder.write("1", rows("A", 0, 500))
    with caplog.at_level(logging.INFO, "grandbatch"):
        folder.check()
    assert "a file behind a new one holds bars of A, too" in caplog.text


def test_a_file_that_was_corrected_or_went_has_all_read_again(folder, caplog):
    for name in "123":
        folder.write(name, rows(name, 0, 500))
    folder.check()
    folder.write("2", rows("2", 0, 500, price=50.0))
    folder.check()
    (folder.inputs / "3.csv").unlink()
    with caplog.at_level(logging.INFO, "grandbatch"):
        folder.check()
    assert "grows" not in caplog.text


def test_days_and_months_that_all_files_decide_together_keep_a_cache_from_growing(folder, caplog):
    def dated(day, symbol):
        return [f"{day}/2024 {h:02d}:00,{symbol},1,2,1,1.5,1\n" for h in range(24)]

    folder.write("1", dated("25/01", "A"))
    folder.check()
    folder.write("2", dated("02/03", "B"))
    with caplog.at_level(logging.INFO, "grandbatch"):
        grown = folder.check()
    assert "all inputs were read again" in caplog.text
    assert grown.day_first == (True, True)
    assert grown.growth is None


def test_too_many_bad_rows_in_all_are_refused_as_ever(tmp_path):
    folder = Folder(tmp_path)
    folder.rules = gb.BarRules(max_bad_fraction=0.1)
    folder.write("1", rows("A", 0, 900))
    folder.check()
    bad = ["2024-02-01,A,x,1,1,1,1\n"] * 10
    folder.write("2", rows("A", 900, 1000), bad)
    assert folder.check().quarantined == {"unparseable": 10}
    folder.write("3", bad * 3)
    with pytest.raises(gb.errors.BadRowsError, match=r"40 of 240 rows"):
        folder.prepare()


def test_damage_that_a_grown_cache_shares_with_its_base_is_read_anew(folder, caplog):
    folder.write("1", rows("A", 0, 30_000))
    base = folder.check()
    part = base.path / base.parts[0].path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    folder.write("2", rows("B", 0, 500))
    folder.prepare()

    def read(bars):
        return bars.read(0, bars.n_rows)

    with_bars = gb.bars.with_bars(folder.prepare, read)
    assert len(with_bars["close"]) == 6_100
    assert folder.check().n_rows == 6_100


def test_a_base_that_is_in_use_stays(folder):
    folder.write("1", rows("A", 0, 500))
    first = load_bars(folder.prepare().path, use=True)
    for name in "23":
        folder.write(name, rows(name, 0, 500))
        folder.prepare()
    assert first.path.exists()


@pytest.mark.parametrize(("most_parts", "n_written"), [(1_024, 1), (1, 3)])
def test_new_bars_that_are_few_are_written_once(folder, monkeypatch, most_parts, n_written):
    folder.write("1", rows("A", 0, 200), rows("B", 0, 200))
    folder.prepare()
    written = []
    write = parts.write_parts

    def note(path, bars, extra):
        written.append(path.name)
        return write(path, bars, extra)

    for module in (assembly, joining):
        monkeypatch.setattr(module, "write_parts", note)
    monkeypatch.setattr(assembly, "MOST_PARTS", most_parts)
    folder.write("2", rows("A", 200, 400), rows("B", 200, 400))
    grown = folder.prepare()
    assert len(written) == n_written
    assert {part.path for part in grown.parts} == {written[-1]}
    folder.check()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_sequence_of_files_gives_the_bars_of_reading_all(tmp_path_factory, data):
    rules = data.draw(
        st.sampled_from(
            [
                {},
                {"duplicates": "last"},
                {"sort": True},
                {"sort": True, "duplicates": "last"},
                {"timezone": "America/New_York"},
            ]
        )
    )
    folder = Folder(tmp_path_factory.mktemp("grow"), **rules)
    end = dict.fromkeys("ABC", 0)
    for _ in range(data.draw(st.integers(2, 4))):
        runs = []
        for symbol in data.draw(st.lists(st.sampled_from("ABC"), min_size=1, max_size=3)):
            shift = data.draw(st.sampled_from([0, 0, 0, 60, -5, -40]))
            begin = max(0, end[symbol] + shift)
            stop = begin + data.draw(st.integers(1, 60)) * 5
            price = data.draw(st.sampled_from([100.0, 101.0]))
            runs.append(list(rows(symbol, begin, stop, price)))
            end[symbol] = max(end[symbol], stop)
            if data.draw(st.booleans()):
                runs.append(["bad,A,1,1,1,1,1\n"])
        names = st.sampled_from([f"{c}{n}" for c in "amz" for n in range(9)])
        folder.write(data.draw(names), *runs)
        folder.check()
