"""What a feature and a feature set are.

Covers values only: those built in are in `built_in.py`, computing is `rows.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from grandbatch.errors import UsageError
from grandbatch.features.fused import Kernel, Production
from grandbatch.features.inputs import Reader, checked_inputs, inputs_of
from grandbatch.features.trial import Subject
from grandbatch.values.checks import MOST_BARS, whole
from grandbatch.values.columns import BAR_COLUMNS


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
        ``kernel(*inputs, first, out)``: `inputs` are (n,) arrays of one segment, int64 nanoseconds
        since 1970 UTC for the timestamp and float64 for all others, and
        ``out[k]``, (n - first,) float32, must become the value at bar ``first + k``; `first` is
        at least `lookback`. It must read only bars ``t - lookback`` to t for the value at t, and
        carry nothing from bar to bar. Make it a module-level function where it is to travel to
        other processes.
    inputs : tuple of str
        What it reads, of timestamp, open, high, low, close, volume, and the names of extra columns
        of the bars, in the order of its arguments.
    version : int
        Part of every fingerprint: raise it when the values change.

    Raises
    ------
    UsageError
        If a field makes no sense; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import grandbatch as gb
    >>> def gain(close, first, out):
    ...     out[:] = close[first:] / close[first - 1 : -1] - 1
    >>> feature = gb.Feature("gain", lookback=1, kernel=gain)
    >>> gb.check(gb.FeatureSet("mine", [feature], sequence_length=16))
    """

    name: str
    lookback: int
    kernel: Kernel
    inputs: tuple[str, ...] = ("close",)
    version: int = 1

    def __post_init__(self) -> None:
        check_kernel("feature", self)
        whole(f"the lookback of feature {self.name!r}", self.lookback, 0, MOST_BARS)

    @property
    def subject(self) -> Subject:
        """Its kernel, for `check`."""
        return Subject("feature", self.name, self.kernel, self.inputs, self.lookback)


class _WithKernel(Reader, Protocol):
    """A named kernel over bars: a feature, or a target."""

    @property
    def kernel(self) -> Kernel: ...
    @property
    def version(self) -> int: ...


def check_kernel(kind: str, value: _WithKernel) -> None:
    """Check what a feature and a target have in common; `kind` is what the value is called.

    Raises
    ------
    UsageError
        If a field makes no sense; the message names it.
    """
    inputs = checked_inputs(f"{kind} {value.name!r}", value.inputs)
    object.__setattr__(value, "inputs", inputs)
    if not isinstance(value.name, str) or not value.name or value.name in BAR_COLUMNS:
        raise UsageError(
            f"a {kind}'s name must be text unlike the columns of bars, got {value.name!r}"
        )
    whole(f"the version of {kind} {value.name!r}", value.version, 1)
    if not callable(value.kernel):
        raise UsageError(
            f"the kernel of {kind} {value.name!r} must be callable, got {value.kernel!r}"
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

    Examples
    --------
    >>> import grandbatch as gb
    >>> chosen = gb.FeatureSet("mine", [gb.ema(20), gb.wilder_rsi(14)], sequence_length=32)
    >>> chosen.n_features, chosen.stride
    (2, 32)
    >>> chosen.with_window(overlap=31).stride
    1
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
        whole("sequence_length", self.sequence_length, 1)
        whole("overlap", self.overlap, 0)
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
        """What the features read: timestamp, open, high, low, close, volume, then extra columns."""
        return inputs_of(self.features)

    @property
    def zone_database(self) -> str | None:
        """The version of the zone database that values depend on, such as "tzdata 2025b"."""
        versions = {getattr(feature.kernel, "zone_database", None) for feature in self.features}
        return ", ".join(sorted(version for version in versions if version)) or None

    @cached_property
    def production(self) -> Production:
        """How the columns are computed: each fused kernel once."""
        return Production.of(self.features)

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
        zones = {"zone_database": self.zone_database} if self.zone_database else {}
        return {
            **zones,
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
