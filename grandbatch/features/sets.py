"""What a feature and a feature set are, and the two sets built in.

Covers values only: computing them is `rows.py`, the Dask route is `overlap.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.kernels import (
    STRATEGIC_LOOKBACK,
    STRATEGIC_WIDTH,
    TACTICAL_LOOKBACK,
    TACTICAL_WIDTH,
    strategic_kernel,
    tactical_kernel,
)

FIELDS = ("open", "high", "low", "close", "volume")
"""What kernels may read, in the order in which a fused kernel takes them."""

BAR_COLUMNS = ("timestamp", "symbol", *FIELDS)

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Kernel = Callable[..., None]


@dataclass(frozen=True)
class Feature:
    """One causal indicator.

    Parameters
    ----------
    name : str
        Its column's name; unlike any column of bars.
    lookback : int
        Bars before t that its value at t reads.
    kernel : callable
        ``kernel(*inputs, first, out)``: `inputs` are (n,) float64 arrays of one segment, and
        ``out[k]``, (n - first,) float32, must become the value at bar ``first + k``; `first` is
        at least `lookback`. It must read only bars ``t - lookback`` to t for the value at t, and
        carry nothing from bar to bar. Make it a module-level function where it is to travel to
        other processes.
    inputs : tuple of str
        What it reads, of open, high, low, close, volume, in the order of its arguments.
    version : int
        Part of every fingerprint: raise it when the values change.

    Raises
    ------
    UsageError
        If a field makes no sense; the message names it.
    """

    name: str
    lookback: int
    kernel: Kernel
    inputs: tuple[str, ...] = ("close",)
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if not isinstance(self.name, str) or not self.name or self.name in BAR_COLUMNS:
            raise UsageError(
                f"a feature's name must be text unlike the columns of bars, got {self.name!r}"
            )
        _whole(f"the lookback of feature {self.name!r}", self.lookback, 0)
        _whole(f"the version of feature {self.name!r}", self.version, 1)
        if not callable(self.kernel):
            raise UsageError(
                f"the kernel of feature {self.name!r} must be callable, got {self.kernel!r}"
            )
        known = set(self.inputs) <= set(FIELDS)
        if not self.inputs or not known or len(set(self.inputs)) < len(self.inputs):
            raise UsageError(
                f"the inputs of feature {self.name!r} must be different names out of "
                f"{', '.join(FIELDS)}, got {self.inputs!r}"
            )


@dataclass(frozen=True)
class FeatureSet:
    """An ordered list of features, and the windows cut from their rows.

    Parameters
    ----------
    name : str
        Its name in stores and messages.
    features : sequence of Feature
        At least one; the columns, in order.
    sequence_length : int
        Feature rows in a window.
    overlap : int
        Rows shared by neighbouring windows, below `sequence_length`.

    Raises
    ------
    UsageError
        If a field makes no sense, or two features share a name.
    """

    name: str
    features: Sequence[Feature]
    sequence_length: int
    overlap: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"a feature set's name must be text, got {self.name!r}")
        if not self.features or not all(isinstance(f, Feature) for f in self.features):
            raise UsageError(
                f"feature set {self.name!r} must be a list of at least one Feature, "
                f"got {self.features!r}"
            )
        names = self.feature_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(
                f"feature set {self.name!r} has two features named {', '.join(twice)}; rename one"
            )
        _whole("sequence_length", self.sequence_length, 1)
        _whole("overlap", self.overlap, 0)
        if self.overlap >= self.sequence_length:
            raise UsageError(
                f"overlap must be smaller than sequence_length ({self.sequence_length}), "
                f"got {self.overlap}"
            )

    @property
    def stride(self) -> int:
        """Rows between the starts of neighbouring windows."""
        return self.sequence_length - self.overlap

    @property
    def lookback(self) -> int:
        """Bars that a row of all features needs before it in its segment."""
        return max(feature.lookback for feature in self.features)

    @property
    def n_features(self) -> int:
        """Columns."""
        return len(self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each column."""
        return tuple(feature.name for feature in self.features)

    @property
    def feature_versions(self) -> tuple[int, ...]:
        """Version of each column's feature."""
        return tuple(feature.version for feature in self.features)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the features read, in the order open, high, low, close, volume."""
        read = {name for feature in self.features for name in feature.inputs}
        return tuple(name for name in FIELDS if name in read)

    @property
    def fused(self) -> FusedKernel | None:
        """The kernel that writes all columns at once, where there is one."""
        kernel = self.features[0].kernel
        if not isinstance(kernel, FusedColumn) or kernel.fused.width != self.n_features:
            return None
        for column, feature in enumerate(self.features):
            own = feature.kernel
            if not isinstance(own, FusedColumn) or (own.fused, own.column) != (
                kernel.fused,
                column,
            ):
                return None
        return kernel.fused

    def with_window(
        self, sequence_length: int | None = None, overlap: int | None = None
    ) -> FeatureSet:
        """Return the set with other windows; what is None stays.

        Raises
        ------
        UsageError
            If the two don't go together.
        """
        return replace(
            self,
            sequence_length=self.sequence_length if sequence_length is None else sequence_length,
            overlap=self.overlap if overlap is None else overlap,
        )

    def describe(self) -> dict[str, Any]:
        """Return what determines the feature rows, as JSON types, for fingerprints."""
        return {
            "name": self.name,
            "features": [
                {
                    "name": feature.name,
                    "lookback": feature.lookback,
                    "inputs": list(feature.inputs),
                    "version": feature.version,
                }
                for feature in self.features
            ],
        }


@dataclass(frozen=True)
class FusedKernel:
    """A kernel that writes all columns of a set: ``run(open, …, volume, first, out)``."""

    run: Kernel
    width: int
    lookback: int


@dataclass(frozen=True)
class FusedColumn:
    """One column of a fused kernel, for sets that take some features of a built-in one.

    The whole set is computed, and the column kept: right to the bit, at the price of the set.
    """

    fused: FusedKernel
    column: int
    inputs: tuple[str, ...]

    def __call__(self, *arguments: Any) -> None:
        """Write the column: called as ``kernel(*inputs, first, out)``.

        Where fewer bars than the fused kernel's lookback come before, the first bar is repeated:
        only other columns read the repeats.
        """
        *arrays, first, out = arguments
        missing = max(0, self.fused.lookback - first)
        padded = [np.concatenate([np.repeat(x[:1], missing), x]) for x in arrays]
        read = dict(zip(self.inputs, padded, strict=True))
        bars = [read.get(name, padded[0]) for name in FIELDS]
        rows = np.empty((len(out), self.fused.width), np.float32)
        self.fused.run(*bars, first + missing, rows)
        out[:] = rows[:, self.column]


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")


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
        FusedKernel(strategic_kernel, STRATEGIC_WIDTH, STRATEGIC_LOOKBACK),
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
        FusedKernel(tactical_kernel, TACTICAL_WIDTH, TACTICAL_LOOKBACK),
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

BUILT_IN = {feature_set.name: feature_set for feature_set in (STRATEGIC, TACTICAL)}


def resolve_feature_set(name_or_set: str | FeatureSet) -> FeatureSet:
    """Return a set as it is, or the built-in one of that name.

    Raises
    ------
    UsageError
        If no built-in set has the name.
    """
    if isinstance(name_or_set, FeatureSet):
        return name_or_set
    try:
        return BUILT_IN[name_or_set]
    except (KeyError, TypeError):
        raise UsageError(
            f"unknown feature set {name_or_set!r}; choose {' or '.join(BUILT_IN)}, "
            "or pass a FeatureSet of your own"
        ) from None
