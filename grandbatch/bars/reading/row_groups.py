"""Row groups of Parquet files, read by column and a few rows at a time, never mapped.

What is held at once is bounded by a batch of rows and, for each column, a page: not by the row
group, however large. Rows can't be reached but from their group's beginning, so whoever reads
several blocks of one group reads them in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grandbatch.bars.inputs.opening import is_url, open_raw
from grandbatch.errors import InputError

BATCH_ROWS = 65_536
READ_BUFFER_BYTES = 2**20
"""Of each column so many bytes are read at once; of a remote file with each request."""
QUOTED_VALUES = 2**20
"""Where all columns are read, so many values are held at once."""

_TEXT_BYTES_PER_ROW = 64
_TEXT_BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class ParquetBlock:
    """Rows `[start, stop)` of one row group."""

    path: str
    group: int
    start: int
    stop: int
    n_bytes: int

    @property
    def read_on(self) -> tuple[str, int]:
        """What it is read on from, with others: the row group."""
        return self.path, self.group

    def most_rows(self, n_fields: int) -> int:
        """Return how many rows it has."""
        return self.stop - self.start


class OpenGroups:
    """The row groups that one task reads. What is asked for again and again is read on."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, tuple[str, ...] | None], _Cursor] = {}

    def __enter__(self) -> OpenGroups:
        return self

    def __exit__(self, *error: object) -> None:
        for cursor in self._open.values():
            cursor.close()
        self._open.clear()

    def read(
        self,
        block: ParquetBlock,
        names: tuple[str, ...] | None,
        coded: frozenset[str] = frozenset(),
    ) -> Any:
        """Read a block's rows of some columns, or of all; a table.

        Texts of the columns `coded`, or of all columns where all are read, stay what they are in
        most files, dictionaries: a text that comes again and again is held once.

        Raises
        ------
        InputError
            If the file can't be read.
        """
        key = block.path, block.group, names
        with told_plainly(block.path):
            cursor = self._open.get(key)
            if cursor is None or cursor.at > block.start:
                if cursor is not None:
                    cursor.close()
                cursor = self._open[key] = _Cursor(*key, coded, block.stop - block.start)
            return cursor.take(block.start, block.stop)


class _Cursor:
    """Where the reading of a row group stands."""

    def __init__(
        self,
        path: str,
        group: int,
        names: tuple[str, ...] | None,
        coded: frozenset[str],
        n_rows: int,
    ) -> None:
        self._path = path
        self._file = open_parquet(path)
        texts = [
            place
            for place, column in enumerate(self._file.schema)
            if column.physical_type == "BYTE_ARRAY" and (names is None or column.path in coded)
        ]
        if texts or names is None:
            footer = self._file.metadata
            self._file.close()
            buffer = READ_BUFFER_BYTES if names is not None else wide_buffer(footer.num_columns)
            self._file = open_parquet(path, buffer, metadata=footer, read_dictionary=texts or None)
        self._batches = self._file.iter_batches(
            min(n_rows, BATCH_ROWS),
            row_groups=[group],
            columns=None if names is None else list(names),
            use_threads=False,
        )
        self._rest: Any = None
        self.at = 0

    def take(self, start: int, stop: int) -> Any:
        """Return the rows from `start`, at or behind the last ones taken, up to `stop`."""
        found = []
        while self.at < stop:
            batch = self._rest
            if batch is None or not batch.num_rows:
                batch = next(self._batches, None)
            if batch is None:
                raise InputError(
                    f"{self._path}: a row group ends before row {stop:,}, and its footer says that "
                    "it has more; the file is damaged: copy it again"
                )
            low, high = max(start - self.at, 0), min(stop - self.at, batch.num_rows)
            if low < high:
                found.append(batch.slice(low, high - low))
            self.at += high
            self._rest = batch.slice(high)
        return pa.Table.from_batches(found)

    def close(self) -> None:
        self._file.close()


def block_rows(block_bytes: int, n_columns: int) -> int:
    """Return the rows of a block: about as many as lines of CSV, of so many columns, would be."""
    return max(1, block_bytes // max(_TEXT_BYTES_PER_ROW, n_columns * _TEXT_BYTES_PER_VALUE))


def quoted_rows(n_columns: int) -> int:
    """Return how many rows are held at once where all of so many columns are read."""
    return max(1, min(BATCH_ROWS, QUOTED_VALUES // max(n_columns, 1)))


def wide_buffer(n_columns: int) -> int:
    """Return how many bytes of each of so many columns are read at once where all are read."""
    return max(
        READ_BUFFER_BYTES // 16, min(READ_BUFFER_BYTES, 16 * READ_BUFFER_BYTES // max(n_columns, 1))
    )


def open_parquet(location: str, buffer_bytes: int = READ_BUFFER_BYTES, **known: Any) -> Any:
    """Open a Parquet file, local or remote; a file that shrinks is an error, no signal."""
    file = open_raw(location) if is_url(location) else location
    return pq.ParquetFile(
        file, pre_buffer=False, memory_map=False, buffer_size=buffer_bytes, **known
    )


@contextmanager
def told_plainly(location: str, problem: str = "can't be read as Parquet") -> Iterator[None]:
    """Say in one line what is wrong with a Parquet file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{location}: {problem} ({lines[0][:200]}); it is damaged, or was changed while it was "
            "read: copy it again, and run again"
        ) from None
