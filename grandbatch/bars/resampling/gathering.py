"""Bars of a coarser timeframe, of consecutive rows of finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.rules.flags import offer
from grandbatch.bars.rules.timeframe import Timeframe
from grandbatch.errors import InputError
from grandbatch.kernels.bars.intervals import gather_rows
from grandbatch.values.times import shown

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SLAB_ROWS = 65_536
_STEP_ROWS = 1_024


@dataclass(frozen=True)
class Gathered:
    """Coarser bars of one symbol."""

    times: Int64
    """Where their intervals begin, (n,)."""
    values: Float64
    """Open, high, low, close, volume, and the extra columns, (5 + K, n)."""
    n_cut: int
    """Finer bars that end later than the interval that they began in."""


def gather(
    bars: Bars, symbol: int, rows: tuple[int, int], timeframe: Timeframe, duration_ns: int
) -> Gathered:
    """Gather the bars of all intervals whose first row is among some rows of a symbol.

    What the last of them has behind these rows is read, too. Finer bars last `duration_ns`.
    """
    bounds = int(bars.symbol_bounds[symbol]), int(bars.symbol_bounds[symbol + 1])
    first, stop = (_begins_at(bars, row, bounds, timeframe) for row in rows)
    names = timeframe.columns
    times, counts = np.empty((2, stop - first), np.int64)
    values = np.empty((len(names), stop - first))
    n = n_cut = 0
    for at in range(first, stop, SLAB_ROWS):
        read = bars.read(at, min(at + SLAB_ROWS, stop), columns=("timestamp", *names))
        starts = timeframe.starts_of(read["timestamp"])
        if not timeframe.by_closing:
            ends = read["timestamp"] + duration_ns
            n_cut += int(np.count_nonzero(ends > starts + timeframe.length_ns))
        slab = np.stack([read[name] for name in names])
        n = gather_rows(starts, slab, timeframe.ways, times, values, counts, n)
    timeframe.divide_means(values[:, :n], counts[:n])
    return Gathered(times[:n], values[:, :n], n_cut)


def refuse_overflow(times: Int64, values: Float64, extra: Sequence[str]) -> None:
    """See that no sum of an extra column left the range of doubles: all bars are finite.

    Raises
    ------
    InputError
        If one did; names the column and the first interval.
    """
    for name, column in zip(extra, values[len(values) - len(extra) :], strict=True):
        odd = np.flatnonzero(~np.isfinite(column))
        if odd.size:
            remedy = offer("--aggregate", f"{name}=last")
            raise InputError(
                f"{name}: the sum over the interval of {shown(int(times[odd[0]]))} is too large "
                f"for a double; gather the column otherwise, such as {remedy} "
                f"(in Python aggregate={{{name!r}: 'last'}})"
            )


def incomplete_start(last_time: int, timeframe: Timeframe, duration_ns: int) -> int | None:
    """Return where the interval of a symbol's last bar begins, if it ends later than this bar.

    Parameters
    ----------
    last_time : int
        Nanoseconds since 1970 UTC.
    timeframe : Timeframe
    duration_ns : int
        Of the finer bars.
    """
    end = last_time + 1 if timeframe.by_closing else last_time + duration_ns
    begun, then = timeframe.starts_of(np.array([last_time, end])).tolist()
    return int(begun) if begun == then else None


def _begins_at(bars: Bars, row: int, bounds: tuple[int, int], timeframe: Timeframe) -> int:
    """Return the first row from `row` on that is the first of its interval; or the last bound."""
    first, stop = bounds
    if row <= first:
        return first
    begun = None
    for at in range(row - 1, stop, _STEP_ROWS):
        read = bars.read(at, min(at + _STEP_ROWS, stop), columns=("timestamp",))
        starts = timeframe.starts_of(read["timestamp"])
        begun = starts[0] if begun is None else begun
        others = np.flatnonzero(starts != begun)
        if others.size:
            return at + int(others[0])
    return stop
