"""What the agents see, and the networks of actors and critic.

Actors have weights of their own and decide from what they see; the critic is centralised: it sees
what all agents see. See Yu et al., "The Surprising Effectiveness of PPO in Cooperative Multi-Agent
Games", https://arxiv.org/abs/2103.01955.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import MultiAgentMLP, ProbabilisticActor

from grandbatch.errors import UsageError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import EXPOSURES

LOG_PROB = "sample_log_prob"


class Summary(nn.Module):
    """Each feature, normalised and clipped, as its means over the last rows of a matrix.

    Parameters
    ----------
    config : MappoConfig
        Number of features, spans, clip.
    mean, std : sequence of float or None
        Per feature, of the training data; None leaves features as they are. A feature that never
        varied (std 0) is only centred.

    Raises
    ------
    UsageError
        If the statistics are not one finite number per feature.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        config: MappoConfig,
        mean: Sequence[float] | torch.Tensor | None,
        std: Sequence[float] | torch.Tensor | None,
    ) -> None:
        super().__init__()
        self.clip = config.feature_clip
        self.spans = config.spans
        self.size = len(config.spans) * config.n_features
        self.register_buffer("mean", _statistic("feature_mean", mean, 0.0, config.n_features))
        deviation = _statistic("feature_std", std, 1.0, config.n_features)
        if bool((deviation < 0).any()):
            raise UsageError(f"feature_std must not be negative, got {deviation.tolist()}")
        self.register_buffer("std", torch.where(deviation > 0, deviation, 1.0))

    def forward(self, matrices: torch.Tensor) -> torch.Tensor:
        """Summarise matrices (B, L, F) float32 as (B, S·F) float32."""
        rows = ((matrices - self.mean) / self.std).clamp(-self.clip, self.clip)
        return torch.cat([rows[:, -span:].mean(1) for span in self.spans], dim=1)


def observe(summary: torch.Tensor, exposure: torch.Tensor, n_agents: int) -> torch.Tensor:
    """Join windows' summaries with the exposure they are met with.

    Parameters
    ----------
    summary : (..., D) float32
        From `Summary`.
    exposure : (...) float64
        Team exposure before the window.
    n_agents : int
        n.

    Returns
    -------
    (..., n, D + 1) float32
        What each agent sees.
    """
    seen = torch.cat([summary, exposure.to(summary.dtype).unsqueeze(-1)], dim=-1)
    return seen.unsqueeze(-2).expand(*seen.shape[:-1], n_agents, seen.shape[-1])


def build_actor(config: MappoConfig, n_inputs: int) -> nn.Module:
    """Build the actors, each with weights of its own: (..., n, n_inputs) to logits (..., n, 5).

    Draws from torch's global generator.
    """
    network: nn.Module = MultiAgentMLP(
        n_agent_inputs=n_inputs,
        n_agent_outputs=len(EXPOSURES),
        n_agents=len(config.agents),
        centralized=False,
        share_params=False,
        num_cells=list(config.hidden_sizes),
        depth=len(config.hidden_sizes),
        activation_class=nn.Tanh,
    )
    return network


def build_critic(config: MappoConfig, n_inputs: int) -> nn.Module:
    """Build the centralised critic: (..., n, n_inputs) to the team's value, n times: (..., n, 1).

    Draws from torch's global generator.
    """
    network: nn.Module = MultiAgentMLP(
        n_agent_inputs=n_inputs,
        n_agent_outputs=1,
        n_agents=len(config.agents),
        centralized=True,
        share_params=True,
        num_cells=list(config.hidden_sizes),
        depth=len(config.hidden_sizes),
        activation_class=nn.Tanh,
    )
    return network


class Choice(torch.distributions.Categorical):
    """A distribution over actions that refuses infinite logits as well as NaN.

    TorchRL answers an entropy that is not finite by sampling from the global generator.

    Raises
    ------
    ValueError
        If a logit is not finite.
    """

    def __init__(self, logits: torch.Tensor) -> None:
        if not logits.isfinite().all():
            raise ValueError("logits are not finite")
        super().__init__(logits=logits, validate_args=False)


def as_policy(actor: nn.Module) -> Any:
    """Wrap actors as the distribution over "action" that TorchRL's losses ask for."""
    return ProbabilisticActor(
        TensorDictModule(actor, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=Choice,
        return_log_prob=True,
        log_prob_key=LOG_PROB,
    )


def as_value(critic: nn.Module) -> Any:
    """Wrap a critic as the "state_value" that TorchRL's losses ask for."""
    return TensorDictModule(critic, in_keys=["observation"], out_keys=["state_value"])


def _statistic(
    name: str, values: Sequence[float] | torch.Tensor | None, default: float, n_features: int
) -> torch.Tensor:
    if values is None:
        return torch.full((n_features,), default)
    found = torch.as_tensor(values, dtype=torch.float32).detach().clone().cpu()
    if found.shape != (n_features,) or not bool(found.isfinite().all()):
        raise UsageError(
            f"{name} must be {n_features} finite numbers, one per feature, got {values!r}"
        )
    return found
