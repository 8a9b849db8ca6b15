"""Two processes learn what one would learn from their batches together, and go on as one or two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.batch import MatrixBatch
from grandbatch.checkpoint import read_checkpoint
from grandbatch.errors import UsageError
from grandbatch.mappo import BatchStrategicTrainer
from grandbatch.ranks import Ranks, join_ranks

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = {"minibatch_windows": 24, "schedule_batches": 20}

RANK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_ranks

test_ranks.train_as_rank(*sys.argv[2:])
"""
STOPS = {"whole": None, "two then one": 2, "one then two": None}
"""Runs of two ranks, and after how many steps they are left; the last goes on from one rank's."""


def train(store, folder, ranks, stop=None):
    """Train for an epoch, or go on with it; what was trained on, and what that came to."""
    trainer = BatchStrategicTrainer.for_store(store, ranks=ranks, **SETTINGS)
    config = gb.BatchConfig(batch_size=16, overlap=store.overlap, checkpoint_frequency=1000)
    processor = gb.BatchProcessor(
        store,
        config,
        folder,
        run_length=4,
        rank=ranks.rank,
        world_size=ranks.size,
    )
    told = {"windows": [], "metrics": []}
    for result in processor.process_batches(trainer):
        batch = result["batch"]
        told["windows"].append(batch.index[batch.weight > 0].tolist())
        told["metrics"].append(result["metrics"])
        if len(told["windows"]) == stop:
            break
    weights = trainer.state_dict()["weights"].values()
    return {**told, "summary": processor.summary, "weights": [w.tolist() for w in weights]}


def train_as_rank(path, folder):
    """What each of two processes does."""
    torch.set_num_threads(1)
    store, folder = gb.MatrixStore.open(path), Path(folder)
    with join_ranks() as ranks:
        told = {name: train(store, folder / name, ranks, stop) for name, stop in STOPS.items()}
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    bars = write_bars(folder / "b.csv", 1_250)
    return gb.build_store(bars, folder / "s.zarr", overlap=40, chunk_windows=16, durable=False)


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    """Folder of the checkpoints, what one rank did before two went on, and what the two did."""
    folder = tmp_path_factory.mktemp("ranks")
    first = train(store, folder / "one then two", Ranks(), stop=2)
    script = folder / "rank.py"
    script.write_text(RANK)
    done = subprocess.run(
        [*TORCHRUN, str(script), str(Path(__file__).parent), str(store.path), str(folder)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    both = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return folder, first, both


def environment():
    paths = [str(Path(gb.__file__).parents[1]), str(Path(__file__).parents[1] / "helpers")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def joined(*batches):
    """The windows of all ranks, as one batch."""
    parts = [batch.tensors() for batch in batches]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return MatrixBatch(**tensors, position=batches[0].position)


def trained_alone(store):
    """One process, given what two ranks are given, batch by batch."""
    trainer = BatchStrategicTrainer.for_store(store, **SETTINGS)
    config = gb.BatchConfig(batch_size=16, overlap=store.overlap)
    loaders = [
        gb.SlidingWindowDataLoader(store, config, run_length=4, rank=rank, world_size=2)
        for rank in range(2)
    ]
    metrics = [trainer.train_batch(joined(*each)) for each in zip(*loaders, strict=True)]
    return trainer.state_dict(), metrics


@pytest.mark.slow
def test_two_ranks_learn_what_one_process_learns_from_their_batches_together(store, runs):
    folder, _, both = runs
    one, two = (told["whole"] for told in both)
    for what in ("metrics", "weights", "summary"):
        assert one[what] == two[what]
    assert len({len(windows) for windows in one["windows"]}) > 1, "no short last batch"

    wanted, metrics = trained_alone(store)
    assert one["metrics"] == [pytest.approx(each, rel=1e-4, abs=1e-6) for each in metrics]
    state = read_checkpoint(next((folder / "whole").glob("*.ckpt"))).trainer_state
    assert torch.equal(state["generator"], wanted["generator"])
    for part in ("weights", "statistics"):
        for name, tensor in wanted[part].items():
            torch.testing.assert_close(state[part][name], tensor, rtol=1e-4, atol=1e-5)
    start = BatchStrategicTrainer.for_store(store, **SETTINGS).state_dict()["weights"]
    assert max(float((start[name] - w).abs().max()) for name, w in state["weights"].items()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two then one", "one then two"])
def test_another_number_of_ranks_goes_on_and_every_window_comes_once(store, runs, name):
    folder, first, both = runs
    parts = [told[name] for told in both]
    if name == "two then one":
        parts.append(train(store, folder / name, Ranks()))
    else:
        parts.append(first)
    seen = [window for part in parts for windows in part["windows"] for window in windows]
    assert sorted(seen) == list(range(len(store)))
    summary = (parts[-1] if name == "two then one" else parts[0])["summary"]
    assert summary["windows"] == len(store)
    steps = len(parts[0]["windows"]) + len(parts[-1]["windows"])
    assert summary["steps"] == steps


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks_of_the_command_after_the_same_batch(store, tmp_path):
    checkpoints, traces = tmp_path / "c", [tmp_path / "trace", tmp_path / "trace.1"]
    flags = "--epochs 4000 --batch-size 16 --checkpoint-frequency 1000 --run-length 4 --json"
    command = [
        *TORCHRUN, "-m", "grandbatch", "train", "strategic", "--store", str(store.path),
        "--checkpoint-dir", str(checkpoints), "--trace", str(traces[0]), *flags.split(),
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        wait_until(
            lambda: traces[0].exists() and lines(traces[0])[8:],
            lambda: child.poll() is not None,
            child.stderr.read,
        )
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode != 0
    assert errors.count("run the same command again to go on") == 2, errors
    assert "another rank is gone" not in errors
    one, two = (lines(path) for path in traces)
    assert [line["avg_reward"] for line in one] == [line["avg_reward"] for line in two]
    kept = gb.CheckpointManager(checkpoints, content_id=store.content_id).load()
    assert kept.step == len(one) == len(two)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def test_a_trainer_that_learns_alone_is_refused_where_batches_are_dealt_to_two(store, tmp_path):
    trainer = BatchStrategicTrainer.for_store(store)
    config = gb.BatchConfig(overlap=store.overlap)
    processor = gb.BatchProcessor(store, config, tmp_path, rank=0, world_size=2)
    with pytest.raises(UsageError, match="give the trainer ranks="):
        next(processor.process_batches(trainer))


def test_without_torchrun_one_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.place(5)) == (0, 1, (0, 5))
    with pytest.raises(UsageError, match="start with torchrun"):
        Ranks.connected()
