"""From the blocks' records to the parts of a cache: one symbol after the other, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import BlockRecord, SymbolRows, block_path
from grandbatch.bars.building.raw import open_raw_bars
from grandbatch.bars.cache.digests import STORED, PartDigests
from grandbatch.bars.cache.joining import HeldPart
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import MOST_PARTS, BarsOfPart, check_symbol, file_name, write_parts
from grandbatch.files.locations import is_remote, location_of
from grandbatch.scheduling import Schedule

PART_ROWS = 524_288
"""Bars that a part joined from records has at most, unless one record alone has more."""


@dataclass(frozen=True)
class Slice:
    """Rows of one symbol within the raw bars of a block."""

    record: int
    n_rows: int
    """Bars of all symbols in the block."""
    start: int
    stop: int


class Held(NamedTuple):
    """What a block holds of one symbol."""

    record: BlockRecord
    rows: SymbolRows
    start: int
    """Of these bars among all of the block."""

    @property
    def slice(self) -> Slice:
        """Where they are."""
        stop = self.start + self.rows.rows
        return Slice(self.record.index, self.record.n_bars, self.start, stop)


@dataclass(frozen=True)
class PlannedPart:
    """A part to be: a finished record, or slices of raw records to join."""

    symbol: int
    rows: int
    first_time: int
    last_time: int
    finished: int | None
    slices: tuple[Slice, ...]
    path: str = ""
    """Of the file in which it will lie."""


def plan_parts(
    records: Sequence[BlockRecord], part_rows: int = PART_ROWS
) -> tuple[list[str], list[PlannedPart]]:
    """Order all records' bars by symbol, then by place in the input.

    A part has at most `part_rows` bars, unless one record alone has more.

    Returns
    -------
    symbols : list of str
        Those with bars, sorted.
    parts : list of PlannedPart
        In bars order.
    """
    return plan_by_symbol(records, _plan_symbol, part_rows)


def plan_by_symbol(
    records: Sequence[BlockRecord],
    plan: Callable[[int, Sequence[Held], int], Iterable[PlannedPart]],
    part_rows: int,
) -> tuple[list[str], list[PlannedPart]]:
    """Plan the parts of each symbol by its code and what blocks hold of it."""
    by_symbol: dict[str, list[Held]] = {}
    for record in records:
        start = 0
        for rows in record.symbols:
            if rows.rows:
                by_symbol.setdefault(rows.name, []).append(Held(record, rows, start))
            start += rows.rows
    symbols = sorted(by_symbol)
    parts: list[PlannedPart] = []
    for code, name in enumerate(symbols):
        check_symbol(name)
        parts += plan(code, by_symbol[name], part_rows)
    return symbols, parts


def _plan_symbol(code: int, held: Sequence[Held], part_rows: int) -> Iterable[PlannedPart]:
    groups: list[list[Held]] = []
    n_rows = 0
    for one in held:
        joins = groups and not one.record.is_part and not groups[-1][-1].record.is_part
        if joins and n_rows + one.rows.rows <= part_rows:
            groups[-1].append(one)
            n_rows += one.rows.rows
        else:
            groups.append([one])
            n_rows = one.rows.rows
    for group in groups:
        first, last = group[0], group[-1]
        yield PlannedPart(
            symbol=code,
            rows=sum(one.rows.rows for one in group),
            first_time=first.rows.first_time,
            last_time=last.rows.last_time,
            finished=first.record.index if first.record.is_part else None,
            slices=tuple(one.slice for one in group),
        )


def take_its_name(part: PlannedPart, blocks_folder: Path, target: Path) -> PlannedPart:
    """Give a part that a block was written as the name of its file; at a URL it keeps its own."""
    if part.finished is None:
        return part
    finished = block_path(blocks_folder, part.finished, "parquet")
    if is_remote(finished):
        return replace(part, path=f"{blocks_folder.name}/{finished.name}")
    finished.replace(target / part.path)
    return part


@dataclass(frozen=True)
class Dealing:
    """How parts are dealt to files and tasks."""

    rows: int = PART_ROWS
    """Bars of a task, about."""
    alone: bool = False
    """Whether each part has a file of its own: it may be written anew."""
    first: int = 0
    """Number of the first file."""


def deal(parts: Iterable[PlannedPart], dealing: Dealing) -> list[list[PlannedPart]]:
    """Deal parts, in bars order, to tasks, and name the file of each.

    The parts of a task follow each other, and lie in one file, unless each has its own. A finished
    part has its own, and its own group.
    """
    groups: list[list[PlannedPart]] = []
    number = dealing.first - 1
    rows = 0
    for part in parts:
        before = groups[-1][-1] if groups else None
        is_apart = before is None or {part.finished, before.finished} != {None}
        if is_apart or rows + part.rows > dealing.rows or len(groups[-1]) == MOST_PARTS:
            groups.append([])
            rows = 0
        number += dealing.alone or not groups[-1]
        groups[-1].append(replace(part, path=file_name(number)))
        rows += part.rows
    return groups


def write_files(
    target: str, parts: Sequence[PlannedPart], bars: Iterator[BarsOfPart], extra: Sequence[str]
) -> list[PartDigests]:
    """Write the parts of a task, whose bars come in their order, to their files."""
    written: list[PartDigests] = []
    for path, of_file in groupby(parts, key=lambda part: part.path):
        own = islice(bars, len(list(of_file)))
        written += write_parts(location_of(target) / path, own, extra)
    return written


def join_bars(
    parts: Sequence[PlannedPart],
    records: Sequence[BlockRecord],
    folders: tuple[Path, Path],
    extra: Sequence[str],
    schedule: Schedule,
    dealing: Dealing,
    written: Callable[[Path], None],
) -> list[Part]:
    """Make parts of the blocks' bars; those that are parts already get their names.

    Parameters
    ----------
    parts : sequence of PlannedPart
    records : sequence of BlockRecord
    folders : (Path, Path)
        Where the blocks' bars are, and where parts are written.
    extra : sequence of str
        Extra columns.
    schedule : Schedule
    dealing : Dealing
    written : callable
        Told of each file that a task has written, as soon as it is.
    """
    blocks_folder, target = folders
    groups = deal(parts, dealing)
    raw = [group for group in groups if group[0].finished is None]
    shared = str(blocks_folder), str(target), extra

    def heard(found: Sequence[tuple[PlannedPart, PartDigests]]) -> None:
        for path in dict.fromkeys(part.path for part, _ in found):
            written(target / path)

    joined = iter(schedule.run([partial(join_parts, group, *shared) for group in raw], heard))
    made: list[Part] = []
    for group in groups:
        number = group[0].finished
        if number is None:
            made += [_part(part, digests) for part, digests in next(joined)]
            continue
        finished = records[number].part
        assert finished is not None
        made.append(_part(take_its_name(group[0], blocks_folder, target), finished))
    return made


def _part(planned: PlannedPart, digests: PartDigests) -> Part:
    return Part(planned.symbol, planned.path, planned.first_time, planned.last_time, digests)


def join_parts(
    parts: Sequence[PlannedPart], blocks_folder: str, target: str, extra: Sequence[str]
) -> list[tuple[PlannedPart, PartDigests]]:
    """Write parts, with some extra columns, from their slices; return what was written of each."""
    bars = iter(_gathered(parts, location_of(blocks_folder), len(extra)))
    return list(zip(parts, write_files(target, parts, bars, extra), strict=True))


def hold_parts(
    parts: Sequence[PlannedPart], blocks_folder: Path, dealing: Dealing
) -> list[HeldPart] | None:
    """Gather the bars of few parts, without extra columns; None where a task would hold fewer.

    Where blocks' bars are parts already, too, and at a URL: each is a file there.
    """
    groups = deal(parts, dealing)
    is_one = not dealing.alone and len(groups) == 1 and groups[0][0].finished is None
    if not is_one or is_remote(blocks_folder):
        return None
    return [
        HeldPart(part.symbol, part.path, part.first_time, part.last_time, bars)
        for part, bars in zip(groups[0], _gathered(groups[0], blocks_folder), strict=True)
    ]


def _gathered(parts: Sequence[PlannedPart], blocks: Path, n_extra: int = 0) -> list[BarsOfPart]:
    """Read the bars of parts from their slices."""
    starts = np.cumsum([0, *(part.rows for part in parts)])
    n_columns = len(STORED) + n_extra
    columns = np.empty((n_columns, starts[-1]), np.int64)
    for record, places in _by_record(parts, starts).items():
        path = block_path(blocks, record, "raw")
        with open_raw_bars(path, places[0][0].n_rows) as raw:
            # symbols that follow each other in the parts do so in a block, too
            low, high = places[0][0].start, places[-1][0].stop
            at = places[0][1]
            if len(places) == 1:
                raw.read(low, high, columns[:, at : at + high - low])
                continue
            rows = np.empty((n_columns, high - low), np.int64)
            raw.read(low, high, rows)
        for held, at in places:
            n_rows = held.stop - held.start
            columns[:, at : at + n_rows] = rows[:, held.start - low : held.stop - low]
    values = columns[1:].view(np.float64)
    return [
        (columns[0, start:stop], [*values[:, start:stop]])
        for start, stop in pairwise(starts.tolist())
    ]


def _by_record(
    parts: Sequence[PlannedPart], starts: npt.NDArray[np.int64]
) -> dict[int, list[tuple[Slice, int]]]:
    """Slices of each record, and where among all rows of the parts each goes."""
    found: dict[int, list[tuple[Slice, int]]] = {}
    for part, at in zip(parts, starts.tolist(), strict=False):
        for held in part.slices:
            found.setdefault(held.record, []).append((held, at))
            at += held.stop - held.start  # noqa: PLW2901 (where the next slice goes)
    return found
