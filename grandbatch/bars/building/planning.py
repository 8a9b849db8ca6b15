"""Plan the reading of inputs: how each is written, and which blocks it is read in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from grandbatch.bars.building.block import BlockJob
from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.dialect import SAMPLE_BYTES, CsvDialect, read_dialect, read_ending
from grandbatch.bars.inputs.digests import LEAF_BYTES, hash_leaves, join_leaves, read_exactly
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.inputs.opening import is_url, open_raw
from grandbatch.bars.inputs.packing import is_utf8, unpack
from grandbatch.bars.reading.csv_rows import parse_rows
from grandbatch.bars.reading.parquet_rows import ParquetDialect, read_parquet_dialect, sniff_parquet
from grandbatch.bars.reading.row_groups import ParquetBlock
from grandbatch.bars.reading.text_blocks import CsvBlock, cut_file, text_of
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.bars.rules.flags import offer_list
from grandbatch.bars.timestamps.evidence import NOTHING, UNSETTLED, Evidence, Meaning, total
from grandbatch.bars.timestamps.texts import TimeForm
from grandbatch.files.verbs import each, one_round, size_of
from grandbatch.kernels.bars.csv_rows import PADDING
from grandbatch.scheduling import Schedule
from grandbatch.store.notes import named

_NAMED = 10

log = logging.getLogger("grandbatch")

_HASH_BYTES = 16 * LEAF_BYTES


@dataclass
class Source:
    """One input, and what is known of how it is written."""

    file: InputFile
    dialect: CsvDialect | ParquetDialect
    sniffed: Evidence
    """Of the file's first rows."""
    digest: str | None = None
    """None until the file is read."""
    found: Evidence = NOTHING
    """Of all rows."""
    meaning: Meaning = UNSETTLED
    """The verdict so far."""

    @property
    def first_line(self) -> int:
        """Line number of the first line after the header."""
        return self.dialect.header_lines + 1


def plan_reading(
    files: Sequence[InputFile],
    rules: BarRules,
    schedule: Schedule,
    staging: Path,
    block_bytes: int,
) -> tuple[list[Source], list[BlockJob]]:
    """Look at each file's beginning, and cut it into blocks; compressed files are unpacked first.

    Returns
    -------
    sources : list of Source
        One for each file.
    tasks : list of BlockJob
        One for each block, in input order; they write into the folder ``records`` of `staging`.
    """
    unpacked = _unpack_all(files, rules, schedule, staging)

    def look_into(number: int) -> tuple[Source, Sequence[CsvBlock | ParquetBlock]]:
        return _look_into(files[number], unpacked.get(number, (None,))[0], rules, block_bytes)

    far = any(file.is_remote for file in files)
    looks = each(look_into, range(len(files)), far=far)
    sources: list[Source] = []
    tasks: list[BlockJob] = []
    for number, (file, (source, blocks)) in enumerate(zip(files, looks, strict=True)):
        text, digest = unpacked.get(number, (None, None))
        source.digest = digest
        sources.append(source)
        dialects = [replace(source.dialect, columns=one) for one in source.dialect.series]
        for block in blocks:
            for place, dialect in enumerate(dialects or [source.dialect], start=1):
                task = BlockJob(
                    index=len(tasks),
                    file=number,
                    block=block,
                    dialect=dialect,
                    form=form_of(source.meaning, rules),
                    symbol=_symbol_of(file, dialect.columns, rules),
                    rules=rules,
                    hashed=text is None
                    and place == 1
                    and file.kind == "csv"
                    and block_bytes % LEAF_BYTES == 0,
                    folder=str(staging / "pieces"),
                    ends_block=place >= len(dialects),
                )
                tasks.append(task)
    _tell_assumed(sources)
    _tell_left_out(sources)
    everywhere = total([source.sniffed for source in sources])
    for source in sources:
        source.meaning = source.meaning.settled(source.sniffed, everywhere, rules)
    return sources, under_verdicts(tasks, sources)


def _tell_assumed(sources: Sequence[Source]) -> None:
    """Tell what columns without a header are taken for, once for files that are alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for source in sources:
        if isinstance(source.dialect, CsvDialect) and source.dialect.assumed:
            alike.setdefault(source.dialect.assumed, []).append(source.file.name)
    for names, files in alike.items():
        log.warning(
            "%s: no header: columns read as %s. If they are others, name them; if not, %s says so",
            named(files),
            ", ".join(names),
            offer_list("--names", names),
        )


def _tell_left_out(sources: Sequence[Source]) -> None:
    """Name the columns of numbers that are read over, once for all files."""
    names = list(dict.fromkeys(name for source in sources for name in source.dialect.left_out))
    if names:
        log.warning(
            "%s: columns of numbers that are read over: %s. To keep some, add %s; to hear no more "
            "of them, %s (or all)",
            sources[0].file.name if len(sources) == 1 else f"{len(sources):,} files",
            named(names),
            offer_list("--extra", names[:_NAMED]),
            offer_list("--ignore-columns", names[:_NAMED]),
        )


def unhashed_ranges(
    sources: Sequence[Source], tasks: Sequence[BlockJob]
) -> list[tuple[int, int, int]]:
    """Byte ranges of files that their blocks don't digest: source, start, stop."""
    hashed = {task.file for task in tasks if task.hashed}
    return [
        (number, start, min(start + _HASH_BYTES, source.file.size))
        for number, source in enumerate(sources)
        if source.digest is None and number not in hashed
        for start in range(0, source.file.size, _HASH_BYTES)
    ]


