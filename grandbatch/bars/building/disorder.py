"""Rows that don't rise in time: what they look like, and what would make them right.

A remedy is offered only where the rows show that it gives rising times: others make things worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import BlockJob, BlockRecord, read_rows
from grandbatch.bars.reading.row_groups import OpenGroups
from grandbatch.bars.rules import DEFAULT_SYMBOL
from grandbatch.bars.timestamps.sessions import DAY, Placements
from grandbatch.bars.timestamps.texts import to_wall
from grandbatch.kernels.bars.bar_rules import ACCEPTED, OUT_OF_ORDER

Int64 = npt.NDArray[np.int64]

_MINUTE = 60_000_000_000
_BLOCKS = 8
"""Blocks to look at, from the first on that has a row out of order."""


def likely_remedy(tasks: Sequence[BlockJob], records: Sequence[BlockRecord]) -> str:
    """Say what to do about rows that are out of order.

    Parameters
    ----------
    tasks, records : sequences of BlockJob and BlockRecord
        Of the blocks from the first on; at least one row is out of order.
    """
    late = next(number for number, record in enumerate(records) if record.reasons[OUT_OF_ORDER])
    begin = max(late - 1, 0)
    name, times, files = _times_of_a_symbol(tasks[begin : late + _BLOCKS])
    wall = to_wall(times, tasks[late].form.timezone)
    ends = np.flatnonzero(np.diff(times) < 0)
    files_rise = (files[ends + 1] != files[ends]).all()
    as_it_is = [] if files_rise else [wall]  # files of one day in no order are no evenings
    for turned in (*as_it_is, wall[::-1], _by_file(wall, files)):
        start = _session_start(turned)
        if start is not None:
            clock = f"{start // (60 * _MINUTE):02d}:{start // _MINUTE % 60:02d}"
            evenings = f"evenings from {clock} on stand under the next trading day's date"
            flags = f"--session-start {clock}"
            if turned is wall:
                return (
                    f"times step back at the start of days, as where {evenings}; {flags} puts them "
                    "on the date before"
                )
            return (
                f"times run backwards, and {evenings}; --sort {flags} puts these on the date "
                "before and sorts all"
            )
    firsts, lasts = times[np.append(0, ends + 1)], times[np.append(ends, len(times) - 1)]
    before = [held for record in records[:begin] for held in record.symbols if held.name == name]
    if before:  # these rise
        firsts = np.append(firsts, before[0].first_candidate)
        lasts = np.append(lasts, before[-1].last_candidate)
    order = np.argsort(firsts)
    if (firsts[order][1:] > lasts[order][:-1]).all():
        return "--sort sorts rows by time; check first that symbols are told apart"
    if name == DEFAULT_SYMBOL and files_rise:
        return (
            "times step back where files begin; if each file is of a symbol of its own, add "
            "--symbol-from filename"
        )
    return (
        "its rows go back and forth in time, as those of several symbols do that aren't told "
        "apart; mend the file, or map the column of symbols"
    )


def _times_of_a_symbol(tasks: Sequence[BlockJob]) -> tuple[str, Int64, Int64]:
    """Return the symbol that has most rows of some blocks, their times as they come, and files."""
    found: dict[str, list[Int64]] = {}
    with OpenGroups() as groups:
        for task in tasks:
            rows, _ = read_rows(task, groups)
            for code, name in enumerate(rows.symbols):
                here = (rows.codes == code) & (rows.reasons == ACCEPTED)
                times = rows.times[here]
                files = np.full(len(times), task.file)
                found.setdefault(name, []).append(np.stack([times, files]))
    joined = {name: np.concatenate(parts, axis=1) for name, parts in found.items()}
    most = max(sorted(joined), key=lambda name: joined[name].shape[1])
    return most, *joined[most]


def _by_file(wall: Int64, files: Int64) -> Int64:
    """Return times with files in the order of their first ones."""
    begins = np.flatnonzero(np.diff(files, prepend=-1))
    parts = np.split(wall, begins[1:])
    return np.concatenate(sorted(parts, key=lambda part: int(part[:1].sum())))


def _session_start(wall: Int64) -> int | None:
    """Return from which time of day on rows belong to the date before, if that makes them rise."""
    day = wall // DAY
    back = np.flatnonzero(np.diff(wall) < 0)
    days = day[back]
    is_within = len(back) > 0 and (day[back + 1] == days).all() and (np.diff(day) >= 0).all()
    if not is_within or len(np.unique(days)) < len(days):
        return None
    # of a date with a step back, the rows before it are the evening
    evenings = wall[np.searchsorted(day, days)] - days * DAY
    start = int(evenings.min()) // _MINUTE * _MINUTE
    moved = wall.copy()
    Placements().put_back(moved, start, None)
    return start if (np.diff(moved) > 0).all() else None
