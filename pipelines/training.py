"""What all `train_….py` share: bars in, judged models out.

The walk-forward is that of `grandbatch walk-forward`: each pair of splits is trained on from
scratch, once for each seed, and traded on the test period that follows. Every training keeps
checkpoints of its own in `OUT/fold-N/seed-N`. The same command run again goes on where it ended,
and retrains nothing that is finished.

Under torchrun all processes learn each of these trainings together, on `--batch-size` windows each:

    torchrun --nproc-per-node 2 pipelines/train_strategic.py bars.csv --out run-strategic
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prepare import add_data_flags, add_set_name, parse, prepare

import grandbatch as gb
from grandbatch.experiment import judge_walk_forward
from grandbatch.ranks import Ranks, join_ranks
from grandbatch.report.judgement import keep_walk_forward
from grandbatch.training import Callback, TensorBoard

_TOLD = ("inputs", "folds", "seeds", "embargo", "epochs")


def main(
    set_name: str | None, config: gb.BatchConfig, arguments: Sequence[str] | None = None
) -> None:
    """Train and evaluate a set's team.

    Parameters
    ----------
    set_name : str or None
        None where the first argument is the set.
    config : BatchConfig
        The set's.
    arguments : sequence of str, optional
        By default the command line's.
    """

    def judge(options: argparse.Namespace, ranks: Ranks) -> gb.Evaluation:
        learning, every_bar = prepare(options.set_name, options)
        return walk(learning, every_bar, config, options, ranks)

    run_judged(make_parser(set_name, config), judge, arguments)


def run_judged(
    parser: argparse.ArgumentParser,
    judge: Callable[[argparse.Namespace, Ranks], gb.Evaluation],
    arguments: Sequence[str] | None,
) -> None:
    """Judge what flags ask for, and keep what comes of it."""
    options = parse(parser, arguments)
    with join_ranks() as ranks:
        found = judge(options, ranks)
    if ranks.rank == 0:
        facts = {name: getattr(options, name) for name in _TOLD}
        page = keep_walk_forward(found, options.out, options.set_name, facts)
        print(f"\n{found}\n\n{page}")


def walk(
    learning: gb.MatrixStore,
    every_bar: gb.MatrixStore,
    config: gb.BatchConfig,
    options: argparse.Namespace,
    ranks: Ranks,
    **contexts: Any,
) -> gb.Evaluation:
    """Train on each split with each seed, and trade what follows it."""

    def callbacks(training: str) -> Sequence[Callback]:
        is_logged = options.tensorboard is not None and ranks.rank == 0
        return [TensorBoard(options.tensorboard / training)] if is_logged else []

    return judge_walk_forward(
        learning,
        every_bar,
        replace(
            config,
            sequence_length=learning.sequence_length,
            overlap=learning.overlap,
            batch_size=options.batch_size,
            checkpoint_frequency=options.checkpoint_frequency,
        ),
        options.out,
        folds=options.folds,
        seeds=options.seeds,
        embargo=options.embargo,
        cost=options.cost,
        ranks=ranks,
        init_from=options.init_from,
        callbacks=callbacks,
        trainer_options={"device": options.device},
        epochs=options.epochs,
        run_length=options.run_length,
        **contexts,
    )


def make_parser(set_name: str | None, config: gb.BatchConfig) -> argparse.ArgumentParser:
    """Make what reads the flags of a training."""
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
