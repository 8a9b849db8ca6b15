"""Bars that leap out and back: found in the parts of a cache, and put into the quarantine.

Whether a bar is a spike depends on its two neighbours among the bars that all other rules leave,
also where these lie in other parts, and on nothing else. A symbol's first and last bar are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grandbatch.bars.building.block import (
    BlockJob,
    BlockRecord,
    bad_path,
    describe_rows,
    read_rows,
    write_bad_rows,
)
from grandbatch.bars.building.looking import runs_of_parts
from grandbatch.bars.building.planning import task_of
from grandbatch.bars.cache.digests import STORED, read_part
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import write_part
from grandbatch.bars.judging import judge
from grandbatch.bars.reading.row_groups import OpenGroups
from grandbatch.kernels.bars.bar_rules import ACCEPTED, SPIKE
from grandbatch.scheduling import Schedule

Int64 = npt.NDArray[np.int64]
Neighbours = tuple[Part | None, Part, Part | None]

SpikeTimes = Mapping[str, Int64]
"""Times of spikes by symbol, rising."""


def remove_spikes(
    target: Path,
    symbols: Sequence[str],
    parts: Sequence[Part],
    records: Sequence[BlockRecord],
    tasks: Sequence[BlockJob],
    reading: Schedule,
    joining: Schedule,
    max_jump: float,
) -> tuple[list[BlockRecord], list[Part]]:
    """Quarantine spikes, and write the parts that held them anew.

    Parameters
    ----------
    target : Path
        Where the parts are.
    symbols : sequence of str
    parts : sequence of Part
        In bars order.
    records, tasks
        Records of all blocks, and by which tasks they were read.
    reading, joining : Schedule
        Of tasks that read blocks, and of those that write parts.
    max_jump : float
        Share of a neighbour's price.

    Returns
    -------
    records, parts
        As they are now; parts without a bar are gone.
    """
    times: dict[Part, Int64] = {}
    runs = list(runs_of_parts(parts))
    beside = _neighbours(parts)
    finding = [
        task_of(find_spikes, str(target), [beside[part.path] for part in run], max_jump)
        for run in runs
    ]
    for run, found in zip(runs, joining.run(finding), strict=True):
        times.update((part, of) for part, of in zip(run, found, strict=True) if len(of))
    if not times:
        return list(records), list(parts)
    by_symbol: dict[str, list[Int64]] = {}
    for part, of in times.items():
        by_symbol.setdefault(symbols[part.symbol], []).append(of)
    everywhere = {name: np.concatenate(of) for name, of in by_symbol.items()}
    writing = [task_of(write_without, str(target), part, of) for part, of in times.items()]
    rewritten = dict(zip(times, joining.run(writing), strict=True))
    left = [rewritten.get(part, part) for part in parts]
    return (
        _quarantine(everywhere, records, tasks, reading),
        [part for part in left if part is not None],
    )


def _neighbours(parts: Sequence[Part]) -> dict[str, Neighbours]:
    """Return each part between those of its symbol before and behind it."""
    found: dict[str, Neighbours] = {}
    for before, part, behind in zip(
        [None, *parts[:-1]], parts, [*parts[1:], None], strict=True
    ):  # fmt: skip
        found[part.path] = (
            before if before is not None and before.symbol == part.symbol else None,
            part,
            behind if behind is not None and behind.symbol == part.symbol else None,
        )
    return found


def find_spikes(target: str, parts: Sequence[Neighbours], max_jump: float) -> list[Int64]:
    """Find the times of the spikes of some parts, each between its neighbours."""
    return [_find_spikes(Path(target), *of, max_jump) for of in parts]


def _find_spikes(
    target: Path, before: Part | None, part: Part, behind: Part | None, max_jump: float
) -> Int64:
    names = "timestamp", "high", "low"
    reaches = [(part, 0, part.rows)]
    if before is not None:
        reaches.insert(0, (before, before.rows - 1, before.rows))
    if behind is not None:
        reaches.append((behind, 0, 1))
    n_rows = sum(stop - start for _, start, stop in reaches)
    times, prices = np.empty(n_rows, np.int64), np.empty((2, n_rows))
    at = 0
    for one, start, stop in reaches:
        rows = slice(at, at + stop - start)
        out = times[rows], prices[0, rows], prices[1, rows]
        read_part(target, one.path, one.digests, (start, stop), names, out)
        at = rows.stop
    return times[1:-1][_are_spikes(prices[0], prices[1], max_jump)]


def _are_spikes(
    high: npt.NDArray[np.float64], low: npt.NDArray[np.float64], max_jump: float
) -> npt.NDArray[np.bool_]:
    """Whether bars leap out and back, of all but the first and the last."""
    found = []
    for prices, sign in ((high, 1.0), (low, -1.0)):
        before, own, behind = prices[:-2], prices[1:-1], prices[2:]
        out = sign * (own - before) > max_jump * np.abs(before)
        found.append(out & (sign * (own - behind) > max_jump * np.abs(behind)))
    return found[0] | found[1]


def write_without(target: str, part: Part, times: Int64) -> Part | None:
    """Write a part anew without the bars of some times; return what it is then, if anything."""
    path = Path(target) / part.path
    values = [np.empty(part.rows, np.int64), *np.empty((len(STORED) - 1, part.rows))]
    read_part(Path(target), part.path, part.digests, (0, part.rows), STORED, values)
    kept = ~np.isin(values[0], times)
    if not kept.any():
        path.unlink()
        return None
    own, *numbers = (column[kept] for column in values)
    digests = write_part(path, own, numbers)
    return replace(part, first_time=int(own[0]), last_time=int(own[-1]), digests=digests)


def _quarantine(
    times: SpikeTimes, records: Sequence[BlockRecord], tasks: Sequence[BlockJob], schedule: Schedule
) -> list[BlockRecord]:
    """Turn the rows of some bars into bad rows, in the blocks that may hold them."""
    left = list(records)
    jobs = []
    for record, task in zip(records, tasks, strict=True):
        held = {}
        for symbol in record.symbols:
            own = times.get(symbol.name, ())
            low, high = np.searchsorted(own, [symbol.first_time, symbol.last_time + 1])
            if symbol.rows and low < high:
                held[symbol.name] = own[low:high]
        if held:
            jobs.append(task_of(quarantine_spikes, task, record, held))
    for record in schedule.run(jobs):
        left[record.index] = record
    return left


def quarantine_spikes(task: BlockJob, record: BlockRecord, times: SpikeTimes) -> BlockRecord:
    """Turn the bars of some symbols and times into bad rows; the block is read again for them."""
    with OpenGroups() as groups:
        read, text = read_rows(task, groups)
        rows = judge(read, task.rules, task.carry, task.gives_way).rows
        are_spikes = np.zeros(len(rows), np.bool_)
        for code, name in enumerate(rows.symbols):
            if name in times:
                are_spikes |= (rows.codes == code) & np.isin(rows.times, times[name])
        spikes = np.flatnonzero(are_spikes & (rows.reasons == ACCEPTED))
        reasons = np.full(len(spikes), SPIKE, np.uint8)
        table = describe_rows(task, text, groups, spikes, reasons)
    if record.n_bad:
        before = pq.ParquetFile(bad_path(task)).read()
        # without what another run of this very task has added
        before = before.filter(pc.field("reason") != SPIKE)
        # of bars of one time, where they were sorted, those that gave way are there already
        table = table.filter(pc.invert(pc.is_in(table["line"], before["line"])))
        n_spikes = len(table)
        table = pa.concat_tables([before, table]).sort_by("line")
    else:
        n_spikes = len(table)
    if n_spikes:
        write_bad_rows(task, table)
    counts = list(record.reasons)
    counts[ACCEPTED] -= n_spikes
    counts[SPIKE] += n_spikes
    return replace(record, reasons=tuple(counts))
