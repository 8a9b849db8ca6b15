"""Stores hold the matrices of the formulas, in the same bytes however they are built."""

from __future__ import annotations

import hashlib
import shutil
import weakref

import numpy as np
import oracles
import pytest
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import write_bars

import grandbatch as gb
from grandbatch.builder import engines
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import (
    InputError,
    MemoryLimitError,
    NoWindowsError,
    StoreMismatchError,
    UsageError,
)
from grandbatch.scheduling import Schedule
from grandbatch.store.staging import Staging


def digest(folder):
    """sha256 over the paths and bytes of all files in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def read_columns(path, symbol):
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    kept = [row for row in rows if row[1] == symbol]
    names = ("open", "high", "low", "close", "volume")
    return {name: [float(row[2 + i]) for row in kept] for i, name in enumerate(names)}


@pytest.mark.parametrize("feature_set", ["strategic", "tactical"])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_every_matrix_and_label_is_that_of_the_oracle(tmp_path, feature_set, layout):
    source = write_bars(tmp_path / "b.csv", 330, symbols=2, seed=3)
    overlap = 20
    store = gb.build_store(
        source,
        tmp_path / "s.zarr",
        feature_set=feature_set,
        layout=layout,
        overlap=overlap,
        chunk_windows=3,
    )
    segments = [read_columns(source, name) for name in ("S0", "S1")]
    length = store.sequence_length
    expected = oracles.windows(segments, feature_set, length, overlap)
    oracles.assert_agrees(store.matrices[:], expected)
    assert store.symbols == ("S0", "S1")
    start = oracles.LOOKBACKS[feature_set]
    n = 0
    for symbol, bars in enumerate(segments):
        first = start
        while first + length <= 330:
            last = first + length - 1
            close = bars["close"]
            assert store.first_row[n] == symbol * 330 + first
            assert store.symbol[n] == symbol
            assert store.close_price[n] == close[last]
            time = np.datetime64("2024-01-01", "ns") + np.timedelta64(5, "m") * last
            assert store.end_time[n] == time.astype(np.int64)
            if last + 1 < 330:
                assert store.next_return[n] == (close[last + 1] - close[last]) / close[last]
            else:
                assert np.isnan(store.next_return[n])
            first += length - overlap
            n += 1
    assert n == len(store)


@pytest.mark.parametrize(
    "variant",
    [
        {"layout": "windows"},
        {"layout": "rows"},
        {"layout": "windows", "overlap": 47, "chunk_windows": 32},
        {"layout": "rows", "overlap": 47, "chunk_windows": 32},
    ],
    ids=str,
)
def test_any_partitioning_engine_and_scheduler_gives_the_same_bytes(make_store, variant):
    ways = [
        {"scheduler": "sync", "partition_bars": 4000},
        {"partition_bars": 2000},
        {"partition_bars": 572},
        {"partition_bars": 100},
        {"partition_bars": 1, "scheduler": "sync"},
        {"engine": "direct"},
        {"engine": "direct", "partition_bars": 100, "workers": 3},
    ]
    found = {
        digest(make_store(2000, symbols=2, name=f"{i}.zarr", **variant, **way).path)
        for i, way in enumerate(ways)
    }
    assert len(found) == 1


@pytest.mark.slow
def test_a_cluster_of_two_processes_gives_the_same_bytes(make_store, tmp_path):
    plain = make_store(2000, symbols=2, overlap=30, name="plain.zarr")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        for engine in ("overlap", "direct"):
            shutil.rmtree(tmp_path / ".grandbatch", ignore_errors=True)
            far = make_store(
                2000, symbols=2, overlap=30, name=f"{engine}.zarr", client=client, engine=engine,
                partition_bars=300,
            )  # fmt: skip
            assert digest(far.path) == digest(plain.path)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(150, 399),
    feature_set=st.sampled_from(["strategic", "tactical"]),
    seed=st.integers(0, 5),
)
def test_changing_bars_after_t_changes_no_matrix_that_ends_by_t(
    tmp_path_factory, cut, feature_set, seed
):
    folder = tmp_path_factory.mktemp("causal")
    source = write_bars(folder / "a.csv", 400, seed=seed)
    other = write_bars(folder / "other.csv", 400, seed=seed + 100)
    changed = folder / "b.csv"
    lines = source.read_text().splitlines()[: cut + 2] + other.read_text().splitlines()[cut + 2 :]
    changed.write_text("\n".join(lines) + "\n")
    a, b = (
        gb.build_store(
            path, folder / f"{path.stem}.zarr", feature_set=feature_set, overlap=47,
            scheduler="sync", durable=False,
        )
        for path in (source, changed)
    )  # fmt: skip
    last_row = a.first_row[:] + a.sequence_length - 1
    past = last_row <= cut
    assert past.any()
    np.testing.assert_array_equal(
        a.matrices[:][past].view(np.int32), b.matrices[:][past].view(np.int32)
    )
    for name in ("end_time", "symbol", "close_price", "first_row"):
        np.testing.assert_array_equal(getattr(a, name)[:][past], getattr(b, name)[:][past])
    strictly = last_row < cut
    np.testing.assert_array_equal(a.next_return[:][strictly], b.next_return[:][strictly])


def target_of(tmp_path, source, **changes):
    made = make_settings(
        changes.get("feature_set", "strategic"), None, changes.get("overlap"), "windows", 16,
        "auto", changes.get("max_gap"),
    )  # fmt: skip
    return Request.of(source, tmp_path / "s.zarr", made, gb.BarRules())


def test_a_second_build_reuses_the_store(tmp_path):
    target = target_of(tmp_path, write_bars(tmp_path / "b.csv", 600))
    first = build(target, BuildOptions())
    again = build(target, BuildOptions())
    assert (first.reused, again.reused) == (False, True)
    assert again.store.fingerprint == first.store.fingerprint


def test_changed_inputs_are_noticed_and_need_overwrite(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    build(target_of(tmp_path, source), BuildOptions())
    write_bars(source, 600, seed=9)
    with pytest.raises(StoreMismatchError, match="--overwrite"):
        build(target_of(tmp_path, source), BuildOptions())
    assert not build(target_of(tmp_path, source), BuildOptions(overwrite=True)).reused


def test_other_settings_are_named_and_need_overwrite(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    before = build(target_of(tmp_path, source), BuildOptions()).store
    with pytest.raises(StoreMismatchError, match=r"overlap \(12, now 13\)"):
        build(target_of(tmp_path, source, overlap=13), BuildOptions())
    after = build(target_of(tmp_path, source, overlap=13), BuildOptions(overwrite=True)).store
    assert after.fingerprint != before.fingerprint
    assert after.verify().ok


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreMismatchError, match="choose another path"):
        build(target_of(tmp_path, source), BuildOptions(overwrite=True))
    assert (tmp_path / "s.zarr" / "thesis.txt").exists()


def test_nothing_but_store_cache_and_lock_remains_after_a_build(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    build(target_of(tmp_path, source), BuildOptions())
    assert sorted(p.name for p in tmp_path.iterdir()) == [".grandbatch", "b.csv", "s.zarr"]
    assert sorted(p.name for p in (tmp_path / ".grandbatch").iterdir()) == [
        "bars",
        "builds",
        "locks",
    ]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("damage", [None, "file", "record", "partial"])
def test_an_interrupted_build_goes_on_and_ends_in_the_same_bytes(tmp_path, monkeypatch, damage):
    source = write_bars(tmp_path / "b.csv", 5500)
    made = make_settings("strategic", None, 47, "windows", 4, "none", None)
    whole = build(
        Request.of(source, tmp_path / "whole.zarr", made, gb.BarRules()), BuildOptions()
    ).store
    target = Request.of(source, tmp_path / "s.zarr", made, gb.BarRules())
    options = BuildOptions(partition_bars=400, schedule=Schedule.local("sync"))
    with monkeypatch.context() as patch:
        patch.setattr(
            "grandbatch.builder.builder._finish", lambda *a, **k: (_ for _ in ()).throw(KeyError)
        )
        with pytest.raises(KeyError):
            build(target, options)
    staging = next((tmp_path / ".grandbatch" / "s.zarr.building").iterdir())
    spec = whole.spec.data
    assert spec.n_files > 2
    record = Staging(staging, whole.spec, durable=False).record_path(0)
    lost = 0
    if damage == "file":
        path = staging / "store" / spec.file(0)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif damage == "record":
        record.write_bytes(b"")
    elif damage == "partial":
        record.unlink()
        (staging / "store" / f"{spec.file(0)}.partial").write_bytes(b"half")
        (staging / "store" / "zarr.json").write_text("{}")
        (staging / "store" / "matrices" / "x.partial").write_bytes(b"half")
    if damage:
        lost = min(spec.shard_chunks, spec.n_chunks)
    result = build(target, options)
    assert result.resumed_chunks == spec.n_chunks - lost
    assert digest(result.store.path) == digest(whole.path)
    assert sorted(p.name for p in (tmp_path / ".grandbatch").iterdir()) == [
        "bars",
        "builds",
        "locks",
    ]


def test_a_stale_staging_folder_of_another_fingerprint_goes(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    stale = tmp_path / ".grandbatch" / "s.zarr.building" / "0123"
    stale.mkdir(parents=True)
    (stale / "x").touch()
    build(target_of(tmp_path, source), BuildOptions())
    assert not stale.exists()


def test_a_large_gap_starts_a_segment_that_no_window_crosses(tmp_path):
    source = write_bars(tmp_path / "b.csv", 500)
    lines = source.read_text().splitlines()
    cut = [line.replace("2024-01-0", "2024-02-0") for line in lines[251:]]
    source.write_text("\n".join(lines[:251] + cut) + "\n")
    store = build(target_of(tmp_path, source, max_gap="1D", overlap=47), BuildOptions()).store
    assert store.attrs["n_segments"] == 2
    first = store.first_row[:]
    assert len(store) == 2 * (250 - 40 - 48 + 1)
    assert not ((first < 250) & (first + 47 >= 250)).any()
    assert np.isnan(store.next_return[:]).sum() == 2


def test_too_few_bars_are_an_error_that_says_how_many_are_needed(tmp_path):
    source = write_bars(tmp_path / "b.csv", 87)
    with pytest.raises(NoWindowsError, match=r"87 bars .* needs 88 bars"):
        build(target_of(tmp_path, source), BuildOptions())
    assert not (tmp_path / "s.zarr").exists()


def test_a_build_that_can_not_fit_is_refused_with_the_arithmetic(tmp_path):
    source = write_bars(tmp_path / "b.csv", 600)
    with pytest.raises(MemoryLimitError, match=r"needs [\d,]+ bytes and may use 1,000,000"):
        build(target_of(tmp_path, source), BuildOptions(memory_limit_bytes=1_000_000))


def test_a_missing_input_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.csv"):
        build(target_of(tmp_path, tmp_path / "nothing.csv"), BuildOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_set": "stratejic"},
        {"layout": "columns"},
        {"codec": "gzip"},
        {"engine": "fast"},
        {"overlap": 48},
        {"chunk_windows": 0},
        {"max_gap": "soon"},
        {"memory_limit": "much"},
        {"scheduler": "later"},
        {"partition_bars": 0},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path, wrong):
    source = write_bars(tmp_path / "b.csv", 100)
    with pytest.raises(UsageError):
        gb.build_store(source, tmp_path / "s.zarr", **wrong)


def test_layout_rows_is_refused_for_many_short_segments(tmp_path):
    source = write_bars(tmp_path / "b.csv", 89, symbols=40)
    with pytest.raises(UsageError, match="too many short segments"):
        gb.build_store(source, tmp_path / "s.zarr", overlap=47, layout="rows", chunk_windows=64)
    assert gb.build_store(source, tmp_path / "s.zarr", overlap=47, chunk_windows=64).verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["direct", "overlap"])
@pytest.mark.parametrize("order", ["symbol", "period"])
def test_jobs_are_described_wave_by_wave(tmp_path, monkeypatch, engine, order):
    monkeypatch.setattr("grandbatch.store.format._FILE_BYTES", 10_000)
    source = write_bars(tmp_path / "b.csv", 6_000, symbols=2)
    wanted = {"overlap": 40, "chunk_windows": 4, "engine": engine, "partition_bars": 300,
              "durable": False, "order": order}  # fmt: skip
    if order == "period":
        wanted["period"] = "1D"
    whole = gb.build_store(source, tmp_path / "whole.zarr", **wanted)
    monkeypatch.setattr("grandbatch.scheduling.jobs.WAVE_JOBS", 3)
    alive, most, made = weakref.WeakSet(), [], []
    job_of = engines.GroupJob

    def note(**fields):
        job = job_of(**fields)
        alive.add(job)
        made.append(1)
        most.append(len(alive))
        return job

    monkeypatch.setattr(engines, "GroupJob", note)
    waved = gb.build_store(source, tmp_path / "waved.zarr", **wanted)
    assert digest(waved.path) == digest(whole.path)
    assert len(made) > 20
    assert max(most) <= 2 * 3
