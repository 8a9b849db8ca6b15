"""Reading bars stays under its limit, whatever the input: inside a cgroup a fifth above it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cgroups import run_within
from simulated import write_bars

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building import memory
from grandbatch.bars.building.memory import (
    ReadingPlan,
    WorkerShare,
    plan_memory,
    worker_bytes,
)
from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.errors import MemoryLimitError
from grandbatch.kernels.bars.bar_rules import judge_rows
from grandbatch.kernels.compilation import COMPILING_BYTES, compiling_bytes
from grandbatch.memory import MemoryLimit
from grandbatch.memory.costs import WORKER_BYTES
from grandbatch.scheduling import Schedule

MIB = 2**20
N_ROWS = 2_000_000

BUILD = """
import json, sys
import grandbatch as gb
from grandbatch.bars import BarRules
from grandbatch.scheduling import open_schedule

def main():
    source, store, limit, workers, processes, sort = json.loads(sys.argv[1])
    with open_schedule(None, processes, limit) as schedule:
        built = gb.build_store(
            source, store, workers=workers, memory_limit=limit, rules=BarRules(sort=sort),
            client=schedule.client, durable=False,
        )
    print(built.attrs["n_rows"])

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two million bars in each of the ways that used to take too much."""
    folder = tmp_path_factory.mktemp("inputs")
    plain = folder / "plain.csv"
    gb.create_large_dataset_simulation(plain, N_ROWS)
    frame = pd.read_csv(plain, parse_dates=["timestamp"])
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, folder / "one_group.parquet", row_group_size=N_ROWS)
    shuffled = frame.take(np.random.default_rng(0).permutation(N_ROWS))
    shuffled.to_csv(folder / "shuffled.csv", index=False)
    gb.create_large_dataset_simulation(folder / "interleaved.csv", N_ROWS, symbols=40)
    (folder / "build.py").write_text(BUILD)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 16, 64])
@pytest.mark.parametrize(
    ("name", "sort"),
    [
        ("plain.csv", False),
        ("one_group.parquet", False),
        ("interleaved.csv", False),
        ("shuffled.csv", True),
    ],
)
def test_a_build_on_threads_stays_under_500_mib(inputs, tmp_path, name, sort, workers):
    limit = 500 * MIB
    asked = [str(inputs / name), str(tmp_path / "s.zarr"), limit, workers, None, sort]
    call = [sys.executable, str(inputs / "build.py"), json.dumps(asked)]
    done = run_within(limit * 6 // 5, call)
    assert done.returncode == 0, done.errors[-2000:]
    assert int(done.out) == N_ROWS
    assert done.peak_bytes <= limit


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 16])
def test_a_build_that_compiles_all_kernels_stays_under_500_mib(
    inputs, tmp_path, workers, monkeypatch
):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    limit = 500 * MIB
    asked = [str(inputs / "plain.csv"), str(tmp_path / "s.zarr"), limit, workers, None, False]
    done = run_within(limit * 6 // 5, [sys.executable, str(inputs / "build.py"), json.dumps(asked)])
    assert done.returncode == 0, done.errors[-2000:]
    assert list((tmp_path / "kernels").rglob("*.nbi"))
    assert done.peak_bytes <= limit


def test_compiling_counts_where_kernels_are_not_kept(tmp_path):
    source = tmp_path / "kernel.py"
    source.write_text(
        "from grandbatch.kernels.compilation import compiled, compiling_bytes\n"
        "@compiled\ndef twice(x):\n    return 2 * x\n"
        "before = compiling_bytes(twice)\ntwice(1)\nprint(before, compiling_bytes(twice))\n"
    )
    told = [
        subprocess.run(
            [sys.executable, str(source)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert told == [[str(COMPILING_BYTES)] * 2, ["0", "0"]]


def test_workers_that_will_compile_kernels_count_with_that(monkeypatch):
    plain = worker_bytes()
    monkeypatch.setattr(memory, "compiling_bytes", lambda kernel: COMPILING_BYTES)
    assert worker_bytes() - plain in (0, COMPILING_BYTES)
    assert worker_bytes() == WORKER_BYTES + COMPILING_BYTES
    held = WorkerShare(4_000 * MIB, 1, worker_bytes())
    plans = [ReadingPlan(1, 1, MIB, MIB, 0, 2, shares) for shares in ((), (held, held))]
    assert plans[1].base_bytes == plans[0].base_bytes + 2 * (WORKER_BYTES + COMPILING_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shuffled.csv", "one_group.parquet"])
def test_two_processes_stay_under_1500_mib(inputs, tmp_path, name):
    limit = 1500 * MIB
    sort = name == "shuffled.csv"
    asked = [str(inputs / name), str(tmp_path / "s.zarr"), limit, None, 2, sort]
    call = [sys.executable, str(inputs / "build.py"), json.dumps(asked)]
    done = run_within(limit * 6 // 5, call)
    assert done.returncode == 0, done.errors[-2000:]
    assert "ended for memory" not in done.errors
    assert done.peak_bytes <= limit


@pytest.mark.slow
def test_a_plan_stays_under_the_limit_that_it_plans_for(inputs, tmp_path):
    limit = 450 * MIB
    for name in ("one_group.parquet", "plain.csv"):
        store = str(tmp_path / "s.zarr")
        call = [sys.executable, "-m", "grandbatch", "plan", "strategic", str(inputs / name)]
        call += ["--store", store, "--memory-limit", str(limit), "--json"]
        done = run_within(limit * 6 // 5, call)
        assert done.returncode == 0, done.errors
        assert done.peak_bytes <= limit
        assert json.loads(done.out)["n_rows"] == N_ROWS


def plan_of(path, limit_bytes, **options):
    options = {"rules": BarRules(), "workers": 2, **options}
    limit = MemoryLimit(limit_bytes, "test")
    return plan_memory(resolve_inputs(path), limit=limit, **options), limit


def large(tmp_path):
    """A file of 400 MB that takes no room."""
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(400 * 10**6)
    return path


@pytest.mark.parametrize("workers", [1, 2, 16, 64])
def test_tasks_at_once_fit_into_the_limit_and_use_it(tmp_path, workers):
    path = large(tmp_path)
    base = plan_of(path, 16_000 * MIB)[0].base_bytes  # more where kernels are compiled here
    for room in (58, 108, 308, 1_608, 15_608):
        plan, limit = plan_of(path, base + room * MIB, workers=workers)
        at_once = plan.at_once(plan.read_bytes, limit)
        assert 1 <= at_once <= workers
        fixed = plan.base_bytes + plan.held_bytes
        assert fixed + at_once * plan.read_bytes <= limit.limit_bytes
        if at_once < workers:
            assert fixed + (at_once + 1) * plan.read_bytes > limit.limit_bytes
        assert plan.projected_bytes(limit) <= limit.limit_bytes
    assert at_once == workers


def test_extra_columns_count_in_the_plan(tmp_path):
    path = large(tmp_path)
    for sort in (False, True):
        plain, wide = (
            plan_of(path, 4_000 * MIB, rules=BarRules(sort=sort, extra=extra))[0]
            for extra in ((), tuple(f"x{i}" for i in range(20)))
        )
        n_rows = plain.block_bytes // 100  # lines with so many columns are long
        assert wide.read_bytes > plain.read_bytes + n_rows * 20 * 8
        assert wide.join_bytes >= plain.join_bytes + wide.part_rows * 20 * 16


def test_what_can_not_fit_is_refused_with_the_arithmetic_before_anything_is_done(tmp_path):
    source = write_bars(tmp_path / "b.csv", 300)
    with pytest.raises(MemoryLimitError, match="reading the bars needs") as told:
        prepare_bars(source, tmp_path / "c", BarRules(), memory_limit_bytes=300 * MIB)
    remedy = int(str(told.value).rpartition("--memory-limit ")[2].partition("MiB")[0])
    assert not list((tmp_path / "c").glob(".staging*"))
    bars = prepare_bars(source, tmp_path / "c", BarRules(), memory_limit_bytes=remedy * MIB)
    assert bars.n_rows == 300


def test_a_worker_too_small_for_a_block_is_refused_before_the_first_task(tmp_path):
    def plan_with(*shares):
        told = tuple(WorkerShare(*share, own_bytes=280 * MIB) for share in shares)
        return plan_of(large(tmp_path), 8_000 * MIB, worker_shares=told, rules=BarRules(sort=True))

    plan, limit = plan_with((300 * MIB, 1), (0, 1), (4_000 * MIB, 2))
    with pytest.raises(MemoryLimitError, match=f"in each worker and one has {300 * MIB:,}"):
        plan.check(limit)
    plan, limit = plan_with((500 * MIB, 1), (0, 8))
    plan.check(limit)


def test_workers_have_turns_where_each_has_room_for_all_of_them(tmp_path):
    def turns_with(*limits):
        shares = tuple(WorkerShare(limit, 2, own_bytes=280 * MIB) for limit in limits)
        plan, limit = plan_of(large(tmp_path), 8_000 * MIB, worker_shares=shares, turns=2)
        one_each = plan_of(large(tmp_path), 8_000 * MIB, worker_shares=shares)[0]
        more = plan.projected_bytes(limit) - one_each.projected_bytes(limit)
        turns = [plan.turns_of(size) for size in (plan.read_bytes, plan.join_bytes)]
        assert (more > 0) is (2 in turns)
        return turns

    assert turns_with(4_000 * MIB, 4_000 * MIB) == [2, 2]
    assert turns_with(0, 0) == [2, 2]
    assert turns_with(4_000 * MIB, 580 * MIB) == [1, 1]
    assert turns_with(4_000 * MIB, 620 * MIB) == [1, 2]
    assert turns_with() == [1, 1]


def wide_file(path, n_rows, width, bad_every=0):
    """Write bars with columns beside them, of random numbers; some rows without a close."""
    rng = np.random.default_rng(0)
    close = np.full(n_rows, 1.0)
    if bad_every:
        close[::bad_every] = np.nan
    times = pd.date_range("2020-01-01", periods=n_rows, freq="min")
    table = {
        "timestamp": times,
        **dict.fromkeys(("open", "high", "low", "volume"), np.ones(n_rows)),
    }
    table |= {"close": close, **{f"c{i}": rng.standard_normal(n_rows) for i in range(width)}}
    pq.write_table(pa.table(table), path, row_group_size=n_rows, use_dictionary=False)
    return path


def test_columns_of_a_wide_parquet_file_count_by_what_a_page_of_them_takes(tmp_path):
    few, many, long = (
        plan_of(wide_file(tmp_path / f"{i}.parquet", *sizes), 16_000 * MIB, workers=1)[0].read_bytes
        for i, sizes in enumerate([(10, 1), (10, 400), (100_000, 40)])
    )
    assert many < few + 200 * MIB
    assert few + 40 * MIB < long < few + 40 * 4 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("bad_every", [1, 7])
def test_wide_files_are_read_in_what_is_planned(tmp_path, bad_every):
    source = wide_file(tmp_path / "wide.parquet", 60_000, 120, bad_every)
    rules = BarRules(max_bad_fraction=1.0)
    code = (
        "import sys; from grandbatch.bars import BarRules, prepare_bars\n"
        "from grandbatch.errors import InputError\n"
        "from grandbatch.memory import peak_bytes\n"
        f"rules = {rules!r}\n"
        "try: prepare_bars(sys.argv[1], sys.argv[2], rules)\n"
        "except InputError as error: assert 'none of 60,000 rows' in str(error)\n"
        "print(peak_bytes())"
    )
    call = [sys.executable, "-c", code, str(source), str(tmp_path / "c")]
    peak = int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    plan, limit = plan_of(source, 16_000 * MIB)
    assert peak <= plan.projected_bytes(limit)


@pytest.mark.slow
def test_texts_that_come_again_and_again_are_held_once(tmp_path):
    n_rows, source = 20_000, tmp_path / "notes.parquet"
    write_bars(tmp_path / "b.csv", n_rows)
    table = pa.Table.from_pandas(pd.read_csv(tmp_path / "b.csv", parse_dates=["timestamp"]))
    note = pa.array(["x" * 20_000], pa.string())
    notes = pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), note)
    # the schema says no more than that they are texts
    pq.write_table(table.append_column("note", notes), source, store_schema=False)
    code = (
        "import sys, pyarrow as pa; from grandbatch.bars import BarRules, prepare_bars\n"
        "prepare_bars(sys.argv[1], sys.argv[2], BarRules())\n"
        "print(pa.default_memory_pool().max_memory())"
    )
    call = [sys.executable, "-c", code, str(source), str(tmp_path / "c")]
    peak = int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    assert MIB < peak < 50 * MIB  # written out they would be 400 MB


def test_long_texts_of_a_parquet_file_count(tmp_path):
    plans = []
    for length in (1, 2_000):
        path = tmp_path / f"{length}.parquet"
        table = pa.table({"note": ["x" * length] * 5_000})
        pq.write_table(table, path, use_dictionary=False)
        plans.append(plan_of(path, 16_000 * MIB, workers=1)[0])
    n_rows = plans[0].block_bytes // 64
    assert plans[1].read_bytes > plans[0].read_bytes + 3_900 * n_rows


@pytest.mark.slow
def test_a_build_of_long_texts_stays_under_500_mib(inputs, tmp_path):
    table = pq.read_table(inputs / "one_group.parquet").slice(0, 200_000)
    table = table.append_column("note", pa.array(["x" * 1_500] * 200_000))
    source, limit = tmp_path / "notes.parquet", 500 * MIB
    pq.write_table(table, source, row_group_size=200_000, use_dictionary=False, compression="none")
    asked = [str(source), str(tmp_path / "s.zarr"), limit, 16, None, False]
    call = [sys.executable, str(inputs / "build.py"), json.dumps(asked)]
    done = run_within(limit * 6 // 5, call)
    assert done.returncode == 0, done.errors[-2000:]
    assert done.peak_bytes <= limit


def test_bars_are_the_same_whatever_the_limit(tmp_path):
    source = write_bars(tmp_path / "b.csv", 60_000, symbols=3)
    schedule = Schedule.local("threads", 4)
    with pytest.raises(MemoryLimitError) as told:
        prepare_bars(source, tmp_path / "0", BarRules(), schedule, memory_limit_bytes=300 * MIB)
    least = int(str(told.value).rpartition("--memory-limit ")[2].partition("MiB")[0])
    assert least < 410 + compiling_bytes(judge_rows) / MIB
    bars = [
        prepare_bars(
            source, tmp_path / str(mib), BarRules(), schedule, memory_limit_bytes=mib * MIB
        )
        for mib in (least, 4_000)
    ]
    for name, values in bars[0].read(0, 180_000).items():
        np.testing.assert_array_equal(values, bars[1].read(0, 180_000)[name])
