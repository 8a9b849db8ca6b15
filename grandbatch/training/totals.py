"""What a training comes to, over all its runs and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from grandbatch.errors import TrainingError, UsageError
from grandbatch.ranks import Ranks

if TYPE_CHECKING:
    from grandbatch.batch import MatrixBatch
    from grandbatch.training.trainer import Trainer


class Means:
    """Means of metrics by name, weighted by windows."""

    def __init__(self, windows: int = 0, sums: Mapping[str, float] | None = None) -> None:
        self.windows = windows
        self.sums = dict(sums or {})

    def add(self, windows: int, sums: Mapping[str, float]) -> None:
        """Count windows, and what their metrics sum up to."""
        self.windows += windows
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the mean of each metric; none where nothing was counted."""
        return {n: s / self.windows for n, s in self.sums.items()} if self.windows else {}

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON types."""
        return {"windows": self.windows, "sums": self.sums}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Means:
        """Read what `to_json` gave; raise KeyError, TypeError or ValueError for anything else."""
        return cls(_count(value["windows"]), _finite(value["sums"]))


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _finite(values: Mapping[str, object]) -> dict[str, float]:
    for name, value in values.items():
        if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
            raise ValueError(f"{name} is {value!r}, no number")
    return dict(values)  # type: ignore[arg-type]  # looked at above


def summed(
    metrics: object, batch: MatrixBatch, ranks: Ranks, source: str, *, stop: bool = False
) -> tuple[int, dict[str, float], bool]:
    """Sum the metrics of a batch over its windows, with those of all ranks.

    `source` says whose they are, and `stop` that this rank was asked to end.

    Returns
    -------
    windows : int
    sums : dict of str to float
    stop : bool
        Whether any rank was asked to end.

    Raises
    ------
    UsageError
        If they are no mapping of names to numbers.
    TrainingError
        If one is not finite, on any rank.
    """
    numbers = _numbers(metrics, source)
    windows = int((batch.weight > 0).sum())
    odd = {name: value for name, value in numbers.items() if not math.isfinite(value)}
    sums = {name: value * windows for name, value in numbers.items()}
    n_odd = len(odd)
    if ranks.size > 1:
        own = torch.tensor([windows, stop, n_odd, *sums.values()], dtype=torch.float64)
        every, stopping, others, *totals = ranks.sum(own).tolist()
        windows, stop, n_odd = int(every), stopping > 0, int(others)
        sums = dict(zip(sums, totals, strict=True))
    if n_odd:
        found = ", ".join(f"{name} is {value}" for name, value in odd.items())
        raise TrainingError(
            f"{source} gave metrics that are not finite: {found or 'those of another rank'}; "
            "nothing is saved after it. Look for values that are not finite in batches, such as "
            "next_return at the end of a segment, or take a smaller step size; then run again, "
            "which goes on from the last checkpoint"
        )
    return windows, sums, stop


def _numbers(metrics: object, source: str) -> dict[str, float]:
    if isinstance(metrics, Mapping):
        try:
            return {str(name): float(metrics[name]) for name in sorted(metrics)}
        except (TypeError, ValueError, RuntimeError):
            pass
    raise UsageError(
        f"{source} must return a mapping of names to numbers, got {str(metrics)[:200]}"
    )


def check_best(
    best_metric: str | None, metrics: Mapping[str, float], *, validated: bool = False
) -> None:
    """Refuse a `best_metric` that is not among a batch's metrics, or a validation's.

    Raises
    ------
    UsageError
        If it should be, and isn't.
    """
    name = (best_metric or "").removeprefix("-")
    if name and name.startswith("val_") == validated and name not in metrics:
        raise UsageError(
            f"best_metric {name!r} is not among the metrics: {', '.join(metrics)}; "
            "choose one of these"
        )


class Totals:
    """Sums over a whole training, carried from run to run by its checkpoints."""

    def __init__(
        self,
        steps: int = 0,
        epochs: int = 0,
        whole: Means | None = None,
        epoch: Means | None = None,
        stretch: Means | None = None,
        validation: Mapping[str, float] | None = None,
        validated_step: int | None = None,
    ) -> None:
        self.steps = steps
        self.epochs = epochs
        """Epochs whose end was told."""
        self.whole = whole or Means()
        self.epoch = epoch or Means()
        # since the last checkpoint that was due, so that stopping and resuming rates alike
        self.stretch = stretch or Means()
        self.validation = dict(validation or {})
        """The latest validation's metrics."""
        self.validated_step = validated_step
        self.is_whole = True
        """False while, or after, a batch failed in the middle of the trainer's step."""
        self.must_stop = False
        """Whether a rank was asked to end: all of them do, after the same step."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Totals:
        """Read what `to_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        means = {name: Means.from_json(value[name]) for name in ("whole", "epoch", "stretch")}
        for part in ("epoch", "stretch"):
            if means[part].sums.keys() - means["whole"].sums.keys():
                raise ValueError(f"the sums of the {part} have metrics that the whole lacks")
        step = value["validated_step"]
        return cls(
            steps=_count(value["steps"]),
            epochs=_count(value["epochs"]),
            validation=_finite(value["validation"]),
            validated_step=None if step is None else _count(step),
            **means,
        )

    def train(
        self, trainer: Trainer, batch: MatrixBatch, ranks: Ranks, *, stop: bool = False
    ) -> Mapping[str, float]:
        """Train on a batch and count it, with those of all ranks.

        `stop` says that this rank was asked to end; `must_stop` then becomes true on all of them.

        Raises
        ------
        UsageError, TrainingError
            As of `summed`.
        """
        self.is_whole = False
        metrics = trainer.train_batch(batch)
        source = f"{type(trainer).__name__}.train_batch, at step {self.steps + 1},"
        windows, sums, stopping = summed(metrics, batch, ranks, source, stop=stop)
        self.must_stop = ranks.size > 1 and stopping
        self.steps += 1
        for means in (self.whole, self.epoch, self.stretch):
            means.add(windows, sums)
        self.is_whole = True
        return metrics

    def rating(self, best_metric: str | None) -> dict[str, float]:
        """Return what a checkpoint is kept, and found the best, by.

        `recent_reward` is the mean reward of the stretch; `rating`, where `best_metric` names
        one, what is the larger the better. A validation rates the weights that it saw, no others.
        """
        recent = self.stretch.means()
        found = {**self.summary(), **self.validation}
        if "avg_reward" in recent:
            found["recent_reward"] = recent["avg_reward"]
        if best_metric is not None:
            name = best_metric.removeprefix("-")
            is_new = self.validated_step == self.steps
            value = (self.validation if is_new else {}).get(name, recent.get(name))
            if value is not None:
                found["rating"] = value if name == best_metric else -value
        return found

    def begin_stretch(self) -> None:
        """Start a new stretch."""
        self.stretch = Means()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "whole": self.whole.to_json(),
            "epoch": self.epoch.to_json(),
            "stretch": self.stretch.to_json(),
            "validation": self.validation,
            "validated_step": self.validated_step,
        }

    def summary(self) -> dict[str, float]:
        """Return the figures of the whole training."""
        return {"steps": self.steps, "windows": self.whole.windows, **self.whole.means()}
