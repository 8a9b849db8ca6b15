"""Values that stand in for those that extra columns lack: 0, or that of the symbol's bar before.

Which value that is depends on the bars before alone, wherever they lie: it is settled in the parts
of a cache, when all other rules have left these bars, in order. So a row in the quarantine never
gives its value. Bars before the first value of a column are none, but they hand on their others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import BlockRecord
from grandbatch.bars.building.parts.looking import runs_of_parts
from grandbatch.bars.building.parts.made import PartsMade
from grandbatch.bars.building.quarantine import Faults, Find
from grandbatch.bars.cache.digests import read_part
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import write_part
from grandbatch.bars.reading.rows import Rows
from grandbatch.bars.rules import BarRules
from grandbatch.files.locations import location_of
from grandbatch.files.verbs import remove
from grandbatch.kernels.bars.bar_rules import MISSING, NEVER

Int64 = npt.NDArray[np.int64]

_FOREVER = np.iinfo(np.int64).max

FirstTimes = tuple[int, ...]
"""Of each extra column, the time of a symbol's first value; `NEVER` where it needs none before."""


@dataclass(frozen=True)
class KnownValues:
    """What a part has of one column."""

    n_missing: int
    first_time: int
    """Of the first bar with a value; later than any where there is none, and one is needed."""
    last: float
    """The last value; NaN where there is none."""


def fill_gaps(made: PartsMade, rules: BarRules) -> tuple[PartsMade, dict[str, int]]:
    """Write parts anew in which a column lacks values, and quarantine bars before the first.

    Returns
    -------
    made : PartsMade
        What stands then.
    counts : dict
        Values of each column that stand in for others.
    """
    target, symbols, parts = made.target, made.symbols, made.parts
    columns = tuple(name for name in rules.extra if rules.fill[name] != "require")
    zeros = tuple(name for name in columns if rules.fill[name] == "zero")
    shared = columns, zeros
    looking = [partial(look_at_parts, str(target), run, *shared) for run in runs_of_parts(parts)]
    looks = [look for of_run in made.joining.run(looking) for look in of_run]
    jobs = []
    firsts: dict[str, FirstTimes] = {}
    at = 0
    for code, of_symbol in groupby(parts, lambda part: part.symbol):
        own = list(of_symbol)
        seen = looks[at : at + len(own)]
        at += len(own)
        first_times = [
            min(look[column].first_time for look in seen) for column in range(len(columns))
        ]
        begin = max(first_times)
        if begin > own[0].first_time:
            firsts[symbols[code]] = _by_column(first_times, columns, rules)
        carry = [np.nan] * len(columns)
        for part, look in zip(own, seen, strict=True):
            if any(values.n_missing for values in look):
                filling = partial(fill_part, str(target), part, *shared, tuple(carry), begin)
                jobs.append((part, filling))
            carry = [
                before if np.isnan(values.last) else values.last
                for before, values in zip(carry, look, strict=True)
            ]
    counts = dict.fromkeys(columns, 0)
    written: dict[str, Part | None] = {}
    for (part, _), (left, n_filled) in zip(
        jobs, made.joining.run([task for _, task in jobs]), strict=True
    ):
        written[part.path] = left
        remove(target / part.path)
        for name, count in zip(columns, n_filled, strict=True):
            counts[name] += count
    kept = [left for part in parts if (left := written.get(part.path, part)) is not None]
    left_symbols = sorted({symbols[part.symbol] for part in kept})
    place = {name: code for code, name in enumerate(left_symbols)}
    kept = [replace(part, symbol=place[symbols[part.symbol]]) for part in kept]
    records = made.quarantine(MISSING, partial(_finder, firsts))
    return replace(made, symbols=left_symbols, parts=kept, records=records), counts


def _by_column(first_times: Sequence[int], columns: Sequence[str], rules: BarRules) -> FirstTimes:
    known = dict(zip(columns, first_times, strict=True))
    return tuple(known.get(name, NEVER) for name in rules.extra)


