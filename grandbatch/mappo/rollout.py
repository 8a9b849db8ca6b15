"""From a batch to experience: what the team did, what it earned, how good that was.

A team's exposure has few values, so the actors are asked once for every window and every exposure
it could be met with; walking along trajectories is then looking up integers. Nothing here changes
weights, and all chance comes in from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import nn
from torchrl.objectives.value import GAE

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
        return Experience(
            self.observation[which],
            self.action[which],
            self.log_prob[which],
            None if self.kept is None else self.kept[which],
            self.advantage[which],
            self.value_target[which],
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
    uniform = torch.rand(shape, generator=generator).clamp(1e-20, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


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
    observation = observe(
        summary.unsqueeze(1).expand(-1, len(met), -1),
        exposure_of(met, n_agents).expand(len(summary), -1),
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
    seen = replay(response, trajectories, place)[trajectories.valid]
    chosen = action[row, seen]
    log_prob = logits[row, seen].log_softmax(-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    taken = exposure_of(response[row, seen], n_agents)
    previous = exposure_of(met[seen], n_agents)

    def spread(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(batch.next_return).index_copy(0, row, values)

    reward = team_reward(taken, previous, batch.next_return[row], config.cost)
    return Rollout(
        trajectories=trajectories,
        observation=observation[row, seen],
        action=chosen,
        log_prob=log_prob,
        kept=None if chance is None else chance.kept[row],
        reward=spread(reward),
        exposure=spread(taken),
        turnover=spread((taken - previous).abs()),
    )


def build_estimator(config: MappoConfig) -> Any:
    """Build the estimator of advantages. See https://arxiv.org/abs/1506.02438."""
    return GAE(gamma=config.gamma, lmbda=config.lambda_, value_network=None)


@torch.no_grad()
def to_experience(
    rollout: Rollout,
    critic: nn.Module,
    estimator: Any,
    config: MappoConfig,
    ranks: Ranks | None = None,
) -> Experience:
    """Judge what was done, for the loss.

    A trajectory's last window is terminal: what comes after it is not in the batch.

    Parameters
    ----------
    rollout : Rollout
        V tradable windows, traded with chance.
    critic : module
        From `build_critic`.
    estimator : module
        From `build_estimator`.
    config : MappoConfig
        Reward scale.
    ranks : Ranks, optional
        Whose advantages have mean 0 and deviation 1, taken together.

    Returns
    -------
    Experience
        Of the V windows.
    """
    valid = rollout.trajectories.valid
    n_windows = len(rollout.action)
    value = rollout.observation.new_zeros(valid.shape)
    value[valid] = critic(rollout.observation)[:, 0, 0]
    following = torch.zeros_like(value)
    following[:, :-1] = value[:, 1:]
    done = torch.ones_like(valid)
    done[:, :-1] = ~valid[:, 1:]
    earned = torch.zeros_like(value)
    earned[valid] = (rollout.reward[rollout.trajectories.flat_rows] * config.reward_scale).to(
        value.dtype
    )
    after = {"state_value": following, "reward": earned, "done": done, "terminated": done}
    judged = TensorDict(
        {
            "state_value": value.unsqueeze(-1),
            "next": {name: tensor.unsqueeze(-1) for name, tensor in after.items()},
        },
        batch_size=valid.shape,
    )
    target = advantage = value[valid].unsqueeze(-1)
    if n_windows:  # else another rank has windows, and this one only takes part
        judged = estimator(judged)
        target, advantage = judged["value_target"][valid], judged["advantage"][valid]
    # Team reward, team advantage: each agent learns from the same.
    shape = (n_windows, len(config.agents), 1)
    normal = _normalised(advantage, ranks or Ranks())
    return Experience(
        observation=rollout.observation.contiguous(),
        action=rollout.action,
        log_prob=rollout.log_prob,
        kept=rollout.kept,
        advantage=normal.unsqueeze(1).expand(shape),
        value_target=target.unsqueeze(1).expand(shape),
    )


def _normalised(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Shift and scale values (V, 1) so that over all ranks their mean is 0, their deviation 1."""
    exact = values.to(torch.float64)
    count, total = ranks.sum(torch.stack([torch.ones_like(exact).sum(), exact.sum()]))
    centred = exact - total / count
    deviation = (ranks.sum(centred.square().sum()) / count).sqrt().clamp_min(1e-6)
    normal: torch.Tensor = (centred / deviation).to(values.dtype)
    return normal
