"""What a team makes of windows before its networks see them, with and without a context.

Covers what is fixed while a team learns: normalisation, means, and the team that leads. What is
learnt of a context is a layer of the networks (`networks.Digest`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from grandbatch.batch import MatrixBatch
from grandbatch.errors import UsageError
from grandbatch.mappo.config import HierarchicalConfig, MappoConfig
from grandbatch.mappo.market import EXPOSURES
from grandbatch.mappo.networks import Digest, Summary, build_actor, observe, statistics

CoarserWindows = Mapping[str, torch.Tensor]
"""Matrices (B, L, F) float32 of each context, by its name."""


class Leader(nn.Module):
    """A trained team that is asked, and learns nothing more.

    Parameters
    ----------
    config : MappoConfig
    """

    def __init__(self, config: MappoConfig) -> None:
        super().__init__()
        self.summary = Summary(config, None, None)
        n_inputs = self.summary.size + 1
        self.actor = build_actor(config, n_inputs, torch.Generator().manual_seed(0))
        self.actor.requires_grad_(requires_grad=False)
        self.n_agents = len(config.agents)

    def forward(self, matrices: torch.Tensor) -> torch.Tensor:
        """Return each agent's expected exposure where it comes with none, (B, n) float32."""
        flat = torch.zeros(len(matrices), dtype=torch.float64, device=matrices.device)
        seen = observe(self.summary(matrices), flat, self.n_agents)
        odds = self.actor(seen).softmax(-1)
        expected: torch.Tensor = odds @ torch.tensor(EXPOSURES, device=odds.device)
        return expected


class PairSummary(nn.Module):
    """A window's summary, what a leader would hold, and its context's rows, normalised.

    Parameters
    ----------
    config : HierarchicalConfig
    mean, std : sequence of float or None
        As of `Summary`, of the windows.
    """

    context_mean: torch.Tensor
    context_std: torch.Tensor

    def __init__(
        self,
        config: HierarchicalConfig,
        mean: Sequence[float] | torch.Tensor | None,
        std: Sequence[float] | torch.Tensor | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.own = Summary(config, mean, std)
        self.leader = Leader(config.leader()) if config.leader_agents else None
        self.register_buffer("context_mean", torch.zeros(config.context_n_features))
        self.register_buffer("context_std", torch.ones(config.context_n_features))
        first = self.own.size + len(config.leader_agents)
        rows = config.context_length, config.context_n_features
        self.digest = Digest(first, *rows, config.digest_size)
        self.size = first + self.digest.inputs

    @property
    def mean(self) -> torch.Tensor:
        """Of the windows' features."""
        return self.own.mean

    @property
    def std(self) -> torch.Tensor:
        """Of the windows' features."""
        return self.own.std

    def take_context(
        self,
        mean: Sequence[float] | torch.Tensor | None,
        std: Sequence[float] | torch.Tensor | None,
    ) -> None:
        """Normalise contexts by these; None leaves them as they are.

        Raises
        ------
        UsageError
            As of `Summary`.
        """
        found = statistics(mean, std, self.config.context_n_features, "context")
        self.context_mean.copy_(found[0])
        self.context_std.copy_(found[1])

    def take_leader(self, summary: nn.Module, actor: nn.Module) -> None:
        """Take over a trained team."""
        if self.leader is not None:
            self.leader.summary.load_state_dict(summary.state_dict())
            self.leader.actor.load_state_dict(actor.state_dict())

    def forward(
        self, matrices: torch.Tensor, contexts: CoarserWindows | None = None
    ) -> torch.Tensor:
        """Join what is seen of matrices (B, L, F) and their context, as (B, D) float32."""
        slow = (contexts or {})[self.config.context]
        clip = self.config.feature_clip
        rows = ((slow - self.context_mean) / self.context_std).clamp(-clip, clip)
        led = [] if self.leader is None else [self.leader(slow)]
        return torch.cat([self.own(matrices), *led, rows.flatten(1)], dim=1)


def contexts_of(batch: MatrixBatch) -> dict[str, torch.Tensor]:
    """Return the matrices of a batch's contexts, by name."""
    return {name: windows.matrices for name, windows in batch.context.items()}


def build_summary(
    config: MappoConfig,
    mean: Sequence[float] | torch.Tensor | None,
    std: Sequence[float] | torch.Tensor | None,
) -> Summary | PairSummary:
    """Build what a team of these settings makes of windows."""
    if isinstance(config, HierarchicalConfig):
        return PairSummary(config, mean, std)
    return Summary(config, mean, std)


def check_contexts(config: MappoConfig, n_windows: int, contexts: CoarserWindows | None) -> None:
    """Refuse windows whose context a team can't see, where it looks at one.

    Raises
    ------
    UsageError
        Saying what it got and wanted.
    """
    if not isinstance(config, HierarchicalConfig):
        return
    name = config.context
    wanted = n_windows, config.context_length, config.context_n_features
    got = (contexts or {}).get(name)
    if got is None or tuple(got.shape) != wanted:
        raise UsageError(
            f"the team looks at a context {name!r} of shape {wanted}, got "
            f"{'none' if got is None else tuple(got.shape)}; give the loader, or who asks, "
            f"context={{{name!r}: store}} of the set that it was trained on, such as --context "
            f"{name}=slow.zarr"
        )
