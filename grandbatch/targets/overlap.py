"""`add_targets`: targets of a live Dask frame, by one `map_overlap` that looks ahead only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.features.overlap import AddedColumns, add_columns
from grandbatch.targets.named import Named, resolve_targets
from grandbatch.targets.rows import compute_targets, longest_horizon

if TYPE_CHECKING:
    import dask.dataframe as dd


def add_targets(
    frame: dd.DataFrame,
    targets: Named,
    *,
    max_gap: str | dt.timedelta | np.timedelta64 | None = None,
    keep_bars: bool = True,
    partition_rows: Sequence[int] | None = None,
) -> dd.DataFrame:
    """Add targets, as columns, to a Dask frame of clean bars.

    The values don't depend on the partitioning, to the bit.

    Parameters
    ----------
    frame : dask DataFrame
        Finite bars sorted by symbol, then time, as `read_bars` gives them: symbol, and the float64
        columns that the targets read. The timestamp, needed with `max_gap` and where a target
        reads it, may be the index, which is kept and means nothing otherwise.
    targets : Target, str, or sequence of them
        A text is such as "forward_return:5", "module:NAME" or "path.py:NAME".
    max_gap : str or timedelta, optional
        The largest distance in time inside a segment, such as "1D"; by default any.
    keep_bars : bool
        Keep the frame's own columns before the targets; without, less is copied.
    partition_rows : sequence of int, optional
        Rows of each partition, where known. Otherwise they are counted here and now, which reads
        the frame's source once: a column of a Parquet source, the whole of a CSV file.

    Returns
    -------
    dask DataFrame
        As many rows, and one float32 column per target: nan where fewer bars than its horizon
        follow in the segment, and where a value is not finite. Partitions shorter than the longest
        horizon are merged with their neighbours.

    Raises
    ------
    UsageError
        If the frame is none of Dask's, or the targets, `max_gap` or `partition_rows` make no sense.
    ColumnError
        If a column is missing or not float64.
    """
    resolved = resolve_targets(targets)
    if not resolved:
        raise UsageError("add_targets needs at least one target, such as forward_return(5)")
    added = AddedColumns(
        kind="target",
        readers=resolved,
        before=0,
        after=longest_horizon(resolved),
        compute=partial(compute_targets, resolved),
    )
    return add_columns(
        frame, added, max_gap=max_gap, keep_bars=keep_bars, partition_rows=partition_rows
    )
