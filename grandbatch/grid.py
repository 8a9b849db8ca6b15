"""Which bars each window and each chunk is made of: integer arithmetic, no I/O.

Rows are numbered in bars order (symbol, then time). Windows are numbered by segment, then by
start; window k of a segment starts `lookback + k * stride` rows after the segment does, so each
of its rows has its full lookback inside the segment. A chunk is `chunk_windows` consecutive
windows, and the last chunk may be shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class Run:
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
    """How many of those rows, at their start, the window before the first covers too."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The map between windows, rows and chunks over a list of segments.

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
    def _filled(self) -> Int64Array:
        return np.flatnonzero(self.windows_per_segment)

    @cached_property
    def _window_bounds(self) -> Int64Array:
        """First window of each segment that has any, and the number of windows at the end."""
        counts = self.windows_per_segment[self._filled]
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])

    @property
    def n_windows(self) -> int:
        """Windows in all."""
        return int(self._window_bounds[-1])

    @property
    def n_chunks(self) -> int:
        """Chunks in all."""
        return -(-self.n_windows // self.chunk_windows)

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """First window of a chunk, and the one after its last."""
        first = chunk * self.chunk_windows
        return first, min(first + self.chunk_windows, self.n_windows)

    def segment_of(self, windows: Int64Array) -> Int64Array:
        """Segment index of each window, (W,) int64."""
        return self._filled[np.searchsorted(self._window_bounds, windows, side="right") - 1]

    def first_row(self, windows: Int64Array) -> Int64Array:
        """Row number of each window's first bar, (W,) int64."""
        filled = np.searchsorted(self._window_bounds, windows, side="right") - 1
        start = self.segments.start[self._filled[filled]]
        return start + self.lookback + (windows - self._window_bounds[filled]) * self.stride

    def rows(self, chunk: int) -> tuple[int, int]:
        """Feature rows of a chunk: the half-open range from its first window to its last."""
        return self.window_rows(*self.chunk_range(chunk))

    def window_rows(self, first: int, stop: int) -> tuple[int, int]:
        """Feature rows of the windows from `first` up to `stop`: one half-open range."""
        ends = self.first_row(np.array([first, stop - 1], np.int64))
        return int(ends[0]), int(ends[1]) + self.sequence_length

    def runs(self, chunk: int) -> list[Run]:
        """Cut a chunk at the segments' borders."""
        first, stop = self.chunk_range(chunk)
        lo, hi = np.searchsorted(self._window_bounds, [first, stop - 1], side="right") - 1
        runs = []
        for filled in range(int(lo), int(hi) + 1):
            segment_first = int(self._window_bounds[filled])
            begin = max(first, segment_first)
            count = min(stop, int(self._window_bounds[filled + 1])) - begin
            segment = int(self._filled[filled])
            runs.append(
                Run(
                    symbol=int(self.segments.symbol[segment]),
                    segment_stop=int(self.segments.start[segment] + self.segments.length[segment]),
                    first_window=begin,
                    n_windows=count,
                    first_row=int(self.segments.start[segment])
                    + self.lookback
                    + (begin - segment_first) * self.stride,
                    n_rows=(count - 1) * self.stride + self.sequence_length,
                    n_repeated=self.overlap if begin > segment_first else 0,
                )
            )
        return runs

    @cached_property
    def block_rows(self) -> int:
        """R of layout `rows`: the most feature rows that the windows of one chunk need."""
        if not self.n_windows:
            return 0
        first = np.arange(self.n_chunks, dtype=np.int64) * self.chunk_windows
        stop = np.minimum(first + self.chunk_windows, self.n_windows)
        bounds = self._window_bounds
        touched = (
            np.searchsorted(bounds, stop - 1, side="right")
            - np.searchsorted(bounds, first, side="right")
            + 1
        )
        rows = (stop - first - touched) * self.stride + touched * self.sequence_length
        return int(rows.max())

    @property
    def unbroken_block_rows(self) -> int:
        """Feature rows that a full chunk needs when it lies in one segment."""
        return (self.chunk_windows - 1) * self.stride + self.sequence_length
