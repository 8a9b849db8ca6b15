"""What a training comes to, over all its runs and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from grandbatch.errors import UsageError
from grandbatch.ranks import Ranks

if TYPE_CHECKING:
    from grandbatch.batch import MatrixBatch
    from grandbatch.training.trainer import Trainer

_NO_NUMBERS = ("nan", "inf", "-inf")
"""What JSON has no number for, as text."""


class Totals:
    """Sums over a whole training, carried from run to run by its checkpoints."""

    def __init__(
        self,
        steps: int = 0,
        windows: int = 0,
        reward: float | str = 0.0,
        loss: float | str = 0.0,
        stretch_windows: int = 0,
        stretch_reward: float | str = 0.0,
    ) -> None:
        self.steps = steps
        self.windows = windows
        self.reward = float(reward)
        self.loss = float(loss)
        # since the last checkpoint that was due, so that stopping and resuming rates alike
        self.stretch_windows = stretch_windows
        self.stretch_reward = float(stretch_reward)
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
        for name in ("steps", "windows", "stretch_windows"):
            if type(value[name]) is not int or value[name] < 0:
                raise ValueError(f"{name} is {value[name]!r}, no count")
        for name in ("reward", "loss", "stretch_reward"):
            if type(value[name]) not in (int, float) and value[name] not in _NO_NUMBERS:
                raise ValueError(f"{name} is {value[name]!r}, no number")
        return cls(**value)

    def train(
        self, trainer: Trainer, batch: MatrixBatch, ranks: Ranks, *, stop: bool = False
    ) -> Mapping[str, float]:
        """Train on a batch and count it, with those of all ranks.

        `stop` says that this rank was asked to end; `must_stop` then becomes true on all of them.
        """
        self.is_whole = False
        metrics = trainer.train_batch(batch)
        if not isinstance(metrics, Mapping) or not {"avg_reward", "avg_loss"} <= metrics.keys():
            raise UsageError(
                f"{type(trainer).__name__}.train_batch must return a mapping with avg_reward and "
                f"avg_loss, got {str(metrics)[:200]}"
            )
        windows = int((batch.weight > 0).sum())
        reward, loss = float(metrics["avg_reward"]) * windows, float(metrics["avg_loss"])
        if ranks.size > 1:
            own = torch.tensor([windows, stop, reward, loss / ranks.size], dtype=torch.float64)
            every, stopping, reward, loss = ranks.sum(own).tolist()
            windows, self.must_stop = int(every), stopping > 0
        self.steps += 1
        self.windows += windows
        self.stretch_windows += windows
        self.reward += reward
        self.stretch_reward += reward
        self.loss += loss
        self.is_whole = True
        return metrics

    @property
    def recent_reward(self) -> float:
        """Mean reward of the stretch: what a checkpoint is rated by."""
        return self.stretch_reward / self.stretch_windows if self.stretch_windows else 0.0

    def begin_stretch(self) -> None:
        """Start a new stretch."""
        self.stretch_windows, self.stretch_reward = 0, 0.0

    def to_json(self) -> dict[str, float | str]:
        """Return the sums as JSON types: "nan" and "inf" stand for what JSON can't say."""
        sums = {
            "reward": self.reward,
            "loss": self.loss,
            "stretch_reward": self.stretch_reward,
        }
        return {
            "steps": self.steps,
            "windows": self.windows,
            "stretch_windows": self.stretch_windows,
            **{name: v if math.isfinite(v) else str(v) for name, v in sums.items()},
        }

    def summary(self) -> dict[str, float]:
        """Return the means."""
        return {
            "steps": self.steps,
            "windows": self.windows,
            "avg_reward": self.reward / self.windows if self.windows else 0.0,
            "avg_loss": self.loss / self.steps if self.steps else 0.0,
        }
