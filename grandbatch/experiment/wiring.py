"""A training of MAPPO that can be judged: it learns from one split, and is chosen by another.

Covers what wires a store, a trainer and a processor; not what is done with the trained team.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grandbatch.checkpoint import read_checkpoint
from grandbatch.config import BatchConfig
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.loader import SlidingWindowDataLoader
from grandbatch.loader.context.pairing import Pairing
from grandbatch.mappo import (
    BatchHierarchicalTrainer,
    BatchStrategicTrainer,
    BatchTacticalTrainer,
    MappoTrainer,
)
from grandbatch.mappo.saving import chosen
from grandbatch.processor import BatchProcessor
from grandbatch.ranks import Ranks
from grandbatch.splits import Split
from grandbatch.store import MatrixStore
from grandbatch.training import Callback
from grandbatch.training.provenance import TRAIN, Provenance

if TYPE_CHECKING:
    from grandbatch.values.times import Duration

VALIDATION = "validation"
"""Name of the split that the best checkpoint is chosen by."""

_log = logging.getLogger("grandbatch")

_KINDS = {"strategic": BatchStrategicTrainer, "tactical": BatchTacticalTrainer}
_JUDGED_WINDOWS = 1024
_HALF_AN_HOUR = 1_800_000_000_000
_CALIBRATED_BATCHES = 16


def kind_of(store: MatrixStore) -> type[MappoTrainer]:
    """Return the trainer of a store's set."""
    return _KINDS.get(store.attrs["feature_set"], MappoTrainer)


def wire_training(
    store: MatrixStore,
    config: BatchConfig,
    checkpoint_dir: str | os.PathLike[str],
    splits: Mapping[str, Split] | None = None,
    *,
    ranks: Ranks | None = None,
    callbacks: Sequence[Callback] = (),
    trainer_options: Mapping[str, Any] | None = None,
    context: Mapping[str, MatrixStore] | None = None,
    max_age: Duration | None = None,
    leader: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[BatchProcessor, MappoTrainer]:
    """Make a processor and a trainer that keep to splits.

    Features are normalised by the split "train" alone. Where there is a split "validation" it is
    traded at the end of each epoch: the best checkpoint is the one that earns the most there, and
    confidence is calibrated by it. Without splits all of the store is learnt from.

    Parameters
    ----------
    store : MatrixStore
    config : BatchConfig
        Its seed is the trainer's, too.
    checkpoint_dir : path
    splits : mapping of str to Split, optional
        As of `BatchProcessor`.
    ranks : Ranks, optional
        The processes that learn together.
    callbacks : sequence of Callback
    trainer_options : mapping, optional
        Of `MappoTrainer.for_store`: device, torch_threads, or fields of `MappoConfig`.
    context : mapping of str to MatrixStore, optional
        As of `SlidingWindowDataLoader`: the team is a hierarchical one.
    max_age : str or timedelta, optional
        As of `SlidingWindowDataLoader`.
    leader : path, optional
        Checkpoints of a team trained on the context's store: its exposures are seen as well. What
        it has learnt from counts as seen, so that it must have kept the same test.
    **options
        Of `BatchProcessor`: epochs, resume, run_length, memory_limit, …

    Returns
    -------
    BatchProcessor
    MappoTrainer

    Raises
    ------
    UsageError
        If settings contradict each other or the store.
    CheckpointError
        If the leader's can't be read, or doesn't say what it was trained on.
    """
    ranks = ranks or Ranks()
    shared: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.size}
    if leader is not None and not context:
        raise UsageError("a leader decides on a context: give context= as well")
    seen: dict[str, Any] = {"context": context, "max_age": max_age}
    learnt = None
    if splits is not None and TRAIN in splits:
        learnt = _in_order(store, config, splits[TRAIN], **seen)
    judged = (splits or {}).get(VALIDATION)
    if judged is not None:
        options |= {
            "validation": _in_order(store, config, judged, **shared, **seen),
            "best_metric": "val_avg_reward",
        }
    processor = BatchProcessor(
        store,
        config,
        Path(checkpoint_dir),
        splits=splits,
        callbacks=callbacks,
        **shared,
        **seen,
        **options,
    )
    made: dict[str, Any] = {"seed": config.seed, "ranks": ranks, **(trainer_options or {})}
    trainer: MappoTrainer
    if context:
        trainer = BatchHierarchicalTrainer.for_pair(store, context, learnt, leader=leader, **made)
    else:
        trainer = kind_of(store).for_store(store, learnt, **made)
    if leader is not None:
        ((name, slow),) = (context or {}).items()
        known = Provenance.of_checkpoint(read_checkpoint(chosen(leader)))
        if known is None:
            raise CheckpointError(
                f"{leader} doesn't say which bars its team was trained on, so that nothing could "
                "be told from what one that it leads earns; train it again"
            )
        processor.provenance = processor.provenance.after(
            _in_finer_bars(known, Pairing(name, store, slow, None))
        )
    if judged is not None:
        # all ranks take the same windows: their teams must stay one
        calibrated = _Calibration(trainer, _in_order(store, config, judged, **seen))
        processor.callbacks = (calibrated, *processor.callbacks)
    return processor, trainer


