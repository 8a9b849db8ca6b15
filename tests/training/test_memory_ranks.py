"""Ranks agree on one batch size, the smallest that any of them can take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.memory.records import read_records
from grandbatch.training.agreement import AGREE_STEPS

RANK = """
import json, sys, time
import numpy as np, torch.distributed as dist
import grandbatch as gb
from grandbatch.errors import GrandbatchError

rank, folder, store, limits, take, leak = json.loads(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

class Trainer:
    kept = []
    def train_batch(self, batch):
        held = np.ones(1 + len(batch) * take[rank], np.uint8)
        self.kept.append(np.ones(leak[rank], np.uint8))
        time.sleep(0.006)
        return {"avg_reward": 0.0, "avg_loss": float(held[0])}
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

config = gb.BatchConfig(batch_size=32, sequence_length=48, overlap=40)
processor = gb.BatchProcessor(
    store, config, f"{folder}/c{rank}", epochs=3, rank=rank, world_size=2,
    memory_limit=limits[rank],
)
told = {"windows": [], "sizes": [], "error": None}
try:
    for result in processor.process_batches(Trainer()):
        told["windows"] += result["batch"].index[result["batch"].weight > 0].tolist()
        told["sizes"].append(result["batch_size"])
except GrandbatchError as error:
    told["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    bars = write_bars(folder / "b.csv", 4000)
    return gb.build_store(bars, folder / "s.zarr", overlap=40, chunk_windows=32, durable=False)


def run(store, folder, *, limits=("8GiB", "8GiB"), take=(0, 0), leak=(0, 0)):
    """Train on two ranks that talk over gloo; what each of them printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1])}
    folder.mkdir(exist_ok=True)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK,
             json.dumps([rank, str(folder), str(store.path), limits, take, leak])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    told = []
    for rank in ranks:
        out, errors = rank.communicate()
        assert rank.returncode == 0, errors
        told.append(json.loads(out))
    return told


@pytest.mark.slow
def test_ranks_take_the_smallest_size_at_the_same_steps_and_every_window_once(store, tmp_path):
    # only rank 1 is short: 32 of its windows take 400 MB of the 560 that it may have
    one, two = run(store, tmp_path, limits=("8GiB", "700MiB"), take=(0, 12_500_000))
    assert one["error"] is two["error"] is None
    assert one["sizes"] == two["sizes"]
    assert min(one["sizes"]) < 21 < max(one["sizes"])  # 21 are left of an epoch
    epochs = sorted(one["windows"] + two["windows"])
    assert epochs == sorted(list(range(len(store))) * 3)
    changes = [
        [r for r in read_records(tmp_path / f"c{rank}") if r.get("what") == "batch_size"]
        for rank in (0, 1)
    ]
    at = [[(r["step"], r["before"], r["after"]) for r in own] for own in changes]
    assert at[0] == at[1]
    assert all(step % AGREE_STEPS == 0 for step, _, _ in at[0])
    assert "another rank can take no more" in changes[0][0]["reason"]


@pytest.mark.slow
def test_all_ranks_stop_together_where_one_runs_out_of_memory(store, tmp_path):
    one, two = run(store, tmp_path, limits=("8GiB", "500MiB"), leak=(0, 12 * 2**20))
    assert one["error"] == "MemoryLimitError: another rank is out of memory: see its log"
    assert two["error"].startswith("MemoryLimitError")
    assert one["sizes"] == two["sizes"]


@pytest.mark.slow
def test_a_rank_that_does_not_fit_ends_all_before_any_work(store, tmp_path):
    one, two = run(store, tmp_path, limits=("8GiB", "100MiB"))
    assert one["error"] == ("MemoryLimitError: another rank does not fit its limit: see its log")
    assert "of the limit of 104,857,600" in two["error"]
    assert one["sizes"] == two["sizes"] == []
