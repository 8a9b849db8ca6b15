"""`BatchProcessor`: one training run, from a store or a file of bars, resumed where it ended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from grandbatch.batch import MatrixBatch
from grandbatch.checkpoint import CheckpointManager
from grandbatch.config import BatchConfig
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.interrupts import HeldInterrupts
from grandbatch.loader import SlidingWindowDataLoader
from grandbatch.memory import MemoryMonitor
from grandbatch.store import MatrixStore
from grandbatch.stream import DataStreamer
from grandbatch.trainer import Trainer

_log = logging.getLogger("grandbatch")
_MEMORY_CHECK_SECONDS = 1.0


class BatchProcessor:
    """Feeds a trainer from a store, and keeps checkpoints.

    Parameters
    ----------
    data_path : path or MatrixStore
        A store, or bars: CSV or Parquet, whose store is built or reused beside them.
    config : BatchConfig, optional
        By default that of the store's windows.
    checkpoint_dir : path
        Where checkpoints lie.
    feature_set : str or FeatureSet, optional
        For bars: the set to build. By default the one with the config's sequence length.
    epochs : int
        Epochs of the whole training, resumed or not.
    resume : bool
        Go on from the latest checkpoint, if there is one.
    **loader_options
        Of `SlidingWindowDataLoader`: shuffle, run_length, start, stop, rank, world_size, …

    Raises
    ------
    UsageError
        If the settings contradict each other or the store.
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
        **loader_options: Any,
    ) -> None:
        if epochs < 1:
            raise UsageError(f"epochs must be at least 1, got {epochs}")
        self.store = _open_store(data_path, config, feature_set)
        self.config = config or BatchConfig(
            sequence_length=self.store.sequence_length, overlap=self.store.overlap
        )
        self.epochs = epochs
        self.resume = resume
        self.loader = SlidingWindowDataLoader(self.store, self.config, **loader_options)
        self.checkpoints = CheckpointManager(
            Path(checkpoint_dir), content_id=self.store.content_id, keep_best=True
        )
        self.monitor = MemoryMonitor(self.config.max_memory_percent)
        self._totals = _Totals()
        self._state: dict[str, Any] | None = None

    @property
    def steps(self) -> int:
        """Batches trained on so far, in this run and those before it."""
        return self._totals.steps

    @property
    def summary(self) -> dict[str, float]:
        """Figures of the whole training so far: steps, windows, avg_reward, avg_loss."""
        return self._totals.summary()

    def process_batches(self, trainer: Trainer) -> Generator[dict[str, Any], None, None]:
        """Train on every batch that is left of the epochs.

        A checkpoint is saved every `checkpoint_frequency` steps, at the end, and when the loop
        is left early or ended by Ctrl-C: training then goes on at the very next batch.

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
        MemoryLimitError
            If the process tree is over `max_memory_percent` of its limit; a checkpoint is saved.
        """
        if not isinstance(trainer, Trainer):
            raise UsageError(
                f"{type(trainer).__name__} is no trainer: it needs train_batch, state_dict and "
                "load_state_dict (grandbatch.Trainer)"
            )
        self._totals, self._state = _Totals(), None
        if self.resume:
            self._resume(trainer)
        saved_step = self._totals.steps
        try:
            with closing(self._train(trainer)) as results:
                for result in results:
                    yield result
                    if self._totals.steps % self.config.checkpoint_frequency == 0:
                        self._save(trainer)
                        saved_step = self._totals.steps
        finally:
            if self._totals.steps != saved_step and self._totals.is_whole:
                self._save(trainer)

    def _train(self, trainer: Trainer) -> Generator[dict[str, Any], None, None]:
        """Train on each batch, keep the loader's state after it, and yield the result."""
        if self._state is not None:
            self.loader.load_state_dict(self._state)
        usage, checked = self.monitor.check(), time.monotonic()
        while self.loader.epoch < self.epochs:
            with DataStreamer(self.loader, prefetch_batches=self.config.prefetch_batches) as stream:
                asked = time.perf_counter()
                for batch in stream:
                    began = time.perf_counter()
                    with HeldInterrupts() as held:
                        metrics = self._totals.train(trainer, batch)
                        self._state = stream.state_dict()
                    ended = time.perf_counter()
                    if time.monotonic() - checked > _MEMORY_CHECK_SECONDS:
                        usage, checked = self.monitor.check(), time.monotonic()
                    yield {
                        "batch_idx": self._totals.steps - 1,
                        "metrics": metrics,
                        "batch_size": len(batch),
                        "batch_time": ended - began,
                        "wait_time": began - asked,
                        "memory_usage": usage.percent,
                        "position": batch.position,
                        "batch": batch,
                    }
                    # only now, so that every batch trained on has been handed out
                    held.release()
                    asked = time.perf_counter()

    def _resume(self, trainer: Trainer) -> None:
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return
        state = checkpoint.loader_state
        try:
            trainer.load_state_dict(checkpoint.trainer_state)
            totals = _Totals(**state["totals"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} does not fit this trainer ({type(error).__name__}: {error}); "
                "use the trainer that wrote it, another --checkpoint-dir, or --no-resume"
            ) from None
        self._totals, self._state = totals, state["loader"]
        _log.info("resuming from %s, after step %d", checkpoint.path, checkpoint.step)

    def _save(self, trainer: Trainer) -> None:
        with HeldInterrupts() as held:
            state = self._state or {}
            self.checkpoints.save(
                self._totals.steps,
                trainer.state_dict(),
                {
                    "loader": state,
                    "totals": self._totals.to_json(),
                    "position": state.get("position"),
                },
                self.summary,
            )
        held.release()


