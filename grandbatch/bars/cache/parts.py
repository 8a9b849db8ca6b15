"""Bars as Parquet files: one symbol each, plain float64 columns, no nulls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from grandbatch.bars.cache.digests import (
    GROUP_ROWS,
    STORED,
    PartDigests,
    others_crc,
    pack_checksums,
)
from grandbatch.errors import InputError
from grandbatch.files.whole import written_aside

_TIME = pa.timestamp("ns", tz="UTC")

_MAX_NAME_BYTES = 200
_KEPT_BYTES = 120


def folder_of(symbol: str) -> str:
    """Name of a symbol's folder: hive form, with all but plain characters percent-encoded.

    Where that is too long, the name is cut, and a digest of it stands behind.

    Raises
    ------
    InputError
        If it has more bytes than any symbol.
    """
    n_bytes = len(symbol.encode())
    if n_bytes > _MAX_NAME_BYTES:
        raise InputError(
            f"symbol {symbol[:40]!r}… has {n_bytes} bytes, at most {_MAX_NAME_BYTES} may be; is "
            "that column the symbol?"
        )
    encoded = quote(symbol, safe=" ^=+@~")
    if len(encoded) > _MAX_NAME_BYTES:  # a letter of other scripts takes up to twelve
        encoded = f"{encoded[:_KEPT_BYTES]}~{hashlib.sha256(symbol.encode()).hexdigest()[:32]}"
    return f"symbol={encoded}"


def write_part(
    path: Path,
    times: npt.NDArray[np.int64],
    numbers: Sequence[npt.NDArray[np.float64]],
    extra: Sequence[str] = (),
) -> PartDigests:
    """Write bars of one symbol, plain and uncompressed: reading is a copy.

    `numbers` are the five of a bar, and the columns of the names `extra`.

    Under a name of its own, then renamed: a cluster may run a task twice at once.

    Returns
    -------
    PartDigests
        What must be found in the file from now on.
    """
    arrays = [pa.array(times).view(_TIME), *(pa.array(n) for n in numbers)]
    names = *STORED, *extra
    fields = [pa.field(n, a.type, nullable=False) for n, a in zip(names, arrays, strict=True)]
    with written_aside(path, shared=True) as aside:
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=pa.schema(fields)),
            aside,
            row_group_size=GROUP_ROWS,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
        headers = _headers(aside)
        written = PartDigests(
            len(times),
            aside.stat().st_size,
            headers,
            pack_checksums([times, *numbers]),
            0,
            tuple(extra),
        )
        return replace(written, others=others_crc(aside, written))


def _headers(path: Path) -> tuple[int, int]:
    """Bytes before the values of each column, of the first group and of the last.

    All columns of a group take equally many: their values, and numbers of as many digits.
    """
    footer = pq.read_metadata(path)
    found = []
    for number in (0, footer.num_row_groups - 1):
        group = footer.row_group(number)
        found.append(group.column(0).total_compressed_size - 8 * group.num_rows)
    return found[0], found[1]
