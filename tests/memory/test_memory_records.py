"""A run tells of its memory: lines beside its checkpoints, metrics, and a table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.memory import Level, MemoryUsage, Sample, records
from grandbatch.memory.processes import run_processes
from grandbatch.memory.records import TrainingLog, TrainingProgress, read_records
from grandbatch.training.metrics_log import read_metrics


class Idle:
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def train_batch(self, batch):
        time.sleep(self.seconds)
        return {"avg_reward": 0.0, "avg_loss": 0.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def sample_at(seconds, level=Level.CALM, rss=600):
    return Sample(seconds, MemoryUsage(rss, 1000, 400, "RAM"), 800, level)


@pytest.fixture
def store(make_store):
    return make_store(600, overlap=40, chunk_windows=8)


def processor_of(store, folder, **options):
    config = gb.BatchConfig(batch_size=5, sequence_length=48, overlap=40)
    return gb.BatchProcessor(store, config, folder, **options)


def test_every_training_run_leaves_samples_and_says_how_it_ended(store, tmp_path):
    folder = tmp_path / "c"
    for _ in processor_of(store, folder).process_batches(Idle(0.03)):
        pass
    kinds = [record["kind"] for record in read_records(folder)]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    last = [r for r in read_records(folder) if r["kind"] == "sample"][-1]
    assert last["steps"] > 0
    assert last["batch_size"] == 5
    assert last["windows"] == 5 * last["steps"]
    assert last["batch_seconds"] > last["wait_seconds"]
    assert 0 < last["rss_bytes"] < last["allowed_bytes"] <= last["limit_bytes"]


def test_lines_come_once_a_second_or_when_the_level_changes(tmp_path):
    record = TrainingLog(tmp_path)
    for number in range(30):
        record.sample(sample_at(100.0 + number / 10), TrainingProgress())
    record.sample(sample_at(103.0, Level.TRIM), TrainingProgress())
    record.sample(sample_at(103.1, Level.CALM), TrainingProgress())
    assert sum(r["kind"] == "sample" for r in read_records(tmp_path)) == 3 + 2


def test_a_file_that_grows_long_is_put_aside_and_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_ROTATED_BYTES", 2000)
    record = TrainingLog(tmp_path)
    for number in range(105):
        record.decision("batch_size", f"reason {number}", TrainingProgress())
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 2500
    reasons = [r["reason"] for r in read_records(tmp_path)]
    assert reasons == [f"reason {n}" for n in range(105 - len(reasons), 105)]


def test_a_line_that_a_killed_run_left_unfinished_is_passed_over(tmp_path):
    TrainingLog(tmp_path).decision("hold", "why", TrainingProgress())
    with (tmp_path / "memory-rank0.jsonl").open("a") as file:
        file.write('{"time": 1, "ki')
    assert [r["kind"] for r in read_records(tmp_path)] == ["start", "decision"]


def test_a_damaged_line_is_passed_over_and_every_flip_damages_one(tmp_path):
    log = TrainingLog(tmp_path)
    for number in range(20):
        log.decision("hold", f"reason {number}", TrainingProgress())
    path = tmp_path / "memory-rank0.jsonl"
    whole, raw = read_records(tmp_path), path.read_bytes()
    for at in range(0, len(raw), 7):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1 :])
        found = read_records(tmp_path)
        assert len(found) in (20, 19)
        assert all(line in whole for line in found)
    path.write_bytes(raw + b'5\n[]\n{"time": "x"}\n')
    assert read_records(tmp_path) == whole


def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(tmp_path, caplog):
    for name in ("memory-rank0.jsonl", "metrics-rank0.jsonl"):
        os.mkfifo(tmp_path / name)
    TrainingLog(tmp_path)
    assert "no longer recorded" in caplog.text
    for read in (read_records, read_metrics):
        with pytest.raises(OSError, match="no ordinary file"):
            read(tmp_path)


def test_a_disk_that_takes_no_lines_ends_no_run(store, tmp_path, caplog):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "memory-rank0.jsonl").mkdir()
    assert len(list(processor_of(store, tmp_path / "c").process_batches(Idle()))) > 0
    assert "no longer recorded" in caplog.text


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_metrics_are_served_while_a_run_lasts(store, tmp_path):
    pytest.importorskip("prometheus_client")
    port = free_port()
    processor = processor_of(store, tmp_path / "c", metrics_port=port)
    told = {}
    for result in processor.process_batches(Idle(0.03)):
        if result["batch_idx"] == 10:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
                lines = page.read().decode().splitlines()
            told = dict(line.split() for line in lines if not line.startswith("#"))
    assert float(told["grandbatch_batch_size"]) == 5
    assert 0 < float(told["grandbatch_windows_total"]) <= 55
    assert float(told["grandbatch_memory_bytes"]) < float(told["grandbatch_memory_limit_bytes"])
    assert {
        "grandbatch_memory_level", "grandbatch_wait_seconds_total", "grandbatch_chunks",
    } <= told.keys()  # fmt: skip
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60)


def test_a_port_that_is_taken_is_an_error_before_any_work(store, tmp_path):
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        processor = processor_of(store, tmp_path, metrics_port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="another port"):
            next(processor.process_batches(Idle()))


def write_run(folder, rank=0, *, ended=True, error=None):
    record = TrainingLog(folder, rank)
    record.sample(sample_at(time.time(), Level.BATCH), TrainingProgress(batch_size=16))
    record.decision("batch_size", "too much", TrainingProgress(), 32, 16)
    if ended:
        record.end(error, error)


def test_the_ranks_of_a_run_are_told_by_their_last_words(tmp_path):
    write_run(tmp_path, 0, ended=False)
    write_run(tmp_path, 0, ended=False)
    write_run(tmp_path, 1, error="MemoryLimitError")
    write_run(tmp_path, 2)
    zero, one, two = run_processes(tmp_path)
    assert (zero.kind, zero.name, zero.status, zero.restarts) == ("rank", "0", "running", 1)
    assert (zero.rss_bytes, zero.limit_bytes, zero.level) == (600, 1000, "batch")
    assert (zero.batch_size, zero.reason) == (16, "too much")
    assert (one.status, one.reason) == ("failed", "MemoryLimitError")
    assert (two.status, two.restarts) == ("ended", 0)


def test_a_rank_that_says_nothing_any_more_is_silent(tmp_path, monkeypatch):
    write_run(tmp_path, ended=False)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert run_processes(tmp_path)[0].status == "silent"


def monitor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "grandbatch", "monitor", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_monitor_command_shows_the_ranks_of_a_run(tmp_path):
    write_run(tmp_path)
    told = json.loads(monitor("--checkpoint-dir", tmp_path, "--json").stdout)
    assert told["processes"][0]["rss_bytes"] == 600
    table = monitor("--checkpoint-dir", tmp_path).stdout
    assert "rank 0" in table
    assert "60.0" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to show"),
        (("--scheduler", "threads"), "no address"),
        (("--checkpoint-dir", "nowhere"), "no memory records"),
    ],
)
def test_the_monitor_command_says_what_it_needs(arguments, said):
    done = monitor(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
