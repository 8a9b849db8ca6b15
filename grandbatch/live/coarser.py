"""Windows of a coarser timeframe, as the finer bars of one symbol arrive.

An interval is gathered by the kernel of builds, a bar at a time. Its window is known once the
interval's length has passed, not before: also where the interval itself is shorter, as the last of
a day may be. Values are not changed in place, so that a bar that fails leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from grandbatch.bars.resampling.gathering import refuse_overflow
from grandbatch.bars.rules.timeframe import Timeframe
from grandbatch.features import FeatureSet
from grandbatch.kernels.bars.intervals import gather_rows
from grandbatch.live.segment import BarValues, LiveSegment, identity_of
from grandbatch.values.arrays import Array, Float32, Float64, Int64
from grandbatch.values.columns import TIMESTAMP


@dataclass(frozen=True, eq=False)
class LiveWindow:
    """A window that ends with a bar, and those of coarser bars that were known with it.

    Examples
    --------
    >>> import grandbatch as gb
    >>> live = gb.LiveFeatures("tactical", context={"quarters": ("strategic", "15min")})
    >>> bar = {"open": 99.0, "high": 101.0, "low": 98.0, "close": 100.0, "volume": 7.0}
    >>> for minute in range(2_000):
    ...     window = live.pair({"timestamp": minute * 60_000_000_000, **bar})
    >>> window.context["quarters"].end_time < window.end_time == 1999 * 60_000_000_000
    True
    """

    matrix: Float32
    """(L, F), an array of the caller's own."""
    end_time: int
    """Time of its last bar, ns since 1970 UTC: as in the feed, and of a coarser bar the start of
    its interval."""
    context: Mapping[str, LiveWindow] = field(default_factory=dict)
    """By the contexts' names; none where there are no contexts."""


