"""Bars as Parquet files: one symbol each, plain float64 columns, no nulls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 65_536
"""Small enough that a reader of few rows reads little else, large enough to read at full speed."""

NUMBERS = ("open", "high", "low", "close", "volume")

_SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("ns", tz="UTC"), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in NUMBERS),
    ]
)


def write_part(
    path: Path, times: npt.NDArray[np.int64], numbers: Sequence[npt.NDArray[np.float64]]
) -> None:
    """Write bars of one symbol, plain and uncompressed: reading is a copy."""
    arrays = [pa.array(times).view(_SCHEMA.field(0).type), *(pa.array(n) for n in numbers)]
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=_SCHEMA),
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )


@lru_cache(maxsize=4096)
def _footer(path: str, mtime_ns: int, size: int) -> Any:
    """Footer of a file; a cache that was built anew has files with other times."""
    return pq.read_metadata(path)


def read_part(
    path: Path, start: int, stop: int, columns: Sequence[str], out: Sequence[npt.NDArray[Any]]
) -> None:
    """Copy the rows from `start` up to `stop` of some columns into `out`.

    Safe from several threads: each call opens the file for itself.
    """
    status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, on a hot path)
    footer = _footer(str(path), status.st_mtime_ns, status.st_size)
    with pq.ParquetFile(path, metadata=footer, memory_map=True, pre_buffer=False) as file:
        for group in range(start // ROW_GROUP_ROWS, -(-stop // ROW_GROUP_ROWS)):
            first = group * ROW_GROUP_ROWS
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
            low, high = max(start - first, 0), min(stop - first, table.num_rows)
            at = first + low - start
            for name, values in zip(columns, out, strict=True):
                for chunk in table[name].slice(low, high - low).chunks:
                    view = chunk.view(pa.int64()) if name == "timestamp" else chunk
                    values[at : at + len(chunk)] = view.to_numpy()
                    at += len(chunk)
                at = first + low - start
