"""`Callback`: what others may do at each batch, epoch and checkpoint, and the end of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grandbatch.errors import UsageError


class Callback:
    """Told how a run goes: a base to override what is needed of. Errors end the run.

    Every rank tells its own callbacks; checkpoints are saved, and told of, by rank 0 only.
    """

    def on_batch(self, result: Mapping[str, Any]) -> None:
        """Take note of a batch trained on: what `BatchProcessor.process_batches` yields next."""

    def on_epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note that an epoch, counted from 0, is over.

        `metrics` are the means over its batches, of all runs, and those of a validation at its
        end, `val_…`. A run that goes on from an older checkpoint tells again what came since.
        """

    def on_checkpoint(self, path: Path, metrics: Mapping[str, float]) -> None:
        """Take note of a checkpoint saved, and of the metrics in it."""

    def on_end(self, summary: Mapping[str, float]) -> None:
        """Take note that the run is over, however it ended, with the figures of the training."""


class TensorBoard(Callback):
    """Writes the metrics of every batch for TensorBoard.

    Parameters
    ----------
    folder : path
        Of the events; a run that goes on adds to them.

    Raises
    ------
    UsageError
        If TensorBoard isn't installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise UsageError(
                f'TensorBoard is missing ({error}): pip install "grandbatch[tensorboard]"'
            ) from None
        self._writer: Any = SummaryWriter(os.fspath(folder))

    def on_batch(self, result: Mapping[str, Any]) -> None:
        """Write the batch's metrics by its step."""
        for name, value in result["metrics"].items():
            self._writer.add_scalar(name, value, result["batch_idx"])

    def on_epoch_end(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a validation by the epoch."""
        for name, value in metrics.items():
            if name.startswith("val_"):
                self._writer.add_scalar(name, value, epoch)

    def on_end(self, summary: Mapping[str, float]) -> None:
        """Write what is left; another run opens a file of its own."""
        self._writer.close()
