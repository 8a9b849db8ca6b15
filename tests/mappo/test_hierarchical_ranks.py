"""Two processes that see two timeframes learn alike, and go on to the bit where they were left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from test_ranks import TORCHRUN, environment
from timeframes import gappy_bars, write_bars

import grandbatch as gb
from grandbatch.mappo import BatchHierarchicalTrainer
from grandbatch.ranks import join_ranks

RANK = """
import sys
sys.path.insert(0, sys.argv[1])
import test_hierarchical_ranks

test_hierarchical_ranks.train_as_rank(*sys.argv[2:])
"""


def train(folder, run, ranks, stop=None):
    """Train for an epoch, or go on with it; what was trained on, and what that came to."""
    fast, slow = (gb.MatrixStore.open(folder / f"{name}.zarr") for name in ("fast", "slow"))
    context = {"strategic": slow}
    trainer = BatchHierarchicalTrainer.for_pair(
        fast, context, ranks=ranks, minibatch_windows=24, schedule_batches=20
    )
    config = gb.BatchConfig(
        batch_size=16, sequence_length=60, overlap=50, checkpoint_frequency=1000
    )
    processor = gb.BatchProcessor(
        fast,
        config,
        folder / run,
        run_length=4,
        rank=ranks.rank,
        world_size=ranks.size,
        context=context,
    )
    told = {"windows": [], "seen": [], "metrics": []}
    for result in processor.process_batches(trainer):
        batch = result["batch"]
        counts = batch.weight > 0
        told["windows"].append(batch.index[counts].tolist())
        told["seen"].append(batch.context["strategic"].index[counts].tolist())
        told["metrics"].append(result["metrics"])
        if len(told["windows"]) == stop:
            break
    weights = trainer.state_dict()["weights"].values()
    return {**told, "weights": [each.tolist() for each in weights]}


def train_as_rank(folder):
    """What each of two processes does."""
    torch.set_num_threads(1)
    folder = Path(folder)
    with join_ranks() as ranks:
        told = []
        for run, stop in (("whole", None), ("left", 2), ("left", None)):
            told.append(train(folder, run, ranks, stop))
            torch.distributed.barrier()  # one saves what both go on from
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(told))


@pytest.mark.slow
def test_two_ranks_with_a_context_learn_alike_and_go_on_as_if_never_left(tmp_path):
    bars = write_bars(tmp_path / "b.csv", gappy_bars(["A"], 1_500))
    options = {"durable": False, "chunk_windows": 16}
    fast = gb.build_store(
        bars, tmp_path / "fast.zarr", feature_set="tactical", overlap=50, **options
    )
    gb.build_store(bars, tmp_path / "slow.zarr", resample="15min", overlap=47, **options)
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    done = subprocess.run(
        [*TORCHRUN, str(script), str(Path(__file__).parent), str(tmp_path)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for one, two in zip(*ranks, strict=True):
        assert (one["metrics"], one["weights"]) == (two["metrics"], two["weights"])
    for whole, left, went_on in ranks:
        for what in ("windows", "seen", "metrics"):
            assert left[what] + went_on[what] == whole[what]
        assert went_on["weights"] == whole["weights"]
        assert len(left["windows"]) == 2
    had = [window for whole, *_ in ranks for batch in whole["windows"] for window in batch]
    paired = [window for whole, *_ in ranks for batch in whole["seen"] for window in batch]
    loader = gb.SlidingWindowDataLoader(
        fast, context={"strategic": gb.MatrixStore.open(tmp_path / "slow.zarr")}
    )
    wanted = {}
    for batch in loader:
        wanted.update(
            zip(batch.index.tolist(), batch.context["strategic"].index.tolist(), strict=True)
        )
    assert len(had) == len(wanted) > 50
    assert dict(zip(had, paired, strict=True)) == wanted
