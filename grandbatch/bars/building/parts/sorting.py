"""Sorting bars out of core: blocks that are each sorted, merged by ranges of a symbol's time.

What a merge holds is bounded by the size of a part, not of a file. The bars of a time all meet in
one part: of those the first in the input stands, or the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import (
    SAMPLE_ROWS,
    BlockJob,
    BlockRecord,
    SymbolRows,
    add_bad_rows,
    block_path,
    in_runs,
)
from grandbatch.bars.building.parts.assembly import (
    PART_ROWS,
    Dealing,
    Held,
    PlannedPart,
    deal,
    plan_by_symbol,
    write_files,
)
from grandbatch.bars.building.raw import open_raw_bars
from grandbatch.bars.cache.digests import STORED, PartDigests
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import BarsOfPart
from grandbatch.bars.rules import BarRules
from grandbatch.files.locations import location_of
from grandbatch.kernels.bars.bar_rules import DUPLICATE_TIMESTAMP, NEVER
from grandbatch.scheduling import Schedule

Int64 = npt.NDArray[np.int64]

_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class MergedPart:
    """What became of a planned part."""

    first_time: int
    last_time: int
    again: tuple[tuple[int, Int64], ...]
    """Bars with whose time another stands: records, and rows in their blocks."""
    n_differing: int
    """Bars with the time of a bar before, and other numbers."""


def plan_sorted_parts(
    records: Sequence[BlockRecord], part_rows: int = PART_ROWS
) -> tuple[list[str], list[PlannedPart]]:
    """Cut all records' sorted bars by symbol and time, into about `part_rows` each.

    Returns
    -------
    symbols : list of str
        Those with bars, sorted.
    parts : list of PlannedPart
        In bars order, with bars from `first_time` up to but without `last_time`; their `rows` are
        about as many as they will have.
    """
    return plan_by_symbol(records, _plan_symbol, min(part_rows, PART_ROWS))


def _plan_symbol(code: int, held: Sequence[Held], part_rows: int) -> Iterable[PlannedPart]:
    bounds = [NEVER, *_cut_times([one.rows for one in held], part_rows), _FOREVER]
    for low, high in pairwise(bounds):
        slices = tuple(
            one.slice
            for one in held
            if one.rows.first_time < high and one.rows.last_candidate >= low
        )
        yield PlannedPart(
            symbol=code,
            rows=min(sum(place.stop - place.start for place in slices), part_rows),
            first_time=low,
            last_time=high,
            finished=None,
            slices=slices,
        )


def _cut_times(held: Sequence[SymbolRows], part_rows: int) -> list[int]:
    """Choose times that part a symbol's bars into runs of about `part_rows`."""
    if sum(rows.rows for rows in held) <= part_rows:
        return []
    samples = [rows.sample for rows in held if rows.sample is not None]
    times = np.concatenate(samples)
    weights = [
        np.minimum(SAMPLE_ROWS, rows.rows - SAMPLE_ROWS * np.arange(len(sample)))
        for rows, sample in zip(held, samples, strict=True)
    ]
    order = np.argsort(times, kind="stable")
    before = np.cumsum(np.concatenate(weights)[order])
    places = np.searchsorted(before, np.arange(part_rows, before[-1], part_rows))
    return [int(time) for time in np.unique(times[order][places]) if time > times.min()]


def merge_parts(
    parts: Sequence[PlannedPart],
    blocks_folder: str,
    target: str,
    keeps_last: bool,
    extra: Sequence[str],
) -> list[tuple[MergedPart, PartDigests]]:
    """Write parts, with some extra columns, from what their slices hold of their time."""
    merged: list[MergedPart] = []

    def bars() -> Iterator[BarsOfPart]:
        for part in parts:
            of_part, found = _merge_part(part, location_of(blocks_folder), keeps_last, extra)
            merged.append(found)
            yield of_part

    written = write_files(target, parts, bars(), extra)
    return list(zip(merged, written, strict=True))


