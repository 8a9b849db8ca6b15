"""What a store is to be, as values: nothing here reads a bar or imports Dask."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grandbatch.bars.cache.cutting import Cuts, as_segments, as_stretches, find_cuts
from grandbatch.errors import UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.features.inputs import inputs_of
from grandbatch.grid import Grid, Segments, Stretches
from grandbatch.store.format import (
    FORMAT,
    LABEL_CHUNK_WINDOWS,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    NEXT_RETURN_VERSION,
    StoreSpec,
)
from grandbatch.targets import Target, resolve_targets
from grandbatch.targets.named import Named
from grandbatch.values.times import calendar_period, to_duration

if TYPE_CHECKING:
    from grandbatch.bars import Bars

ORDERS = ("symbol", "period")

_CHUNK_WINDOWS = 1024
_OVERLAPPING_CHUNK_WINDOWS = 256
_PERIOD = "1M"


@dataclass(frozen=True)
class StoreSettings:
    """Everything but the bars that determines a store's bytes.

    Raises
    ------
    UsageError
        If a value makes no sense.
    """

    feature_set: FeatureSet
    chunk_windows: int
    layout: str = "windows"
    codec: str = "auto"
    max_gap_ns: int | None = None
    period: str | None = None
    """Windows are numbered by this period of their last bar first; None: by symbol first."""
    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        self.grid(Segments.single(1))
        self.spec(n_windows=0, block_rows=0)
        if self.max_gap_ns is not None and self.max_gap_ns <= 0:
            raise UsageError(f"the largest gap must be positive, got {self.max_gap_ns} ns")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What features and targets read of a bar."""
        return inputs_of([*self.feature_set.features, *self.targets])

    @property
    def order(self) -> str:
        """By what windows are numbered first: `symbol` or `period`."""
        return "symbol" if self.period is None else "period"

    def cut(
        self, bars: Bars, known: tuple[Bars, Cuts] | None = None
    ) -> tuple[Segments, Stretches | None]:
        """Cut bars where no window may cross, and where windows are numbered by periods.

        `known` are the bars from which they grew, and where these were cut.
        """
        cuts = find_cuts(bars, self.max_gap_ns, self.period, known)
        stretches = None if self.period is None else as_stretches(cuts)
        return as_segments(bars, cuts.leaps), stretches

    @property
    def target_attributes(self) -> dict[str, list[Any]]:
        """What a store says of its targets; nothing where it has none."""
        if not self.targets:
            return {}
        return {
            "target_names": [target.name for target in self.targets],
            "target_horizons": [target.horizon for target in self.targets],
            "target_versions": [target.version for target in self.targets],
        }

    def grid(self, segments: Segments, stretches: Stretches | None = None) -> Grid:
        """Lay the windows over segments of bars; in the order of periods, over their stretches."""
        chosen = self.feature_set
        return Grid(
            segments,
            chosen.lookback,
            chosen.sequence_length,
            chosen.overlap,
            self.chunk_windows,
            stretches,
        )

    def spec(self, *, n_windows: int, block_rows: int) -> StoreSpec:
        """Sizes of the arrays for a number of windows.

        Raises
        ------
        UsageError
            If a chunk would be larger than codecs take, or there would be too many.
        """
        chosen = self.feature_set
        spec = StoreSpec.plan(
            n_windows=n_windows,
            sequence_length=chosen.sequence_length,
            stride=chosen.sequence_length - chosen.overlap,
            n_features=len(chosen.features),
            chunk_windows=self.chunk_windows,
            layout=self.layout,
            codec=self.codec,
            block_rows=block_rows,
            n_targets=len(self.targets),
        )
        if spec.data.chunk_bytes > MAX_CHUNK_BYTES:
            raise UsageError(
                f"a chunk of {self.chunk_windows:,} windows would have {spec.data.chunk_bytes:,} "
                f"bytes, above the {MAX_CHUNK_BYTES:,} that a chunk may have; "
                f"{self._fitting_chunk(spec.data.chunk_bytes)}"
            )
        most = MAX_CHUNK_BYTES // (4 * max(LABEL_CHUNK_WINDOWS, self.chunk_windows))
        if len(self.targets) > most:
            raise UsageError(
                f"a store of chunks of {self.chunk_windows:,} windows may have {most:,} targets, "
                f"got {len(self.targets):,}; leave some out"
            )
        if spec.n_chunks > MAX_CHUNKS:
            raise UsageError(
                f"the store would have {spec.n_chunks:,} chunks, above the {MAX_CHUNKS:,} that a "
                f"manifest may describe; --chunk-windows {-(-n_windows // MAX_CHUNKS)} would fit"
            )
        return spec

    def _fitting_chunk(self, chunk_bytes: int) -> str:
        """Offer what makes a chunk small enough."""
        chosen = self.feature_set
        if chosen.sequence_length * len(chosen.features) * 4 > MAX_CHUNK_BYTES // 2:
            most = MAX_CHUNK_BYTES // 2 // (len(chosen.features) * 4)
            return (
                f"a window of {chosen.sequence_length:,} rows alone is too large, at most "
                f"{most:,} rows are taken: choose shorter windows"
            )
        fitting = max(1, self.chunk_windows * MAX_CHUNK_BYTES // chunk_bytes // 2)
        return f"--chunk-windows {fitting} would fit"

    def describe(self, bars_fingerprint: str) -> dict[str, Any]:
        """Return what determines the windows, as JSON: their bars and how they are cut."""
        # stores without targets keep the fingerprint that they had before there were any
        targets = [target.describe() for target in self.targets]
        return {
            **({"targets": targets} if targets else {}),
            "format": FORMAT,
            "bars": bars_fingerprint,
            "feature_set": self.feature_set.describe(),
            "sequence_length": self.feature_set.sequence_length,
            "overlap": self.feature_set.overlap,
            "chunk_windows": self.chunk_windows,
            "max_gap_ns": self.max_gap_ns,
            "next_return_version": NEXT_RETURN_VERSION,
            # stores in the order of symbols keep the fingerprint that they had before there was one
            **({} if self.period is None else {"order": self.order, "period": self.period}),
        }

    def content_id(self, bars_fingerprint: str) -> str:
        """Return the sha256 of what determines the windows."""
        return _sha256(self.describe(bars_fingerprint))

    def fingerprint(self, bars_fingerprint: str) -> str:
        """Return the sha256 of what determines the store's bytes."""
        spec = self.spec(n_windows=0, block_rows=0)
        storage = {"layout": spec.layout, "codec": spec.codec, "shard_chunks": spec.shard_chunks}
        return _sha256({**self.describe(bars_fingerprint), **storage})


def _sha256(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_settings(
    feature_set: str | FeatureSet,
    sequence_length: int | None,
    overlap: int | None,
    layout: str,
    chunk_windows: int | None,
    codec: str,
    max_gap: Any,
    order: str = "symbol",
    period: str | None = None,
    targets: Named | None = None,
) -> StoreSettings:
    """Make the settings of a store from what a person writes."""
    chosen = resolve_feature_set(feature_set).with_window(sequence_length, overlap)
    return StoreSettings(
        feature_set=chosen,
        chunk_windows=_default_chunk_windows(chosen) if chunk_windows is None else chunk_windows,
        layout=layout,
        codec=codec,
        max_gap_ns=None if max_gap is None else to_duration(max_gap, "max_gap", positive=True),
        period=_chosen_period(order, period),
        targets=resolve_targets(targets),
    )


def _chosen_period(order: str, period: str | None) -> str | None:
    """Return the period by which windows are numbered first; None where it is by symbol."""
    if order not in ORDERS:
        raise UsageError(f"unknown order {order!r}; choose symbol or period")
    if order == "symbol":
        if period is not None:
            raise UsageError(
                f"period {period!r} means something with order period only; give --order period "
                '(in Python order="period") as well'
            )
        return None
    count, unit = calendar_period(_PERIOD if period is None else period)
    return f"{count}{unit}"


def _default_chunk_windows(feature_set: FeatureSet) -> int:
    """Choose a chunk's size: large enough to read fast, small enough to mix many of them.

    A loader's shuffle is as good as the number of chunks that it holds. Of windows that share more
    than half their rows, 1,024 chunks of 256 take 16 MB, which gives any store a VIF of at most 2
    for batches of 1,024. Of others a chunk of 256 is no small piece any more, and reading smaller
    ones costs speed.
    """
    if 2 * feature_set.overlap > feature_set.sequence_length:
        return _OVERLAPPING_CHUNK_WINDOWS
    return _CHUNK_WINDOWS
