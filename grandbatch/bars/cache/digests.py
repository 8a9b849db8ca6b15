"""What the files of a cache must be, and reading them no other way.

A part's values lie behind one another, group by group and column by column, in the very form that
arrays have: they are read into place, and compared with their crc32c. No Parquet is decoded, and
its footer is not read; a full check covers that, too. Several parts may lie in one file: each byte
of it belongs to one of them, the footer to the last.
"""

from __future__ import annotations

import base64
import errno
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedBarsError
from grandbatch.files.locations import File, is_remote, open_location
from grandbatch.files.ordinary import NO_ORDINARY_FILE
from grandbatch.files.verbs import RangesOfObject, each, objects_of
from grandbatch.values.checksums import crc32c
from grandbatch.values.columns import BAR_COLUMNS

GROUP_ROWS = 16_384
"""Rows of a group: few enough for one Parquet page, and to read little else where few are wanted;
enough to read at full speed."""

STORED = tuple(name for name in BAR_COLUMNS if name != "symbol")
"""Columns of a part, in its order, 8 bytes a value; extra columns stand behind them."""

_VALUE_BYTES = 8
_MAGIC_BYTES = 4
_FEW_ROWS = 2_048
"""Of a part with so few all columns are read at once."""
_FEW_BYTES = 2**18
"""A part of so few is read at once to digest what of it is no values."""
_STEP_BYTES = 2**20
"""At most so much of parts that lie behind one another is read at once, and of a file digested."""
_ROWS_AT_ONCE = 2**19
"""What is fetched from several parts at once is held twice for a while: no more rows than that."""


