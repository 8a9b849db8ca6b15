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
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, metered, options_of, report

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


def row_of(label: str, name: str, found: dict[str, Evaluation], cost: dict[str, float]) -> Row:
    """What a team earns a bar; the limit is the oracle, where there is something to know."""
    verdict = found[name].verdict
    each = ", ".join(f"{1e4 * track.performance.mean_return:+.2f}" for track in found[name].seeds)
    oracle_earns = 1e4 * found["oracle"].verdict.mean_return
    return Row(
        f"{label}, {name}",
        1e4 * verdict.mean_return,
        "bp a bar",
        cost,
        limit=oracle_earns if label == "signal" else None,
        note=f"beats random: {'yes' if verdict.beats_random else 'no'}; seeds {each}",
    )


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--market", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--signal", type=float, default=0.5)
    options = parser.parse_args()
    rows, verdicts = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for label, signal in (("signal", options.signal), ("noise", 0.0)):
            cost = metered(partial(judge, Path(temporary) / label, options, signal))
            found = {name: cost.pop(name) for name in ("hierarchical", "tactical alone", "oracle")}
            rows += [row_of(label, name, found, cost) for name in found]
            verdicts |= {
                f"{label}, {name}": dataclasses.asdict(one.verdict) for name, one in found.items()
            }
    report(__file__, rows, options, verdicts=verdicts)


if __name__ == "__main__":
    main()
