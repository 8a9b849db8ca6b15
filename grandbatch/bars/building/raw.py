"""Blocks' bars on their way to parts: a file of columns for each block, read by ranges of rows.

A file is open only while it is read, and never mapped: a task that joins ten thousand blocks holds
one descriptor, and no memory but what it asked for. At a URL, a range is a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grandbatch.errors import InputError
from grandbatch.files.locations import File, is_remote
from grandbatch.files.verbs import RangesOfObject, not_here, open_ranges
from grandbatch.files.whole import write_whole

Int64 = npt.NDArray[np.int64]

_VALUE_BYTES = 8


@dataclass(frozen=True)
class RawBars:
    """An open file of a block's bars: columns of `n_rows` int64, times the first."""

    file: File
    path: Path
    n_rows: int

    def read(self, start: int, stop: int, out: Int64) -> None:
        """Read rows of the first `len(out)` columns; `out` is (columns, stop - start) int64."""
        places = [(column * self.n_rows + start) * _VALUE_BYTES for column in range(len(out))]
        if isinstance(self.file, RangesOfObject):
            self.file.fetch([(at, at + (stop - start) * _VALUE_BYTES) for at in places])
        for place, values in zip(places, out, strict=True):
            if self.file.read_into([values.data], place) != values.nbytes:
                raise InputError(f"{self.path}: became shorter while it was read; run again")

    def find(self, start: int, stop: int, time: int) -> int:
        """Return the first of some rows, rising in time, that isn't before a time."""
        if is_remote(self.path):
            times = np.empty((1, stop - start), np.int64)
            self.read(start, stop, times)
            return start + int(np.searchsorted(times[0], time))
        value = np.empty(1, np.int64)

        def time_at(row: int) -> int:
            self.file.read_into([value.data], row * _VALUE_BYTES)
            return int(value[0])

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
        with closing(open_ranges(path)) as file:
            yield RawBars(file, path, n_rows)
    except FileNotFoundError as error:  # of an object only when it is read
        raise not_here(path, f"can't be seen ({error.strerror})") from None
