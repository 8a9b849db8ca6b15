"""Bars as a Dask frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import dask.dataframe as dd
import pandas as pd

from grandbatch.bars.rules import FIELDS

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

    from grandbatch.bars.cache import Bars


def frame_of(bars: Bars, bounds: Sequence[int]) -> DataFrame:
    """Return a Dask frame whose partition i holds the rows from ``bounds[i]`` up to the next."""
    meta = read_frame((0, 0), bars)
    ranges = list(pairwise(bounds))
    return dd.from_map(read_frame, ranges, bars=bars, meta=meta, label="bars")


def read_frame(rows: tuple[int, int], bars: Bars) -> pd.DataFrame:
    """Read a range of rows as a frame: UTC timestamps, symbol as a category, float64."""
    columns = bars.read(*rows, columns=FIELDS)
    times = pd.DatetimeIndex(columns["timestamp"].view("datetime64[ns]")).tz_localize("UTC")
    symbol = pd.Categorical.from_codes(
        columns["symbol"], categories=pd.Index(bars.symbols, dtype="str")
    )
    numbers = {name: columns[name] for name in FIELDS[2:]}
    index = pd.RangeIndex(*rows)
    return pd.DataFrame({"timestamp": times, "symbol": symbol, **numbers}, index=index)
