"""Bars as Parquet files: plain float64 columns, no nulls, and row groups of one symbol each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grandbatch.bars.cache.digests import (
    GROUP_ROWS,
    STORED,
    CacheFile,
    PartDigests,
    others_crc,
    pack_checksums,
)
from grandbatch.errors import InputError
from grandbatch.files.whole import written_aside

_TIME = pa.timestamp("ns", tz="UTC")

MOST_PARTS = 1_024
"""Parts of a file: its footer, which is held until all are written, tells of each."""

_MAX_NAME_BYTES = 200

BarsOfPart = tuple[npt.NDArray[np.int64], Sequence[npt.NDArray[np.float64]]]
"""Times of some bars of a symbol, and their numbers: five of each, and those of extra columns."""


def file_name(number: int) -> str:
    """Name of a file of parts."""
    return f"part-{number:05d}.parquet"


def file_number(name: str) -> int:
    """Return the number in the name of a file of parts."""
    return int(Path(name).stem.rpartition("-")[2])


def check_symbol(name: str) -> None:
    """Refuse what is too long for the name of a symbol.

    Raises
    ------
    InputError
    """
    n_bytes = len(name.encode())
    if n_bytes > _MAX_NAME_BYTES:
        raise InputError(
            f"symbol {name[:40]!r}… has {n_bytes} bytes, at most {_MAX_NAME_BYTES} may be; is "
            "that column the symbol?"
        )


def write_part(
    path: Path,
    times: npt.NDArray[np.int64],
    numbers: Sequence[npt.NDArray[np.float64]],
    extra: Sequence[str] = (),
) -> PartDigests:
    """Write bars of one symbol as a file of one part, as `write_parts`."""
    return write_parts(path, [(times, numbers)], extra)[0]


def write_parts(
    path: Path, parts: Iterable[BarsOfPart], extra: Sequence[str] = ()
) -> list[PartDigests]:
    """Write parts as one file, plain and uncompressed: reading is a copy.

    `extra` are the names of the columns behind the five of a bar.

    Under a name of its own, then renamed: a cluster may run a task twice at once.

    Returns
    -------
    list of PartDigests
        What must be found in the file from now on, for each part.
    """
    names = *STORED, *extra
    types = [_TIME, *[pa.float64()] * (len(names) - 1)]
    schema = pa.schema(
        [pa.field(*field, nullable=False) for field in zip(names, types, strict=True)]
    )
    checksums: list[tuple[int, str]] = []
    with written_aside(path, shared=True) as aside:
        with pq.ParquetWriter(
            aside, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            for run in _equally_long(parts):
                columns = [
                    np.concatenate(of) if len(of) > 1 else of[0] for of in zip(*run, strict=True)
                ]
                arrays = [pa.array(columns[0]).view(_TIME), *map(pa.array, columns[1:])]
                n_rows = len(run[0][0])
                rows = min(n_rows, GROUP_ROWS) or GROUP_ROWS
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), rows)
                checksums += [(n_rows, pack_checksums(part)) for part in run]
        return _digested(aside, checksums, tuple(extra))


def _equally_long(parts: Iterable[BarsOfPart]) -> Iterator[list[list[npt.NDArray[Any]]]]:
    """Gather columns of parts that follow each other and have equally many rows, few together.

    Written by one call they take the same bytes, and less time than by one each.
    """
    run: list[list[npt.NDArray[Any]]] = []
    for times, numbers in parts:
        n_rows = len(times)
        if run and not (n_rows == len(run[0][0]) and n_rows * (len(run) + 1) <= GROUP_ROWS):
            yield run
            run = []
        run.append([times, *numbers])
    if run:
        yield run


def _digested(
    path: Path, checksums: Sequence[tuple[int, str]], extra: tuple[str, ...]
) -> list[PartDigests]:
    """Say where the parts of a file are, by the rows of each and the checksums of its values."""
    footer = pq.read_metadata(path)
    headers = [
        group.column(0).total_compressed_size - 8 * group.num_rows
        for group in map(footer.row_group, range(footer.num_row_groups))
    ]
    found: list[PartDigests] = []
    first_group = at = 0
    with closing(CacheFile(path.parent, path.name)) as file:
        for rows, values in checksums:
            part = PartDigests(rows, at, 0, (0, 0), values, 0, extra)
            last_group = first_group + part.n_groups - 1
            # all columns of a group take equally many bytes: values, and as many digits
            part = replace(part, headers=(headers[first_group], headers[last_group]))
            place, n_rows = part.place(part.n_groups - 1, len(part.columns) - 1)
            is_last = len(found) + 1 == len(checksums)
            stop = path.stat().st_size if is_last else place + 8 * n_rows
            part = replace(part, bytes=stop - at)
            found.append(replace(part, others=others_crc(file, part)))
            first_group, at = last_group + 1, stop
    return found
