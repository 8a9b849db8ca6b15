"""Which bars of one cache are those of another: by the digests of parts, else row by row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.digests import STORED
from grandbatch.bars.cache.manifest import Part

Int64 = npt.NDArray[np.int64]

_READ_ROWS = 262_144


def changed_rows(old: Bars, new: Bars) -> Int64:
    """Find the bars that differ from the other cache's bar of the same symbol and place in it.

    Where the one grew from the other there are none, and nothing is read; else parts that are the
    same in both are told by the crc32c of their values.

    Returns
    -------
    (n,) int64
        Row numbers of the new cache, rising. Bars of a symbol behind the last that the other cache
        has of it, and of symbols that it doesn't have, are not among them.

    Raises
    ------
    DamagedBarsError
        If what must be read of either is not what was written.
    """
    if new.grew_from(old):
        return np.empty(0, np.int64)
    place = {name: code for code, name in enumerate(old.symbols)}
    old_parts, new_parts = _parts_of(old), _parts_of(new)
    found = [np.empty(0, np.int64)]
    for code, name in enumerate(new.symbols):
        if name in place:
            bounds = old.symbol_bounds[place[name]], new.symbol_bounds[code]
            parts = old_parts[place[name]], new_parts[code]
            found += _changed_in_symbol(old, new, int(bounds[0]), int(bounds[1]), *parts)
    return np.concatenate(found)


def _parts_of(bars: Bars) -> list[list[Part]]:
    parts: list[list[Part]] = [[] for _ in bars.symbols]
    for part in bars.parts:
        parts[part.symbol].append(part)
    return parts


def _changed_in_symbol(
    old: Bars,
    new: Bars,
    old_start: int,
    new_start: int,
    old_parts: Sequence[Part],
    new_parts: Sequence[Part],
) -> list[Int64]:
    """Compare the bars of one symbol, which begin at these rows of the two caches."""
    old_at = dict(zip(_starts(old_parts), old_parts, strict=False))
    new_at = dict(zip(_starts(new_parts), new_parts, strict=False))
    stop = min(sum(part.rows for part in old_parts), sum(part.rows for part in new_parts))
    borders = sorted({*_starts(old_parts), *_starts(new_parts), stop})
    found = []
    row = 0
    while row < stop:
        one, other = old_at.get(row), new_at.get(row)
        if one and other and (one.rows, one.digests.values) == (other.rows, other.digests.values):
            row += one.rows
            continue
        end = next(border for border in borders if border > row)
        end = min(end, row + _READ_ROWS, stop)
        found.append(
            new_start + row + _differing(old, new, old_start + row, new_start + row, end - row)
        )
        row = end
    return found


def _starts(parts: Sequence[Part]) -> list[int]:
    return list(accumulate((part.rows for part in parts), initial=0))


def _differing(old: Bars, new: Bars, old_row: int, new_row: int, n_rows: int) -> Int64:
    columns = (*STORED, *new.extra)
    a = old.read(old_row, old_row + n_rows, columns)
    b = new.read(new_row, new_row + n_rows, columns)
    differs = np.zeros(n_rows, np.bool_)
    for name in columns:
        # as bits: 0 and -0 are different values for a feature
        differs |= a[name].view(np.int64) != b[name].view(np.int64)
    return np.flatnonzero(differs)
