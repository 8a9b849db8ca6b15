"""Actors, critic and optimizer: what learning from a batch changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from grandbatch.errors import TrainingError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.rollout import Experience, Rollout, build_estimator, to_experience
from grandbatch.ranks import Ranks


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
    # float32 before the logarithm: a rounding later would be another number
    epsilon = logits.new_tensor(config.clip_epsilon)
    clipped = log_weight.clamp((-epsilon).log1p(), epsilon.log1p())
    gains = [log_weight.exp() * data.advantage, clipped.exp() * data.advantage]
    gain = torch.stack(gains, -1).min(dim=-1).values
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    entropy = -(finite * log_probs.softmax(-1)).sum(-1)
    error = nn.functional.smooth_l1_loss(data.value_target, value, reduction="none")
    return Losses((-gain).mean(), entropy.mean(), (config.critic_coefficient * error).mean())


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
        self._estimator = build_estimator(config).to(self.device)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, foreach=True)

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
        data = to_experience(rollout, self.critic, self._estimator, self.config, self.ranks)
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

    def optimizer_state(self) -> dict[str, Any]:
        """Return a copy of the optimizer's moments, as tensors by names."""
        return {
            str(number): {k: torch.as_tensor(v).clone() for k, v in moments.items()}
            for number, moments in self.optimizer.state_dict()["state"].items()
        }

    def parse_optimizer(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
        """Return what the optimizer's `load_state_dict` wants, made of `optimizer_state`."""
        return {
            "state": {
                int(number): {k: v.clone() for k, v in moments.items()}
                for number, moments in state.items()
            },
            "param_groups": self.optimizer.state_dict()["param_groups"],
        }

    def _step(self, data: Experience, n_windows: int, batches: int) -> torch.Tensor:
        """Take one step of the optimizer; return loss and entropy, (2,) float32.

        `data` are this rank's windows of a minibatch that has `n_windows`.
        """
        self.optimizer.zero_grad()
        found = torch.zeros(2, device=self.device)
        if data.n_windows:
            logits = self.actor(data.observation, data.kept)
            if not logits.isfinite().all():
                raise self._not_finite("the actors' logits are not finite", batches)
            value = self.critic(data.observation)
            losses = losses_of(data, logits, value, self.config)
            bonus = -losses.entropy * self.config.entropy_coefficient_at(batches)
            loss = losses.objective + bonus + losses.critic
            # means over a rank's windows, weighted by them, add up to the mean over all
            share = data.n_windows / n_windows
            torch.autograd.backward(loss * share)
            found = torch.stack([loss.detach(), losses.entropy.detach()]) * share
        found = self._summed_over_ranks(found)
        if not found[0].isfinite():
            raise self._not_finite(f"the loss is {found[0].item()}", batches)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if not norm.isfinite():
            raise self._not_finite(f"the gradient's norm is {norm.item()}", batches)
        self.optimizer.step()
        return found

    def _summed_over_ranks(self, found: torch.Tensor) -> torch.Tensor:
        """Add up all ranks' gradients, and what they found."""
        if self.ranks.size == 1:
            return found
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        summed = self.ranks.sum(torch.cat([found, *(g.flatten() for g in gradients)]))
        found, *parts = torch.split(summed, [len(found), *(g.numel() for g in gradients)])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return found

    def _not_finite(self, symptom: str, batches: int) -> TrainingError:
        return TrainingError(
            f"batch {batches}: {symptom}; the weights are as they were before it. Use a "
            f"smaller learning_rate (now {self.config.learning_rate:g}) or reward_scale "
            f"(now {self.config.reward_scale:g}), and look for extreme returns"
        )
