"""What the agents see, and the networks of actors and critic.

Actors have weights of their own and decide from what they see; the critic is centralised: it sees
what all agents see, which here is one and the same. See Yu et al., "The Surprising Effectiveness
of PPO in Cooperative Multi-Agent Games", https://arxiv.org/abs/2103.01955.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from grandbatch.errors import UsageError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import EXPOSURES


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
        centre, deviation = statistics(mean, std, config.n_features, "feature")
        self.register_buffer("mean", centre)
        self.register_buffer("std", deviation)

    def forward(
        self, matrices: torch.Tensor, contexts: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Summarise matrices (B, L, F) float32 as (B, S·F) float32; contexts are not looked at."""
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


class Digest(NamedTuple):
    """Which inputs of a network are the rows of a matrix, that become a few numbers.

    Each number is what one weighting of the features gives, over one weighting of the rows (tanh):
    much fewer weights than one for each element, which a few thousand windows could not tell apart.

    Parameters
    ----------
    first : int
        The matrix begins with this input.
    rows, features : int
        Of it.
    size : int
        How many numbers it becomes.
    """

    first: int
    rows: int
    features: int
    size: int

    @property
    def inputs(self) -> int:
        """How many inputs the matrix has."""
        return self.rows * self.features

    def put(
        self, seen: torch.Tensor, when: torch.Tensor, what: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Replace it: (..., n, D) to (..., n, D - inputs + size)."""
        before, meant, behind = torch.split(
            seen, [self.first, self.inputs, seen.shape[-1] - self.first - self.inputs], dim=-1
        )
        weight = torch.einsum("nlo,nfo->nlfo", when, what).flatten(1, 2)
        made = (torch.einsum("...ni,nio->...no", meant, weight) + bias).tanh()
        return torch.cat([before, made, behind], dim=-1)


class AgentNetworks(nn.Module):
    """One perceptron for each of n agents, all computed at once.

    Parameters
    ----------
    n_agents : int
        n.
    sizes : sequence of int
        Numbers of inputs, of units of each hidden layer (tanh), and of outputs.
    generator : torch.Generator
        Where the initial weights are drawn from, as uniform in ±1/sqrt(inputs).
    mixed_precision : bool
        Whether to compute in bfloat16 on a GPU. It has the range of float32, so that no loss
        needs scaling.
    digest : Digest, optional
        Inputs of which each agent makes a few of its own first; `sizes` then counts these few.
    """

    def __init__(
        self,
        n_agents: int,
        sizes: Sequence[int],
        generator: torch.Generator,
        *,
        mixed_precision: bool = False,
        digest: Digest | None = None,
    ) -> None:
        super().__init__()
        self.mixed_precision = mixed_precision
        self.digest = digest
        self.hidden_sizes = list(sizes[1:-1])
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()

        def draw(inputs: int, *shape: int) -> nn.Parameter:
            drawn = torch.rand((n_agents, *shape), generator=generator)
            return nn.Parameter((2 * drawn - 1) / math.sqrt(inputs))

        self.digest_weights = nn.ParameterList()
        if digest is not None:
            for inputs in (digest.rows, digest.features):
                self.digest_weights.append(draw(inputs, inputs, digest.size))
            self.digest_weights.append(draw(digest.inputs, digest.size))
        for inputs, outputs in pairwise(sizes):
            self.weights.append(draw(inputs, inputs, outputs))
            self.biases.append(draw(inputs, outputs))
        # a ParameterList finds each of them by a name that it makes anew
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def forward(self, seen: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """Compute (..., n, outputs) float32 from what the agents see, (..., n, inputs).

        `kept` (..., n, H) float32 are factors of the H hidden units of all layers, broadcast.
        """
        rank = seen.ndim if kept is None else max(seen.ndim, kept.ndim)
        factors = None
        if kept is not None:
            factors = torch.split(_agents_first(kept, rank), self.hidden_sizes, dim=-1)
        with self._precision(seen.device.type):
            if self.digest is not None:
                seen = self.digest.put(seen, *self.digest_weights)
            hidden, last = _agents_first(seen, rank), len(self.hidden_sizes)
            for layer, (weight, bias) in enumerate(self._layers):
                n, *leading, inputs = hidden.shape
                made = torch.bmm(hidden.reshape(n, -1, inputs), weight) + bias.unsqueeze(1)
                hidden = made.view(n, *leading, -1)
                if layer < last:
                    hidden = hidden.tanh_()
                    hidden = hidden if factors is None else hidden * factors[layer]
        return hidden.movedim(0, -2).to(torch.float32)

    def _precision(self, device: str) -> AbstractContextManager[None]:
        mixed = self.mixed_precision and device == "cuda"
        if not mixed and not torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, enabled=mixed)


class Critic(nn.Module):
    """The team's value, n times (..., n, 1), from what the agents see (..., n, n_inputs)."""

    def __init__(self, network: AgentNetworks) -> None:
        super().__init__()
        self.network = network

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Judge what the team sees: its agents see the same, so one copy of it is all."""
        value: torch.Tensor = self.network(seen[..., :1, :])
        return value.expand(*seen.shape[:-1], 1)


def build_actor(
    config: MappoConfig,
    n_inputs: int,
    generator: torch.Generator,
    digest: Digest | None = None,
) -> AgentNetworks:
    """Build the actors, each with weights of its own: (..., n, n_inputs) to logits (..., n, 5)."""
    return _build(config, len(config.agents), n_inputs, len(EXPOSURES), generator, digest)


def build_critic(
    config: MappoConfig,
    n_inputs: int,
    generator: torch.Generator,
    digest: Digest | None = None,
) -> Critic:
    """Build the centralised critic."""
    return Critic(_build(config, 1, n_inputs, 1, generator, digest))


def _build(
    config: MappoConfig,
    n_networks: int,
    n_inputs: int,
    n_outputs: int,
    generator: torch.Generator,
    digest: Digest | None,
) -> AgentNetworks:
    kept = n_inputs if digest is None else n_inputs - digest.inputs + digest.size
    return AgentNetworks(
        n_networks,
        (kept, *config.hidden_sizes, n_outputs),
        generator,
        mixed_precision=config.mixed_precision,
        digest=digest,
    )


def _agents_first(values: torch.Tensor, rank: int) -> torch.Tensor:
    """Turn (..., n, X) into (n, ..., X) of `rank` dimensions, as batched products want it."""
    return values[(None,) * (rank - values.ndim)].movedim(-2, 0)


def draw_kept(config: MappoConfig, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw which hidden units of the actors are kept, (count, n, H) float32.

    A unit is left out (0) with the probability p = `config.dropout`; the others are scaled by
    1/(1 - p), so that what they add up to stays the same on average. See Srivastava et al.,
    https://jmlr.org/papers/v15/srivastava14a.html.
    """
    shape = (count, len(config.agents), sum(config.hidden_sizes))
    drawn = torch.rand(shape, generator=generator)
    return drawn.ge_(config.dropout).div_(1 - config.dropout)


def statistics(
    mean: Sequence[float] | torch.Tensor | None,
    std: Sequence[float] | torch.Tensor | None,
    n_features: int,
    whose: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what features are normalised by, (F,) float32 each; a deviation of 0 becomes 1.

    Raises
    ------
    UsageError
        If they are not one finite number per feature.
    """
    centre = _statistic(f"{whose}_mean", mean, 0.0, n_features)
    deviation = _statistic(f"{whose}_std", std, 1.0, n_features)
    if bool((deviation < 0).any()):
        raise UsageError(f"{whose}_std must not be negative, got {deviation.tolist()}")
    return centre, torch.where(deviation > 0, deviation, 1.0)


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
