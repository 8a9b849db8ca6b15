"""Actors, critic and optimizer: what learning from a batch changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchrl.objectives import ClipPPOLoss

from grandbatch.errors import TrainingError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.networks import as_policy, as_value
from grandbatch.mappo.rollout import Rollout, build_estimator, to_experience
from grandbatch.ranks import Ranks


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
        self.critic = critic
        self.parameters = [*actor.parameters(), *critic.parameters()]
        self.device = self.parameters[0].device
        self._loss = ClipPPOLoss(
            as_policy(actor),
            as_value(critic),
            clip_epsilon=config.clip_epsilon,
            entropy_coeff=1.0,  # weighted here: the weight changes from batch to batch
            critic_coeff=config.critic_coefficient,
            functional=False,
            log_explained_variance=False,
        )
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
                steps.append(self._step(data[own.to(self.device)], len(part), batches))
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

    def _step(self, data: Any, n_windows: int, batches: int) -> torch.Tensor:
        """Take one step of the optimizer; return loss and entropy, (2,) float32.

        `data` are this rank's windows of a minibatch that has `n_windows`.
        """
        self.optimizer.zero_grad()
        found = torch.zeros(2, device=self.device)
        if len(data):
            try:
                losses = self._loss(data)
            except ValueError as error:
                raise self._not_finite(f"the actors' {error}", batches) from error
            bonus = losses["loss_entropy"] * self.config.entropy_coefficient_at(batches)
            loss = losses["loss_objective"] + bonus + losses["loss_critic"]
            # means over a rank's windows, weighted by them, add up to the mean over all
            share = len(data) / n_windows
            (loss * share).backward()
            found = torch.stack([loss.detach(), losses["entropy"].detach()]) * share
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
