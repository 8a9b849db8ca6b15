"""Universes that grow: whatever comes, a store has the bytes of a build from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from growing import Growing, by_time, digest, lines, small_files, text  # noqa: F401 (a fixture of every test here)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import NoWindowsError, StoreChangedError, StoreMismatchError

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


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_sequence_of_files_symbols_and_corrections_gives_the_bytes_from_scratch(
    tmp_path_factory, data
):
    order = data.draw(st.sampled_from([{"overlap": 30}, BY_DAY]), "order")
    rules = data.draw(st.sampled_from([gb.BarRules(max_bad_fraction=1), CORRECTING]), "rules")
    layout = data.draw(st.sampled_from(["windows", "rows"]), "layout")
    growing = Growing(tmp_path_factory.mktemp("grow"), **order, layout=layout, rules=rules)
    (bars,) = lines(1100)
    end = dict.fromkeys("BMX", 0)
    files, path = {}, growing.folder / "s.zarr"
    for step in range(data.draw(st.integers(2, 4), "steps")):
        rows = []
        for name in data.draw(
            st.lists(st.sampled_from("BMX"), min_size=1, max_size=3, unique=True)
        ):
            stop = min(1100, end[name] + data.draw(st.sampled_from([60, 150, 400])))
            rows += named(bars[end[name] : stop], name)
            if step and end[name] and data.draw(st.booleans(), "corrects"):
                place = data.draw(st.integers(0, end[name] - 1))
                rows += named([corrected(bars[place])], name)
            end[name] = stop
        rewritten = bool(files) and data.draw(st.integers(0, 3), "rewrites") == 0
        if rewritten:
            name = data.draw(st.sampled_from(sorted(files)))
            body = files[name].splitlines(keepends=True)
            place = data.draw(st.integers(1, len(body) - 1))
            files[name] = "".join([*body[:place], corrected(body[place]), *body[place + 1 :]])
        elif rows:
            files[data.draw(st.sampled_from("amz")) + str(step)] = text(rows)
        growing.write(**dict(sorted(files.items())))
        reader = gb.MatrixStore.open(path) if path.exists() else None
        try:
            result = growing.build(overwrite=rewritten)
        except NoWindowsError:  # what sorts before others of its symbol may leave few bars
            continue
        assert digest(result.store.path) == digest(growing.from_scratch().path)
        if reader is not None and not result.reused:
            with pytest.raises(StoreChangedError):
                np.asarray(reader.matrices[:1])