@dataclass(frozen=True)
class PartDigests:
    """What a part of `rows` bars must be, byte for byte."""

    rows: int
    offset: int
    """Where in its file its bytes begin."""
    bytes: int
    headers: tuple[int, int]
    """Bytes before the values of each column: of whole groups, and of the last."""
    values: str
    """crc32c of each column of each group, (groups, columns) uint32 in base64."""
    others: int
    """crc32c of all other bytes."""
    extra: tuple[str, ...] = ()
    """Names of the columns behind the five."""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return *STORED, *self.extra

    @property
    def n_groups(self) -> int:
        """Groups of rows; all but the last are whole."""
        return -(-self.rows // GROUP_ROWS)

    def places(self, group: int) -> tuple[int, int, int]:
        """Where the first column of a group has its values, how far on the next, how many each."""
        n_rows = min(GROUP_ROWS, self.rows - group * GROUP_ROWS)
        whole = self.headers[0] + _VALUE_BYTES * GROUP_ROWS
        header = self.headers[group == self.n_groups - 1]
        n_columns = len(STORED) + len(self.extra)
        first = self.offset or _MAGIC_BYTES
        return first + group * n_columns * whole + header, header + _VALUE_BYTES * n_rows, n_rows

    def place(self, group: int, column: int) -> tuple[int, int]:
        """Where the values of a column of a group begin, and how many there are."""
        first, step, n_rows = self.places(group)
        return first + column * step, n_rows

    def checksums(self) -> npt.NDArray[np.uint32]:
        """crc32c of each column of each group, (groups, columns) uint32."""
        packed = np.frombuffer(base64.b64decode(self.values), "<u4")
        return packed.reshape(self.n_groups, len(self.columns))


def pack_checksums(columns: Sequence[npt.NDArray[Any]]) -> str:
    """Digest the values of a part's columns, as `PartDigests` holds them."""
    starts = range(0, len(columns[0]), GROUP_ROWS)
    found = [[_crc(values[at : at + GROUP_ROWS]) for values in columns] for at in starts]
    return base64.b64encode(np.array(found, "<u4").tobytes()).decode()


class CacheFile:
    """An open file of a cache; what can't be read of it is damage.

    Raises
    ------
    DamagedBarsError
        If it is not there, or no file.
    """

    def __init__(self, cache: Path, name: str) -> None:
        self.cache, self.name = cache, name
        self.is_remote = is_remote(cache)
        self._ranges = RangesOfObject(objects_of(cache / name)) if self.is_remote else None
        try:
            self._file: File = self._ranges or open_location(cache / name)
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedBarsError(
                f"{cache / name}: the bars cache was cleared while it was in use, or lies on a "
                "disk that not all workers share",
                "run the same command again",
            ) from None
        except OSError as error:
            if error.errno not in NO_ORDINARY_FILE:
                raise
            raise damaged(cache, f"{name}: {error.strerror}") from None

    def fetch(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Be told places, and numbers of values there, that come next: at a URL all at once."""
        if self._ranges is not None:
            self._ranges.fetch([(at, at + n * _VALUE_BYTES) for at, n in wanted])

    def read_into(self, values: npt.NDArray[Any], place: int) -> int:
        """Fill an array; return how many bytes there were."""
        try:
            return self._file.read_into([values.data], place)
        except OSError as error:
            if error.errno != errno.EIO or self._ranges is not None:
                raise
            raise damaged(self.cache, f"{self.name}: {error.strerror}") from None

    def read(self, n_bytes: int, place: int) -> bytes:
        """Read bytes; fewer where the file ends before."""
        buffer = np.empty(n_bytes, np.uint8)
        return buffer[: self.read_into(buffer, place)].tobytes()

    def close(self) -> None:
        """Close it."""
        self._file.close()


class CacheFiles:
    """Files of a cache, of which the last few stay open; for one thread."""

    def __init__(self, cache: Path, most_open: int = 16) -> None:
        self._cache, self._most_open = cache, most_open
        self._open: dict[str, CacheFile] = {}

    def __getitem__(self, name: str) -> CacheFile:
        file = self._open.pop(name, None)
        if file is None:
            file = CacheFile(self._cache, name)
        self._open[name] = file
        if len(self._open) > self._most_open:
            self._open.pop(next(iter(self._open))).close()
        return file

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()


class PartRows(NamedTuple):
    """Rows of a part to read."""

    name: str
    """Of its file."""
    digests: PartDigests
    rows: tuple[int, int]
    out: Sequence[npt.NDArray[Any]]
    """Where each column goes."""


def read_part(
    cache: Path,
    name: str,
    digests: PartDigests,
    rows: tuple[int, int],
    columns: Sequence[str],
    out: Sequence[npt.NDArray[Any]],
) -> None:
    """Copy some rows of some columns of a part into `out`, as `read_rows`.

    Safe from several threads: each call opens the file for itself.
    """
    with closing(CacheFile(cache, name)) as file:
        read_rows(file, digests, rows, columns, out)


def read_rows(
    file: CacheFile,
    digests: PartDigests,
    rows: tuple[int, int],
    columns: Sequence[str],
    out: Sequence[npt.NDArray[Any]],
) -> None:
    """Copy some rows of some columns of a part in an open file into `out`.

    Raises
    ------
    DamagedBarsError
        If they are not those that were written.
    """
    start, stop = rows
    names = digests.columns
    numbers = [names.index(column) for column in columns]
    if _is_short(file, digests):
        _read_short(file, [PartRows(file.name, digests, rows, out)], numbers)
        return
    checksums = digests.checksums().tolist()
    groups = range(start // GROUP_ROWS, -(-stop // GROUP_ROWS))
    file.fetch(digests.place(group, number) for group in groups for number in numbers)
    for group in groups:
        first, (place, step, n_rows) = group * GROUP_ROWS, digests.places(group)
        low, high = max(start, first), min(stop, first + n_rows)
        is_whole = high - low == n_rows
        for number, target in zip(numbers, out, strict=True):
            rest = target[low - start : high - start]
            values = rest if is_whole else np.empty(n_rows, target.dtype)
            values = values[: file.read_into(values, place + number * step) // _VALUE_BYTES]
            if len(values) != n_rows or _crc(values) != checksums[group][number]:
                raise _not_written(file, names[number], first, n_rows)
            if not is_whole:
                rest[:] = values[low - first : high - first]


def _is_short(file: CacheFile, digests: PartDigests) -> bool:
    return digests.rows <= _FEW_ROWS and not file.is_remote


def _read_short(file: CacheFile, parts: Sequence[PartRows], numbers: Sequence[int]) -> None:
    """Copy columns, by their numbers, of short parts that lie behind one another, read at once."""
    start, n_columns = parts[0].digests.offset, len(parts[0].digests.columns)
    place, step, _ = parts[-1].digests.places(0)
    raw = np.empty(place + n_columns * step - start, np.uint8)
    n_read, view = file.read_into(raw, start), raw.data
    for _, digests, (low, high), out in parts:
        place, step, n_rows = digests.places(0)
        checksums, n_bytes = base64.b64decode(digests.values), n_rows * _VALUE_BYTES
        for number, target in zip(numbers, out, strict=True):
            at = place - start + number * step
            crc = crc32c(view[at : at + n_bytes]).to_bytes(4, "little")
            if at + n_bytes > n_read or crc != checksums[4 * number : 4 * number + 4]:
                raise _not_written(file, digests.columns[number], 0, n_rows)
            target[:] = np.frombuffer(raw, target.dtype, high - low, at + low * _VALUE_BYTES)


def _not_written(file: CacheFile, column: str, first: int, n_rows: int) -> DamagedBarsError:
    where = f"{column} of rows {first} to {first + n_rows}"
    return damaged(file.cache, f"{file.name}: {where} is not what was written")


def copy_rows(cache: Path, wanted: Sequence[PartRows], columns: Sequence[str]) -> None:
    """Copy rows of some columns from several parts, as `read_rows`; at a URL from many at once."""
    n_rows = sum(stop - start for _, _, (start, stop), _ in wanted)
    if is_remote(cache) and n_rows <= _ROWS_AT_ONCE:
        each(lambda one: read_part(cache, *one[:3], columns, one.out), wanted, far=True)
        return
    of_file: dict[str, list[PartRows]] = {}
    for one in wanted:
        of_file.setdefault(one.name, []).append(one)
    for name, some in of_file.items():
        with closing(CacheFile(cache, name)) as file:
            copy_parts(file, some, columns)


def copy_parts(file: CacheFile, parts: Sequence[PartRows], columns: Sequence[str]) -> None:
    """Copy rows of some columns from several parts in an open file, as `read_rows`."""
    for run in _runs(file, parts):
        if len(run) > 1:
            names = run[0].digests.columns
            _read_short(file, run, [names.index(column) for column in columns])
        else:
            read_rows(file, run[0].digests, run[0].rows, columns, run[0].out)


def _runs(file: CacheFile, parts: Sequence[PartRows]) -> Iterator[list[PartRows]]:
    """Gather short parts that lie behind one another in a file; the others come alone."""
    run: list[PartRows] = []
    start = stop = 0
    for one in sorted(parts, key=lambda one: one.digests.offset):
        offset, n_bytes = one.digests.offset, one.digests.bytes
        follows = offset == stop and offset + n_bytes - start <= _STEP_BYTES
        if run and not (follows and _is_short(file, one.digests)):
            yield run
            run = []
        run.append(one)
        start = run[0].digests.offset
        stop = offset + n_bytes if _is_short(file, one.digests) else -1
    if run:
        yield run


def check_part(cache: Path, name: str, digests: PartDigests) -> Iterator[DamagedBarsError]:
    """Read a part as a whole, a group at a time, and tell what is wrong with it."""
    columns = [np.empty(GROUP_ROWS) for _ in digests.columns]
    try:
        with closing(CacheFile(cache, name)) as file:
            for start in range(0, digests.rows, GROUP_ROWS):
                stop = min(start + GROUP_ROWS, digests.rows)
                found = [values[: stop - start] for values in columns]
                read_rows(file, digests, (start, stop), digests.columns, found)
            if others_crc(file, digests) != digests.others:
                raise damaged(cache, f"{name}: its headers or its footer are not what was written")
    except DamagedBarsError as error:
        yield error


def others_crc(file: CacheFile, digests: PartDigests) -> int:
    """Digest the bytes of a part that are no values: its headers, and a footer."""
    offset = digests.offset
    few = file.read(digests.bytes, offset) if digests.bytes <= _FEW_BYTES else None

    def between(start: int, stop: int) -> bytes:
        return (
            file.read(stop - start, start) if few is None else few[start - offset : stop - offset]
        )

    found, at = 0, offset
    for group in range(digests.n_groups):
        first, step, n_rows = digests.places(group)
        for place in range(first, first + len(digests.columns) * step, step):
            found = crc32c(between(at, place), found)
            at = place + n_rows * _VALUE_BYTES
    stop = offset + digests.bytes
    return crc32c(between(at, stop), found) if stop > at else found


def file_digest(cache: Path, name: str) -> tuple[int, int]:
    """Read a file, a piece at a time; return its bytes and their crc."""
    found = at = 0
    with closing(CacheFile(cache, name)) as file:
        while at % _STEP_BYTES == 0:  # a short piece is the last
            piece = file.read(_STEP_BYTES, at)
            if not piece:
                break
            found = crc32c(piece, found)
            at += len(piece)
    return at, found


def damaged(cache: Path, problem: str) -> DamagedBarsError:
    """Say what is wrong with a cache, and how its bars come back."""
    if is_remote(cache):
        return DamagedBarsError(
            f"{cache}: the bars cache is damaged: {problem}",
            "run the same command again: it reads the inputs again",
        )
    return DamagedBarsError(
        f"{cache}: the bars cache is damaged: {problem}",
        f"run: grandbatch cache clear --cache {shlex.quote(str(cache.parent))} "
        f"--only {cache.name[:16]}, and read the inputs again",
    )


def _crc(values: npt.NDArray[Any]) -> int:
    return crc32c(np.ascontiguousarray(values).data)
