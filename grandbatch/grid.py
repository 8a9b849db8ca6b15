"""Which bars each window and each chunk is made of: integer arithmetic, no I/O.

Rows are numbered in bars order (symbol, then time). Windows are numbered by segment, then by
start; or, in the order of periods, by the period of their last bar first. Window k of a segment
starts `lookback + k * stride` rows after the segment does, so each of its rows has its full
lookback inside the segment. A chunk is `chunk_windows` consecutive windows, and the last chunk may
be shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Segments:
    """Runs of bars that nothing crosses, in bars order.

    Parameters
    ----------
    start : (S,) int64
        Row number of each segment's first bar; strictly rising.
    length : (S,) int64
        Bars in each segment, at least 1.
    symbol : (S,) int32
        Index of each segment's symbol.
    """

    start: Int64Array
    length: Int64Array
    symbol: npt.NDArray[np.int32]

    @classmethod
    def single(cls, n_rows: int) -> Segments:
        """One segment of `n_rows` bars of symbol 0."""
        return cls(np.zeros(1, np.int64), np.array([n_rows], np.int64), np.zeros(1, np.int32))

    def __len__(self) -> int:
        return len(self.start)

    @property
    def stops(self) -> Int64Array:
        """Row number after each segment's last bar, (S,) int64."""
        return self.start + self.length


@dataclass(frozen=True, eq=False)
class Stretches:
    """Bars of one symbol and one period of time, in bars order; they cover all bars.

    Parameters
    ----------
    start : (P,) int64
        Row number of each stretch's first bar; strictly rising.
    period : (P,) int64
        Number of its period; later periods have higher ones.
    """

    start: Int64Array
    period: Int64Array


@dataclass(frozen=True, eq=False)
class Spans:
    """Windows of one segment that are numbered one after the other, in the order of numbers."""

    segment: Int64Array
    """Index of each span's segment."""
    begin: Int64Array
    """The span's first window, counted from the segment's first."""
    bounds: Int64Array
    """Number of each span's first window, and the number of windows at the end."""


class Run(NamedTuple):
    """Windows of one chunk that lie in one segment, and the feature rows they cover."""

    symbol: int
    """Index of the segment's symbol."""
    segment_stop: int
    """Row number after the segment's last bar."""
    first_window: int
    n_windows: int
    first_row: int
    """Row number of the first window's first bar."""
    n_rows: int
    """Rows from the first window's first to the last window's last."""
    n_repeated: int
    """How many of those rows, at their start, the segment's window before the first covers too."""


class RunColumns(NamedTuple):
    """Runs of consecutive chunks one behind the other, each field of `Run` a column, (R,) int64."""

    symbol: Int64Array
    segment_stop: Int64Array
    first_window: Int64Array
    n_windows: Int64Array
    first_row: Int64Array
    n_rows: Int64Array
    n_repeated: Int64Array
    ends: Int64Array
    """(C,): how many runs there are up to the end of each chunk."""


@dataclass(frozen=True, eq=False)
class ChunkRuns(Sequence[list[Run]]):
    """The runs of consecutive chunks: a few numbers for each segment, however many chunks.

    Parameters
    ----------
    n_chunks : int
    windows : (int, int)
        The first window of all, and the one after the last.
    sizes : (int, int, int, int)
        Windows of a chunk, lookback, sequence length and overlap.
    bounds : (S + 1,) int64
        Number of each span's first window, and of the one after the last span's.
    begin, start, length, symbol : (S,) int
        Of each span: its first window, counted from its segment's first; the segment's first row,
        rows and symbol.
    """

    n_chunks: int
    windows: tuple[int, int]
    sizes: tuple[int, int, int, int]
    bounds: Int64Array
    begin: Int64Array
    start: Int64Array
    length: Int64Array
    symbol: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return self.n_chunks

    def __getstate__(self) -> dict[str, Any]:
        return {n: value for n, value in self.__dict__.items() if n not in ("_all", "columns")}

    def __getitem__(self, chunk: Any) -> Any:
        return self._all[chunk]

    @cached_property
    def columns(self) -> RunColumns:
        """The runs as arrays: at stride 1 a chunk's windows take less time than its `Run` would."""
        chunk_windows, lookback, sequence_length, overlap = self.sizes
        stride = sequence_length - overlap
        first = self.windows[0] + np.arange(self.n_chunks, dtype=np.int64) * chunk_windows
        stop = np.minimum(first + chunk_windows, self.windows[1])
        low = np.searchsorted(self.bounds, first, side="right") - 1
        pieces = np.searchsorted(self.bounds, stop - 1, side="right") - low
        ends = np.cumsum(pieces)
        span = np.repeat(low - (ends - pieces), pieces) + np.arange(ends[-1])
        number = np.maximum(np.repeat(first, pieces), self.bounds[span])
        count = np.minimum(np.repeat(stop, pieces), self.bounds[span + 1]) - number
        inside = self.begin[span] + number - self.bounds[span]
        return RunColumns(
            symbol=self.symbol[span].astype(np.int64),
            segment_stop=self.start[span] + self.length[span],
            first_window=number,
            n_windows=count,
            first_row=self.start[span] + lookback + inside * stride,
            n_rows=(count - 1) * stride + sequence_length,
            n_repeated=np.where(inside, overlap, 0),
            ends=ends,
        )

    @cached_property
    def _all(self) -> list[list[Run]]:
        *fields, ends = (column.tolist() for column in self.columns)
        runs = [Run(*row) for row in zip(*fields, strict=True)]
        return [runs[begin:end] for begin, end in pairwise([0, *ends])]


