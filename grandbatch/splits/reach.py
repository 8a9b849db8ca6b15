"""From when to when a window reads bars, bounded by what a store's per-window values tell.

A window reads from `lookback` bars before its first row to the bar after its last, which its
`next_return` needs, or as many as the longest horizon of its targets. The values hold the time of
every window's last bar only. Within a symbol both rows and times rise, so the windows before and
behind bound the rest: never too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grandbatch.values.arrays import Bool, Int32, Int64


@dataclass(frozen=True)
class Reach:
    """What is known of all windows of a store.

    Parameters
    ----------
    lookback : int
        Bars before its first row that a window reads.
    sequence_length, stride : int
    first_time, last_time : int
        Of all bars of all symbols, ns since 1970 UTC.
    max_gap_ns : int, optional
        Bars of a segment follow each other within this; its first bar follows later than that.
    horizon : int
        Bars of its segment after its last that a window reads, where there are so many.
    """

    lookback: int
    sequence_length: int
    stride: int
    first_time: int
    last_time: int
    max_gap_ns: int | None = None
    horizon: int = 1

    @property
    def rows(self) -> int:
        """Rows from the first bar that a window reads to its last."""
        return self.lookback + self.sequence_length - 1

    @property
    def windows_before(self) -> int:
        """How many windows before a window its bounds depend on."""
        return -(-self.rows // self.stride)

    @property
    def windows_behind(self) -> int:
        """How many windows behind a window its bounds depend on."""
        return -(-self.horizon // self.stride)

    @property
    def gap(self) -> int | None:
        """`max_gap_ns`, where it is shorter than all the time there is: that can't overflow."""
        if self.max_gap_ns is None:
            return None
        return min(self.max_gap_ns, self.last_time - self.first_time)


def window_spans(
    reach: Reach,
    end_time: Int64,
    first_row: Int64,
    symbol: Int32,
    ended: Bool,
    inner: slice,
) -> tuple[Int64, Int64]:
    """Bound the first and the last time that some of consecutive windows read.

    Parameters
    ----------
    reach : Reach
    end_time, first_row, symbol : (n,)
        Per-window values as in a store.
    ended : (n,) bool
        Windows that are known to end with their segment.
    inner : slice
        The w windows to bound. `windows_before` windows before and `windows_behind` behind must
        be there, as far as the store has them.

    Returns
    -------
    first_read : (w,) int64
        No bar read is earlier. Exact where windows of the segment end at every bar and that many
        rows lie before; else it is the first time behind the window that ends last before it.
    last_read : (w,) int64
        No bar read is later. Exact where the segment ends with the window, or at stride 1 but
        where the segment's end isn't known and comes before the horizon.
    """
    rows, ends, symbols = first_row[inner], end_time[inner], symbol[inner]
    # of the windows whose last bar is not behind the first bar read, the last one
    wanted = rows - reach.rows
    before = np.searchsorted(first_row, wanted, side="right") - 1
    known = (before >= 0) & (symbol[before] == symbols)
    behind = wanted - first_row[before]
    first_read = np.where(known, end_time[before] + (behind > 0), reach.first_time)

    # the first window behind that ends no earlier than what is read
    following = np.searchsorted(first_row, rows + reach.horizon)
    inside = np.minimum(following, len(first_row) - 1)
    is_known = (following < len(first_row)) & (symbol[inside] == symbols)
    last_read = np.where(is_known, end_time[inside], reach.last_time)

    gap = reach.gap
    if gap is not None:
        span = reach.last_time - reach.first_time
        in_segment = reach.windows_before * reach.stride - reach.rows
        first_read += np.where(known & (behind != in_segment), gap, 0)
        np.maximum(first_read, ends - min(gap * reach.rows, span), out=first_read)
        np.minimum(last_read, ends + min(gap * reach.horizon, span), out=last_read)

    last = _last_of_segments(reach, first_row, symbol, ended)[inner]
    return first_read, np.where(ended[last], np.minimum(last_read, end_time[last]), last_read)


def _last_of_segments(reach: Reach, first_row: Int64, symbol: Int32, ended: Bool) -> Int64:
    """Find the last window of each window's segment, (n,) int64, among the windows given."""
    broken = np.ones(len(first_row), np.bool_)
    broken[:-1] = (np.diff(first_row) != reach.stride) | (symbol[1:] != symbol[:-1])
    lasts = np.flatnonzero(broken | ended)
    return lasts[np.searchsorted(lasts, np.arange(len(first_row)))]
