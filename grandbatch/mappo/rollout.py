"""From a batch to experience: what the team did, what it earned, how good that was.

A team's exposure has few values, so the actors are asked once for every window and every exposure
it could be met with; walking along trajectories is then looking up integers. Nothing here changes
weights, and all chance comes in from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torchrl.objectives.value.functional import generalized_advantage_estimate

from grandbatch.batch import MatrixBatch
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import (
    Trajectories,
    cut_trajectories,
    exposure_of,
    flat_level,
    n_levels,
    replay,
    team_reward,
)
from grandbatch.mappo.networks import observe
from grandbatch.ranks import Ranks


class Chance(NamedTuple):
    """What is random in trading B windows.

    Parameters
    ----------
    noise : (B, n, 5) float32
        From `gumbel_noise`: which action is drawn.
    kept : (B, n, H) float32
        From `draw_kept`: the actors' hidden units that dropout keeps.
    """

    noise: torch.Tensor
    kept: torch.Tensor


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a team did on a batch of B windows; V of them could be traded.

    Parameters
    ----------
    trajectories : Trajectories
        The V windows, by trajectory.
    observation : (V, n, D + 1) float32
        What each agent saw, trajectory by trajectory.
    action : (V, n) int64
        What each chose.
    log_prob : (V, n) float32
        Logarithm of the probability of that choice.
    kept : (V, n, H) float32 or None
        The hidden units that the actors decided with; None: with all.
    reward, exposure, turnover : (B,) float64
        Per window of the batch; 0 where it could not be traded.
    """

    trajectories: Trajectories
    observation: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    kept: torch.Tensor | None
    reward: torch.Tensor
    exposure: torch.Tensor
    turnover: torch.Tensor


