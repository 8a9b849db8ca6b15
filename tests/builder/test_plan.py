"""A plan covers every file once and counts its memory in the open."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import write_bars

import grandbatch as gb
from grandbatch.bars import BarRules
from grandbatch.bars.building.memory import WorkerShare
from grandbatch.builder import estimate
from grandbatch.builder.estimate import EXACT_BYTES, estimate_build
from grandbatch.builder.plan import BuildPlan
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import (
    ColumnError,
    DiskFullError,
    MemoryLimitError,
    StoreMismatchError,
    UsageError,
)
from grandbatch.grid import Segments
from grandbatch.memory import MemoryLimit
from grandbatch.scheduling import Schedule


def settings_of(overlap=47, chunk_windows=64, codec="auto", layout="windows"):
    return make_settings("strategic", None, overlap, layout, chunk_windows, codec, None)


@st.composite
def plans(draw):
    lengths = draw(st.lists(st.integers(1, 2500), min_size=1, max_size=4).filter(
        lambda found: max(found) >= 88))  # fmt: skip
    starts = np.cumsum([0, *lengths[:-1]])
    segments = Segments(
        starts.astype(np.int64),
        np.array(lengths, np.int64),
        np.arange(len(lengths), dtype=np.int32),
    )
    settings = settings_of(
        draw(st.sampled_from([0, 12, 47])), draw(st.integers(8, 300)), draw(st.sampled_from(
            ["none", "lz4", "zstd"])))  # fmt: skip
    bars = draw(st.none() | st.integers(1, 5000))
    return BuildPlan(settings, segments, sum(lengths), bars)


@given(plans())
def test_groups_take_every_file_once_in_order(plan):
    files = [f for g in plan.groups for f in range(g.first_file, g.stop_file)]
    assert files == list(range(plan.spec.data.n_files))
    chunks = [runs for f in files for runs in plan.runs(f)]
    assert chunks == [plan.grid.runs(chunk) for chunk in range(plan.grid.n_chunks)]


@given(plans())
def test_a_groups_rows_hold_the_rows_of_all_its_chunks(plan):
    for group in plan.groups:
        for file in range(group.first_file, group.stop_file):
            for runs in plan.runs(file):
                for run in runs:
                    ((first, stop),) = group.ranges
                    assert first <= run.first_row
                    assert run.first_row + run.n_rows <= stop


@given(plans())
def test_partitions_cover_all_bars_and_none_before_the_last_is_shorter_than_the_lookback(plan):
    lengths = np.diff(plan.bounds)
    assert (plan.bounds[0], plan.bounds[-1]) == (0, plan.n_rows)
    assert (lengths > 0).all()
    assert len(lengths) == 1 or (lengths >= 40).all()


def test_a_plan_admits_as_many_tasks_as_fit_and_refuses_when_none_does():
    plan = BuildPlan(settings_of(12, 1024, "none"), Segments.single(10**7), 10**7, workers=8)
    one, two = plan.projected_bytes(1), plan.projected_bytes(2)
    assert two - one == plan.task_bytes
    assert plan.admitted(MemoryLimit(one, "test")) == 1
    assert plan.admitted(MemoryLimit(two + 5, "test")) == 2
    assert plan.admitted(MemoryLimit(2**40, "test")) == 8
    with pytest.raises(MemoryLimitError, match="--partition-bars") as caught:
        plan.admitted(MemoryLimit(one - 2_000_000, "test"))
    remedy = int(str(caught.value).split("--partition-bars ")[1].split()[0])
    smaller = BuildPlan(plan.settings, plan.segments, plan.n_rows, remedy)
    assert smaller.projected_bytes(1) <= one - 2_000_000


def test_a_cluster_has_turns_where_each_worker_and_all_together_have_room():
    def plan_with(*shares):
        workers = sum(share.threads for share in shares)
        return BuildPlan(
            settings_of(12, 1024, "none"),
            Segments.single(10**7),
            10**7,
            workers=workers,
            worker_shares=shares,
            turns=2,
        )

    def tasks_of(plan, limit_bytes=2**40):
        cluster = Schedule(workers=plan.workers, client=object())
        return plan.limited(cluster, MemoryLimit(limit_bytes, "test")).tasks_at_once

    own, task = 280 * 2**20, plan_with().task_bytes
    large, small = (WorkerShare((own + n * task) * 4 // 3, 2, own) for n in (4, 2))
    assert tasks_of(plan_with(large, large)) == 8
    assert tasks_of(plan_with(large, small)) == 4
    both = plan_with(large, large)
    assert both.projected_bytes() == both.base_bytes + both.held_bytes + 8 * task
    assert tasks_of(both, both.projected_bytes()) == 8
    assert tasks_of(both, both.projected_bytes() - 1) == 4
    with pytest.raises(MemoryLimitError, match=r"writing the store needs .* 2 threads"):
        plan_with(large, WorkerShare(own + task, 2, own)).admitted(MemoryLimit(2**40, "test"))


def cluster_plan(*shares):
    return BuildPlan(
        settings_of(12, 1024, "none"),
        Segments.single(10**7),
        10**7,
        workers=sum(share.threads for share in shares),
        worker_shares=shares,
    )


def share_of(number, *, is_here, limit_bytes=2 * 2**30, own_bytes=280 * 2**20):
    return WorkerShare(limit_bytes, 1, own_bytes, f"tcp://10.0.0.{number}:4000", is_here=is_here)


def test_workers_of_other_machines_take_nothing_of_this_ones_memory():
    away = cluster_plan(*(share_of(number, is_here=False) for number in range(100)))
    assert away.base_bytes > 28 * 10**9
    assert away.admitted(MemoryLimit(16 * 2**30, "RAM")) == 100
    alone = cluster_plan().projected_bytes(0)
    assert away.admitted(MemoryLimit(alone, "RAM")) == 100
    with pytest.raises(MemoryLimitError, match=rf"needs {alone:,} .* and 0 worker processes"):
        away.admitted(MemoryLimit(alone - 1, "RAM"))


def test_workers_of_this_machine_count_together_beside_those_of_others():
    here = [share_of(number, is_here=True) for number in range(3)]
    away = [share_of(number, is_here=False) for number in range(3, 7)]
    own, mixed = cluster_plan(*here), cluster_plan(*here, *away)
    for tasks in (1, 2, 3):
        limit = MemoryLimit(own.projected_bytes(tasks), "RAM")
        assert (own.admitted(limit), mixed.admitted(limit)) == (tasks, 4 + tasks)
    short = MemoryLimit(own.projected_bytes(1) - 2_000_000, "RAM")
    for plan in (own, mixed):
        with pytest.raises(MemoryLimitError, match=r"3 worker processes \+ .*--partition-bars"):
            plan.admitted(short)


def test_a_setting_counts_all_processes_wherever_they_run():
    away = cluster_plan(*(share_of(number, is_here=False) for number in range(4)))
    total = away.projected_bytes(2)
    for machine in (total, 2**40):
        assert away.admitted(MemoryLimit(machine, "RAM", total)) == 2
    few = away.projected_bytes(1) - 2_000_000
    told = r"\(--memory-limit\): .* 4 worker processes \(4 on other machines\) \+ "
    with pytest.raises(MemoryLimitError, match=told):
        away.admitted(MemoryLimit(2**40, "RAM", few))


def test_a_worker_elsewhere_too_small_for_a_task_is_named_with_what_would_fit():
    task = cluster_plan(share_of(1, is_here=False)).task_bytes
    room = (280 * 2**20 + task * 3 // 4) * 5 // 4
    shares = [share_of(number, is_here=False) for number in range(1, 4)]
    shares[1] = shares[1]._replace(limit_bytes=room)
    plan, machine = cluster_plan(*shares), MemoryLimit(16 * 2**30, "RAM")
    with pytest.raises(MemoryLimitError, match=r"each worker and tcp://10\.0\.0\.2:4000") as caught:
        plan.admitted(machine)
    told = str(caught.value)
    assert f"has {room:,}: {280 * 2**20:,} for the interpreter" in told
    smaller = int(told.partition("--partition-bars ")[2].partition(" ")[0])
    assert replace(plan, partition_bars=smaller).admitted(machine) == 3
    larger = int(told.partition("give each worker ")[2].partition("MiB")[0]) * 2**20
    shares[1] = shares[1]._replace(limit_bytes=larger)
    assert cluster_plan(*shares).admitted(machine) == 3


def test_what_is_held_grows_with_chunks_not_with_bars():
    few = BuildPlan(settings_of(12, 1024), Segments.single(10**7), 10**7)
    many = BuildPlan(settings_of(12, 1024), Segments.single(10**8), 10**8)
    assert many.held_bytes < 11 * few.held_bytes
    assert many.task_bytes <= 1.1 * few.task_bytes


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_an_estimate_from_lines_becomes_exact_once_bars_are_cached(tmp_path, suffix):
    import gzip

    source = write_bars(tmp_path / "b.csv", 500)
    if suffix == ".csv.gz":
        packed = tmp_path / "b.csv.gz"
        packed.write_bytes(gzip.compress(source.read_bytes()))
        source = packed
    target = Request.of(source, tmp_path / "s.zarr", settings_of(), gb.BarRules())
    before = estimate_build(target, exact_bytes=0)
    gb.build_store(source, tmp_path / "s.zarr", overlap=47)
    after = estimate_build(target)
    assert (before.exact, after.exact) == (False, True)
    assert before.plan.n_rows == after.plan.n_rows == 500
    assert after.to_json()["n_windows"] == len(gb.MatrixStore.open(tmp_path / "s.zarr"))


def test_a_plan_of_little_data_is_the_build_itself(tmp_path):
    """Symbols, gaps and bad rows too."""
    source = write_bars(tmp_path / "b.csv", 900, symbols=3)
    lines = source.read_text().splitlines(keepends=True)
    lines[400] = "no,bar,at,all\n"
    source.write_text("".join(lines[:600] + lines[900:]))
    settings = make_settings("strategic", None, 47, "windows", None, "auto", "1h")
    target = Request.of(source, tmp_path / "s.zarr", settings, gb.BarRules())
    plan = estimate_build(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv"]
    store = gb.build_store(source, tmp_path / "s.zarr", overlap=47, max_gap="1h", durable=False)
    expected = {name: store.attrs[name] for name in ("n_rows", "n_segments", "n_windows")}
    assert {name: plan.to_json()[name] for name in expected} == expected
    assert plan.exact


def test_without_room_for_bars_lines_are_counted(tmp_path, monkeypatch):
    source = write_bars(tmp_path / "b.csv", 300)

    def fail(*_, **__):
        raise DiskFullError("no room")

    monkeypatch.setattr(estimate, "prepare_bars", fail)
    found = estimate_build(Request.of(source, tmp_path / "s", settings_of(), gb.BarRules()))
    assert (found.exact, found.plan.n_rows) == (False, 300)


def test_blocks_of_rows_are_refused_where_they_would_mostly_be_borders():
    starts = np.arange(0, 8900, 89, dtype=np.int64)
    segments = Segments(starts, np.full(100, 89, np.int64), np.zeros(100, np.int32))
    with pytest.raises(UsageError, match="too many short segments"):
        BuildPlan(settings_of(layout="rows"), segments, 8900)


def test_a_plan_refuses_what_a_build_would(tmp_path):
    source = tmp_path / "bars.csv"
    write_bars(source, 300)
    settings = settings_of()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(StoreMismatchError, match="no grandbatch store"):
        estimate_build(Request.of(source, taken, settings, BarRules()))
    source.write_text(source.read_text().replace("close", "Clsoe", 1))
    packed = tmp_path / "bars.csv.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    for file in (source, packed):
        target = Request.of(file, tmp_path / "s.zarr", settings, BarRules())
        for exact_bytes in (0, EXACT_BYTES):
            with pytest.raises(ColumnError, match="Clsoe"):
                estimate_build(target, exact_bytes=exact_bytes)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("header", [None, "# made by hand\n\n"])
def test_a_plan_counts_the_rows_behind_the_header(tmp_path, suffix, header):
    text = write_bars(tmp_path / "made.csv", 9000).read_text()
    names, _, rows = text.partition("\n")
    rules = BarRules(header=False, names=names.split(",")) if header is None else BarRules()
    text = rows if header is None else header + text
    data = text.rstrip("\n").encode()
    assert len(data) > 2**18  # more than the part in which the header is looked for
    source = tmp_path / f"bars{suffix}"
    source.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    target = Request.of(source, tmp_path / "s", settings_of(), rules)
    assert estimate_build(target, exact_bytes=0).plan.n_rows == 9000


@pytest.mark.parametrize(
    ("layout", "overlap", "codec"),
    [("windows", 47, "zstd"), ("rows", 47, "none"), ("windows", 12, "lz4"), ("rows", 12, "lz4")],
)
def test_auto_packs_what_windows_repeat_and_leaves_rows_as_they_are(layout, overlap, codec):
    settings = settings_of(overlap, layout=layout)
    assert BuildPlan(settings, Segments.single(2_000), 2_000, None).spec.codec == codec
    explicit = settings_of(overlap, codec="zstd", layout=layout)
    assert BuildPlan(explicit, Segments.single(2_000), 2_000, None).spec.codec == "zstd"
