"""What the three `train_….py` share: bars in, judged models out.

Walk-forward: each pair of splits is trained on from scratch, once for each seed, and traded on the
test period that follows. Every training keeps checkpoints of its own in `OUT/fold-N/seed-N`. The
same command run again goes on where it ended, and retrains nothing that is finished.

Under torchrun all processes learn each of these trainings together, on `--batch-size` windows each:

    torchrun --nproc-per-node 2 pipelines/train_strategic.py bars.csv --out run-strategic
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prepare import add_data_flags, add_set_name, parse, prepare

import grandbatch as gb
from grandbatch.files.whole import write_whole
from grandbatch.ranks import Ranks, join_ranks
from grandbatch.training import TensorBoard


def main(
    set_name: str | None, config: gb.BatchConfig, kind: Any, arguments: Sequence[str] | None = None
) -> None:
    """Train and evaluate a set's team.

    Parameters
    ----------
    set_name : str or None
        None where the first argument is the set.
    config : BatchConfig
        The set's.
    kind : type
        Of the trainer.
    arguments : sequence of str, optional
        By default the command line's.
    """
    options = parse(_parser(set_name, config), arguments)
    with join_ranks() as ranks:
        found = _judge(config, kind, options, ranks)
    if ranks.rank == 0:
        result = options.out / "evaluation.json"
        write_whole(result, json.dumps(found.to_json(), indent=2).encode())
        print(f"\n{found}\n\n{result}")


def _judge(
    config: gb.BatchConfig, kind: Any, options: argparse.Namespace, ranks: Ranks
) -> gb.Evaluation:
    """Train on each split with each seed, and trade what follows it."""
    learning, every_bar = prepare(options.set_name, options)
    config = replace(
        config,
        sequence_length=learning.sequence_length,
        overlap=learning.overlap,
        batch_size=options.batch_size,
        checkpoint_frequency=options.checkpoint_frequency,
    )
    pairs = gb.walk_forward(every_bar, options.folds, embargo=options.embargo)
    folds = {split: number for number, (split, _) in enumerate(pairs)}

    def train(split: gb.Split, seed: int) -> Any:
        folder = options.out / f"fold-{folds[split]}" / f"seed-{seed}"
        return _train(kind, learning, replace(config, seed=seed), split, folder, options, ranks)

    return gb.evaluate_walk_forward(
        train, every_bar, pairs, seeds=range(options.seeds), cost=options.cost
    )


def _parser(set_name: str | None, config: gb.BatchConfig) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Train and evaluate the team of {set_name or 'any set'}."
    )
    if set_name is None:
        add_set_name(parser)
    else:
        parser.set_defaults(set_name=set_name)
    add_data_flags(parser)
    add = parser.add_argument
    add("--folds", type=int, default=3, help="walk-forward pairs of training and test")
    add("--seeds", type=int, default=5, help="trainings of each pair; fewer than 5 prove nothing")
    add("--embargo", default="0", help="time left out before each test period, such as 1D")
    add("--epochs", type=int, default=1, help="passes over each training split")
    add("--batch-size", type=int, default=config.batch_size, help="windows in a batch")
    add("--run-length", type=int, default=8, help="consecutive windows in a trajectory")
    add("--cost", type=float, default=1e-4, help="per unit of exposure changed, in return units")
    add("--checkpoint-frequency", type=int, default=config.checkpoint_frequency, help="in steps")
    add("--init-from", type=Path, help="begin with the weights of this checkpoint, or folder")
    add("--device", default="cpu", help="where the networks live, such as cuda")
    add("--tensorboard", type=Path, help="folder to log metrics to, for TensorBoard")
    return parser


def _train(
    kind: Any,
    store: gb.MatrixStore,
    config: gb.BatchConfig,
    split: gb.Split,
    folder: Path,
    options: argparse.Namespace,
    ranks: Ranks,
) -> Any:
    """Train on a split, from its last checkpoint on."""
    in_order = gb.SlidingWindowDataLoader(store, config, shuffle=False, subset=split)
    trainer = kind.for_store(
        store, in_order, seed=config.seed, cost=options.cost, device=options.device, ranks=ranks
    )
    log = None if options.tensorboard is None or ranks.rank else options.tensorboard
    processor = gb.BatchProcessor(
        store,
        config,
        folder,
        epochs=options.epochs,
        callbacks=() if log is None else [TensorBoard(log / folder.relative_to(options.out))],
        subset=split,
        run_length=options.run_length,
        rank=ranks.rank,
        world_size=ranks.size,
    )
    if options.init_from is not None and processor.checkpoints.latest() is None:
        trainer.load_weights(options.init_from)
    if ranks.rank == 0:
        print(f"{folder}: {processor.loader.n_windows:,} windows to train on", flush=True)
    for _ in processor.process_batches(trainer):
        pass
    return trainer
