"""MAPPO trainers that learn batch by batch and can be put down after any of them.

`train_batch` is one step: it happens whole or, if it raises or is interrupted, not at all. All
chance is drawn from a generator that the trainer owns and saves; torch's global generator is
neither used nor changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.learning import Learner
from grandbatch.mappo.market import EXPOSURES
from grandbatch.mappo.metrics import RewardTotals
from grandbatch.mappo.networks import draw_kept
from grandbatch.mappo.rollout import Chance, gumbel_noise
from grandbatch.mappo.saving import (
    STATE_FORMAT,
    check_same_settings,
    check_same_team,
    check_tensors,
    read_state,
    refusing,
)
from grandbatch.mappo.statistics import FeatureStatistics, new_rows
from grandbatch.mappo.team import Team


class MappoTrainer(Team):
    """Multi-agent PPO with a centralised critic on batches of matrices.

    Parameters
    ----------
    config, feature_mean, feature_std, stride, device
        As of `Team`.

    Attributes
    ----------
    statistics : FeatureStatistics
        Of the features trained on, over all batches so far. A row counts once for each time it is
        among the last `stride` rows of a window.
    """

    def __init__(
        self,
        config: MappoConfig | None = None,
        *,
        feature_mean: Sequence[float] | torch.Tensor | None = None,
        feature_std: Sequence[float] | torch.Tensor | None = None,
        stride: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(
            config,
            feature_mean=feature_mean,
            feature_std=feature_std,
            stride=stride,
            device=device,
        )
        self.statistics = FeatureStatistics(self.config.n_features)
        self._batches = 0
        self._learner = Learner(self.config, self._actor, self._critic)

    def train_batch(self, batch: MatrixBatch) -> dict[str, float]:
        """Trade a batch and learn from it. A calibration does not outlive that.

        Parameters
        ----------
        batch : MatrixBatch
            Windows of the configured shape. Those with weight 0 don't count; those without a next
            return can't be traded and earn 0.

        Returns
        -------
        dict of str to float
            `avg_reward`: team reward per window after costs, in return units, before this batch
            was learnt; `avg_loss`: mean over the optimizer's steps; `entropy`: of an agent's
            choice, in nats; `turnover`: exposure changed per window; `exposure`: mean |exposure|;
            `feature_shift`: largest distance of a feature's mean from that of the training data,
            in its standard deviations.

        Raises
        ------
        UsageError
            If the matrices have another shape than configured.
        TrainingError
            If the batch or the loss is not finite.
        """
        batch = self._admit(batch)
        before = self.state_dict()
        try:
            rollout = self._trade(batch, self._draw_chance(len(batch)))
            learnt = self._learner.learn(rollout, self._generator, self._batches)
            learnt["feature_shift"] = self._note_features(batch)
        except BaseException:
            # Also for Ctrl-C: what is saved then must be the state between two batches.
            self.load_state_dict(before)
            raise
        self._batches += 1
        self._sharpness = None
        totals = RewardTotals()
        totals.add(rollout, batch)
        return {**totals.means(), **learnt}

    def state_dict(self) -> dict[str, Any]:
        """Return all that later batches depend on: tensors, numbers, strings, dicts and lists."""
        return {
            "format": STATE_FORMAT,
            "config": self.config.to_plain(),
            "batches": self._batches,
            "sharpness": self._sharpness,
            **{
                part: {name: tensor.detach().clone() for name, tensor in tensors.items()}
                for part, tensors in self._tensors().items()
            },
            "statistics": self.statistics.state_dict(),
            "optimizer": self._learner.optimizer_state(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off. Normalisation becomes that of the state.

        Raises
        ------
        CheckpointError
            If the state is no trainer's, or one with other settings; the trainer is then unchanged.
        """
        check_same_settings(state, self.config)
        with refusing():
            optimizer = self._learner.parse_optimizer(state["optimizer"])
            generator = torch.Generator()
            generator.set_state(state["generator"])
            batches = int(state["batches"])
            sharpness = None if state["sharpness"] is None else float(state["sharpness"])
            statistics = FeatureStatistics.from_state(state["statistics"], self.config.n_features)
            self._take_weights(state)
        self._learner.optimizer.load_state_dict(optimizer)
        self._generator, self._batches = generator, batches
        self.statistics, self._sharpness = statistics, sharpness

    def load_weights(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> None:
        """Start from the weights that another training ended with; nothing else of it is taken.

        The weights bring along the normalisation they were learnt under: without it they would
        decide otherwise. Step size, cost, seed and the like may differ, and so may the store.

        Parameters
        ----------
        source : path or mapping
            A checkpoint, a folder of checkpoints (the latest counts), or a trainer's state.

        Raises
        ------
        CheckpointError
            If it can't be read, or was learnt on other features or with other networks; the trainer
            is then unchanged.
        """
        state = read_state(source)
        check_same_team(state, self.config)
        with refusing():
            self._take_weights(state)
        self._learner.optimizer.state.clear()
        self._sharpness = None

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the networks' weights, and the normalisation they were learnt under, by name."""
        networks = (("actor", self._actor), ("critic", self._critic))
        return {
            "weights": {
                f"{which}.{name}": parameter
                for which, network in networks
                for name, parameter in network.named_parameters()
            },
            "normalisation": dict(self._summary.named_buffers()),
        }

    def _take_weights(self, state: Mapping[str, Any]) -> None:
        wanted = self._tensors()
        for part, tensors in wanted.items():
            check_tensors(part, state[part], tensors)
        with torch.no_grad():
            for part, tensors in wanted.items():
                for name, tensor in tensors.items():
                    tensor.copy_(state[part][name])

    def _draw_chance(self, n_windows: int) -> Chance:
        shape = (n_windows, len(self.config.agents), len(EXPOSURES))
        noise = gumbel_noise(shape, self._generator)
        kept = draw_kept(self.config, n_windows, self._generator)
        return Chance(noise.to(self.device), kept.to(self.device))

    def _note_features(self, batch: MatrixBatch) -> float:
        """Count a batch's features, and return how far off their means are."""
        rows = new_rows(batch, self.stride)
        self.statistics.update(rows)
        if not rows.numel():
            return 0.0
        mean = rows.to(torch.float64).mean((0, 1))
        return float(((mean - self._summary.mean) / self._summary.std).abs().max())


class BatchStrategicTrainer(MappoTrainer):
    """MAPPO on strategic matrices (48 by 13): agents mlmi, nwrqk and regime."""

    default_config = MappoConfig.strategic


class BatchTacticalTrainer(MappoTrainer):
    """MAPPO on tactical matrices (60 by 7): agents fvg, momentum and entry."""

    default_config = MappoConfig.tactical
