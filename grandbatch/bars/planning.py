"""Plan the reading of inputs: how each is written, and which blocks it is read in."""

from __future__ import annotations

import gzip
import itertools
import secrets
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from dask import delayed

from grandbatch.bars.blocks import Block, cut_file, text_of
from grandbatch.bars.evidence import UNSETTLED, Evidence, Meaning, total
from grandbatch.bars.inputs import LEAF_BYTES, InputFile, hash_leaves, join_leaves
from grandbatch.bars.layout import SAMPLE_BYTES, CsvLayout, read_layout
from grandbatch.bars.opening import open_raw
from grandbatch.bars.parsing import parse_rows
from grandbatch.bars.pieces import PieceTask
from grandbatch.bars.row_groups import TableBlock
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.bars.tables import TableLayout, read_table_layout, sniff_table
from grandbatch.bars.times import TimeForm
from grandbatch.errors import InputError
from grandbatch.kernels.csv_rows import PADDING
from grandbatch.scheduling import Schedule

DEFAULT_BLOCK_BYTES = 2 * LEAF_BYTES
_numbers = itertools.count(10**12 - 1, -1)
_UNPACK_BYTES = 1024 * 1024
_TEXT_BYTES_PER_ROW = 64  # for Parquet, so that its blocks hold about as many rows as CSV's


@dataclass
class Source:
    """One input, and what is known of how it is written."""

    file: InputFile
    layout: CsvLayout | TableLayout
    sniffed: Evidence
    """Of the file's first rows."""
    digest: str | None = None
    """None until the file is read."""
    meaning: Meaning = UNSETTLED
    """The verdict so far."""

    @property
    def first_line(self) -> int:
        """Line number of the first line after the header."""
        return self.layout.header_lines + 1 if isinstance(self.layout, CsvLayout) else 1


def task_of(function: Callable[..., Any], *values: Any) -> Any:
    """Make a Dask task of a call. Tasks run about in the order in which they were made."""
    # Dask takes independent tasks by their keys, the last first; its own keys are random
    key = f"{function.__name__}-{next(_numbers):012d}-{secrets.token_hex(8)}"
    return delayed(function, pure=False, traverse=False)(*values, dask_key_name=key)


def likely_block_bytes(files: Sequence[InputFile], workers: int) -> int:
    """Bytes of a block: less for little data, so that all workers have some."""
    leaves = sum(file.size for file in files) // (2 * max(workers, 1) * LEAF_BYTES)
    return min(DEFAULT_BLOCK_BYTES, max(leaves, 1) * LEAF_BYTES)


def plan_reading(
    files: Sequence[InputFile],
    rules: BarRules,
    schedule: Schedule,
    staging: Path,
    block_bytes: int,
) -> tuple[list[Source], list[PieceTask]]:
    """Look at each file's beginning, and cut it into blocks; compressed files are unpacked first.

    Returns
    -------
    sources : list of Source
        One for each file.
    tasks : list of PieceTask
        One for each block, in input order; they write into the folder ``pieces`` of `staging`.
    """
    unpacked = _unpack_all(files, schedule, staging)
    sources: list[Source] = []
    tasks: list[PieceTask] = []
    for number, file in enumerate(files):
        text, digest = unpacked.get(number, (None, None))
        source, blocks = _look_into(file, text, rules, block_bytes)
        source.digest = digest
        sources.append(source)
        for block in blocks:
            task = PieceTask(
                index=len(tasks),
                file=number,
                block=block,
                layout=source.layout,
                form=TimeForm(source.meaning, rules.timezone, rules.timestamp_format),
                symbol=_symbol_of(source, rules),
                allow_non_positive=rules.allow_non_positive,
                hashed=file.kind == "csv" and block_bytes % LEAF_BYTES == 0,
                folder=str(staging / "pieces"),
                sort=rules.sort,
            )
            tasks.append(task)
    everywhere = total([source.sniffed for source in sources])
    for source in sources:
        source.meaning = source.meaning.settled(source.sniffed, everywhere, rules)
    return sources, under_verdicts(tasks, sources)


def under_verdicts(tasks: Sequence[PieceTask], sources: Sequence[Source]) -> list[PieceTask]:
    """Give each task the verdict on its file's timestamps."""
    return [
        replace(task, form=replace(task.form, meaning=sources[task.file].meaning)) for task in tasks
    ]


def _look_into(
    file: InputFile, unpacked: Path | None, rules: BarRules, block_bytes: int
) -> tuple[Source, Sequence[Block | TableBlock]]:
    if file.kind == "parquet":
        rows = max(block_bytes // _TEXT_BYTES_PER_ROW, 1)
        layout, table_blocks = read_table_layout(file.location, rules, rows)
        return Source(file, layout, sniff_table(table_blocks[0], layout, rules)), table_blocks
    location = file.location if unpacked is None else str(unpacked)
    size = file.size if unpacked is None else unpacked.stat().st_size
    with open_raw(location, SAMPLE_BYTES + 1) as raw:
        csv_layout, sample = read_layout(raw, file.location, rules)
    blocks = cut_file(location, size, csv_layout.data_start, block_bytes)
    return Source(file, csv_layout, _sniff(csv_layout, sample, rules)), blocks


def _sniff(layout: CsvLayout, sample: bytes, rules: BarRules) -> Evidence:
    """Evidence of a file's first rows."""
    text = text_of(np.frombuffer(bytearray(sample + bytes(PADDING)), np.uint8))
    form = TimeForm(strptime=rules.timestamp_format)
    return parse_rows(text, layout, form, DEFAULT_SYMBOL).evidence


def _symbol_of(source: Source, rules: BarRules) -> str | None:
    if rules.symbol is not None:
        return rules.symbol
    if rules.symbol_from == "filename":
        return source.file.stem
    return DEFAULT_SYMBOL if source.layout.columns.symbol is None else None


def _unpack_all(
    files: Sequence[InputFile], schedule: Schedule, staging: Path
) -> dict[int, tuple[Path, str]]:
    """Unpack compressed files, so that all workers can read their text; path and digest of each."""
    numbers = [number for number, file in enumerate(files) if file.kind == "gzip"]
    paths = [staging / f"{number:07d}.csv" for number in numbers]
    digests = schedule.run(
        [
            task_of(unpack, files[number].location, files[number].size, path)
            for number, path in zip(numbers, paths, strict=True)
        ]
    )
    return dict(zip(numbers, zip(paths, digests, strict=True), strict=True))


def unpack(packed: str, size: int, target: Path) -> str:
    """Unpack a .gz file in bounded memory; return the digest of the packed bytes."""
    try:
        with (
            open_raw(packed, LEAF_BYTES) as file,
            gzip.open(file, "rb") as source,
            target.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, _UNPACK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{packed}: not a whole .gz file ({error}); copy it again") from None
    if not target.stat().st_size:
        raise InputError(f"{packed}: the file is empty; it needs a header and bars")
    return join_leaves(hash_leaves(packed, 0, size))
