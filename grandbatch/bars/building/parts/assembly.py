"""From the blocks' records to the parts of a cache: one symbol after the other, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import BlockRecord, SymbolRows, block_path
from grandbatch.bars.building.raw import open_raw_bars
from grandbatch.bars.cache.digests import STORED, PartDigests
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import folder_of, write_part
from grandbatch.files.locations import is_remote, location_of
from grandbatch.files.verbs import make_folder
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
    path: str
    rows: int
    first_time: int
    last_time: int
    finished: int | None
    slices: tuple[Slice, ...]


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
    plan: Callable[[int, str, Sequence[Held], int], Iterable[PlannedPart]],
    part_rows: int,
) -> tuple[list[str], list[PlannedPart]]:
    """Plan the parts of each symbol by its code, its folder, and what blocks hold of it."""
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
        parts += plan(code, folder_of(name), by_symbol[name], part_rows)
    return symbols, parts


def _plan_symbol(
    code: int, folder: str, held: Sequence[Held], part_rows: int
) -> Iterable[PlannedPart]:
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
    for number, group in enumerate(groups):
        first, last = group[0], group[-1]
        yield PlannedPart(
            symbol=code,
            path=f"{folder}/part-{number:05d}.parquet",
            rows=sum(one.rows.rows for one in group),
            first_time=first.rows.first_time,
            last_time=last.rows.last_time,
            finished=first.record.index if first.record.is_part else None,
            slices=tuple(one.slice for one in group),
        )


def take_its_name(part: PlannedPart, blocks_folder: Path, target: Path) -> PlannedPart:
    """Make a part's folder, and give one that a block was written as its name.

    At a URL that keeps the name it has.
    """
    make_folder((target / part.path).parent)
    if part.finished is None:
        return part
    finished = block_path(blocks_folder, part.finished, "parquet")
    if is_remote(finished):
        return replace(part, path=f"{blocks_folder.name}/{finished.name}")
    finished.replace(target / part.path)
    return part


def group_parts(
    parts: Iterable[PlannedPart], part_rows: int = PART_ROWS
) -> list[list[PlannedPart]]:
    """Gather parts that must be joined into tasks of about `part_rows` bars."""
    groups: list[list[PlannedPart]] = []
    rows = part_rows
    for part in parts:
        if part.finished is not None:
            continue
        if rows + part.rows > part_rows:
            groups.append([])
            rows = 0
        groups[-1].append(part)
        rows += part.rows
    return groups


def join_bars(
    parts: Sequence[PlannedPart],
    records: Sequence[BlockRecord],
    folders: tuple[Path, Path],
    extra: Sequence[str],
    schedule: Schedule,
    part_rows: int,
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
    part_rows : int
    written : callable
        Told of each part that a task has written, as soon as it is.
    """
    blocks_folder, target = folders
    parts = [take_its_name(part, blocks_folder, target) for part in parts]
    digests = {
        part.path: records[part.finished].part for part in parts if part.finished is not None
    }
    shared = str(blocks_folder), str(target), extra

    def heard(group: list[tuple[PlannedPart, PartDigests]]) -> None:
        for part, found in group:
            digests[part.path] = found
            written(target / part.path)

    groups = group_parts(parts, part_rows)
    schedule.run([partial(join_parts, group, *shared) for group in groups], heard)
    joined = []
    for part in parts:
        found = digests[part.path]
        assert found is not None
        joined.append(Part(part.symbol, part.path, part.first_time, part.last_time, found))
    return joined


def join_parts(
    parts: Sequence[PlannedPart], blocks_folder: str, target: str, extra: Sequence[str]
) -> list[tuple[PlannedPart, PartDigests]]:
    """Write parts, with some extra columns, from their slices; return what was written of each."""
    starts = np.cumsum([0, *(part.rows for part in parts)])
    n_columns = len(STORED) + len(extra)
    columns = np.empty((n_columns, starts[-1]), np.int64)
    blocks = location_of(blocks_folder)
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
    written = []
    for part, start in zip(parts, starts.tolist(), strict=False):
        times, *numbers = columns[:, start : start + part.rows]
        path = location_of(target) / part.path
        values = [n.view(np.float64) for n in numbers]
        written.append((part, write_part(path, times, values, extra)))
    return written


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
