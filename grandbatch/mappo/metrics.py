"""What a team's rewards come to, weighted and over many batches."""

from __future__ import annotations

import math

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.mappo.rollout import Rollout
from grandbatch.ranks import Ranks


class RewardTotals:
    """Sums of rewards over batches, each window counting with its weight."""

    def __init__(self) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64)

    def add(self, rollout: Rollout, batch: MatrixBatch, chosen: torch.Tensor | None = None) -> None:
        """Count a batch's windows, or those `chosen` (B,) bool."""
        weight: torch.Tensor = batch.weight.to(torch.float64)
        columns = [
            torch.ones_like(weight),
            rollout.reward,
            rollout.reward.square(),
            rollout.turnover,
            rollout.exposure.abs(),
        ]
        counted = weight if chosen is None else weight * chosen
        self._sums = self._sums + (torch.stack(columns) * counted).sum(1).cpu()

    def join(self, ranks: Ranks) -> None:
        """Add up what all ranks counted."""
        self._sums = ranks.sum(self._sums)

    def means(self) -> dict[str, float]:
        """Return the means per window: avg_reward, turnover, exposure; 0 where nothing counted."""
        windows, reward, _, turnover, exposure = self._sums.tolist()
        count = windows or 1.0
        return {
            "avg_reward": reward / count,
            "turnover": turnover / count,
            "exposure": exposure / count,
        }

    def spread(self) -> dict[str, float]:
        """Return the deviation of the reward per window, and how many windows counted."""
        windows, reward, squared, _, _ = self._sums.tolist()
        count = windows or 1.0
        variance = max(squared / count - (reward / count) ** 2, 0.0)
        return {"reward_std": math.sqrt(variance), "windows": windows}
