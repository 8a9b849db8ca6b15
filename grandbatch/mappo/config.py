"""Settings of a MAPPO trainer, as a frozen value that checks itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from grandbatch.errors import UsageError
from grandbatch.values.checks import number, whole

STRATEGIC_FEATURES = (
    "price_change:1",
    "volume_ratio:1",
    "volatility:1",
    "momentum:1",
    "rsi:1",
    "macd:1",
    "bollinger_position:1",
    "market_sentiment:1",
    "correlation_strength:1",
    "regime_indicator:1",
    "risk_score:1",
    "liquidity_index:1",
    "structural_break:1",
)
TACTICAL_FEATURES = (
    "fvg_bullish_active:1",
    "fvg_bearish_active:1",
    "fvg_nearest_level:1",
    "fvg_age:1",
    "fvg_mitigation_signal:1",
    "price_momentum_5:1",
    "volume_ratio:1",
)

_POSITIVE = (
    "feature_clip",
    "learning_rate",
    "final_learning_rate",
    "clip_epsilon",
    "critic_coefficient",
    "max_grad_norm",
    "reward_scale",
)
_BOUNDS: tuple[tuple[tuple[str, ...], dict[str, float]], ...] = (
    (_POSITIVE, {"above": 0.0}),
    (("entropy_coefficient", "final_entropy_coefficient", "cost"), {"least": 0.0}),
    (("gamma", "lambda_"), {"least": 0.0, "most": 1.0}),
    (("dropout",), {"least": 0.0, "most": 0.9}),
)


@dataclass(frozen=True)
class MappoConfig:
    """What a trainer sees, how it learns, and what trading costs.

    Raises
    ------
    UsageError
        If a value makes no sense; the message names the field.
    """

    agents: tuple[str, ...] = ("mlmi", "nwrqk", "regime")
    """Names of the agents; each picks an exposure, and the team holds their mean."""
    sequence_length: int = 48
    """Rows in a matrix."""
    n_features: int = 13
    """Features in a row."""
    features: tuple[str, ...] = ()
    """What they are, as `name:version`: weights learnt on others are refused. () if unknown."""
    spans: tuple[int, ...] = (1, 4, 12, 48)
    """The networks see each feature's mean over the matrix's last 1, 4, … rows."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer, of actors and critic."""
    dropout: float = 0.05
    """Share of the actors' hidden units left out at random while learning, and by `predict`."""
    feature_clip: float = 5.0
    """Normalised features are cut off at this many standard deviations."""
    learning_rate: float = 1e-3
    """Step size of Adam at the first batch."""
    final_learning_rate: float = 1e-4
    """Step size from batch `schedule_batches` on."""
    epochs: int = 3
    """Passes over each batch."""
    minibatch_windows: int = 256
    """At most so many windows in one step of the optimizer."""
    clip_epsilon: float = 0.2
    """How far one batch may move an action's probability ratio from 1."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus, which keeps the agents exploring, at the first batch."""
    final_entropy_coefficient: float = 1e-3
    """Weight of the entropy bonus from batch `schedule_batches` on."""
    schedule_batches: int = 2_000
    """Learning rate and entropy's weight fall along half a cosine until this batch; 0: at once."""
    critic_coefficient: float = 0.5
    """Weight of the critic's loss."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    gamma: float = 0.99
    """Discount of rewards, per window."""
    lambda_: float = 0.95
    """GAE's trade of bias (0) for variance (1)."""
    cost: float = 1e-4
    """Paid per unit of exposure changed, in return units (1e-4 is one basis point)."""
    reward_scale: float = 1e3
    """Rewards are multiplied by this for learning only, so that the critic sees values near 1."""
    mixed_precision: bool = True
    """On a GPU, compute the networks in bfloat16. A CPU computes in float32 either way."""
    seed: int = 0
    """Seed of the weights, the actions and the minibatches."""

    def __post_init__(self) -> None:
        if not self.agents or len(set(self.agents)) != len(self.agents):
            raise UsageError(f"agents must be different names, at least one, got {self.agents!r}")
        for name in ("sequence_length", "n_features", "epochs", "minibatch_windows"):
            whole(name, getattr(self, name), 1)
        for name in ("seed", "schedule_batches"):
            whole(name, getattr(self, name), 0)
        if self.features and len(self.features) != self.n_features:
            raise UsageError(
                f"features must name all {self.n_features} (n_features), got {self.features!r}"
            )
        for size in self.hidden_sizes:
            whole("hidden_sizes", size, 1)
        if not self.spans:
            raise UsageError("spans must name at least one number of rows")
        for span in self.spans:
            whole("spans", span, 1)
            if span > self.sequence_length:
                raise UsageError(
                    f"spans must be at most sequence_length ({self.sequence_length}), got {span}"
                )
        for names, bounds in _BOUNDS:
            for name in names:
                number(name, getattr(self, name), **bounds)

    @classmethod
    def strategic(cls, **changes: Any) -> MappoConfig:
        """Return the settings for strategic matrices (48 by 13), with fields changed as given."""
        base: dict[str, Any] = {"features": STRATEGIC_FEATURES}
        return cls(**{**base, **changes})

    @classmethod
    def tactical(cls, **changes: Any) -> MappoConfig:
        """Return the settings for tactical matrices (60 by 7), with fields changed as given."""
        base: dict[str, Any] = {
            "agents": ("fvg", "momentum", "entry"),
            "sequence_length": 60,
            "n_features": 7,
            "features": TACTICAL_FEATURES,
            "spans": (1, 5, 15, 60),
        }
        return cls(**{**base, **changes})

    def learning_rate_at(self, batch: int) -> float:
        """Return the step size for a batch, counted from 0."""
        return self._scheduled(self.learning_rate, self.final_learning_rate, batch)

    def entropy_coefficient_at(self, batch: int) -> float:
        """Return the weight of the entropy bonus for a batch, counted from 0."""
        return self._scheduled(self.entropy_coefficient, self.final_entropy_coefficient, batch)

    def _scheduled(self, first: float, final: float, batch: int) -> float:
        """Go from `first` to `final` along half a cosine: https://arxiv.org/abs/1608.03983, (5)."""
        if batch >= self.schedule_batches:
            return final
        return final + (first - final) * (1 + math.cos(math.pi * batch / self.schedule_batches)) / 2

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as numbers, strings and lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclass(frozen=True)
class HierarchicalConfig(MappoConfig):
    """Settings of a team that sees windows of a coarser store, too.

    Raises
    ------
    UsageError
        As of `MappoConfig`.
    """

    context: str = "strategic"
    """Name of the context in a batch."""
    context_length: int = 48
    """Rows in a matrix of it."""
    context_n_features: int = 13
    """Features in such a row."""
    context_features: tuple[str, ...] = STRATEGIC_FEATURES
    """What they are, as `name:version`; () if unknown."""
    digest_size: int = 16
    """Numbers that each agent's network, and the critic's, make of a context: its summary."""
    leader_agents: tuple[str, ...] = ()
    """Agents of a team trained on the context's store, whose exposures are seen; () is none."""
    leader_spans: tuple[int, ...] = ()
    """That team's spans."""
    leader_hidden_sizes: tuple[int, ...] = ()
    """That team's hidden layers."""
    leader_feature_clip: float = 5.0
    """Where that team cuts features off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("context_length", "context_n_features", "digest_size"):
            whole(name, getattr(self, name), 1)
        number("leader_feature_clip", self.leader_feature_clip, above=0.0)
        if self.context_features and len(self.context_features) != self.context_n_features:
            raise UsageError(
                f"context_features must name all {self.context_n_features} (context_n_features), "
                f"got {self.context_features!r}"
            )
        if self.leader_agents:
            self.leader()

    @classmethod
    def hierarchical(cls, **changes: Any) -> HierarchicalConfig:
        """Return the settings of a tactical team that sees strategic windows, changed as given.

        What it does in one bar of the finer scale changes little of what later bars bring, so that
        rewards are counted over few of them: those of others would be noise.
        """
        base = MappoConfig.tactical(
            learning_rate=3e-3, entropy_coefficient=0.03, gamma=0.9, lambda_=0.3
        )
        own = {field.name: getattr(base, field.name) for field in fields(base)}
        return cls(**{**own, **changes})

    def leader(self) -> MappoConfig:
        """Return the settings of the team that leads."""
        return MappoConfig(
            agents=self.leader_agents,
            sequence_length=self.context_length,
            n_features=self.context_n_features,
            features=self.context_features,
            spans=self.leader_spans,
            hidden_sizes=self.leader_hidden_sizes,
            feature_clip=self.leader_feature_clip,
        )

    def led_by(self, leader: MappoConfig) -> HierarchicalConfig:
        """Return the settings under a trained team.

        Raises
        ------
        UsageError
            If it knows other windows than those of the context.
        """
        known = leader.sequence_length, leader.n_features, leader.features
        wanted = self.context_length, self.context_n_features, self.context_features
        if known != wanted:
            raise UsageError(
                f"the leading team knows windows of {known[0]} rows of {known[1]} features "
                f"({', '.join(known[2])}), the context {self.context!r} has {wanted[0]} of "
                f"{wanted[1]} ({', '.join(wanted[2])}); give a team trained on the context's set"
            )
        return replace(
            self,
            leader_agents=leader.agents,
            leader_spans=leader.spans,
            leader_hidden_sizes=leader.hidden_sizes,
            leader_feature_clip=leader.feature_clip,
        )
