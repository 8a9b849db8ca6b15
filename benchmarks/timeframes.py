"""What a team earns that sees two timeframes, and one that sees the finer alone, over seeds.

A market of 5-minute bars, once with a signal that bars of 30 minutes alone show (`simulate --signal
0.5 --signal-timeframe 30min`), once with none. Both teams learn from the first 60 % with the same
settings; of each epoch's checkpoints the one that earns most on the next 20 % is traded on the last
20 %, after costs. Beside them the oracle: the rule that was planted, which knows which row of the
coarser window tells the direction.

The settings are those of the package, with a schedule as long as the training, and runs of 4.
They were chosen on the validation part of other markets (seeds 11 and 12), never on a test.

    python benchmarks/timeframes.py [--json PATH] [--rows N] [--market SEED] [--seeds K] …
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import grandbatch as gb
from grandbatch.evaluation import Evaluation
from grandbatch.experiment import judge_trainings, wire_training
from grandbatch.kernels.simulation import SLOW_LAG
from grandbatch.mappo.config import HierarchicalConfig

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
RUN_LENGTH = 4
LEARNING = ("learning_rate", "entropy_coefficient", "gamma", "lambda_")


def build(folder: Path, rows: int, seed: int, signal: float) -> tuple[gb.MatrixStore, ...]:
    bars = folder / "bars.csv"
    planted = {"signal": signal, "signal_timeframe": "30min"} if signal else {}
    gb.create_large_dataset_simulation(bars, rows, seed=seed, **planted)
    fast = gb.build_store(
        bars, folder / "fast.zarr", feature_set="tactical", overlap=59, layout="rows"
    )
    slow = gb.build_store(
        bars, folder / "slow.zarr", feature_set="strategic", overlap=47, resample="30min"
    )
    return fast, slow


def oracle(windows: Any, held: Any, contexts: Any) -> Any:
    """Hold what the coarser bar SLOW_LAG before the one to come did."""
    return np.sign(contexts["strategic"][:, -SLOW_LAG, 0])


def train(fast: gb.MatrixStore, folder: Path, seed: int, epochs: int, context: Any = None) -> Path:
    config = dataclasses.replace(
        gb.BatchConfig.hierarchical(),
        sequence_length=fast.sequence_length, overlap=fast.overlap, seed=seed,
    )  # fmt: skip
    settings = HierarchicalConfig.hierarchical()
    splits = gb.split_store(fast, SHARES)
    schedule = epochs * splits["train"].n_windows // int(config.batch_size)
    options = {name: getattr(settings, name) for name in LEARNING}
    processor, trainer = wire_training(
        fast, config, folder, splits, context=context, epochs=epochs, run_length=RUN_LENGTH,
        trainer_options={**options, "schedule_batches": schedule},
    )  # fmt: skip
    for _ in processor.process_batches(trainer):
        pass
    return folder


def judge(folder: Path, options: argparse.Namespace, signal: float) -> dict[str, Evaluation]:
    """Train both teams over all seeds, and trade the test."""
    folder.mkdir()
    fast, slow = build(folder, options.rows, options.market, signal)
    context = {"strategic": slow}
    found = {}
    for name, seen in (("hierarchical", context), ("tactical alone", None)):
        runs = [
            train(fast, folder / f"{name}-{seed}", seed, options.epochs, seen)
            for seed in range(options.seeds)
        ]
        found[name] = judge_trainings(fast, runs, context=context).evaluation
        print(f"{name}, signal {signal}: {found[name].verdict}", flush=True)
    test = gb.split_store(fast, SHARES)["test"]
    found["oracle"] = gb.evaluate(oracle, fast, test, context=context)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-results/timeframes.json"))
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--market", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--signal", type=float, default=0.5)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for label, signal in (("signal", options.signal), ("noise", 0.0)):
            found = judge(Path(temporary) / label, options, signal)
            best = found["oracle"].verdict.mean_return
            for name, one in found.items():
                verdict = one.verdict
                each = [1e4 * track.performance.mean_return for track in one.seeds]
                row = {**dataclasses.asdict(verdict), "beats_random": verdict.beats_random,
                       "each_bp": each}  # fmt: skip
                said = ""
                if signal:
                    row["of_oracle"] = verdict.mean_return / best
                    said = f"{row['of_oracle']:6.2f} of the oracle"
                results[f"{label}, {name}"] = row
                print(f"{label + ', ' + name:24}{1e4 * verdict.mean_return:+7.3f} bp a bar {said}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {name: getattr(options, name) for name in ("rows", "market", "epochs")}
    options.json.write_text(json.dumps({"settings": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
