"""`BatchProcessor`: one training run, from a store or a file of bars, resumed where it ended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.checkpoint import CheckpointManager
from grandbatch.config import BatchConfig
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.features import FeatureSet
from grandbatch.loader import DataStreamer, SlidingWindowDataLoader
from grandbatch.memory import MemoryMonitor
from grandbatch.memory.records import TrainingLog
from grandbatch.ranks import Ranks
from grandbatch.splits import Split
from grandbatch.store import MatrixStore
from grandbatch.training import Callback
from grandbatch.training.agreement import check_ranks, ranks_of
from grandbatch.training.guard import TrainingGuard, planned_bytes
from grandbatch.training.interrupts import HeldInterrupts
from grandbatch.training.lineage import Lineage
from grandbatch.training.metrics_log import MetricsLog
from grandbatch.training.provenance import Goal, Provenance, with_training_split
from grandbatch.training.resuming import (
    Beginning,
    begin_since_last,
    check_since_last,
    read_latest,
    take_up,
)
from grandbatch.training.source import open_store
from grandbatch.training.totals import Means, Totals, check_best
from grandbatch.training.trainer import Trainer
from grandbatch.training.validation import Validation
from grandbatch.values.checks import parse_bytes

_log = logging.getLogger("grandbatch")


class BatchProcessor:
    """Feeds a trainer from a store, and keeps checkpoints.

    Parameters
    ----------
    data_path : path or MatrixStore
        A store, or bars: CSV or Parquet, whose store is built or reused beside them, one for each
        feature set, length and overlap.
    config : BatchConfig, optional
        By default that of the store's windows.
    checkpoint_dir : path
        Where checkpoints lie: a folder, or a URL of an object store (``s3://…``).
    feature_set : str or FeatureSet, optional
        For bars: the set to build. By default the one with the config's sequence length.
    epochs : int
        Epochs of the whole training, resumed or not.
    resume : bool
        Go on from the latest checkpoint, if there is one.
    memory_limit : str or int, optional
        Memory for the process tree, such as "2GiB", below the system's own limits.
    metrics_port : int, optional
        Serve Prometheus metrics on this port of the loopback address, plus the rank.
    callbacks : sequence of Callback
        Told of every batch, every epoch, every checkpoint and the end of a run.
    best_metric : str, optional
        The best checkpoint is kept besides the newest: that with the largest mean of this metric
        since the checkpoint before or, with a minus before the name (`"-loss"`), the smallest.
        `val_…` is one of the validation. By default `avg_reward`, of trainers that give it.
    validation : loader of batches, optional
        Handed to the trainer's `validate_batch` at the end of epochs. The means of what that
        returns are the callbacks' and the checkpoints' metrics `val_…`; a checkpoint is saved.
    validate_every : int
        Epochs between two validations.
    splits : mapping of str to Split, optional
        As of `split_store`: the one called "train" is learnt from, the one called "test" is kept
        for the end. Every checkpoint tells of them: `grandbatch evaluate` judges the test alone.
    since_last : bool
        Where the store has grown since the latest checkpoint, go on with the windows that its
        training did not have, for `epochs` epochs.
    **loader_options
        Of `SlidingWindowDataLoader`: shuffle, run_length, start, stop, rank, world_size, …
        Ranks train side by side on `batch_size` windows each; where torch.distributed is in use
        they agree on batch sizes and when to stop. Rank 0 saves the checkpoints, all of them read
        them, and a training may go on with another number of ranks.

    Raises
    ------
    UsageError
        If the settings contradict each other or the store.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> class Mean:
    ...     def train_batch(self, batch):
    ...         return {"avg_reward": float(batch.matrices.mean())}
    ...     def state_dict(self):
    ...         return {}
    ...     def load_state_dict(self, state):
    ...         pass
    >>> processor = gb.BatchProcessor(store, checkpoint_dir="checkpoints", resume=False)
    >>> results = list(processor.process_batches(Mean()))
    >>> len(results) == -(-len(store) // 32)
    True
    """

    def __init__(
        self,
        data_path: str | os.PathLike[str] | MatrixStore,
        config: BatchConfig | None = None,
        checkpoint_dir: str | os.PathLike[str] = "checkpoints",
        *,
        feature_set: str | FeatureSet | None = None,
        epochs: int = 1,
        resume: bool = True,
        memory_limit: str | int | None = None,
        metrics_port: int | None = None,
        callbacks: Sequence[Callback] = (),
        best_metric: str | None = None,
        validation: Iterable[MatrixBatch] | None = None,
        validate_every: int = 1,
        splits: Mapping[str, Split] | None = None,
        since_last: bool = False,
        **loader_options: Any,
    ) -> None:
        if epochs < 1:
            raise UsageError(f"epochs must be at least 1, got {epochs}")
        self.store = open_store(data_path, config, feature_set)
        given = config or BatchConfig()
        self.config = given.with_window(self.store.sequence_length, self.store.overlap)
        self.checkpoints = CheckpointManager(
            Path(checkpoint_dir),
            content_id=self.store.content_id,
            metric="recent_reward" if best_metric is None else "rating",
        )
        self.monitor = MemoryMonitor(
            self.config.max_memory_percent,
            None if memory_limit is None else parse_bytes(memory_limit),
        )
        self.resume, self._since_last = resume, since_last
        loader_options = with_training_split(loader_options, splits)
        self.provenance = Provenance.of(self.store, splits or {}, loader_options.get("subset"))
        self._beginning = Beginning(None, Lineage.first(self.store), None)
        if since_last:
            check_since_last(loader_options, resume=resume)
            self._beginning = begin_since_last(self.store, self.checkpoints, self.monitor)
            loader_options["subset"] = self._beginning.windows
        self.lineage = self._beginning.lineage
        self.epochs = self.lineage.last.epoch + (0 if self._beginning.is_up_to_date else epochs)
        self.loader = SlidingWindowDataLoader(self.store, self.config, **loader_options)
        self.loader.set_epoch(self.lineage.last.epoch)
        self.best_metric = best_metric
        self.validation = None if validation is None else Validation(validation, validate_every)
        if validation is None and (best_metric or "").removeprefix("-").startswith("val_"):
            raise UsageError(
                f"best_metric {best_metric!r} is one of a validation; give validation="
            )
        self.callbacks = tuple(callbacks)
        self._metrics_port = metrics_port
        self._totals = Totals()
        self._state: dict[str, Any] | None = None
        self._recorded_size: int | None = None
        self._saved = (0, 0)
        self._rating: dict[str, float] = {}

    @property
    def steps(self) -> int:
        """Batches trained on so far, in this run and those before it."""
        return self._totals.steps

    @property
    def summary(self) -> dict[str, float]:
        """Figures of the whole training so far: steps, windows, and the mean of each metric."""
        return self._totals.summary()

    def process_batches(self, trainer: Trainer) -> Generator[dict[str, Any], None, None]:
        """Train on every batch that is left of the epochs.

        A checkpoint is saved every `checkpoint_frequency` steps, at the end, and when the loop
        is left early or ended by Ctrl-C: training then goes on at the very next batch.

        As memory runs short, less is prefetched, batches get smaller and then wait; the same
        windows come in the same order. What was done and why is logged, and written beside the
        checkpoints with the memory's course (`grandbatch.memory.records`); so are the metrics
        (`grandbatch.training.metrics_log`).

        Parameters
        ----------
        trainer : Trainer

        Yields
        ------
        dict
            batch_idx (steps so far, from 0), metrics (of this batch), batch_size (windows),
            batch_time (seconds of training), wait_time (seconds waited for the batch),
            memory_usage (percent of the limit), position (after the batch), batch.

        Raises
        ------
        CheckpointError
            If there are checkpoints and none can be used.
        UsageError
            If the trainer or its state is none that can be saved, or checkpoints can't be written.
        TrainingError
            If a metric is not finite; nothing is saved after that batch.
        MemoryLimitError
            If the process tree, before the first batch or with the smallest ones, is over
            `max_memory_percent` of its limit; a checkpoint of what was trained is saved.
        """
        check_ranks(trainer, self.loader.world_size)
        if self.validation is not None:
            self.validation.check(trainer)
        self._totals, self._state = Totals(epochs=self.loader.epoch), None
        self._recorded_size, self._rating = None, {}
        ranks = ranks_of(self.loader.world_size)
        if self.resume:
            self._resume(trainer, ranks or Ranks())
        if self.loader.rank == 0 and self._is_unfinished:
            self.checkpoints.prepare(trainer.state_dict())
        self._saved = self._standing
        guard = self._guard(ranks)
        try:
            with (
                guard,
                MetricsLog(self.checkpoints.logs, self.loader.rank) as curves,
                closing(self._train(trainer, guard, ranks or Ranks())) as results,
            ):
                for result in results:
                    check_best(self.best_metric, result["metrics"])
                    curves.add(result["batch_idx"], result["batch_size"], result["metrics"])
                    for callback in self.callbacks:
                        callback.on_batch(result)
                    yield result
                    validated = self._end_epoch(trainer, ranks or Ranks())
                    due = self._totals.steps % self.config.checkpoint_frequency == 0
                    if due or validated:
                        self._save(trainer, ends_stretch=due)
        finally:
            try:
                if self._standing != self._saved and self._totals.is_whole:
                    self._save(trainer)
            finally:
                for callback in self.callbacks:
                    callback.on_end(self.summary)

    @property
    def _standing(self) -> tuple[int, int]:
        """Steps trained, and epochs ended: what a checkpoint is newer by."""
        return self._totals.steps, self._totals.epochs

    @property
    def _is_unfinished(self) -> bool:
        epoch = self.loader.epoch if self._state is None else self._state["position"]["epoch"]
        return bool(epoch < self.epochs)

    def _guard(self, ranks: Ranks | None) -> TrainingGuard:
        """Make what keeps the run inside its memory."""
        record = TrainingLog(
            self.checkpoints.logs,
            self.loader.rank,
            None if self._metrics_port is None else self._metrics_port + self.loader.rank,
        )
        return TrainingGuard.of(self.loader, self.monitor, record, ranks, self._recorded_size)

    def _train(
        self, trainer: Trainer, guard: TrainingGuard, ranks: Ranks
    ) -> Generator[dict[str, Any], None, None]:
        """Train on each batch, keep the loader's state after it, and yield the result.

        Where there are ranks, Ctrl-C is held back until all have heard of it: one that left alone
        would have the others wait for it in the middle of a batch.
        """
        if self._state is not None:
            self.loader.load_state_dict(self._state)
            # where the run before ended between an epoch's last batch and its end
            self._end_epoch(trainer, ranks)
        guard.begin(partial(planned_bytes, self.loader))
        if ranks.size == 1:
            yield from self._epochs(trainer, guard, ranks, None)
            return
        with HeldInterrupts() as asked:
            yield from self._epochs(trainer, guard, ranks, asked)
        asked.release()

    def _epochs(
        self, trainer: Trainer, guard: TrainingGuard, ranks: Ranks, asked: HeldInterrupts | None
    ) -> Generator[dict[str, Any], None, None]:
        while self.loader.epoch < self.epochs:
            settings = guard.admit()
            self.loader.batch_size = settings.batch_size
            if not settings.cached:
                self.loader.release_cache()
            with DataStreamer(self.loader, prefetch_batches=settings.prefetch_batches) as stream:
                waiting_since = time.perf_counter()
                for batch in stream:
                    began = time.perf_counter()
                    with HeldInterrupts() as held:
                        stop = asked is not None and asked.pending
                        metrics = self._totals.train(trainer, batch, ranks, stop=stop)
                        self._state = stream.state_dict()
                    ended = time.perf_counter()
                    position = batch.position
                    chunks = position.next_block * self.loader.settings.shuffle_chunks
                    guard.trained(len(batch), ended - began, began - waiting_since, chunks)
                    yield {
                        "batch_idx": self._totals.steps - 1,
                        "metrics": metrics,
                        "batch_size": len(batch),
                        "batch_time": ended - began,
                        "wait_time": began - waiting_since,
                        "memory_usage": self.monitor.latest.usage.percent,
                        "position": position,
                        "batch": batch,
                    }
                    # only now, so that every batch trained on has been handed out
                    held.release()
                    if self._totals.must_stop:
                        raise KeyboardInterrupt
                    if not guard.may_go_on():
                        # what was prepared under other settings is dropped, and comes again
                        stream.load_state_dict(stream.state_dict())
                        break
                    waiting_since = time.perf_counter()

    def _end_epoch(self, trainer: Trainer, ranks: Ranks) -> bool:
        """Validate and tell of the epoch if all its batches were trained on; tell if validated."""
        totals, validation = self._totals, self.validation
        if self.loader.epoch == totals.epochs:
            return False
        judged: dict[str, float] = {}
        if validation is not None and validation.is_due(self.loader.epoch):
            judged = validation.run(trainer, ranks)
            totals.validation, totals.validated_step = judged, totals.steps
            check_best(self.best_metric, judged, validated=True)
        metrics = {**totals.epoch.means(), **judged}
        totals.epochs, totals.epoch = self.loader.epoch, Means()
        for callback in self.callbacks:
            callback.on_epoch_end(totals.epochs - 1, metrics)
        return bool(judged)

    def _resume(self, trainer: Trainer, ranks: Ranks) -> None:
        """Take up the latest checkpoint, the same on all ranks."""
        self._load(trainer)
        steps = ranks.gather(torch.tensor(self._totals.steps)).tolist()
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"ranks found different checkpoints in {self.checkpoints.directory}: of the steps "
                f"{steps}, by rank; give a folder that all of them share"
            )

    def _load(self, trainer: Trainer) -> None:
        begun, self._beginning = self._beginning, replace(self._beginning, checkpoint=None)
        checkpoint = begun.checkpoint or read_latest(
            self.checkpoints, self.monitor, of_any_store=self._since_last
        )
        if checkpoint is None:
            return
        Goal.of_checkpoint(checkpoint)
        seen, lineage = Provenance.of_checkpoint(checkpoint), Lineage.of_checkpoint(checkpoint)
        is_next = lineage is not None and len(lineage.stages) < len(self.lineage.stages)
        if is_next:
            self.provenance = self.provenance if seen is None else self.provenance.after(seen)
        else:
            self.provenance.check_resumes(seen, checkpoint.path)
            self.lineage.check_resumes(lineage, checkpoint.path)
            self.provenance, self.lineage = seen or self.provenance, lineage or self.lineage
        first = self.lineage.last.epoch if is_next else None
        self._totals, self._state, position = take_up(checkpoint, trainer, first)
        if position is None:
            return
        self._rating = checkpoint.metrics
        if checkpoint.loader_state.get("batch_size") == self.config.batch_size:
            self._recorded_size = position.batch_size

    def _save(self, trainer: Trainer, *, ends_stretch: bool = False) -> None:
        with HeldInterrupts() as held:
            state = self._state or {}
            rating = self._totals.rating(self.best_metric)
            if (
                not self._totals.stretch.windows
                and self._totals.validated_step != self._totals.steps
            ):
                # saved once more at the step that ended a stretch
                rating = self._rating
            self._rating, self._saved = rating, self._standing
            if ends_stretch:
                self._totals.begin_stretch()
            if self.lineage.had is None:
                self.lineage = self.lineage.with_had(self.store, self.loader.selection)
            if self.loader.rank == 0:
                path = self.checkpoints.save(
                    self._totals.steps,
                    trainer.state_dict(),
                    {
                        "loader": state,
                        "totals": self._totals.to_json(),
                        "position": state.get("position"),
                        "batch_size": self.config.batch_size,
                        **self.provenance.to_state(),
                        **self.lineage.to_state(),
                        **Goal(self.epochs, len(self.loader)).to_state(),
                    },
                    rating,
                )
                for callback in self.callbacks:
                    callback.on_checkpoint(path, rating)
        held.release()
