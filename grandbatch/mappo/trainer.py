"""MAPPO trainers that learn batch by batch and can be put down after any of them.

`train_batch` is one step: it happens whole or, if it raises or is interrupted, not at all. All
chance is drawn from a generator that the trainer owns and saves; torch's global generator is
neither used nor changed.

Several processes learn as one: what they train on at a step is one batch, their windows in the
order of the ranks, and gives what one process would make of it, up to rounding. All of them draw
the random numbers of the whole batch and use their own, so that one generator's state is the state
of all, whatever their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

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
    read_state,
    refusing,
)
from grandbatch.mappo.team import Team
from grandbatch.mappo.threads import on_its_threads
from grandbatch.ranks import Ranks
from grandbatch.statistics import FeatureStatistics, feature_statistics, new_rows

if TYPE_CHECKING:
    from grandbatch.store import MatrixStore


def shape_of(store: MatrixStore, spans: Sequence[int] = ()) -> dict[str, Any]:
    """Return what a store says of `MappoConfig`'s fields; `spans` are cut to its length."""
    names = zip(store.feature_names, store.attrs["feature_versions"], strict=True)
    return {
        "sequence_length": store.sequence_length,
        "n_features": store.n_features,
        "features": tuple(f"{name}:{version}" for name, version in names),
        "spans": tuple(sorted({min(span, store.sequence_length) for span in spans})),
    }


def statistics_of(store: MatrixStore) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each feature over a whole store."""
    found = [store.feature_stats[name] for name in store.feature_names]
    return [entry["mean"] for entry in found], [entry["std"] for entry in found]


class MappoTrainer(Team):
    """Multi-agent PPO with a centralised critic on batches of matrices.

    Parameters
    ----------
    config, feature_mean, feature_std, stride, device, torch_threads
        As of `Team`.
    ranks : Ranks, optional
        The processes that learn together, from `join_ranks`; by default this one alone. No
        trajectory goes on from one to the next.

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
        torch_threads: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(
            config,
            feature_mean=feature_mean,
            feature_std=feature_std,
            stride=stride,
            device=device,
            torch_threads=torch_threads,
        )
        self.statistics = FeatureStatistics(self.config.n_features)
        self.ranks = ranks or Ranks()
        self._batches = 0
        self._learner = Learner(self.config, self._actor, self._critic, self.ranks)

    @classmethod
    def for_store(
        cls,
        store: MatrixStore,
        training: Iterable[MatrixBatch] | None = None,
        *,
        device: str | torch.device = "cpu",
        torch_threads: int = 1,
        ranks: Ranks | None = None,
        **changes: Any,
    ) -> Self:
        """Make a trainer for a store's matrices.

        Parameters
        ----------
        store : MatrixStore
            Says what the matrices look like.
        training : iterable of MatrixBatch, optional
            The training split: features are normalised by its statistics. They are gathered in
            one pass, best without shuffling. By default those of the whole store are taken, which
            lets a test split in.
        device : str or torch.device
            Where the networks live.
        torch_threads : int
            As of `Team`.
        ranks : Ranks, optional
            The processes that learn together, from `join_ranks`; by default this one alone.
        **changes
            Fields of `MappoConfig` that differ from the class's.
        """
        shape = shape_of(store, cls.default_config().spans)
        config = cls.default_config(**{**shape, **changes})
        if training is None:
            mean, std = statistics_of(store)
        else:
            gathered = feature_statistics(training, store.stride)
            mean, std = gathered.mean.tolist(), gathered.std.tolist()
        return cls(
            config,
            feature_mean=mean,
            feature_std=std,
            stride=store.stride,
            device=device,
            torch_threads=torch_threads,
            ranks=ranks,
        )

    @on_its_threads
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
            Over the windows of all ranks. `avg_reward`: team reward per window after costs, in
            return units, before this batch was learnt; `avg_loss`: mean over the optimizer's
            steps; `entropy`: of an agent's choice, in nats; `turnover`: exposure changed per
            window; `exposure`: mean |exposure|; `feature_shift`: largest distance of a feature's
            mean from that of the training data, in its standard deviations.

        Raises
        ------
        UsageError
            If the matrices have another shape than configured.
        TrainingError
            If the batch or the loss is not finite.
        """
        batch = self._admit(batch)
        before = self._generator.get_state(), copy(self.statistics), self._learner.snapshot()
        try:
            rollout = self._trade(batch, self._draw_chance(len(batch)))
            learnt = self._learner.learn(rollout, self._generator, self._batches)
            learnt["feature_shift"] = self._note_features(batch)
            totals = RewardTotals()
            totals.add(rollout, batch)
            totals.join(self.ranks)
        except BaseException:
            # Also for Ctrl-C: what is saved then must be the state between two batches.
            generator, self.statistics, learnt_before = before
            self._generator.set_state(generator)
            self._learner.go_back(learnt_before)
            raise
        self._batches += 1
        self._sharpness = None
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
            moments = self._learner.parse_optimizer(state["optimizer"])
            generator = torch.Generator()
            generator.set_state(state["generator"])
            batches = int(state["batches"])
            sharpness = None if state["sharpness"] is None else float(state["sharpness"])
            statistics = FeatureStatistics.from_state(state["statistics"], self.config.n_features)
            self._take_weights(state)
        self._learner.take_moments(moments)
        self._generator, self._batches = generator, batches
        self.statistics, self._sharpness = statistics, sharpness

    def load_weights(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> None:
        """Start from the weights that another training ended with; nothing else of it is taken.

        The weights bring along the normalisation they were learnt under: without it they would
        decide otherwise. Step size, cost, seed and the like may differ, and so may the store.

        Parameters
        ----------
        source : path or mapping
            As of `Team.from_checkpoint`.

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
        self._learner.take_moments({})
        self._sharpness = None

    def _draw_chance(self, n_windows: int) -> Chance:
        first, total = self.ranks.place(n_windows)
        own = slice(first, first + n_windows)
        shape = (total, len(self.config.agents), len(EXPOSURES))
        noise = gumbel_noise(shape, self._generator)[own]
        kept = draw_kept(self.config, total, self._generator)[own]
        return Chance(noise.to(self.device), kept.to(self.device))

    def _note_features(self, batch: MatrixBatch) -> float:
        """Count a batch's features, and return how far off their means are."""
        found = FeatureStatistics(self.config.n_features)
        found.update(new_rows(batch, self.stride))
        found = found.over_ranks(self.ranks)
        self.statistics.merge(found)
        if not found.count.any():
            return 0.0
        shift = (found.mean - self._summary.mean.cpu()) / self._summary.std.cpu()
        return float(shift.abs().max())


class BatchStrategicTrainer(MappoTrainer):
    """MAPPO on strategic matrices (48 by 13): agents mlmi, nwrqk and regime."""

    default_config = MappoConfig.strategic


class BatchTacticalTrainer(MappoTrainer):
    """MAPPO on tactical matrices (60 by 7): agents fvg, momentum and entry."""

    default_config = MappoConfig.tactical