def look_at_parts(
    target: str, parts: Sequence[Part], columns: Sequence[str], zeros: Sequence[str]
) -> list[tuple[KnownValues, ...]]:
    """Look for the values of some columns of some parts; those in `zeros` need none."""
    folder = location_of(target)
    return [
        tuple(_look_at(folder, part, name, is_needed=name not in zeros) for name in columns)
        for part in parts
    ]


def _look_at(target: Path, part: Part, name: str, *, is_needed: bool) -> KnownValues:
    values = np.empty(part.rows)
    read_part(target, part.path, part.digests, (0, part.rows), (name,), (values,))
    known = np.flatnonzero(~np.isnan(values))
    if not is_needed:
        return KnownValues(part.rows - len(known), NEVER, np.nan)
    if not len(known):
        return KnownValues(part.rows, _FOREVER, np.nan)
    first, time = int(known[0]), np.empty(1, np.int64)
    read_part(target, part.path, part.digests, (first, first + 1), ("timestamp",), (time,))
    return KnownValues(part.rows - len(known), int(time[0]), float(values[known[-1]]))


def fill_part(
    target: str,
    part: Part,
    columns: Sequence[str],
    zeros: Sequence[str],
    carry: Sequence[float],
    begin: int,
) -> tuple[Part | None, tuple[int, ...]]:
    """Write a part anew, without gaps, beside itself: a cluster may run a task twice.

    Parameters
    ----------
    target : str
        Where it is.
    part : Part
    columns : sequence of str
        Those that may have gaps.
    zeros : sequence of str
        Those of them that have a 0 there.
    carry : sequence of float
        The last value of each in the parts before.
    begin : int
        The time of the first bar that lacks none.

    Returns
    -------
    part : Part or None
        What it is then, if there are such bars.
    n_filled : tuple of int
        Values written in each column.
    """
    path, names = f"{part.path.removesuffix('.parquet')}-filled.parquet", part.digests.columns
    times, numbers = np.empty(part.rows, np.int64), np.empty((len(names) - 1, part.rows))
    folder, out = location_of(target), [times, *numbers]
    read_part(folder, part.path, part.digests, (0, part.rows), names, out)
    start = int(np.searchsorted(times, begin))
    n_filled = []
    for name, before in zip(columns, carry, strict=True):
        values = numbers[names.index(name) - 1]
        n_filled.append(int(np.count_nonzero(np.isnan(values[start:]))))
        if name in zeros:
            values[np.isnan(values)] = 0.0
        else:
            _hand_on(values, before)
    if start == part.rows:
        return None, tuple(n_filled)
    own, left = times[start:], [values[start:] for values in numbers]
    digests = write_part(folder / path, own, left, part.digests.extra)
    kept = replace(part, path=path, first_time=int(own[0]), digests=digests)
    return kept, tuple(n_filled)


def _hand_on(values: npt.NDArray[np.float64], before: float) -> None:
    """Write the last value before over each NaN, in place."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known):
        values[: known[0]] = before
        values[known[0] :] = np.repeat(values[known], np.diff(known, append=len(values)))
    else:
        values[:] = before


def _finder(firsts: Mapping[str, FirstTimes], record: BlockRecord) -> Find | None:
    """How to find the bars before first values in a block that holds some."""
    held = {
        symbol.name: firsts[symbol.name]
        for symbol in record.symbols
        if symbol.rows and symbol.first_time < max(firsts.get(symbol.name, (NEVER,)))
    }
    return partial(lacking, held) if held else None


def lacking(firsts: Mapping[str, FirstTimes], rows: Rows) -> tuple[npt.NDArray[np.bool_], Faults]:
    """Find the bars of some symbols before their first values, and the first column at fault."""
    faults = np.zeros(len(rows), np.uint16)
    for code, name in enumerate(rows.symbols):
        for column, time in reversed(list(enumerate(firsts.get(name, ()), start=1))):
            faults[(rows.codes == code) & (rows.times < time)] = column
    return faults != 0, faults
