"""Actors, critic and optimizer: what learning from a batch changes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from grandbatch.errors import TrainingError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.rollout import Experience, Rollout, to_experience
from grandbatch.mappo.saving import check_tensors
from grandbatch.ranks import Ranks

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each weight."""

_LINE = 16
"""Each parameter begins at a multiple of so many numbers (64 bytes), as if it were alone: how a
product of matrices is rounded depends on that."""


class Losses(NamedTuple):
    """What a minibatch says of the networks, each a mean over its windows and agents, ()."""

    objective: torch.Tensor
    """Of the actors: how much less than possible was gained."""
    entropy: torch.Tensor
    """Of the actors' choices, in nats."""
    critic: torch.Tensor
    """How far the critic was off, times its coefficient."""


def losses_of(
    data: Experience, logits: torch.Tensor, value: torch.Tensor, config: MappoConfig
) -> Losses:
    """Compute the losses of clipped proximal policy optimisation.

    Each agent's gain is clipped by itself. See Schulman et al., https://arxiv.org/abs/1707.06347.
    Operations are those of TorchRL's `ClipPPOLoss`, in its order, so that gradients are the same
    to the bit; what it computes for its own reports is left out.

    Parameters
    ----------
    data : Experience
        V windows.
    logits : (V, n, 5) float32
        What the actors say now.
    value : (V, n, 1) float32
        What the critic says now.
    config : MappoConfig
        `clip_epsilon`: probabilities that changed by a larger share gain no more; and
        `critic_coefficient`.
    """
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    chosen = log_probs.gather(-1, data.action.unsqueeze(-1)).squeeze(-1)
    log_weight = (chosen - data.log_prob).unsqueeze(-1)
    clipped = log_weight.clamp(*_bounds(config.clip_epsilon))
    gains = [log_weight.exp() * data.advantage, clipped.exp() * data.advantage]
    gain = torch.stack(gains, -1).min(dim=-1).values
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    entropy = -(finite * log_probs.softmax(-1)).sum(-1)
    error = nn.functional.smooth_l1_loss(data.value_target, value, reduction="none")
    return Losses((-gain).mean(), entropy.mean(), (config.critic_coefficient * error).mean())


@functools.cache
def _bounds(clip_epsilon: float) -> tuple[float, float]:
    """Between which log(p/p_before) counts."""
    # float32 before the logarithm: a rounding later would be another number
    lower, upper = torch.tensor([-clip_epsilon, clip_epsilon]).log1p().tolist()
    return lower, upper


