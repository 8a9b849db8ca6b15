"""What a run asks of a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from grandbatch.batch import MatrixBatch


@runtime_checkable
class Trainer(Protocol):
    """Learns from batches, and can be put down and taken up again.

    A run that saves `state_dict()` after a batch, loads it into a new trainer of the same settings
    and goes on must give what it would have given uninterrupted.

    One that is to be validated has a fourth method, ``validate_batch(batch)``: like `train_batch`,
    but it learns nothing and draws no random number that a later batch would have drawn.

    Examples
    --------
    >>> import grandbatch as gb
    >>> class Mean:
    ...     def train_batch(self, batch):
    ...         return {"loss": float(batch.matrices.mean())}
    ...     def state_dict(self):
    ...         return {}
    ...     def load_state_dict(self, state):
    ...         pass
    >>> isinstance(Mean(), gb.Trainer)
    True
    """

    def train_batch(self, batch: MatrixBatch) -> Mapping[str, float]:
        """Learn from one batch.

        Parameters
        ----------
        batch : MatrixBatch
            Windows and their returns; those with `weight` 0 are padding and must not count.

        Returns
        -------
        Mapping[str, float]
            Any names and finite numbers, each a mean over the windows. `avg_reward` (per window,
            in return units) is what the best checkpoint is found by, unless
            `BatchProcessor(best_metric=)` says otherwise.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later batches depend on: tensors and plain Python values only.

        Later training must not change what was returned.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        ...
