"""The feature sets built in, by name."""

from __future__ import annotations

from collections.abc import Sequence

from grandbatch.features.alpha import ALPHA158
from grandbatch.features.fused import FusedColumn, FusedKernel
from grandbatch.features.sets import Feature, FeatureSet
from grandbatch.kernels import (
    STRATEGIC_LOOKBACK,
    STRATEGIC_WIDTH,
    TACTICAL_LOOKBACK,
    TACTICAL_WIDTH,
    strategic_kernel,
    tactical_kernel,
)


def _features(
    fused: FusedKernel, table: Sequence[tuple[str, int, tuple[str, ...]]]
) -> tuple[Feature, ...]:
    return tuple(
        Feature(name, lookback, FusedColumn(fused, column, inputs), inputs)
        for column, (name, lookback, inputs) in enumerate(table)
    )


_CLOSE = ("close",)
_VOLUME = ("volume",)
_GAPS = ("high", "low", "close")

STRATEGIC = FeatureSet(
    "strategic",
    _features(
        FusedKernel(strategic_kernel, ("close", "volume"), STRATEGIC_WIDTH, STRATEGIC_LOOKBACK),
        (
            ("price_change", 1, _CLOSE),
            ("volume_ratio", 10, _VOLUME),
            ("volatility", 20, _CLOSE),
            ("momentum", 10, _CLOSE),
            ("rsi", 15, _CLOSE),
            ("macd", 26, _CLOSE),
            ("bollinger_position", 20, _CLOSE),
            ("market_sentiment", 5, _CLOSE),
            ("correlation_strength", 20, ("close", "volume")),
            ("regime_indicator", 30, _CLOSE),
            ("risk_score", 15, _CLOSE),
            ("liquidity_index", 10, _VOLUME),
            ("structural_break", 40, _CLOSE),
        ),
    ),
    sequence_length=48,
    overlap=12,
)
"""13 features over up to 40 bars back, in windows of 48 rows."""

TACTICAL = FeatureSet(
    "tactical",
    _features(
        FusedKernel(tactical_kernel, (*_GAPS, "volume"), TACTICAL_WIDTH, TACTICAL_LOOKBACK),
        (
            ("fvg_bullish_active", 21, ("high", "low")),
            ("fvg_bearish_active", 21, ("high", "low")),
            ("fvg_nearest_level", 21, _GAPS),
            ("fvg_age", 21, _GAPS),
            ("fvg_mitigation_signal", 21, ("high", "low")),
            ("price_momentum_5", 5, _CLOSE),
            ("volume_ratio", 20, _VOLUME),
        ),
    ),
    sequence_length=60,
    overlap=15,
)
"""7 features over up to 21 bars back, in windows of 60 rows."""

BUILT_IN = {feature_set.name: feature_set for feature_set in (STRATEGIC, TACTICAL, ALPHA158)}