@dataclass(frozen=True, eq=False)
class Grid:
    """The map between windows, rows and chunks over a list of segments.

    With `stretches`, windows are numbered by the period of their last bar first.

    Raises
    ------
    UsageError
        If a size makes no sense.
    """

    segments: Segments
    lookback: int
    sequence_length: int
    overlap: int
    chunk_windows: int
    stretches: Stretches | None = None

    def __post_init__(self) -> None:
        if self.lookback < 0:
            raise UsageError(f"lookback must be at least 0, got {self.lookback}")
        if self.sequence_length < 1:
            raise UsageError(f"sequence length must be at least 1, got {self.sequence_length}")
        if not 0 <= self.overlap < self.sequence_length:
            raise UsageError(
                f"overlap must be from 0 to {self.sequence_length - 1} "
                f"(the sequence length less one), got {self.overlap}"
            )
        if self.chunk_windows < 1:
            raise UsageError(f"chunk windows must be at least 1, got {self.chunk_windows}")

    @property
    def stride(self) -> int:
        """Rows between the starts of neighbouring windows."""
        return self.sequence_length - self.overlap

    @cached_property
    def windows_per_segment(self) -> Int64Array:
        """Windows in each segment, (S,) int64."""
        usable = self.segments.length - self.lookback - self.sequence_length
        return np.where(usable >= 0, usable // self.stride + 1, 0).astype(np.int64)

    def symbols_without_windows(self) -> Int64Array:
        """Find symbols of which no segment is long enough for a window: indices, rising."""
        windows = np.bincount(self.segments.symbol, self.windows_per_segment)
        return np.flatnonzero(windows == 0).astype(np.int64, copy=False)

    @cached_property
    def spans(self) -> Spans:
        """Windows of one segment with consecutive numbers, in the order of these."""
        windows = self.windows_per_segment
        segment = np.flatnonzero(windows)
        begin = np.zeros(len(segment), np.int64)
        count = windows[segment]
        if self.stretches is not None:
            segment, begin, count = self._spans_of_periods(self.stretches)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(count, dtype=np.int64)])
        return Spans(segment, begin, bounds)

    def _spans_of_periods(self, stretches: Stretches) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Cut the windows of each segment where the period of their last bar changes."""
        segments = self.segments
        start = np.union1d(segments.start, stretches.start)
        segment = np.searchsorted(segments.start, start, side="right") - 1
        place = np.searchsorted(stretches.start, start, side="right") - 1
        segment_stop = segments.start[segment] + segments.length[segment]
        stop = np.minimum(np.append(start[1:], segment_stop[-1:]), segment_stop)
        # of the first window's last bar
        first_end = segments.start[segment] + self.lookback + self.sequence_length - 1
        most = self.windows_per_segment[segment]
        begin = np.clip(-((first_end - start) // self.stride), 0, most)
        count = np.clip(-((first_end - stop) // self.stride), 0, most) - begin
        order = np.argsort(stretches.period[place], kind="stable")
        order = order[count[order] > 0]
        segment, begin, count = segment[order], begin[order], count[order]
        follows = (segment[1:] == segment[:-1]) & (begin[1:] == begin[:-1] + count[:-1])
        first = np.flatnonzero(np.append(True, ~follows)[: len(order)])
        return segment[first], begin[first], np.add.reduceat(count, first) if len(first) else count

    @property
    def n_windows(self) -> int:
        """Windows in all."""
        return int(self.spans.bounds[-1])

    @property
    def n_chunks(self) -> int:
        """Chunks in all."""
        return -(-self.n_windows // self.chunk_windows)

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """First window of a chunk, and the one after its last."""
        first = chunk * self.chunk_windows
        return first, min(first + self.chunk_windows, self.n_windows)

    def _span_of(self, windows: Int64Array) -> Int64Array:
        return np.searchsorted(self.spans.bounds, windows, side="right") - 1

    def segment_of(self, windows: Int64Array) -> Int64Array:
        """Segment index of each window, (W,) int64."""
        return self.spans.segment[self._span_of(windows)]

    def first_row(self, windows: Int64Array) -> Int64Array:
        """Row number of each window's first bar, (W,) int64."""
        return self._first_row(windows, self._span_of(windows))

    def _first_row(self, windows: Int64Array, at: Int64Array) -> Int64Array:
        spans = self.spans
        start = self.segments.start[spans.segment[at]]
        inside = spans.begin[at] + windows - spans.bounds[at]
        return start + self.lookback + inside * self.stride

    def locate(self, first: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """Return `segment_of` and `first_row` of consecutive windows, from `first` up to `stop`."""
        low, high = self._span_of(np.array([first, stop - 1], np.int64))
        counts = np.diff(self.spans.bounds[low : high + 2].clip(first, stop))
        at = np.repeat(np.arange(low, high + 1), counts)
        return self.spans.segment[at], self._first_row(np.arange(first, stop), at)

    def row_ranges(self, first_chunk: int, stop_chunk: int) -> Int64Array:
        """Feature rows of consecutive chunks: half-open ranges, rising, disjoint, (k, 2) int64.

        One, from the first window to the last; in the order of periods one for the windows of each
        segment, or of several that lie no further apart than a lookback.
        """
        first = first_chunk * self.chunk_windows
        stop = min(stop_chunk * self.chunk_windows, self.n_windows)
        if self.stretches is None:
            ends = self.first_row(np.array([first, stop - 1], np.int64))
            ends[1] += self.sequence_length
            return ends[None]
        low, high = self._span_of(np.array([first, stop - 1], np.int64))
        bounds, at = self.spans.bounds[low : high + 2].clip(first, stop), np.arange(low, high + 1)
        starts, stops = self._first_row(bounds[:-1], at), self._first_row(bounds[1:] - 1, at)
        order = np.argsort(starts)
        starts, stops = starts[order], stops[order] + self.sequence_length
        stops = np.maximum.accumulate(stops)
        begins = np.append(True, starts[1:] > stops[:-1] + self.lookback)
        ends = np.append(begins[1:], True)
        return np.stack([starts[begins], stops[ends]], axis=1)

    def runs(self, chunk: int) -> list[Run]:
        """Cut a chunk where the windows of one segment end, or those of a period."""
        found: list[Run] = self.runs_of(chunk, chunk + 1)[0]
        return found

    def runs_of(self, first_chunk: int, stop_chunk: int) -> ChunkRuns:
        """Return the runs of consecutive chunks, each cut as `runs` does when it is asked for."""
        first, stop = self.chunk_range(first_chunk)[0], self.chunk_range(stop_chunk - 1)[1]
        low, high = self._span_of(np.array([first, stop - 1], np.int64)).tolist()
        spans, here = self.spans, slice(low, high + 1)
        segment = spans.segment[here]
        return ChunkRuns(
            n_chunks=stop_chunk - first_chunk,
            windows=(first, stop),
            sizes=(self.chunk_windows, self.lookback, self.sequence_length, self.overlap),
            bounds=spans.bounds[low : high + 2].copy(),
            begin=spans.begin[here].copy(),
            start=self.segments.start[segment],
            length=self.segments.length[segment],
            symbol=self.segments.symbol[segment],
        )

    @cached_property
    def _runs_per_chunk(self) -> Int64Array:
        first = np.arange(self.n_chunks, dtype=np.int64) * self.chunk_windows
        stop = np.minimum(first + self.chunk_windows, self.n_windows)
        return self._span_of(stop - 1) - self._span_of(first) + 1

    @property
    def most_runs(self) -> int:
        """Most runs that one chunk has."""
        return int(self._runs_per_chunk.max(initial=0))

    @cached_property
    def block_rows(self) -> int:
        """R of layout `rows`: the most feature rows that the windows of one chunk need.

        In the order of periods it is rounded up to quarters of an unbroken block: chunks that come
        later seldom need more then.
        """
        if not self.n_windows:
            return 0
        first = np.arange(self.n_chunks, dtype=np.int64) * self.chunk_windows
        stop = np.minimum(first + self.chunk_windows, self.n_windows)
        touched = self._runs_per_chunk
        rows = int(((stop - first - touched) * self.stride + touched * self.sequence_length).max())
        if self.stretches is None:
            return rows
        step = -(-self.unbroken_block_rows // 4)
        return -(-rows // step) * step

    @property
    def unbroken_block_rows(self) -> int:
        """Feature rows that a full chunk needs when it lies in one segment."""
        return (self.chunk_windows - 1) * self.stride + self.sequence_length
