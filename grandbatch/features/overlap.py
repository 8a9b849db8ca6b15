"""Columns of a live Dask frame: one `map_overlap`, planned so that it can't go wrong.

`map_overlap` looks one partition back and one ahead only, and joins by position, so no partition
may be shorter than what is read before or after a bar: short neighbours are merged first. The rows
that travel to the next partition hold the columns that are needed, and nothing else does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from grandbatch.errors import ColumnError, UsageError
from grandbatch.features.inputs import Reader, arrays_of, inputs_of, known_inputs, require_inputs
from grandbatch.features.named import resolve_feature_set
from grandbatch.features.rows import compute_rows, segment_starts
from grandbatch.features.sets import FeatureSet
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import to_duration

if TYPE_CHECKING:
    import dask.dataframe as dd


def add_features(
    frame: dd.DataFrame,
    feature_set: str | FeatureSet,
    *,
    max_gap: str | dt.timedelta | np.timedelta64 | None = None,
    keep_bars: bool = True,
    partition_rows: Sequence[int] | None = None,
) -> dd.DataFrame:
    """Add a feature set's columns to a Dask frame of clean bars.

    The values don't depend on the partitioning, to the bit.

    Parameters
    ----------
    frame : dask DataFrame
        Finite bars sorted by symbol, then time, as `read_bars` gives them: symbol, and the float64
        columns that the set reads. The timestamp, needed with `max_gap` and where the set reads
        it, may be the index, which is kept and means nothing otherwise.
    feature_set : str or FeatureSet
        A set, or its name: "strategic", "module:NAME", "path.py:NAME", …
    max_gap : str or timedelta, optional
        The largest distance in time inside a segment, such as "1D"; by default any.
    keep_bars : bool
        Keep the frame's own columns before the features; without, less is copied.
    partition_rows : sequence of int, optional
        Rows of each partition, where known. Otherwise they are counted here and now, which reads
        the frame's source once: a column of a Parquet source, the whole of a CSV file.

    Returns
    -------
    dask DataFrame
        As many rows, and one float32 column per feature: nan where fewer bars than the set's
        lookback come before in the segment. Partitions shorter than the lookback are merged with
        their neighbours.

    Raises
    ------
    UsageError
        If the frame is none of Dask's, or the feature set, `max_gap` or `partition_rows` makes no
        sense.
    ColumnError
        If a column is missing or not float64.
    """
    resolved = resolve_feature_set(feature_set)
    added = AddedColumns(
        kind="feature",
        readers=tuple(resolved.features),
        before=resolved.lookback,
        after=0,
        compute=partial(compute_rows, resolved),
    )
    return add_columns(
        frame, added, max_gap=max_gap, keep_bars=keep_bars, partition_rows=partition_rows
    )


@dataclass(frozen=True)
class AddedColumns:
    """Columns that a frame of bars is to get.

    Parameters
    ----------
    kind : str
        What they are called: feature, target.
    readers : tuple of Feature or Target
        One for each column.
    before, after : int
        Bars of its segment before and after a bar that its values read.
    compute : callable
        ``compute(columns, starts)``, as `compute_rows`.
    """

    kind: str
    readers: tuple[Reader, ...]
    before: int
    after: int
    compute: Callable[..., npt.NDArray[np.float32]]

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""
        return tuple(reader.name for reader in self.readers)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read of the bars."""
        return inputs_of(self.readers)


def add_columns(
    frame: dd.DataFrame,
    added: AddedColumns,
    *,
    max_gap: str | dt.timedelta | np.timedelta64 | None,
    keep_bars: bool,
    partition_rows: Sequence[int] | None,
) -> dd.DataFrame:
    """Add columns to a Dask frame of clean bars, as `add_features` does."""
    max_gap_ns = None if max_gap is None else to_duration(max_gap, "max_gap", positive=True)
    if not (hasattr(frame, "map_overlap") and hasattr(frame, "columns")):
        raise UsageError(
            f"add_{added.kind}s needs a dask DataFrame, got a {type(frame).__name__}; read_bars "
            "gives one, and so does dask.dataframe.from_pandas(frame, npartitions=4)"
        )
    needed = ["symbol", *added.inputs]
    if max_gap_ns is not None and TIMESTAMP not in needed:
        needed.append(TIMESTAMP)
    _check_columns(frame._meta, needed, added, keep_bars=keep_bars)
    columns = [name for name in needed if name in frame.columns]
    counts = _partition_rows(frame, partition_rows, columns[-1])
    source = _without_short_partitions(
        frame if keep_bars else frame[columns], counts, max(added.before, added.after)
    )
    no_rows = np.empty((0, len(added.names)), np.float32)
    overlapped = source.map_overlap(
        _with_columns,
        added.before,
        added.after,
        added,
        max_gap_ns,
        keep_bars,
        meta=_joined(source._meta, no_rows, added, keep_bars),
    )
    # A column picked from a map_overlap is an error in Dask (dask#12122); from what follows it,
    # it is not. The two are fused into one task.
    return overlapped.map_partitions(_unchanged, meta=overlapped._meta)


