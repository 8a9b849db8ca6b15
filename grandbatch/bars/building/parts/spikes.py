"""Bars that leap out and back: found in the parts of a cache, and put into the quarantine.

Whether a bar is a spike depends on its two neighbours among the bars that all other rules leave,
also where these lie in other parts, and on nothing else. A symbol's first and last bar are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grandbatch.bars.building.block import BlockRecord
from grandbatch.bars.building.parts.looking import runs_of_parts
from grandbatch.bars.building.parts.made import PartsMade
from grandbatch.bars.building.quarantine import Find
from grandbatch.bars.cache.digests import read_part
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import write_part
from grandbatch.bars.reading.rows import Rows
from grandbatch.files.locations import location_of
from grandbatch.files.verbs import remove
from grandbatch.kernels.bars.bar_rules import SPIKE

Int64 = npt.NDArray[np.int64]
Neighbours = tuple[Part | None, Part, Part | None]

_NEVER = np.empty(0, np.int64)

SpikeTimes = Mapping[str, Int64]
"""Times of spikes by symbol, rising."""


def remove_spikes(made: PartsMade, max_jump: float) -> PartsMade:
    """Quarantine spikes, and write the parts that held them anew.

    Parameters
    ----------
    made : PartsMade
    max_jump : float
        Share of a neighbour's price.

    Returns
    -------
    PartsMade
        What stands then; parts without a bar are gone.
    """
    times: dict[Part, Int64] = {}
    runs = list(runs_of_parts(made.parts))
    beside = _neighbours(made.parts)
    target = str(made.target)
    finding = [
        partial(find_spikes, target, [beside[part.path] for part in run], max_jump) for run in runs
    ]
    for run, found in zip(runs, made.joining.run(finding), strict=True):
        times.update((part, of) for part, of in zip(run, found, strict=True) if len(of))
    if not times:
        return made
    by_symbol: dict[str, list[Int64]] = {}
    for part, of in times.items():
        by_symbol.setdefault(made.symbols[part.symbol], []).append(of)
    everywhere = {name: np.concatenate(of) for name, of in by_symbol.items()}
    writing = [partial(write_without, target, part, of) for part, of in times.items()]
    rewritten = dict(zip(times, made.joining.run(writing), strict=True))
    left = [rewritten.get(part, part) for part in made.parts]
    return replace(
        made,
        parts=[part for part in left if part is not None],
        records=made.quarantine(SPIKE, partial(_finder, everywhere)),
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
    return [_find_spikes(location_of(target), *of, max_jump) for of in parts]


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
    path = location_of(target) / part.path
    names = part.digests.columns
    values = [np.empty(part.rows, np.int64), *np.empty((len(names) - 1, part.rows))]
    read_part(location_of(target), part.path, part.digests, (0, part.rows), names, values)
    kept = ~np.isin(values[0], times)
    if not kept.any():
        remove(path)
        return None
    own, *numbers = (column[kept] for column in values)
    digests = write_part(path, own, numbers, part.digests.extra)
    return replace(part, first_time=int(own[0]), last_time=int(own[-1]), digests=digests)


def _finder(times: SpikeTimes, record: BlockRecord) -> Find | None:
    """How to find the rows of some bars in a block that may hold them."""
    held: dict[str, Int64] = {}
    for symbol in record.symbols:
        own = times.get(symbol.name, _NEVER)
        low, high = np.searchsorted(own, [symbol.first_time, symbol.last_time + 1])
        if symbol.rows and low < high:
            held[symbol.name] = own[low:high]
    return partial(are_of_times, held) if held else None


def are_of_times(times: SpikeTimes, rows: Rows) -> tuple[npt.NDArray[np.bool_], None]:
    """Find the rows of some symbols and times."""
    found = np.zeros(len(rows), np.bool_)
    for code, name in enumerate(rows.symbols):
        if name in times:
            found |= (rows.codes == code) & np.isin(rows.times, times[name])
    return found, None
