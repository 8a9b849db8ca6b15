"""Universes that grow: whatever comes, a store has the bytes of a build from scratch."""

from __future__ import annotations

import functools
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from crash_server import CrashServer
from growing import Growing, by_time, digest, lines, small_files, text  # noqa: F401 (a fixture of every test here)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.bars import prepare_bars
from grandbatch.bars.cache.cutting import find_cuts
from grandbatch.builder import extend
from grandbatch.builder.engines import choose_engine
from grandbatch.builder.plan import BuildPlan
from grandbatch.builder.settings import make_settings
from grandbatch.errors import NoWindowsError, StoreChangedError, StoreMismatchError
from grandbatch.grid import Grid, Segments, Stretches
from grandbatch.scheduling import Schedule

BY_DAY = {"order": "period", "period": "1D", "overlap": 30}
CORRECTING = gb.BarRules(sort=True, duplicates="last")


def named(rows, symbol):
    return [row.replace(",S0,", f",{symbol},") for row in rows]


def corrected(row):
    """The same bar with another volume."""
    return row.rpartition(",")[0] + ",123456\n"


def full_files(store):
    return len(store) // (store.spec.shard_chunks * store.chunk_windows)


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_a_day_of_all_symbols_keeps_the_files_of_the_days_before(tmp_path, layout):
    runs = lines(1600, symbols=3)
    growing = Growing(tmp_path, **BY_DAY, layout=layout, chunk=8)
    growing.write(a=text(by_time(*(run[:1440] for run in runs))))
    before = growing.build().store
    after = growing.grow(
        a=text(by_time(*(run[:1440] for run in runs))),
        b=text(by_time(*(run[1440:] for run in runs))),
    )
    assert after.kept_chunks == full_files(before) * before.spec.shard_chunks
    assert full_files(before) > 5


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_day_keeps_what_is_said_of_the_windows_of_earlier_days(tmp_path, caplog, layout, damaged):
    runs = lines(1600, symbols=3)
    targets = (gb.forward_return(5),)
    growing = Growing(tmp_path, **BY_DAY, layout=layout, targets=targets, chunk=8)
    growing.write(a=text(by_time(*(run[:1440] for run in runs))))
    store = growing.build().store
    step = store.spec.label_chunk_windows
    names = [array.name for array in store.spec.labels]
    if damaged:
        for name in names:
            path = next((store.path / name / "c").rglob("0"))
            path = path if path.is_file() else path / "0"
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = {name: numbers(store.path / name) for name in names}
    after = growing.grow(
        a=text(by_time(*(run[:1440] for run in runs))),
        b=text(by_time(*(run[1440:] for run in runs))),
    ).store
    kept = {name: len(before[name] & numbers(after.path / name)) for name in names}
    assert kept.pop("first_row") == 0
    # in the last day each symbol's last windows have bars ahead now
    full = len(store) // step - -(-len(store) // 5 // step) - damaged
    assert full > 1
    assert all(full <= number < len(store) // step for number in kept.values())


def numbers(array):
    """Inodes of the chunks of an array."""
    return {path.stat().st_ino for path in (array / "c").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["A", "Z"])
def test_a_new_symbol_moves_nothing_of_the_periods_before_its_own(tmp_path, name):
    (bars,) = lines(1728)
    growing = Growing(tmp_path, **BY_DAY)
    growing.write(m=text(named(bars[:1440], "M")))
    before = growing.build().store
    other = "a" if name == "A" else "z"
    files = {"m": text(named(bars[:1440], "M")), other: text(named(bars[1440:], name))}
    after = growing.grow(**dict(sorted(files.items())))
    assert after.kept_chunks == full_files(before) * before.spec.shard_chunks


@pytest.mark.parametrize("order", [{"overlap": 30}, BY_DAY], ids=["symbol", "period"])
def test_a_later_file_that_corrects_a_bar_rebuilds_the_files_it_touches_and_no_others(
    tmp_path, order
):
    a, b = lines(1500, symbols=2)
    growing = Growing(tmp_path, **order, rules=CORRECTING)
    growing.write(x=text(by_time(a, b)))
    before = growing.build().store
    reader = before.matrices
    after = growing.grow(x=text(by_time(a, b)), y=text([corrected(a[700])]))
    assert after.store.attrs["differing_duplicates"] == 1
    n_files = before.spec.data.n_files
    kept = after.kept_chunks / before.spec.shard_chunks
    assert n_files - 4 <= kept < n_files
    with pytest.raises(StoreChangedError):
        reader[:1]


def test_a_file_that_was_rewritten_is_named_and_rebuilds_what_it_touches(tmp_path):
    a, b = lines(1500, symbols=2)
    growing = Growing(tmp_path, **BY_DAY)
    growing.write(a=text(a), b=text(b))
    before = growing.build().store
    growing.write(a=text([*a[:700], corrected(a[700]), *a[701:]]), b=text(b))
    with pytest.raises(StoreMismatchError, match=r"other inputs \(changed: a\.csv\); use --overw"):
        growing.build()
    after = growing.build(overwrite=True)
    assert after.kept_chunks >= before.n_chunks - 4 * before.spec.shard_chunks
    assert digest(after.store.path) == digest(growing.from_scratch().path)
    growing.write(a=text(a))
    with pytest.raises(StoreMismatchError, match=r"not given any more: b\.csv"):
        growing.build()


@pytest.mark.parametrize("gap", [None, 10 * 60 * 10**9])
@pytest.mark.parametrize("period", [None, "1D"])
def test_bars_that_grew_are_cut_as_before_without_being_read(tmp_path, monkeypatch, gap, period):
    runs = lines(900, symbols=3)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(text(runs[0][:500], runs[0][520:600], runs[2][:600]))
    old = prepare_bars(tmp_path / "in", tmp_path / "cache")
    (tmp_path / "in" / "b.csv").write_text(text(runs[0][600:], runs[1], runs[2][700:]))
    new = prepare_bars(tmp_path / "in", tmp_path / "cache")
    assert new.grew_from(old)
    chosen = make_settings("strategic", None, None, "windows", None, "auto", None,
                           "symbol" if period is None else "period", period)  # fmt: skip
    chosen = replace(chosen, max_gap_ns=gap)
    segments, stretches = chosen.cut(new)
    plan = BuildPlan(chosen, segments, new.n_rows, None, 1, stretches=stretches)
    wanted = chosen.cut(old)
    monkeypatch.setattr(type(old), "read_ranges", None)
    for found, direct in zip(extend._cut_of(old, new, plan), wanted, strict=True):
        assert (found is None) == (direct is None)
        for name, values in vars(direct).items() if direct is not None else ():
            np.testing.assert_array_equal(getattr(found, name), values, name)
            assert getattr(found, name).dtype == values.dtype
    assert len(wanted[0]) == (2 if gap is None else 3)


@pytest.mark.parametrize("gap", [None, 10 * 60 * 10**9])
@pytest.mark.parametrize("period", [None, "1D"])
def test_bars_that_grew_are_cut_by_reading_what_is_new(tmp_path, monkeypatch, gap, period):
    runs = lines(900, symbols=3)
    (tmp_path / "in").mkdir()
    inputs = tmp_path / "in"

    def grow(name, *some):
        (inputs / name).write_text(text(*some))
        return prepare_bars(inputs, tmp_path / "cache")

    bars = grow("c.csv", runs[0][100:500], runs[0][520:600], runs[2][100:600])
    known = find_cuts(bars, gap, period)
    for name, *some in (
        ("d.csv", runs[2][620:700]),
        ("a.csv", runs[1][200:900]),
        ("e.csv", runs[0][600:602], runs[0][640:], runs[2][700:]),
        ("b.csv", named(runs[0][:300], "S00")),  # before all others
    ):
        before, bars = bars, grow(name, *some)
        assert bars.grew_from(before)
        wanted = find_cuts(bars, gap, period)
        n_read = []
        read = type(bars).read_ranges
        with monkeypatch.context() as patch:
            patch.setattr(
                type(bars),
                "read_ranges",
                lambda *given, n_read=n_read, read=read: (
                    n_read.append(sum(stop - start for start, stop in given[1])) or read(*given)
                ),
            )
            found = find_cuts(bars, gap, period, (before, known))
        for kind, values in vars(wanted).items():
            np.testing.assert_array_equal(getattr(found, kind), values, kind)
        n_new = bars.n_rows - before.n_rows
        if name != "b.csv":
            assert sum(n_read) <= n_new + len(bars.symbols)
        known = found
    assert len(known.leaps) == (0 if gap is None else 3)


def test_a_note_of_cuts_that_is_damaged_or_anothers_is_done_without(tmp_path):
    runs = lines(1200, symbols=2)
    growing = Growing(tmp_path, **BY_DAY)
    days = {}
    note = tmp_path / ".grandbatch" / "builds" / "s.zarr.records" / "cuts"
    for number, harm in enumerate((lambda raw: raw, lambda raw: raw[:-40], lambda _: b"x" * 64)):
        begin = 300 * number
        days[f"d{number}"] = text(by_time(*(run[begin : begin + 300] for run in runs)))
        growing.write(**days)
        growing.build()
        note.write_bytes(harm(note.read_bytes()))
    growing.grow(**days, e=text(by_time(*(run[900:] for run in runs))))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_before_changes_are_counted_by_spans(data):
    """The spans that are told to be alike are those of which every window is."""

    def market(names, counts, starts):
        bounds = np.concatenate([[0], np.cumsum(counts)])
        marks, periods = [], []
        for first, count, start in zip(bounds[:-1], counts, starts, strict=True):
            days = (start + np.arange(count)) // 20
            own = np.flatnonzero(np.diff(days, prepend=-1))
            marks.append(first + own)
            periods.append(days[own])
        bars = SimpleNamespace(symbols=names, symbol_bounds=bounds)
        segments = Segments(bounds[:-1], np.array(counts), np.arange(len(names), dtype=np.int32))
        stretches = Stretches(np.concatenate(marks), np.concatenate(periods)) if by_day else None
        return bars, Grid(segments, 3, 4, 2, 4, stretches)

    by_day = data.draw(st.booleans())
    names = tuple("BCDE"[: data.draw(st.integers(1, 4))])
    many = st.integers(1, 90)
    counts, starts = ([data.draw(many) for _ in names] for _ in range(2))
    before = market(names, counts, starts)
    more = [data.draw(st.sampled_from([0, 0, 1, 9, 40])) for _ in names]
    grown = [count + new for count, new in zip(counts, more, strict=True)]
    added = data.draw(st.sampled_from(["", "A", "C1", "Z"]))
    if added:
        place = sorted([*names, added]).index(added)
        names = tuple(sorted([*names, added]))
        grown.insert(place, data.draw(many))
        starts.insert(place, data.draw(many))
    now = market(names, grown, starts)
    count = extend._windows_before_changes(before, now, 2)
    n = min(before[1].n_windows, now[1].n_windows)
    assert 0 <= count <= n
    if n:
        no_rows = np.empty(0, np.int64)
        are_same, say_same = extend._same_windows((0, n), before, now, no_rows, 2)
        assert are_same[:count].all()
        assert say_same[:count].all()
        if before[1].n_windows == now[1].n_windows and not any(more) and not added:
            assert count == n


def test_builds_need_no_frame_of_bars_unless_asked_for_one():
    assert choose_engine("auto", Schedule.local("sync")) == "direct"
    assert choose_engine("overlap", Schedule.local("sync")) == "overlap"


def test_other_rules_and_versions_are_named(tmp_path):
    (bars,) = lines(400)
    growing = Growing(tmp_path)
    growing.write(a=text(bars))
    growing.build()
    growing.rules = gb.BarRules(sort=True, duplicates="last")
    with pytest.raises(
        StoreMismatchError,
        match=r"rules: duplicates \(first, now last\), sort \(False, now True\);",
    ):
        growing.build()
    source, path = growing.inputs[0], tmp_path / "f.zarr"
    first, second = (gb.FeatureSet("own", [_own(version)], 2, 0) for version in (1, 2))
    gb.build_store(source, path, feature_set=first, durable=False)
    with pytest.raises(StoreMismatchError, match=r"features: own_close \(version 1, now 2\)"):
        gb.build_store(source, path, feature_set=second, durable=False)


def _own(version):
    from grandbatch.kernels.compilation import compiled

    @compiled
    def closes(close, first, out):
        for i in range(len(out)):
            out[i] = close[first + i]

    return gb.Feature("own_close", 0, closes, ("close",), version=version)


class Universe:
    """Files of a few symbols, drawn one after the other, and the store that follows them."""

    def __init__(self, folder, data):
        order = data.draw(st.sampled_from([{"overlap": 30}, BY_DAY]), "order")
        loose = gb.BarRules(max_bad_fraction=1)
        rules = data.draw(st.sampled_from([loose, CORRECTING]), "rules")
        layout = data.draw(st.sampled_from(["windows", "rows"]), "layout")
        self.growing = Growing(folder, **order, layout=layout, rules=rules)
        self.store = folder / "s.zarr"
        self.data, self.files, self.end = data, {}, dict.fromkeys("BMX", 0)
        (self.bars,) = lines(1100)

    def step(self, number):
        """Change the inputs; tell whether one of them was rewritten."""
        draw, end, rows = self.data.draw, self.end, []
        for name in draw(st.lists(st.sampled_from("BMX"), min_size=1, max_size=3, unique=True)):
            stop = min(1100, end[name] + draw(st.sampled_from([60, 150, 400])))
            rows += named(self.bars[end[name] : stop], name)
            if number and end[name] and draw(st.booleans(), "corrects"):
                place = draw(st.integers(0, end[name] - 1))
                rows += named([corrected(self.bars[place])], name)
            end[name] = stop
        rewritten = bool(self.files) and draw(st.integers(0, 3), "rewrites") == 0
        if rewritten:
            name = draw(st.sampled_from(sorted(self.files)))
            body = self.files[name].splitlines(keepends=True)
            place = draw(st.integers(1, len(body) - 1))
            self.files[name] = "".join([*body[:place], corrected(body[place]), *body[place + 1 :]])
        elif rows:
            self.files[draw(st.sampled_from("amz")) + str(number)] = text(rows)
        self.growing.write(**dict(sorted(self.files.items())))
        return rewritten

    def command(self, *, overwrite):
        """The command line of the build."""
        wanted, corrects = self.growing.wanted, self.growing.rules == CORRECTING
        period = ["--period", wanted["period"]] if "period" in wanted else []
        rules = ["--sort", "--duplicates", "last"] if corrects else ["--max-bad-fraction", "1"]
        return [
            "build", "strategic", *map(str, self.growing.inputs), "--store", str(self.store),
            "--overlap", str(wanted["overlap"]), "--layout", wanted["layout"],
            "--chunk-windows", str(wanted["chunk"]), "--order", wanted.get("order", "symbol"),
            *period, *rules, *["--overwrite"] * overwrite, "--scheduler", "sync", "--no-durable",
        ]  # fmt: skip


few_examples = functools.partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few_examples(max_examples=6)
@given(data=st.data())
def test_any_sequence_of_files_symbols_and_corrections_gives_the_bytes_from_scratch(
    tmp_path_factory, data
):
    universe = Universe(tmp_path_factory.mktemp("grow"), data)
    growing = universe.growing
    for step in range(data.draw(st.integers(2, 4), "steps")):
        rewritten = universe.step(step)
        reader = gb.MatrixStore.open(universe.store) if universe.store.exists() else None
        try:
            result = growing.build(overwrite=rewritten)
        except NoWindowsError:  # what sorts before others of its symbol may leave few bars
            continue
        assert digest(result.store.path) == digest(growing.from_scratch().path)
        if reader is not None and not result.reused:
            with pytest.raises(StoreChangedError):
                np.asarray(reader.matrices[:1])


@pytest.fixture(scope="module")
def server():
    with CrashServer("small_chunks") as running:
        yield running


@pytest.mark.slow
@few_examples(max_examples=5)
@given(data=st.data())
def test_so_it_does_killed_anywhere_in_it_and_old_or_new_stands_there_whole(
    tmp_path_factory, server, data
):
    universe = Universe(tmp_path_factory.mktemp("killed"), data)
    growing, store, standing = universe.growing, universe.store, None
    for step in range(data.draw(st.integers(2, 3), "steps")):
        rewritten = universe.step(step)
        try:
            wanted = digest(growing.from_scratch().path)
        except NoWindowsError:
            continue
        reader = gb.MatrixStore.open(store) if standing else None
        for at in data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=3), "kills"):
            strike = {"below": str(growing.folder), "at": at}
            outcome = server.run(universe.command(overwrite=rewritten), strike=strike)
            assert outcome.code in (-signal.SIGKILL, 0), outcome.err
            # one that is replaced may be away for a moment where a disk can't exchange folders
            assert not store.exists() or digest(store) in (standing, wanted)
        growing.build(overwrite=rewritten)
        assert digest(store) == wanted
        if reader is not None and wanted != standing:
            with pytest.raises(StoreChangedError):
                np.asarray(reader.matrices[:1])
        standing = wanted
