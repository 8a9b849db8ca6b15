"""Walk-forward: trained from scratch on each stretch of time, judged on the one that follows."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grandbatch.config import BatchConfig
from grandbatch.errors import UsageError
from grandbatch.evaluation import Evaluation, evaluate_walk_forward
from grandbatch.experiment.wiring import coarser_split, take_weights, wire_training
from grandbatch.mappo import MappoTrainer
from grandbatch.processor import BatchProcessor
from grandbatch.ranks import Ranks
from grandbatch.splits import Split, walk_forward
from grandbatch.store import MatrixStore
from grandbatch.training import Callback
from grandbatch.training.provenance import TEST, TRAIN

if TYPE_CHECKING:
    from grandbatch.values.times import Duration

_log = logging.getLogger("grandbatch")


def judge_walk_forward(
    learning: MatrixStore,
    every_bar: MatrixStore,
    config: BatchConfig,
    out: str | os.PathLike[str],
    *,
    folds: int = 3,
    seeds: int = 5,
    embargo: Duration = 0,
    cost: float = 1e-4,
    draws: int = 999,
    context: Mapping[str, MatrixStore] | None = None,
    max_age: Duration | None = None,
    leading: BatchConfig | None = None,
    leader: str | os.PathLike[str] | None = None,
    ranks: Ranks | None = None,
    init_from: str | os.PathLike[str] | None = None,
    callbacks: Callable[[str], Sequence[Callback]] = lambda training: (),
    trainer_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Evaluation:
    """Train on each pair's first split with each seed, and trade the test that follows.

    Each training begins anew, or with given weights, and keeps checkpoints of its own in
    `OUT/fold-N/seed-N`, which say what its test is. It goes on from them: the same call again
    retrains nothing that is finished.

    Parameters
    ----------
    learning, every_bar : MatrixStore
        Of the same bars: to learn from, and to trade, at stride 1. They may be one.
    config : BatchConfig
        Its seed is that of each training.
    out : path
    folds, seeds : int
        Pairs of training and test, and trainings of each.
    embargo : str or timedelta
        Time left out before each test.
    cost : float
        Per unit of exposure changed, in training and test.
    draws : int
        As of `evaluate`.
    context : mapping of str to MatrixStore, optional
    max_age : str or timedelta, optional
        As of `wire_training`.
    leading : BatchConfig, optional
        Of a team that learns from the context's store first, as a leader, on the same stretch of
        time; its checkpoints lie in `OUT/fold-N/seed-N/leader`.
    leader : path, optional
        Instead, one that leads all trainings, as of `wire_training`: it must have seen no test.
    ranks : Ranks, optional
        The processes that learn each training together; all get the same result.
    init_from : path, optional
        Weights that each training begins with, as of `take_weights`.
    callbacks : callable
        Those of a training, given its name: "fold-0/seed-1".
    trainer_options : mapping, optional
        As of `wire_training`, besides `cost`.
    **options
        As of `wire_training`: epochs, run_length, …

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError, StoreMismatchError, CheckpointError
        If `init_from` or `leader` has seen a test, or there are two leaders; and as of
        `walk_forward`, `evaluate_walk_forward` and `BatchProcessor`.
    """
    ranks = ranks or Ranks()
    _check_leaders(context, leading, leader)
    pairs = walk_forward(every_bar, folds, embargo=embargo)
    numbers = {split: number for number, (split, _) in enumerate(pairs)}

    def learn(name: str, store: MatrixStore, config: BatchConfig, **given: Any) -> MappoTrainer:
        wired = wire_training(
            store,
            config,
            Path(out) / name,
            ranks=ranks,
            callbacks=callbacks(name),
            trainer_options={"cost": cost, **(trainer_options or {})},
            **given,
            **options,
        )
        return _trained(name, *wired, ranks, init_from)

    def train(split: Split, seed: int) -> MappoTrainer:
        name = f"fold-{numbers[split]}/seed-{seed}"
        given: dict[str, Any] = {"context": context, "max_age": max_age, "leader": leader}
        if leading is not None:
            ((which, slow),) = (context or {}).items()
            first = coarser_split(split, every_bar, {which: slow})[which]
            learn(f"{name}/leader", slow, replace(leading, seed=seed), splits={TRAIN: first})
            given["leader"] = Path(out) / name / "leader"
        splits = {TRAIN: split, TEST: dict(pairs)[split]}
        return learn(name, learning, replace(config, seed=seed), splits=splits, **given)

    return evaluate_walk_forward(
        train,
        every_bar,
        pairs,
        seeds=range(seeds),
        cost=cost,
        draws=draws,
        context=context,
        max_age=max_age,
    )


def _check_leaders(
    context: Mapping[str, MatrixStore] | None,
    leading: BatchConfig | None,
    leader: str | os.PathLike[str] | None,
) -> None:
    if leading is not None and not context:
        raise UsageError("a leader decides on a context: give context= as well")
    if leading is not None and leader is not None:
        raise UsageError(
            "a team has one leader: leave out leader= (--leader) or leading= (--train-leader)"
        )


def _trained(
    name: str,
    processor: BatchProcessor,
    trainer: MappoTrainer,
    ranks: Ranks,
    init_from: str | os.PathLike[str] | None,
) -> MappoTrainer:
    if init_from is not None and processor.checkpoints.latest() is None:
        take_weights(processor, trainer, init_from)
    if ranks.rank == 0:
        _log.info("%s: %s windows to train on", name, f"{processor.loader.n_windows:,}")
    for _ in processor.process_batches(trainer):
        pass
    return trainer
