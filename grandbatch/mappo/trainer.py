"""MAPPO trainers that learn batch by batch and can be put down after any of them.

`train_batch` is one step: it happens whole or, if it raises or is interrupted, not at all. All
chance is drawn from a generator that the trainer owns and saves; torch's global generator is
neither used nor changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torchrl.objectives import ClipPPOLoss

from grandbatch.batch import MatrixBatch
from grandbatch.errors import CheckpointError, GrandbatchError, UsageError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import EXPOSURES, exposure_of
from grandbatch.mappo.metrics import mean_metrics, reward_spread, reward_totals
from grandbatch.mappo.networks import (
    Summary,
    as_policy,
    as_value,
    build_actor,
    build_critic,
    observe,
)
from grandbatch.mappo.rollout import (
    Rollout,
    build_estimator,
    gumbel_noise,
    roll_out,
    to_experience,
)

STATE_FORMAT = 1


class TrainingError(GrandbatchError):
    """A batch that can't be learnt from. The weights are as they were before it."""


class Decision(NamedTuple):
    """What a team chooses for B windows.

    Parameters
    ----------
    actions : (B, n) float64
        Each agent's exposure.
    exposure : (B,) float64
        The team's: their mean.
    """

    actions: torch.Tensor
    exposure: torch.Tensor