class Learner:
    """Proximal policy optimisation of a team's networks.

    Parameters
    ----------
    config : MappoConfig
        The settings.
    actor, critic : module
        From `build_actor` and `build_critic`, on one device.
    ranks : Ranks
        They learn as one: each minibatch is drawn from the windows of all, and each rank computes
        the gradient of those that are its own.
    """

    def __init__(
        self, config: MappoConfig, actor: nn.Module, critic: nn.Module, ranks: Ranks
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.actor, self.critic = actor, critic
        self.parameters = [*actor.parameters(), *critic.parameters()]
        self.device = self.parameters[0].device
        self._weights = _laid_together(self.parameters)
        self._weights.grad = torch.zeros_like(self._weights)
        self._gradients = _parts(self._weights.grad, self.parameters)
        # one tensor, not many: of networks this small, most of a step is calling torch
        self.optimizer = torch.optim.Adam([self._weights], lr=config.learning_rate, foreach=False)

    def __getstate__(self) -> dict[str, Any]:
        # a copy made by pickle or deepcopy has weights of its own, which don't lie together yet
        networks = {"actor": self.actor, "critic": self.critic}
        given = {"config": self.config, "ranks": self.ranks, **networks}
        return {"given": given, "moments": self.optimizer_state()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state["given"])  # type: ignore[misc]
        self.take_moments(self.parse_optimizer(state["moments"]))

    def learn(self, rollout: Rollout, generator: torch.Generator, batches: int) -> dict[str, float]:
        """Take the steps of one batch; return the means of `avg_loss` and `entropy`.

        Parameters
        ----------
        rollout : Rollout
            What the actors did on it, with chance.
        generator : torch.Generator
            Orders the minibatches.
        batches : int
            Batches learnt before: where the schedules stand.

        Raises
        ------
        TrainingError
            If a loss or its gradient is not finite. The caller puts the weights back.
        """
        first, n_windows = self.ranks.place(len(rollout.action))
        stop = first + len(rollout.action)
        if not n_windows:
            return {"avg_loss": 0.0, "entropy": 0.0}
        data = to_experience(rollout, self.critic, self.config, self.ranks)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(batches)
        steps = []
        for _ in range(self.config.epochs):
            order = torch.randperm(n_windows, generator=generator)
            for part in torch.split(order, self.config.minibatch_windows):
                own = part[(part >= first) & (part < stop)] - first
                steps.append(self._step(data.rows(own.to(self.device)), len(part), batches))
        loss, entropy = torch.stack(steps).mean(0).tolist()
        return {"avg_loss": loss, "entropy": entropy}

    def optimizer_state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of the optimizer's moments of each parameter, as tensors by names."""
        moments = self._moments()
        if not moments:
            return {}
        parts = zip(*(_parts(moments[name], self.parameters) for name in _MOMENTS), strict=True)
        return {
            str(number): {
                "step": moments["step"].clone(),
                **{name: part.clone() for name, part in zip(_MOMENTS, found, strict=True)},
            }
            for number, found in enumerate(parts)
        }

    def parse_optimizer(
        self, state: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Return the moments of all parameters, made of `optimizer_state`, for `take_moments`.

        Raises
        ------
        ValueError
            If they are those of other parameters.
        """
        if not state:
            return {}
        wanted = {str(number): own for number, own in enumerate(self.parameters)}
        for name in _MOMENTS:
            saved = {number: moments[name] for number, moments in state.items()}
            check_tensors(f"the optimizer's {name}", saved, wanted)
        steps = {float(moments["step"]) for moments in state.values()}
        if len(steps) != 1:
            raise ValueError(f"the optimizer took different numbers of steps: {sorted(steps)}")
        found = {name: torch.zeros_like(self._weights) for name in _MOMENTS}
        for name, values in found.items():
            for number, part in enumerate(_parts(values, self.parameters)):
                part.copy_(state[str(number)][name])
        return {"step": torch.tensor(steps.pop()), **found}

    def take_moments(self, moments: Mapping[str, torch.Tensor]) -> None:
        """Go on with these moments; none is a fresh start."""
        self.optimizer.state.clear()
        if moments:
            self.optimizer.state[self._weights] = dict(moments)

    def snapshot(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Copy all that a step changes, for `go_back`."""
        moments = {name: values.clone() for name, values in self._moments().items()}
        return self._weights.detach().clone(), moments

    def go_back(self, snapshot: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
        """Make weights and moments those of a snapshot."""
        weights, moments = snapshot
        with torch.no_grad():
            self._weights.copy_(weights)
        self.take_moments(moments)

    def _moments(self) -> dict[str, torch.Tensor]:
        moments: dict[str, torch.Tensor] = self.optimizer.state.get(self._weights, {})
        return moments

    def _step(self, data: Experience, n_windows: int, batches: int) -> torch.Tensor:
        """Take one step of the optimizer; return loss and entropy, (2,) float32.

        `data` are this rank's windows of a minibatch that has `n_windows`.
        """
        found = torch.zeros(2, device=self.device)
        gradients: tuple[torch.Tensor, ...] = ()
        if data.n_windows:
            logits = self.actor(data.observation, data.kept)
            if not _all_finite(logits.detach()):
                raise self._not_finite("the actors' logits are not finite", batches)
            value = self.critic(data.observation)
            losses = losses_of(data, logits, value, self.config)
            bonus = -losses.entropy * self.config.entropy_coefficient_at(batches)
            loss = losses.objective + bonus + losses.critic
            # means over a rank's windows, weighted by them, add up to the mean over all
            share = loss.new_tensor(data.n_windows / n_windows)
            gradients = torch.autograd.grad(loss, self.parameters, share)
            found = torch.stack([loss.detach(), losses.entropy.detach()]) * share
        found = self._gather(found, gradients)
        if not math.isfinite(value := found[0].item()):
            raise self._not_finite(f"the loss is {value}", batches)
        norm = nn.utils.get_total_norm(self._gradients)
        if not math.isfinite(value := norm.item()):
            raise self._not_finite(f"the gradient's norm is {value}", batches)
        nn.utils.clip_grads_with_norm_(self._weights, self.config.max_grad_norm, norm)
        self.optimizer.step()
        return found

    def _gather(self, found: torch.Tensor, gradients: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Put all ranks' gradients, added up, before the optimizer; add up what they found."""
        total = self._weights.grad
        assert total is not None
        if gradients:
            torch._foreach_copy_(self._gradients, gradients)
        else:
            total.zero_()
        if self.ranks.size > 1:
            summed = self.ranks.sum(torch.cat([found, total]))
            found = summed[: len(found)]
            total.copy_(summed[len(found) :])
        return found

    def _not_finite(self, symptom: str, batches: int) -> TrainingError:
        return TrainingError(
            f"batch {batches}: {symptom}; the weights are as they were before it. Use a "
            f"smaller learning_rate (now {self.config.learning_rate:g}) or reward_scale "
            f"(now {self.config.reward_scale:g}), and look for extreme returns"
        )


def _laid_together(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Give parameters one memory, and return all of it, (P,)."""
    together = parameters[0].detach().new_zeros(sum(map(_room, parameters)))
    for own, part in zip(parameters, _parts(together, parameters), strict=True):
        own.data = part.copy_(own.detach())
    return nn.Parameter(together)


def _parts(together: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """Return each parameter's part of (P,), in its shape."""
    parts = torch.split(together, [_room(own) for own in parameters])
    return [part[: own.numel()].view_as(own) for part, own in zip(parts, parameters, strict=True)]


def _room(parameter: nn.Parameter) -> int:
    return math.ceil(parameter.numel() / _LINE) * _LINE


def _all_finite(values: torch.Tensor) -> bool:
    # one number that isn't makes the sum so; a sum that is not may be of large ones
    return math.isfinite(values.sum()) or bool(values.isfinite().all())
