"""Trainings that take more memory than there is stay under a limit that the system enforces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from cgroups import inside, memory_cgroup
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.memory.records import read_records

MIB = 2**20
SHARE = 100 / 1.2
"""max_memory_percent: the hard limit is a fifth above what it allows."""

EATER = "import sys; b = bytearray(int(sys.argv[1]) * 2**20); print(1, flush=True); input()"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("greedy")
    bars = write_bars(folder / "b.csv", 6000)
    return gb.build_store(bars, folder / "s.zarr", overlap=40, chunk_windows=64, durable=False)


@pytest.fixture(scope="module")
def large_store(tmp_path_factory):
    """Feature rows of 200 MB."""
    folder = tmp_path_factory.mktemp("cached")
    gb.create_large_dataset_simulation(folder / "b.csv", 4_000_000)
    return gb.build_store(
        folder / "b.csv", folder / "s.zarr", layout="rows", overlap=0, durable=False
    )


def call_of(store, folder, trainer, *, config=None, **options):
    settings = {"batch_size": 32, "max_memory_percent": SHARE, **(config or {})}
    told = {"store": str(store.path), "folder": str(folder), "config": settings,
            "trainer": trainer, **options}  # fmt: skip
    return [
        sys.executable,
        str(Path(__file__).parents[1] / "helpers" / "greedy.py"),
        json.dumps(told),
    ]


@contextmanager
def limited(call, hard_bytes):
    """Start a process under a hard limit; gives it, and its cgroup."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1])}
    with memory_cgroup(hard_bytes) as group, subprocess.Popen(
        inside(group, call), stderr=subprocess.PIPE, text=True, env=environment
    ) as child:  # fmt: skip
        try:
            yield child, group
        finally:
            child.kill()
            child.wait()


def finish(child, folder, hard_bytes):
    """Wait for the end, hold what it uses against the limit, and return what it told."""
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, process.memory_info().rss)
        time.sleep(0.01)
    assert child.returncode == 0, child.communicate()
    assert peak < hard_bytes
    return json.loads((folder / "told.json").read_text())


def plain_order(store, epochs=1):
    """The windows in order, of the same settings, with nothing in the way."""
    config = gb.BatchConfig(
        batch_size=32, sequence_length=store.sequence_length, overlap=store.overlap
    )
    loader = gb.SlidingWindowDataLoader(store, config)
    return [w for _ in range(epochs) for batch in loader for w in batch.index.tolist()]


def decisions(folder, what):
    return [r for r in read_records(folder) if r["kind"] == "decision" and r["what"] == what]


@pytest.mark.slow
def test_batches_that_grow_are_split_and_the_run_goes_on_in_order(store, tmp_path):
    hard = 600 * MIB
    # at the end 32 windows would take 770 MB
    trainer = {"take": 1_000_000, "grow": 1_000_000, "most": 24_000_000}
    with limited(call_of(store, tmp_path / "c", trainer), hard) as (child, _):
        told = finish(child, tmp_path / "c", hard)
    assert told["error"] is None
    assert told["windows"] == plain_order(store)
    assert told["sizes"][0] == 32
    assert set(told["sizes"][-20:]) <= {1, 2, 4, 8}
    shrunk = decisions(tmp_path / "c", "batch_size")
    assert all("allowed" in decision["reason"] for decision in shrunk)
    # the position tells the size in force, and the training is whole
    manager = gb.CheckpointManager(tmp_path / "c", content_id=store.content_id)
    state = manager.load().loader_state
    assert state["position"]["batch_size"] in {1, 2, 4, 8}
    assert state["totals"]["whole"]["windows"] == len(store)


@pytest.mark.slow
def test_a_leak_ends_with_a_checkpoint_that_the_next_run_goes_on_from(store, tmp_path):
    hard = 700 * MIB
    call = call_of(store, tmp_path / "c", {"leak": 25 * MIB}, epochs=3)
    with limited(call, hard) as (child, _):
        told = finish(child, tmp_path / "c", hard)
    assert told["error"].startswith("MemoryLimitError")
    assert "bytes are in use" in told["error"]
    call = call_of(store, tmp_path / "c", {"seconds": 0.006}, epochs=3)
    with limited(call, hard) as (child, _):
        rest = finish(child, tmp_path / "c", hard)
    assert rest["error"] is None
    assert told["windows"] + rest["windows"] == plain_order(store, epochs=3)
    # it went on with the size that the first one ended with, and grew back
    assert rest["sizes"][0] == told["sizes"][-1] < 32
    assert 32 in rest["sizes"]
    ended = [r["error"] for r in read_records(tmp_path / "c") if r["kind"] == "end"]
    assert ended == ["MemoryLimitError", None]


@pytest.mark.slow
def test_a_cache_larger_than_memory_is_done_without(large_store, tmp_path):
    hard = 500 * MIB
    config = {"batch_size": 1024, "cache_bytes": 2**40}
    call = call_of(large_store, tmp_path / "c", {}, config=config)
    with limited(call, hard) as (child, _):
        told = finish(child, tmp_path / "c", hard)
    assert told["error"] is None
    assert sorted(told["windows"]) == list(range(len(large_store)))
    (without,) = decisions(tmp_path / "c", "cached")
    assert "do not fit" in without["reason"]


