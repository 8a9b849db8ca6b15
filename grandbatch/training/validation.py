"""`Validation`: windows that a trainer is judged on at the end of epochs and doesn't learn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grandbatch.errors import UsageError
from grandbatch.ranks import Ranks
from grandbatch.training.totals import Means, summed
from grandbatch.values.checks import whole

if TYPE_CHECKING:
    from grandbatch.batch import MatrixBatch


@dataclass(frozen=True)
class Validation:
    """Batches to judge by, and how often.

    Parameters
    ----------
    batches : iterable of MatrixBatch
        Such as a `SlidingWindowDataLoader` without shuffling, over another split.
    every : int
        Epochs between two of them.

    Raises
    ------
    UsageError
        If `every` is below 1, or the batches are no iterable.
    """

    batches: Iterable[MatrixBatch]
    every: int = 1

    def __post_init__(self) -> None:
        whole("validate_every", self.every, 1)
        if not isinstance(self.batches, Iterable):
            raise UsageError(f"validation must be a loader, got {self.batches!r:.200}")

    def is_due(self, epochs: int) -> bool:
        """Whether to judge after so many epochs."""
        return epochs % self.every == 0

    def check(self, trainer: Any) -> None:
        """Raise UsageError where a trainer can't be judged."""
        if not callable(getattr(trainer, "validate_batch", None)):
            raise UsageError(
                f"{type(trainer).__name__} has no validate_batch(batch), which validation calls: "
                "add one that returns metrics and learns nothing, or leave out validation="
            )

    def run(self, trainer: Any, ranks: Ranks) -> dict[str, float]:
        """Return the means over all windows, each metric's name with `val_` before it.

        Raises
        ------
        UsageError, TrainingError
            As of `summed`; and if there is no window.
        """
        source = f"{type(trainer).__name__}.validate_batch"
        means = Means()
        for batch in self.batches:
            windows, sums, _ = summed(trainer.validate_batch(batch), batch, ranks, source)
            means.add(windows, sums)
        if not means.windows:
            raise UsageError("validation has no window; give a loader of at least one")
        return {f"val_{name}": mean for name, mean in means.means().items()}
