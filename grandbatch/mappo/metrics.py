"""What a team's rewards come to, weighted and over many batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.mappo.rollout import Rollout


def reward_totals(rollout: Rollout, batch: MatrixBatch) -> torch.Tensor:
    """Sum over a batch, weighted: 1, reward, squared reward, turnover, |exposure|; (5,) float64."""
    weight: torch.Tensor = batch.weight.to(torch.float64)
    columns = [
        torch.ones_like(weight),
        rollout.reward,
        rollout.reward.square(),
        rollout.turnover,
        rollout.exposure.abs(),
    ]
    return (torch.stack(columns) * weight).sum(1).cpu()


def mean_metrics(totals: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return the means per window: avg_reward, turnover, exposure; 0 where nothing counted."""
    weight, reward, _, turnover, exposure = _sum(totals)
    count = weight or 1.0
    return {
        "avg_reward": reward / count,
        "turnover": turnover / count,
        "exposure": exposure / count,
    }


def reward_spread(totals: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return the deviation of the reward per window, and how many windows counted."""
    weight, reward, squared, _, _ = _sum(totals)
    count = weight or 1.0
    variance = max(squared / count - (reward / count) ** 2, 0.0)
    return {"reward_std": math.sqrt(variance), "windows": weight}


def _sum(totals: Sequence[torch.Tensor]) -> list[float]:
    if not totals:
        return [0.0] * 5
    summed: list[float] = torch.stack(list(totals)).sum(0).tolist()
    return summed