def wait_for(condition, child):
    wait_until(condition, lambda: child.poll() is not None, child.communicate)


@pytest.mark.slow
def test_a_batch_shrinks_while_another_process_eats_memory_and_grows_back(store, tmp_path):
    hard = 700 * MIB
    end, folder = tmp_path / "end", tmp_path / "c"
    trainer = {"take": 4 * MIB}
    call = call_of(store, folder, trainer, until=str(end), epochs=100_000)

    def sizes():
        return [decision["after"] for decision in decisions(folder, "batch_size")]

    with limited(call, hard) as (child, group):
        if group is None:
            pytest.skip("no memory cgroup can be made here")
        wait_for(lambda: any(r.get("steps", 0) > 20 for r in read_records(folder)), child)
        assert sizes() == []
        eat = inside(group, [sys.executable, "-c", EATER, "250"])
        with subprocess.Popen(eat, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as eater:
            eater.stdout.readline()
            wait_for(lambda: sizes() and min(sizes()) <= 16, child)
            eater.communicate(b"\n")
        wait_for(lambda: sizes()[-1] == 32, child)
        end.touch()
        told = finish(child, tmp_path / "c", hard)
    assert told["error"] is None
    whole = plain_order(store)
    assert told["windows"][: len(whole)] == whole
    assert {16, 32} <= set(told["sizes"])


@pytest.mark.slow
def test_a_limit_below_the_baseline_is_an_error_before_any_work(store, tmp_path):
    call = call_of(store, tmp_path / "c", {}, memory_limit="100MiB")
    with limited(call, 2000 * MIB) as (child, _):
        told = finish(child, tmp_path / "c", 2000 * MIB)
    assert told["error"].startswith("MemoryLimitError")
    assert "more are needed" in told["error"]
    assert "of the limit of 104,857,600 (--memory-limit)" in told["error"]
    assert told["sizes"] == []
    assert not list((tmp_path / "c").glob("*.ckpt"))


@pytest.mark.slow
def test_no_memory_to_resume_is_an_error_before_the_checkpoint_is_read(store, tmp_path):
    call = call_of(store, tmp_path / "c", {})
    with limited(call, 2000 * MIB) as (child, _):
        finish(child, tmp_path / "c", 2000 * MIB)
    (latest, *_) = sorted((tmp_path / "c").glob("*.ckpt"), reverse=True)
    with latest.open("r+b") as file:
        file.truncate(3 * 2**30)
    call = call_of(store, tmp_path / "c", {}, memory_limit="2GiB")
    with limited(call, 2000 * MIB) as (child, _):
        told = finish(child, tmp_path / "c", 2000 * MIB)
    assert told["error"].startswith("MemoryLimitError: no memory to resume from")
    assert "more are needed" in told["error"]
    assert told["sizes"] == []


@pytest.mark.parametrize(
    "changes",
    [{"memory_limit": "lots"}, {"memory_limit": 0}, {"metrics_port": 70_000}],
)
def test_a_setting_that_makes_no_sense_is_refused_before_any_work(store, tmp_path, changes):
    config = gb.BatchConfig(sequence_length=48, overlap=40)
    with pytest.raises(UsageError):
        next(gb.BatchProcessor(store, config, tmp_path / "c", **changes).process_batches(Idle()))


class Idle:
    def train_batch(self, batch):
        return {"avg_reward": 0.0, "avg_loss": 0.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_sizes_that_contradict_each_other_are_refused():
    for settings in (
        {"batch_size": 4, "min_batch_size": 8},
        {"batch_size": 9, "max_batch_size": 8},
    ):
        with pytest.raises(UsageError, match="batch_size"):
            gb.BatchConfig(**settings)


@pytest.mark.slow
def test_an_automatic_batch_size_grows_beyond_its_start_and_keeps_the_order(store, tmp_path):
    config = gb.BatchConfig(batch_size="auto", sequence_length=48, overlap=40, max_batch_size=64)
    processor = gb.BatchProcessor(store, config, tmp_path / "c", epochs=60)
    sizes, windows = [], []

    class Slow(Idle):
        def train_batch(self, batch):
            time.sleep(0.006)
            return super().train_batch(batch)

    for result in processor.process_batches(Slow()):
        sizes.append(result["batch_size"])
        windows += result["batch"].index.tolist()
        assert result["position"].batch_size in (16, 32, 64)
        if len(sizes) > 200:
            break
    assert sizes[0] == 16
    assert max(sizes) == 64
    order = plain_order(store, epochs=20)
    assert windows == order[: len(windows)]


@pytest.mark.slow
def test_ctrl_c_while_memory_is_short_is_answered(store, tmp_path):
    call = call_of(store, tmp_path / "c", {"leak": 25 * MIB}, epochs=2)
    with limited(call, 700 * MIB) as (child, _):
        wait_for(lambda: decisions(tmp_path / "c", "hold"), child)
        child.send_signal(signal.SIGINT)
        child.communicate()
    assert gb.CheckpointManager(tmp_path / "c", content_id=store.content_id).load() is not None
