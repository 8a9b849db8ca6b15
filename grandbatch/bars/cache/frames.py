"""Bars as a Dask frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import dask.dataframe as dd
import pandas as pd

if TYPE_CHECKING:
    from dask.dataframe import DataFrame


class _ReadableBars(Protocol):
    symbols: Any

    @property
    def columns(self) -> Sequence[str]: ...

    def read_ranges(
        self, ranges: Sequence[tuple[int, int]], columns: Sequence[str]
    ) -> Mapping[str, Any]: ...


def frame_of(bars: _ReadableBars, bounds: Sequence[int], *, codes: bool = False) -> DataFrame:
    """Return a Dask frame whose partition i holds the rows from ``bounds[i]`` up to the next."""
    return gathered_frame(bars, [[rows] for rows in pairwise(bounds)], codes=codes)


def gathered_frame(
    bars: _ReadableBars, partitions: Sequence[Sequence[tuple[int, int]]], *, codes: bool = True
) -> DataFrame:
    """Return a Dask frame whose partitions hold ranges of rows each, one behind the other."""
    meta = read_frame([(0, 0)], bars, codes=codes)
    return dd.from_map(read_frame, partitions, bars=bars, codes=codes, meta=meta, label="bars")


def read_frame(
    ranges: Sequence[tuple[int, int]],
    bars: _ReadableBars,
    columns: Sequence[str] | None = None,
    *,
    codes: bool = False,
) -> pd.DataFrame:
    """Read ranges of rows as a frame: UTC timestamps, symbol as a category or a code, float64.

    Dask passes the `columns` that are used: the others are not read.
    """
    wanted = list(bars.columns if columns is None else columns)
    values = bars.read_ranges(ranges, wanted)
    found: dict[str, Any] = {}
    for name in wanted:
        if name == "timestamp":
            times = values[name].view("datetime64[ns]")
            found[name] = pd.DatetimeIndex(times).tz_localize("UTC")
        elif name == "symbol" and not codes:
            categories = pd.Index(bars.symbols, dtype="str")
            found[name] = pd.Categorical.from_codes(values[name], categories=categories)
        else:
            found[name] = values[name]
    # as read: pandas would copy the columns into one block otherwise
    start = ranges[0][0]
    n_rows = sum(stop - begin for begin, stop in ranges)
    return pd.DataFrame(found, index=pd.RangeIndex(start, start + n_rows), copy=False)