@dataclass(frozen=True)
class Coarser:
    """A feature set over bars of a timeframe; a distance above `max_gap_ns` starts a segment."""

    feature_set: FeatureSet
    timeframe: Timeframe
    max_gap_ns: int | None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its windows, as JSON types."""
        return {
            **identity_of(self.feature_set, self.max_gap_ns),
            "timeframe": self.timeframe.to_json(),
        }

    def known_at(self, end_time: int) -> int:
        """Return when a window is known whose last bar has a time."""
        return end_time + self.timeframe.length_ns


@dataclass(frozen=True, eq=False)
class _Interval:
    """What the bars of an interval sum up to so far: each array has room for one bar more."""

    starts: Int64
    values: Float64
    counts: Int64

    @property
    def start(self) -> int:
        return int(self.starts[0])

    @classmethod
    def begun(cls, start: int, n_columns: int) -> Self:
        """Return the interval of no bar yet."""
        return cls(np.full(2, start), np.zeros((n_columns, 2)), np.zeros(2, np.int64))

    def joined(self, numbers: Float64, ways: Int64) -> _Interval:
        """Return the interval with another bar of (C, 1) numbers."""
        whole = _Interval(self.starts.copy(), self.values.copy(), self.counts.copy())
        n_before = int(self.counts[0] > 0)
        gather_rows(
            self.starts[:1], numbers, ways, whole.starts, whole.values, whole.counts, n_before
        )
        return whole

    def bar(self, timeframe: Timeframe) -> BarValues:
        """Return the coarser bar."""
        values = self.values[:, :1].copy()
        timeframe.divide_means(values, self.counts[:1])
        refuse_overflow(self.starts[:1], values, [name for name, _ in timeframe.aggregates])
        numbers = dict(zip(timeframe.columns, values[:, 0].tolist(), strict=True))
        return {TIMESTAMP: self.start, **numbers}


@dataclass(frozen=True, eq=False)
class CoarserBars:
    """Where one symbol stands in a coarser timeframe."""

    coarser: Coarser
    closed: LiveSegment
    """Of all intervals before the one that the last bar belongs to."""
    interval: _Interval | None = None
    """Of the last bar."""
    windows: tuple[LiveWindow, ...] = ()
    """That of the last interval that is known for sure, and later ones."""
    ahead: tuple[LiveSegment, LiveWindow | None] | None = None
    """What is closed, and its window, with the last bar's interval, once that is known."""

    @classmethod
    def none_yet(cls, coarser: Coarser) -> Self:
        """Return where a symbol stands that no bar has come of."""
        return cls(coarser, LiveSegment(coarser.feature_set, coarser.max_gap_ns))

    def joined(self, values: BarValues, decision: int) -> CoarserBars:
        """Return where the symbol stands once another of its bars has come, known at a time."""
        timeframe, time = self.coarser.timeframe, int(values[TIMESTAMP])
        start = int(timeframe.starts_of(np.array([time]))[0])
        after = self if self.interval is None or self.interval.start == start else self._next()
        interval = after.interval or _Interval.begun(start, len(timeframe.columns))
        numbers = np.array([[values[name]] for name in timeframe.columns])
        after = replace(after, interval=interval.joined(numbers, timeframe.ways), ahead=None)
        if self.coarser.known_at(start) <= decision:
            after = replace(after, ahead=after._closed())
        return after._forgetful(time)

    def window(self, decision: int, max_age: int | None) -> LiveWindow | None:
        """Return the last window that was known at a time, if there is one that isn't too old."""
        ahead = self.ahead[1] if self.ahead else None
        for window in (ahead, *reversed(self.windows)):
            age = -1 if window is None else decision - self.coarser.known_at(window.end_time)
            if window is not None and age >= 0:
                return window if max_age is None or age <= max_age else None
        return None

    def _closed(self) -> tuple[LiveSegment, LiveWindow | None]:
        """Return what is closed with the last bar's interval, and the window that ends with it."""
        assert self.interval is not None
        segment = self.closed.copy()
        matrix = segment.take(self.interval.bar(self.coarser.timeframe))
        return segment, None if matrix is None else LiveWindow(matrix, self.interval.start)

    def _next(self) -> CoarserBars:
        """Return where the symbol stands once its last bar's interval is over."""
        closed, window = self.ahead or self._closed()
        windows = self.windows if window is None else (*self.windows, window)
        return CoarserBars(self.coarser, closed, None, windows)

    def _forgetful(self, time: int) -> CoarserBars:
        """Leave out windows that no bar later than a time has for its context."""
        first = sum(self.coarser.known_at(one.end_time) <= time for one in self.windows[1:])
        return replace(self, windows=self.windows[first:]) if first else self

    def state_dict(self) -> dict[str, Any]:
        """Return all that later windows depend on; what is `ahead` comes of the rest."""
        chosen, n_columns = self.coarser.feature_set, len(self.coarser.timeframe.columns)
        interval = self.interval or _Interval.begun(0, n_columns)
        shape = len(self.windows), chosen.sequence_length, chosen.n_features
        matrices = np.empty(shape, np.float32)
        for place, window in enumerate(self.windows):
            matrices[place] = window.matrix
        return {
            **self.closed.state_dict(),
            "start": interval.start,
            "n_bars": int(interval.counts[0]),
            "values": interval.values[:, 0].copy(),
            "end_times": np.array([window.end_time for window in self.windows], np.int64),
            "matrices": matrices,
        }

    @classmethod
    def of_state(cls, coarser: Coarser, state: Mapping[str, Any]) -> Self:
        """Take up where `state_dict` left off; raise ValueError or TypeError for another state."""
        segment = LiveSegment(coarser.feature_set, coarser.max_gap_ns)
        segment.load_state_dict(state)
        n_columns, n_bars = len(coarser.timeframe.columns), int(state["n_bars"])
        interval = None
        if n_bars:
            interval = _Interval.begun(int(state["start"]), n_columns)
            interval.values[:, 0] = _shaped(state["values"], np.float64, (n_columns,))
            interval.counts[0] = n_bars
        times = np.asarray(state["end_times"])
        window = coarser.feature_set.sequence_length, coarser.feature_set.n_features
        matrices = _shaped(state["matrices"], np.float32, (len(times), *window))
        windows = tuple(map(LiveWindow, matrices.copy(), times.tolist()))
        return cls(coarser, segment, interval, windows)


def _shaped(values: Any, dtype: type, shape: tuple[int, ...]) -> Array:
    array = np.asarray(values)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{array.dtype} of shape {array.shape}, {dtype} of {shape} wanted")
    return array
