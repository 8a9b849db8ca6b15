"""A training of MAPPO that can be judged: it learns from one split, and is chosen by another.

Covers what wires a store, a trainer and a processor; not what is done with the trained team.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from grandbatch.config import BatchConfig
from grandbatch.loader import SlidingWindowDataLoader
from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer, MappoTrainer
from grandbatch.processor import BatchProcessor
from grandbatch.ranks import Ranks
from grandbatch.splits import Split
from grandbatch.store import MatrixStore
from grandbatch.training import Callback
from grandbatch.training.provenance import TRAIN

VALIDATION = "validation"
"""Name of the split that the best checkpoint is chosen by."""

_KINDS = {"strategic": BatchStrategicTrainer, "tactical": BatchTacticalTrainer}
_JUDGED_WINDOWS = 1024
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
    """
    ranks = ranks or Ranks()
    shared: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.size}
    learnt = None
    if splits is not None and TRAIN in splits:
        learnt = _in_order(store, config, splits[TRAIN])
    judged = (splits or {}).get(VALIDATION)
    if judged is not None:
        options |= {
            "validation": _in_order(store, config, judged, **shared),
            "best_metric": "val_avg_reward",
        }
    processor = BatchProcessor(
        store, config, Path(checkpoint_dir), splits=splits, callbacks=callbacks, **shared, **options
    )
    trainer = kind_of(store).for_store(
        store, learnt, seed=config.seed, ranks=ranks, **(trainer_options or {})
    )
    if judged is not None:
        # all ranks take the same windows: their teams must stay one
        calibrated = _Calibration(trainer, _in_order(store, config, judged))
        processor.callbacks = (calibrated, *processor.callbacks)
    return processor, trainer


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
