"""Where bars are cut: where a symbol begins, where time leaps, where a calendar period begins.

What is known of bars that others grew from is taken over: then only the new ones are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grandbatch.grid import Segments, Stretches
from grandbatch.values.times import period_starts

Int64 = npt.NDArray[np.int64]

_SCAN_ROWS = 1_048_576


class _BarsToCut(Protocol):
    symbols: Any
    symbol_bounds: Int64

    @property
    def n_rows(self) -> int: ...

    @property
    def first_time(self) -> int: ...

    @property
    def last_time(self) -> int: ...

    def read_ranges(
        self, ranges: Sequence[tuple[int, int]], columns: Sequence[str]
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Cuts:
    """Rows where bars are cut, each rising.

    Parameters
    ----------
    leaps : (G,) int64
        Rows that come more than the longest gap after the row before of their symbol.
    periods : (P,) int64
        Rows with which the bars of a symbol and period begin; none where there are no periods.
    period_time : (P,) int64
        When each of these periods begins, in nanoseconds since 1970, UTC; the lowest number there
        is, where it is the period of the first bar of all.
    """

    leaps: Int64
    periods: Int64
    period_time: Int64

    def moved(self, before: _BarsToCut, bars: _BarsToCut) -> Cuts:
        """Return the same under the numbers that rows have in bars that grew from those before."""
        places = np.searchsorted(np.array(bars.symbols), np.array(before.symbols))
        shift = bars.symbol_bounds[places] - before.symbol_bounds[:-1]

        def move(rows: Int64) -> Int64:
            return rows + shift[np.searchsorted(before.symbol_bounds, rows, side="right") - 1]

        return Cuts(move(self.leaps), move(self.periods), self.period_time)


def find_cuts(
    bars: _BarsToCut,
    max_gap_ns: int | None,
    period: str | None,
    known: tuple[_BarsToCut, Cuts] | None = None,
) -> Cuts:
    """Find where bars are cut.

    Parameters
    ----------
    bars : Bars
    max_gap_ns : int, optional
        Longest gap, in nanoseconds, that a segment spans; None sets no limit.
    period : str, optional
        Calendar period (UTC), as `grandbatch.times.calendar_period` reads it; None for none.
    known : (Bars, Cuts), optional
        The bars from which these grew, and where they were cut.
    """
    found: list[Cuts] = []
    seen = np.zeros(len(bars.symbols), np.int64)
    if known is not None and known[0].first_time == bars.first_time:
        before, cuts = known
        found.append(cuts.moved(before, bars))
        places = np.searchsorted(np.array(bars.symbols), np.array(before.symbols))
        seen[places] = np.diff(before.symbol_bounds)
    borders = np.empty(0, np.int64)
    if period is not None:
        borders = period_starts(period, bars.first_time, bars.last_time)
    if period is not None or max_gap_ns is not None:
        for ranges, is_first in _scans(bars.symbol_bounds, seen):
            times = bars.read_ranges(ranges, ("timestamp",))["timestamp"]
            at = 0
            for (start, stop), first in zip(ranges, is_first, strict=True):
                here = times[at : at + stop - start]
                found.append(_cut_scan(here, start, first, max_gap_ns, borders))
                at += stop - start
    joined = [
        np.concatenate([np.empty(0, np.int64), *(getattr(cuts, name) for cuts in found)])
        for name in ("leaps", "periods", "period_time")
    ]
    order = np.argsort(joined[1])
    return Cuts(np.sort(joined[0]), joined[1][order], joined[2][order])


def _scans(bounds: Int64, seen: Int64) -> Iterator[tuple[list[tuple[int, int]], list[bool]]]:
    """Gather ranges of rows to read at once: a symbol's unseen ones, and the one before them.

    And whether each begins with a symbol's first row.
    """
    ranges: list[tuple[int, int]] = []
    is_first: list[bool] = []
    rows = 0
    for (first, stop), n_seen in zip(pairwise(bounds.tolist()), seen.tolist(), strict=True):
        for begin in range(first + n_seen, stop, _SCAN_ROWS):
            end = min(begin + _SCAN_ROWS, stop)
            if ranges and rows + end - begin > _SCAN_ROWS:
                yield ranges, is_first
                ranges, is_first, rows = [], [], 0
            is_first.append(begin == first)
            ranges.append((begin if begin == first else begin - 1, end))
            rows += end - begin
    if ranges:
        yield ranges, is_first


def _cut_scan(
    times: Int64, start: int, is_first: bool, max_gap_ns: int | None, borders: Int64
) -> Cuts:
    """Cut consecutive rows of a symbol behind their first; there, too, if it is the symbol's."""
    leaps = periods = numbers = np.empty(0, np.int64)
    if max_gap_ns is not None:
        # unsigned: int64 has no room for a gap of 300 years
        gaps = np.diff(times).view(np.uint64)
        leaps = np.flatnonzero(gaps > np.uint64(max_gap_ns)) + start + 1
    if len(borders):
        low, high = np.searchsorted(borders, times[[0, -1]], side="right") - 1
        # where a period has no bar, the next begins in its place
        numbers = np.arange(low if is_first else low + 1, high + 1)
        rows = np.searchsorted(times, borders[numbers])
        is_filled = np.append(rows[1:] > rows[:-1], True)[: len(rows)]
        periods, numbers = rows[is_filled] + start, numbers[is_filled]
    return Cuts(leaps, periods, borders[numbers])


def cuts_of(bars: _BarsToCut, segments: Segments, stretches: Stretches | None) -> Cuts:
    """Return the cuts of which segments and stretches were made."""
    leaps = np.setdiff1d(segments.start, bars.symbol_bounds, assume_unique=True)
    if stretches is None:
        return Cuts(leaps, np.empty(0, np.int64), np.empty(0, np.int64))
    return Cuts(leaps, stretches.start, stretches.period)


def as_segments(bars: _BarsToCut, leaps: Int64) -> Segments:
    """Cut bars at the symbols' borders, and at some rows."""
    starts = np.union1d(bars.symbol_bounds[:-1], leaps)
    symbol = np.searchsorted(bars.symbol_bounds, starts, side="right") - 1
    length = np.diff(starts, append=np.int64(bars.n_rows))
    return Segments(starts.astype(np.int64), length, symbol.astype(np.int32))


def as_stretches(cuts: Cuts) -> Stretches:
    """Cut bars where periods begin, and number these by their time."""
    return Stretches(cuts.periods, cuts.period_time)