def _with_columns(
    bars: pd.DataFrame, added: AddedColumns, max_gap_ns: int | None, keep_bars: bool
) -> pd.DataFrame:
    """Compute the rows of one partition with the rows of its neighbours that they read.

    Those rows, which lack bars here themselves, are what Dask cuts off again.
    """
    columns = arrays_of(bars, added.inputs)
    time = np.empty(0, np.int64) if max_gap_ns is None else arrays_of(bars, [TIMESTAMP])[TIMESTAMP]
    starts = segment_starts(time, _symbol_codes(bars["symbol"]), max_gap_ns)
    return _joined(bars, added.compute(columns, starts), added, keep_bars)


def _joined(
    bars: pd.DataFrame, rows: npt.NDArray[np.float32], added: AddedColumns, keep_bars: bool
) -> pd.DataFrame:
    """Put the rows into a frame without copying them, beside the bars if those are kept."""
    columns = pd.DataFrame(rows, index=bars.index, columns=list(added.names), copy=False)
    return pd.concat([bars, columns], axis=1) if keep_bars else columns


def _unchanged(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def _symbol_codes(symbols: pd.Series[Any]) -> npt.NDArray[np.integer[Any]]:
    """Numbers that differ where neighbouring symbols do."""
    if isinstance(symbols.dtype, pd.CategoricalDtype):
        return symbols.cat.codes.to_numpy()
    values = symbols.array
    codes = np.zeros(len(values), np.int64)
    np.cumsum(np.asarray(values[1:] != values[:-1], dtype=bool), out=codes[1:])
    return codes


def _check_columns(
    meta: pd.DataFrame, needed: Sequence[str], added: AddedColumns, *, keep_bars: bool
) -> None:
    known = known_inputs(meta)
    require_inputs(added.readers, known, kind=added.kind, bars="the bars of the frame")
    missing = [name for name in needed if name not in known]
    if missing:
        raise ColumnError(
            f"the frame needs the column(s) {', '.join(missing)}; it has {', '.join(known)}. "
            "Rename its columns, or use read_bars"
        )
    for name in added.inputs:
        if name != TIMESTAMP and meta[name].dtype != np.float64:
            raise ColumnError(
                f"column {name!r} must be float64, got {meta[name].dtype}; "
                "use .astype('float64') on it"
            )
    is_column = TIMESTAMP in needed and TIMESTAMP in meta.columns
    if is_column and not pd.api.types.is_datetime64_any_dtype(meta[TIMESTAMP].dtype):
        raise ColumnError(
            f"column 'timestamp' must hold datetimes, got {meta[TIMESTAMP].dtype}; "
            "use dask.dataframe.to_datetime on it"
        )
    twice = [name for name in added.names if name in meta.columns]
    if keep_bars and twice:
        raise UsageError(
            f"the frame has columns named like the {added.kind}s {', '.join(twice)}; "
            "drop them, or pass keep_bars=False"
        )


def _partition_rows(
    frame: dd.DataFrame, partition_rows: Sequence[int] | None, column: str
) -> list[int]:
    if partition_rows is None:
        partition_rows = frame[[column]].map_partitions(len, meta=(None, "int64")).compute()
    counts = [int(rows) for rows in partition_rows]
    if len(counts) != frame.npartitions or min(counts) < 0:
        raise UsageError(
            f"partition_rows must hold the rows of each of {frame.npartitions} partitions, "
            f"got {len(counts)} numbers"
        )
    return counts


def _groups(counts: Sequence[int], least: int) -> list[tuple[int, int]]:
    """Cut partitions into runs, half-open, each of at least `least` rows where there are so many.

    What is left at the end goes to the last run.
    """
    groups: list[tuple[int, int]] = []
    begin, rows = 0, 0
    for place, count in enumerate(counts):
        rows += count
        if rows >= least:
            groups.append((begin, place + 1))
            begin, rows = place + 1, 0
    if begin < len(counts):
        begin = groups.pop()[0] if groups else 0
        groups.append((begin, len(counts)))
    return groups


def _without_short_partitions(
    frame: dd.DataFrame, counts: Sequence[int], least: int
) -> dd.DataFrame:
    groups = _groups(counts, max(1, least))
    if len(groups) == len(counts):
        return frame
    import dask
    import dask.dataframe as dd
    from dask.dataframe.methods import concat

    parts = frame.to_delayed()
    merge = dask.delayed(concat, pure=True)
    merged = [
        parts[begin] if stop - begin == 1 else merge(parts[begin:stop]) for begin, stop in groups
    ]
    return dd.from_delayed(merged, meta=frame._meta, verify_meta=False)