def coarser_split(
    split: Split, store: MatrixStore, context: Mapping[str, MatrixStore]
) -> dict[str, Split]:
    """Say which windows of contexts read no bar but those that a split may read.

    Parameters
    ----------
    split : Split
        Of the windows of `store`.
    store : MatrixStore
    context : mapping of str to MatrixStore
        As of `SlidingWindowDataLoader`.

    Returns
    -------
    dict of str to Split
        Of each context's store, to train a leader on.

    Raises
    ------
    UsageError
        If the stores don't go together, or the split is shorter than a coarser bar.
    """
    found = {}
    for name, slow in context.items():
        pairing = Pairing(name, store, slow, None)
        reads_from = split.reads_from - int(pairing.first_shared(np.zeros(1, np.int64))[0])
        reads_until = split.reads_until - (pairing.slow_delay - pairing.fast_delay)
        found[name] = Split(split.start, reads_until, reads_from, reads_until, 0, 0, 0)
    return found


def _in_finer_bars(known: Provenance, pairing: Pairing) -> Provenance:
    """Return what a training on coarser bars has seen, as times of the finer bars in them."""

    def finer(stretch: tuple[int, int]) -> tuple[int, int]:
        begin, stop = stretch
        last = _last_bar(pairing.slow, stop)
        behind = last + pairing.slow_delay - pairing.fast_delay + 1
        return int(pairing.first_shared(np.array([begin]))[0]), behind

    return replace(known, seen=tuple(map(finer, known.seen)), splits={})


def _last_bar(store: MatrixStore, stop: int) -> int:
    """Return a time at or after that of the last bar before `stop`."""
    if store.stride == 1:
        ends = store.end_time[:]
        return int(ends.max(where=ends < stop, initial=store.attrs["first_time"]))
    # where clocks are set, the bars of a day begin on another multiple of half an hour
    step = math.gcd(int(store.attrs["bar_duration"]), _HALF_AN_HOUR)
    first = int(store.attrs["first_time"])
    return first + (stop - 1 - first) // step * step


def take_weights(
    processor: BatchProcessor, trainer: MappoTrainer, source: str | os.PathLike[str]
) -> None:
    """Begin with the weights of another training, and take note of what that one had seen.

    Parameters
    ----------
    processor, trainer
        As of `wire_training`; nothing was learnt yet.
    source : path
        A checkpoint, or a folder of them.

    Raises
    ------
    UsageError
        If it had seen what is to be kept for the test.
    CheckpointError
        If it can't be read, or is of other networks.
    """
    path = chosen(source)
    seen = Provenance.of_checkpoint(read_checkpoint(path))
    if seen is not None:
        processor.provenance = processor.provenance.after(seen)
    elif processor.provenance.splits:
        _log.warning(
            "%s doesn't say which bars it was trained on: if the test's were among them, what "
            "grandbatch evaluate says of this training means nothing",
            path,
        )
    trainer.load_weights(path)


class _Calibration(Callback):
    """Calibrates a team's confidence at the end of each epoch, before the checkpoint is saved."""

    def __init__(self, trainer: MappoTrainer, loader: SlidingWindowDataLoader) -> None:
        self._trainer, self._loader = trainer, loader

    def on_epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Calibrate on batches spread evenly over the split: one number needs no more."""
        step = max(1, len(self._loader) // _CALIBRATED_BATCHES)
        self._trainer.calibrate(islice(self._loader, 0, None, step))


def _in_order(
    store: MatrixStore, config: BatchConfig, split: Split, **shared: Any
) -> SlidingWindowDataLoader:
    wide = BatchConfig(_JUDGED_WINDOWS, config.sequence_length, config.overlap)
    return SlidingWindowDataLoader(store, wide, shuffle=False, subset=split, **shared)