class _Totals:
    """Sums over a whole training, carried from run to run by its checkpoints."""

    def __init__(
        self, steps: int = 0, windows: int = 0, reward: float = 0.0, loss: float = 0.0
    ) -> None:
        self.steps = steps
        self.windows = windows
        self.reward = reward
        self.loss = loss
        self.is_whole = True
        """False while, or after, a batch failed in the middle of the trainer's step."""

    def train(self, trainer: Trainer, batch: MatrixBatch) -> Mapping[str, float]:
        """Train on a batch and count it."""
        self.is_whole = False
        metrics = trainer.train_batch(batch)
        windows = int((batch.weight > 0).sum())
        self.steps += 1
        self.windows += windows
        self.reward += float(metrics["avg_reward"]) * windows
        self.loss += float(metrics["avg_loss"])
        self.is_whole = True
        return metrics

    def to_json(self) -> dict[str, float]:
        """Return the sums as JSON types."""
        return {
            "steps": self.steps,
            "windows": self.windows,
            "reward": self.reward,
            "loss": self.loss,
        }

    def summary(self) -> dict[str, float]:
        """Return the means."""
        return {
            "steps": self.steps,
            "windows": self.windows,
            "avg_reward": self.reward / self.windows if self.windows else 0.0,
            "avg_loss": self.loss / self.steps if self.steps else 0.0,
        }


def _open_store(
    data_path: str | os.PathLike[str] | MatrixStore,
    config: BatchConfig | None,
    feature_set: str | FeatureSet | None,
) -> MatrixStore:
    if isinstance(data_path, MatrixStore):
        return data_path
    path = Path(data_path)
    if path.is_dir() and (path / "zarr.json").exists():
        return MatrixStore.open(path)
    chosen = _feature_set(config, feature_set)
    from grandbatch.build.api import build_store

    overlap = chosen.overlap if config is None else config.overlap
    name = f"{path.name.split('.')[0]}.{chosen.name}.zarr"
    return build_store(path, path.with_name(name), feature_set=chosen, overlap=overlap)


def _feature_set(config: BatchConfig | None, feature_set: str | FeatureSet | None) -> FeatureSet:
    if feature_set is not None:
        return resolve_feature_set(feature_set)
    length = BatchConfig().sequence_length if config is None else config.sequence_length
    for name in ("strategic", "tactical"):
        chosen = resolve_feature_set(name)
        if chosen.sequence_length == length:
            return chosen
    raise UsageError(
        f"no feature set has a sequence length of {length}; give feature_set= "
        "(strategic has 48, tactical 60)"
    )
