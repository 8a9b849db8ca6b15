"""Blocks' bars on their way to parts: a file of columns for each block, read by ranges of rows.

A file is open only while it is read, and never mapped: a task that joins ten thousand blocks holds
one descriptor, and no memory but what it asked for.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grandbatch.errors import InputError
from grandbatch.files.shared import not_here
from grandbatch.files.system import READING, read_at, read_into
from grandbatch.files.whole import write_whole

Int64 = npt.NDArray[np.int64]

_VALUE_BYTES = 8


@dataclass(frozen=True)
class RawBars:
    """An open file of a block's bars: columns of `n_rows` int64, times the first."""

    file: int
    path: Path
    n_rows: int

    def read(self, start: int, stop: int, out: Int64) -> None:
        """Read rows of the first `len(out)` columns; `out` is (columns, stop - start) int64."""
        for column, values in enumerate(out):
            place = (column * self.n_rows + start) * _VALUE_BYTES
            if read_into(self.file, [values.data], place) != values.nbytes:
                raise InputError(f"{self.path}: became shorter while it was read; run again")

    def find(self, start: int, stop: int, time: int) -> int:
        """Return the first of some rows, rising in time, that isn't before a time."""

        def time_at(row: int) -> int:
            raw = read_at(self.file, _VALUE_BYTES, row * _VALUE_BYTES)
            return int.from_bytes(raw, "little", signed=True)

        return start + bisect_left(range(start, stop), time, key=time_at)


def write_raw(path: Path, columns: Int64) -> None:
    """Write a block's bars, (columns, rows) int64, under a name of its own, and rename them."""
    write_whole(path, columns.data, durable=False, shared=True)


@contextmanager
def open_raw_bars(path: Path, n_rows: int) -> Iterator[RawBars]:
    """Open a block's bars.

    Raises
    ------
    StoreError
        If they aren't here.
    """
    try:
        file = os.open(path, READING)
    except FileNotFoundError as error:
        raise not_here(path, f"can't be seen ({error.strerror})") from None
    try:
        yield RawBars(file, path, n_rows)
    finally:
        os.close(file)