class MappoTrainer:
    """Multi-agent PPO with a centralised critic on batches of matrices.

    Parameters
    ----------
    config : MappoConfig, optional
        The settings; by default those of the class.
    feature_mean, feature_std : sequence of float, optional
        Per feature, of the training data; without them features are taken as they are.
    stride : int, optional
        Bars between neighbouring windows of the store, to tell which windows follow on each other.
    device : str or torch.device
        Where the networks live.

    Raises
    ------
    UsageError
        If the statistics don't fit the settings.
    """

    default_config: Callable[[], MappoConfig] = MappoConfig

    def __init__(
        self,
        config: MappoConfig | None = None,
        *,
        feature_mean: Sequence[float] | torch.Tensor | None = None,
        feature_std: Sequence[float] | torch.Tensor | None = None,
        stride: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config if config is not None else type(self).default_config()
        self.stride = stride
        self.device = torch.device(device)
        self._batches = 0
        self._generator = torch.Generator().manual_seed(self.config.seed)
        self._summary = Summary(self.config, feature_mean, feature_std).to(self.device)
        n_inputs = self._summary.size + 1
        # The initial weights can only be drawn from the global generator: it is put back after.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.config.seed)
            self._actor = build_actor(self.config, n_inputs).to(self.device)
            self._critic = build_critic(self.config, n_inputs).to(self.device)
        self._loss = ClipPPOLoss(
            as_policy(self._actor),
            as_value(self._critic),
            clip_epsilon=self.config.clip_epsilon,
            entropy_coeff=self.config.entropy_coefficient,
            critic_coeff=self.config.critic_coefficient,
            functional=False,
            log_explained_variance=False,
        )
        self._estimator = build_estimator(self.config).to(self.device)
        self._parameters = {
            **{f"actor.{name}": p for name, p in self._actor.named_parameters()},
            **{f"critic.{name}": p for name, p in self._critic.named_parameters()},
        }
        self._optimizer = torch.optim.Adam(
            self._parameters.values(), lr=self.config.learning_rate, foreach=True
        )

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents, in the order of `Decision.actions`."""
        return self.config.agents

    def train_batch(self, batch: MatrixBatch) -> dict[str, float]:
        """Trade a batch and learn from it.

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
            choice, in nats; `turnover`: exposure changed per window; `exposure`: mean |exposure|.

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
            rollout = self._trade(batch, self._draw_noise(batch))
            learnt = self._learn(rollout)
        except BaseException:
            # Also for Ctrl-C: what is saved then must be the state between two batches.
            self.load_state_dict(before)
            raise
        self._batches += 1
        return {**mean_metrics([reward_totals(rollout, batch)]), **learnt}

    def act(self, matrices: torch.Tensor, exposure: torch.Tensor | None = None) -> Decision:
        """Choose the likeliest actions, without learning.

        Parameters
        ----------
        matrices : (B, L, F) float32
            Windows.
        exposure : (B,) float64, optional
            Team exposure each window is met with; 0 by default.

        Returns
        -------
        Decision
            On the CPU.
        """
        self._check_shape(matrices)
        matrices = matrices.to(self.device)
        if exposure is None:
            exposure = torch.zeros(len(matrices), dtype=torch.float64)
        with torch.no_grad():
            seen = observe(
                self._summary(matrices), exposure.to(self.device), len(self.config.agents)
            )
            choice = self._actor(seen).argmax(-1).cpu()
        actions = torch.tensor(EXPOSURES, dtype=torch.float64)[choice]
        return Decision(actions, exposure_of(choice.sum(-1), len(self.config.agents)))

    def evaluate(self, batches: Iterable[MatrixBatch]) -> dict[str, float]:
        """Trade batches with the likeliest actions, without learning.

        Returns
        -------
        dict of str to float
            `avg_reward`, `turnover`, `exposure` as of `train_batch`; `reward_std`: deviation of the
            reward per window; `windows`: how many counted.
        """
        totals = []
        for batch in batches:
            admitted = self._admit(batch)
            totals.append(reward_totals(self._trade(admitted, None), admitted))
        return {**mean_metrics(totals), **reward_spread(totals)}

    def state_dict(self) -> dict[str, Any]:
        """Return all that later batches depend on: tensors, numbers, strings, dicts and lists."""
        optimizer = self._optimizer.state_dict()["state"]
        return {
            "format": STATE_FORMAT,
            "config": self.config.to_plain(),
            "batches": self._batches,
            "weights": {k: v.detach().clone() for k, v in self._parameters.items()},
            "normalisation": {k: v.clone() for k, v in self._summary.named_buffers()},
            "optimizer": {
                str(number): {k: torch.as_tensor(v).clone() for k, v in moments.items()}
                for number, moments in optimizer.items()
            },
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off. Normalisation becomes that of the state.

        Raises
        ------
        CheckpointError
            If the state is no trainer's, or one with other settings; the trainer is then unchanged.
        """
        _check_state(state, self.config)
        try:
            _check_tensors("weights", state["weights"], self._parameters)
            buffers = dict(self._summary.named_buffers())
            _check_tensors("normalisation", state["normalisation"], buffers)
            optimizer = {
                "state": {
                    int(number): {k: v.clone() for k, v in moments.items()}
                    for number, moments in state["optimizer"].items()
                },
                "param_groups": self._optimizer.state_dict()["param_groups"],
            }
            generator = torch.Generator()
            generator.set_state(state["generator"])
            batches = int(state["batches"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"not a MAPPO trainer's state ({type(error).__name__}: {error}); "
                "load another checkpoint, or start again without it"
            ) from error
        self._optimizer.load_state_dict(optimizer)
        with torch.no_grad():
            for name, tensor in {**self._parameters, **buffers}.items():
                tensor.copy_({**state["weights"], **state["normalisation"]}[name])
        self._generator = generator
        self._batches = batches

    def _draw_noise(self, batch: MatrixBatch) -> torch.Tensor:
        shape = (len(batch.matrices), len(self.config.agents), len(EXPOSURES))
        return gumbel_noise(shape, self._generator).to(self.device)

    def _trade(self, batch: MatrixBatch, noise: torch.Tensor | None) -> Rollout:
        with torch.no_grad():
            summary = self._summary(batch.matrices)
        return roll_out(self._actor, summary, batch, self.config, stride=self.stride, noise=noise)

    def _learn(self, rollout: Rollout) -> dict[str, float]:
        n_windows = len(rollout.action)
        if not n_windows:
            return {"avg_loss": 0.0, "entropy": 0.0}
        data = to_experience(rollout, self._critic, self._estimator, self.config)
        size = self.config.minibatch_windows
        steps = []
        for _ in range(self.config.epochs):
            order = torch.randperm(n_windows, generator=self._generator).to(self.device)
            steps += [self._step(data[rows]) for rows in torch.split(order, size)]
        loss, entropy = torch.stack(steps).mean(0).tolist()
        return {"avg_loss": loss, "entropy": entropy}

    def _step(self, data: Any) -> torch.Tensor:
        """Take one step of the optimizer; return loss and entropy, (2,) float32.

        Raises
        ------
        TrainingError
            If the loss or its gradient is not finite.
        """
        try:
            losses = self._loss(data)
        except ValueError as error:
            raise self._not_finite(f"the actors' {error}") from error
        loss = losses["loss_objective"] + losses["loss_entropy"] + losses["loss_critic"]
        if not loss.isfinite():
            raise self._not_finite(f"the loss is {loss.item()}")
        self._optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self.config.max_grad_norm)
        if not norm.isfinite():
            raise self._not_finite(f"the gradient's norm is {norm.item()}")
        self._optimizer.step()
        return torch.stack([loss.detach(), losses["entropy"].detach()])

    def _not_finite(self, symptom: str) -> TrainingError:
        return TrainingError(
            f"batch {self._batches}: {symptom}; the weights are as they were before it. Use a "
            f"smaller learning_rate (now {self.config.learning_rate:g}) or reward_scale "
            f"(now {self.config.reward_scale:g}), and look for extreme returns"
        )

    def _admit(self, batch: MatrixBatch) -> MatrixBatch:
        """Check a batch, and bring it to the networks' device."""
        self._check_shape(batch.matrices)
        counts = batch.weight > 0
        bad = counts & ~batch.matrices.isfinite().all(-1).all(-1)
        what = "matrices"
        if not bad.any():
            bad, what = counts & batch.next_return.isinf(), "next_return"
        if bad.any():
            raise TrainingError(
                f"batch {self._batches}: {what} of window {int(batch.index[bad][0])} "
                "is not finite; verify the store it comes from (grandbatch verify)"
            )
        return batch if self.device.type == "cpu" else batch.to(self.device)

    def _check_shape(self, matrices: torch.Tensor) -> None:
        wanted = (self.config.sequence_length, self.config.n_features)
        if matrices.ndim != 3 or tuple(matrices.shape[1:]) != wanted:
            raise UsageError(
                f"{type(self).__name__} is set for matrices of shape (B, {wanted[0]}, {wanted[1]}),"
                f" got {tuple(matrices.shape)}; give a MappoConfig with this sequence_length "
                "and n_features, or the trainer of this feature set"
            )


class BatchStrategicTrainer(MappoTrainer):
    """MAPPO on strategic matrices (48 by 13): agents mlmi, nwrqk and regime."""

    default_config = MappoConfig.strategic


class BatchTacticalTrainer(MappoTrainer):
    """MAPPO on tactical matrices (60 by 7): agents fvg, momentum and entry."""

    default_config = MappoConfig.tactical


def _check_state(state: Mapping[str, Any], config: MappoConfig) -> None:
    if state.get("format") != STATE_FORMAT or not isinstance(state.get("config"), Mapping):
        raise CheckpointError(
            f"not a MAPPO trainer's state of format {STATE_FORMAT}: "
            f"it has the keys {sorted(map(str, state))} and format {state.get('format')!r}; "
            "load another checkpoint, or start again without it"
        )
    saved, wanted = state["config"], config.to_plain()
    changed = [k for k in sorted({*saved, *wanted}) if saved.get(k) != wanted.get(k)]
    if changed:
        detail = ", ".join(f"{k}: saved {saved.get(k)!r}, now {wanted.get(k)!r}" for k in changed)
        raise CheckpointError(
            f"the state was saved under other settings ({detail}); "
            "use the saved settings, or start again without it"
        )


def _check_tensors(
    what: str, saved: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    got = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    need = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if got != need:
        raise ValueError(f"{what} have the shapes {got}, wanted are {need}")