def form_of(meaning: Meaning, rules: BarRules) -> TimeForm:
    """Return how timestamps of some meaning are read under rules."""
    start = rules.session_start_ns
    return TimeForm(meaning, rules.timezone, rules.timestamp_format, start)


def under_verdicts(tasks: Sequence[BlockJob], sources: Sequence[Source]) -> list[BlockJob]:
    """Give each task the verdict on its file's timestamps."""
    return [
        replace(task, form=replace(task.form, meaning=sources[task.file].meaning)) for task in tasks
    ]


def _look_into(
    file: InputFile, unpacked: Path | None, rules: BarRules, block_bytes: int
) -> tuple[Source, Sequence[CsvBlock | ParquetBlock]]:
    if file.kind == "parquet":
        dialect, parquet_blocks = read_parquet_dialect(
            file.location, rules, block_bytes, file.path_columns
        )
        return Source(
            file, dialect, sniff_parquet(parquet_blocks[0], dialect, rules)
        ), parquet_blocks
    location = file.location if unpacked is None else str(unpacked)
    size = file.size if unpacked is None else size_of(unpacked)

    def read(some: Callable[[BinaryIO], bytes]) -> bytes:
        with open_raw(location, SAMPLE_BYTES + 1, size) as raw:
            return some(raw)

    beginning, ending = one_round(
        partial(read, lambda raw: read_exactly(raw, SAMPLE_BYTES + 1)),
        partial(read, lambda raw: read_ending(raw, size) if size > SAMPLE_BYTES else b""),
        far=is_url(location),
    )
    named = file.full_name, rules, file.path_columns
    csv_dialect, sample = read_dialect(BytesIO(beginning), *named, ending)
    blocks = cut_file(location, size, csv_dialect.data_start, block_bytes)
    return Source(file, csv_dialect, _sniff(csv_dialect, sample, rules)), blocks


def _sniff(dialect: CsvDialect, sample: bytes, rules: BarRules) -> Evidence:
    """Evidence of a file's first rows."""
    text = text_of(np.frombuffer(bytearray(sample + bytes(PADDING)), np.uint8))
    form = TimeForm(strptime=rules.timestamp_format)
    dialect = replace(dialect, columns=replace(dialect.columns, texts=()))
    return parse_rows(text, dialect, form, DEFAULT_SYMBOL).evidence


def _symbol_of(file: InputFile, columns: ColumnMap, rules: BarRules) -> str | None:
    if rules.symbol is not None:
        return rules.symbol
    if rules.symbol_from == "filename":
        return file.stem
    symbol = file.symbol_by(rules)
    if symbol is not None:
        return symbol
    if columns.symbol_name is not None:
        return columns.symbol_name
    return DEFAULT_SYMBOL if columns.symbol is None else None


def _unpack_all(
    files: Sequence[InputFile], rules: BarRules, schedule: Schedule, staging: Path
) -> dict[int, tuple[Path, str]]:
    """Unpack files, so that all workers can read their text; path and digest of each."""
    numbers = [number for number, file in enumerate(files) if _must_unpack(file, rules)]
    paths = [staging / f"{number:07d}.csv" for number in numbers]
    packed = {files[number].location: files[number].size for number in numbers}
    tasks: list[partial[Any]] = [
        partial(unpack, file.location, file.kind, file.member, rules.encoding, path)
        for file, path in (
            (files[number], path) for number, path in zip(numbers, paths, strict=True)
        )
    ]
    tasks += [partial(hash_leaves, location, 0, size) for location, size in packed.items()]
    leaves = schedule.run(tasks)[len(numbers) :]
    digests = dict(zip(packed, map(join_leaves, leaves), strict=True))
    return {
        number: (path, digests[files[number].location])
        for number, path in zip(numbers, paths, strict=True)
    }


def _must_unpack(file: InputFile, rules: BarRules) -> bool:
    if file.kind == "csv":
        return not is_utf8(rules.encoding)
    return file.kind != "parquet"