class Experience(NamedTuple):
    """What V windows taught n agents.

    Parameters
    ----------
    observation : (V, n, D + 1) float32
        What each agent saw.
    action : (V, n) int64
        What each chose.
    log_prob : (V, n) float32
        Logarithm of the probability of that choice.
    kept : (V, n, H) float32 or None
        Hidden units that the actors decided with: what a decision left out, its update must leave
        out as well (https://arxiv.org/abs/2202.11818).
    advantage : (V, n, 1) float32
        Of mean 0 and deviation 1.
    value_target : (V, n, 1) float32
        What the critic should have said.
    """

    observation: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    kept: torch.Tensor | None
    advantage: torch.Tensor
    value_target: torch.Tensor

    @property
    def n_windows(self) -> int:
        """V."""
        return len(self.action)

    def rows(self, which: torch.Tensor) -> Experience:
        """Return that of some windows, by number."""

        def pick(values: torch.Tensor) -> torch.Tensor:
            return values.index_select(0, which)

        return Experience(
            pick(self.observation),
            pick(self.action),
            pick(self.log_prob),
            None if self.kept is None else pick(self.kept),
            pick(self.advantage),
            pick(self.value_target),
        )


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw standard Gumbel noise: argmax(logits + noise) is a draw from softmax(logits).

    Parameters
    ----------
    shape : tuple of int
        Of the noise.
    generator : torch.Generator
        On the CPU, the only source of chance.

    Returns
    -------
    (*shape) float32
        Finite.
    """
    uniform = torch.rand(shape, generator=generator).clamp_(1e-20, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_()


@torch.no_grad()
def roll_out(
    actor: nn.Module,
    summary: torch.Tensor,
    batch: MatrixBatch,
    config: MappoConfig,
    *,
    stride: int | None,
    chance: Chance | None,
) -> Rollout:
    """Let the actors trade a batch.

    Parameters
    ----------
    actor : module
        From `build_actor`.
    summary : (B, D) float32
        The batch's matrices, summarised.
    batch : MatrixBatch
        B windows, on the device of the actors.
    config : MappoConfig
        Agents and cost.
    stride : int, optional
        Bars between neighbouring windows of the store.
    chance : Chance, optional
        None takes each agent's likeliest action, without dropout.

    Returns
    -------
    Rollout
        On the device of the batch.
    """
    n_agents = len(config.agents)
    trajectories = cut_trajectories(batch, stride)
    start = flat_level(n_agents)
    single = trajectories.row.shape[1] <= 1
    levels = torch.arange(n_levels(n_agents), device=summary.device)
    met = levels[start : start + 1] if single else levels
    place = start if not single else 0
    exposures = exposure_of(met, n_agents)
    observation = observe(
        summary.unsqueeze(1).expand(-1, len(met), -1),
        exposures.expand(len(summary), -1),
        n_agents,
    )
    if chance is None:
        logits = actor(observation)
        action = logits.argmax(-1)
    else:
        logits = actor(observation, chance.kept.unsqueeze(1))
        action = (logits + chance.noise.unsqueeze(1)).argmax(-1)
    response = action.sum(-1)
    row = trajectories.flat_rows
    walked = replay(response, trajectories, place)
    seen = walked.flatten().index_select(0, trajectories.places)
    which = row * len(met) + seen

    def there(values: torch.Tensor) -> torch.Tensor:
        return values.flatten(0, 1).index_select(0, which)

    def spread(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(batch.next_return).index_copy_(0, row, values)

    chosen = there(action)
    log_prob = there(logits).log_softmax(-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    taken = exposure_of(there(response), n_agents)
    previous = exposures.index_select(0, seen)
    reward = team_reward(taken, previous, batch.next_return[row], config.cost)
    return Rollout(
        trajectories=trajectories,
        observation=there(observation),
        action=chosen,
        log_prob=log_prob,
        kept=None if chance is None else chance.kept.index_select(0, row),
        reward=spread(reward),
        exposure=spread(taken),
        turnover=spread((taken - previous).abs()),
    )


@torch.no_grad()
def to_experience(
    rollout: Rollout,
    critic: nn.Module,
    config: MappoConfig,
    ranks: Ranks | None = None,
) -> Experience:
    """Judge what was done, for the loss, by generalised advantage estimation.

    See https://arxiv.org/abs/1506.02438. A trajectory's last window is terminal: what comes
    after it is not in the batch.

    Parameters
    ----------
    rollout : Rollout
        V tradable windows, traded with chance.
    critic : module
        From `build_critic`.
    config : MappoConfig
        Reward scale, discount, GAE's lambda.
    ranks : Ranks, optional
        Whose advantages have mean 0 and deviation 1, taken together.

    Returns
    -------
    Experience
        Of the V windows.
    """
    walked = rollout.trajectories
    n_windows = len(rollout.action)
    judged = critic(rollout.observation)[:, 0, 0]
    target = advantage = judged
    if n_windows:  # else another rank has windows, and this one only takes part
        earned = rollout.reward.index_select(0, walked.flat_rows) * config.reward_scale
        value, reward = (
            judged.new_zeros(walked.row.numel())
            .index_copy_(0, walked.places, of_windows.to(judged.dtype))
            .view_as(walked.row)
            for of_windows in (judged, earned)
        )
        following, done = torch.zeros_like(value), torch.ones_like(walked.valid)
        following[:, :-1] = value[:, 1:]
        done[:, :-1] = ~walked.valid[:, 1:]
        found = generalized_advantage_estimate(
            *judged.new_tensor([config.gamma, config.lambda_]),
            *(each.unsqueeze(-1) for each in (value, following, reward, done, done)),
        )
        advantage, target = (each.flatten().index_select(0, walked.places) for each in found)
    # Team reward, team advantage: each agent learns from the same.
    shape = (n_windows, len(config.agents), 1)
    normal = _normalised(advantage, ranks or Ranks())
    return Experience(
        observation=rollout.observation,
        action=rollout.action,
        log_prob=rollout.log_prob,
        kept=rollout.kept,
        advantage=normal.view(-1, 1, 1).expand(shape),
        value_target=target.view(-1, 1, 1).expand(shape),
    )


def _normalised(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Shift and scale values (V,) so that over all ranks their mean is 0, their deviation 1."""
    exact = values.to(torch.float64)
    count, total = ranks.sum(torch.stack([exact.new_tensor(len(exact)), exact.sum()]))
    centred = exact - total / count
    deviation = (ranks.sum(centred.square().sum()) / count).sqrt().clamp_min(1e-6)
    normal: torch.Tensor = (centred / deviation).to(values.dtype)
    return normal