def sort_bars(
    records: Sequence[BlockRecord],
    tasks: Sequence[BlockJob],
    folders: tuple[Path, Path],
    rules: BarRules,
    schedule: Schedule,
    dealing: Dealing,
) -> tuple[list[str], list[Part], list[Any], int]:
    """Merge the blocks' sorted bars into parts.

    Parameters
    ----------
    records, tasks : sequence of BlockRecord, sequence of BlockJob
    folders : (Path, Path)
        Where the blocks' bars are, and where parts are written.
    rules : BarRules
    schedule : Schedule
    dealing : Dealing

    Returns
    -------
    symbols : list of str
    parts : list of Part
        In bars order.
    again : list
        Tasks that turn bars with a time that comes again into bad rows, and return the records.
    n_differing : int
    """
    blocks_folder, target = folders
    symbols, planned = plan_sorted_parts(records, dealing.rows)
    shared = str(blocks_folder), str(target), rules.duplicates == "last", rules.extra
    groups = deal(planned, dealing)
    results = schedule.run([partial(merge_parts, group, *shared) for group in groups])
    merged = [now for of_group in results for now, _ in of_group]
    parts = [
        Part(plan.symbol, plan.path, now.first_time, now.last_time, digests)
        for group, of_group in zip(groups, results, strict=True)
        for plan, (now, digests) in zip(group, of_group, strict=True)
    ]
    again: dict[int, list[Any]] = {}
    for number, rows in (entry for now in merged for entry in now.again):
        again.setdefault(number, []).append(rows)
    runs = [
        [(task, records[task.index], np.sort(np.concatenate(again[task.index]))) for task in run]
        for run in in_runs([tasks[number] for number in sorted(again)], 1)
    ]
    turned = [partial(add_bad_rows, run, DUPLICATE_TIMESTAMP) for run in runs]
    return symbols, parts, turned, sum(now.n_differing for now in merged)


def _merge_part(
    part: PlannedPart, blocks_folder: Path, keeps_last: bool, extra: Sequence[str]
) -> tuple[BarsOfPart, MergedPart]:
    # behind the columns of a part, of which row each bar is
    columns, origins = _gather(part, blocks_folder, len(STORED) + len(extra) + 1)
    order = np.argsort(columns[0], kind="stable")
    times = columns[0][order]
    is_twin = times[1:] == times[:-1]
    gives_way = np.append(is_twin, False) if keeps_last else np.append(False, is_twin)
    kept, again = order[~gives_way], order[gives_way]
    numbers = columns[1:-1].view(np.float64)
    later, earlier = order[1:][is_twin], order[:-1][is_twin]
    one, other = (numbers[:, rows] + 0.0 for rows in (later, earlier))
    differs = (one.view(np.int64) != other.view(np.int64)).any(axis=0)  # a gap is like another
    times = columns[0][kept]
    records = origins[again]
    return (times, [values[kept] for values in numbers]), MergedPart(
        first_time=int(times[0]),
        last_time=int(times[-1]),
        again=tuple(
            (int(record), columns[-1][again[records == record]]) for record in np.unique(records)
        ),
        n_differing=int(differs.sum()),
    )


def _gather(part: PlannedPart, folder: Path, n_columns: int) -> tuple[Int64, Int64]:
    """Read the bars of a part's time from all its slices, and of which record each is."""
    found = []
    for held in part.slices:
        with open_raw_bars(block_path(folder, held.record, "raw"), held.n_rows) as raw:
            low = raw.find(held.start, held.stop, part.first_time)
            high = raw.find(low, held.stop, part.last_time)
        if low < high:
            found.append((held, low, high))
    columns = np.empty((n_columns, sum(high - low for _, low, high in found)), np.int64)
    at = 0
    for held, low, high in found:
        with open_raw_bars(block_path(folder, held.record, "raw"), held.n_rows) as raw:
            raw.read(low, high, columns[:, at : at + high - low])
        at += high - low
    records = [held.record for held, _, _ in found]
    return columns, np.repeat(records, [high - low for _, low, high in found])
