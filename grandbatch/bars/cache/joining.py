"""Joining a cache that is there with the bars of files that were added to its inputs.

Bars are in the order of symbol, then of files: new ones come to the end of their symbol's. Parts
are linked, or, in an object store, copied by it; of each symbol with new bars the last one, where
it is small, is written anew with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.digests import STORED, read_part
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import write_part
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import copy_file, copy_files, local_copy, remove
from grandbatch.files.whole import link_or_copy, written_aside

T = TypeVar("T")

TAIL_ROWS = 4_096
"""A symbol's last part with fewer bars is written anew with those that come: few enough that a day
of many symbols stays a few MB, enough that parts stay few."""


@dataclass(frozen=True, eq=False)
class Base:
    """A cache to grow, and where its files stand among those of the new one."""

    bars: Bars
    places: tuple[int, ...]
    new_places: tuple[int, ...]
    """Of the files that must be read."""

    @property
    def parts(self) -> list[Part]:
        """Its parts, as they are called in the cache that grows from it.

        In an object store no part changes its name any more: there these have names of their own.
        """
        parts = list(self.bars.parts)
        if is_remote(self.bars.path):
            return [replace(p, path=f"kept/{n:07d}.parquet") for n, p in enumerate(parts)]
        return parts

    @property
    def n_files(self) -> int:
        """Of the new cache."""
        return len(self.places) + len(self.new_places)

    @property
    def n_bad_of_rows(self) -> tuple[int, int]:
        """Rows of its files that are no bars, and all of them."""
        n_bad = sum(self.bars.quarantined.values())
        return n_bad, n_bad + self.bars.n_rows

    def new_of(self, files: Sequence[T]) -> list[T]:
        """Choose those of all files that must be read."""
        return [files[place] for place in self.new_places]

    def merged(self, old: Sequence[T], new: Sequence[T]) -> list[T]:
        """Put a value for each old file, and for each new one, in the order of all files."""
        found = {
            **dict(zip(self.places, old, strict=True)),
            **dict(zip(self.new_places, new, strict=True)),
        }
        return [found[place] for place in range(self.n_files)]

    @property
    def facts(self) -> dict[str, Any]:
        """What the cache says of itself for growing."""
        assert self.bars.growth is not None
        return self.bars.growth


def join_caches(
    base: Base, target: Path, symbols: Sequence[str], parts: Sequence[Part]
) -> tuple[list[str], list[Part], list[str]]:
    """Put the parts of a cache before new ones of the same symbols.

    Parameters
    ----------
    base : Base
    target : Path
        Where the new cache is built: new parts are there under the names of a cache of their own.
    symbols : sequence of str
        Of the new parts, sorted.
    parts : sequence of Part
        The new ones, in bars order.

    Returns
    -------
    symbols : list of str
    parts : list of Part
        Of the whole cache.
    written : list of str
        Paths of new parts, to be made durable.
    """
    bars, named_for_good = base.bars, is_remote(target)
    names = sorted({*bars.symbols, *symbols})
    joined: list[Part] = []
    written: list[str] = []
    taken: list[Part] = []
    old_of = _by_symbol(bars.symbols, base.parts)
    new_of = _by_symbol(symbols, parts)
    stop_of = dict(zip(bars.symbols, bars.symbol_bounds[1:].tolist(), strict=True))
    for code, name in enumerate(names):
        old, new = old_of.get(name, []), new_of.get(name, [])
        together = bool(old and new and old[-1].rows + new[0].rows <= TAIL_ROWS)
        kept = old[:-1] if together else old
        taken += kept
        joined += [replace(part, symbol=code) for part in kept]
        if not named_for_good:
            # names of old parts are taken again: new ones go out of their way first
            new = _renumbered(target, new, 1 + max((_number(part) for part in old), default=-1))
        for number, part in enumerate(new):
            last = part
            if number == 0 and together:
                last = _together(bars, old[-1], stop_of[name], target, part)
            elif not named_for_good:
                (target / _aside(part)).replace(target / part.path)
            joined.append(replace(last, symbol=code))
            written.append(last.path)
    _take(base, taken, target)
    return names, joined, written


def _take(base: Base, parts: Sequence[Part], target: Path) -> None:
    """Take parts of a cache over into the one that grows from it."""
    bars = base.bars
    there = {p.path: bars.files / old.path for p, old in zip(base.parts, bars.parts, strict=True)}
    pairs = [(there[part.path], target / part.path) for part in parts]
    if is_remote(target):
        copy_files(pairs)
        return
    for source, path in pairs:
        path.parent.mkdir(exist_ok=True)
        link_or_copy(source, path)


def _renumbered(target: Path, parts: Sequence[Part], first: int) -> list[Part]:
    """Give parts of a symbol other numbers, and put them aside."""
    found = []
    for number, part in enumerate(parts, start=first):
        path = str(Path(part.path).with_name(f"part-{number:05d}.parquet"))
        found.append(replace(part, path=path))
        (target / part.path).replace(target / _aside(found[-1]))
    return found


def _aside(part: Part) -> str:
    return f"{part.path}.new"


def _number(part: Part) -> int:
    return int(Path(part.path).stem.rpartition("-")[2])


def _by_symbol(symbols: Sequence[str], parts: Sequence[Part]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(symbols[part.symbol], []).append(part)
    return found


def _together(bars: Bars, last: Part, stop: int, target: Path, new: Part) -> Part:
    """Write a symbol's last part, whose rows end at `stop`, with the first new one behind it."""
    columns = []
    for values in bars.read(stop - last.rows, stop, STORED).values():
        columns.append(np.empty(last.rows + new.rows, values.dtype))
        columns[-1][: last.rows] = values
    tails = [column[last.rows :] for column in columns]
    if is_remote(target):  # what is not named in the end goes with all that a build leaves
        own, path = new.path, f"joined/{new.path}"
    else:
        own, path = _aside(new), new.path
    read_part(target, own, new.digests, (0, new.rows), STORED, tails)
    remove(target / own)
    times, *numbers = columns
    digests = write_part(target / path, times, numbers)
    return replace(new, path=path, first_time=last.first_time, digests=digests)


def join_quarantines(base: Base, new: Path, target: Path, n_bad: Mapping[int, int]) -> None:
    """Write the bad rows of a cache and of new files into one quarantine, in file order.

    Parameters
    ----------
    base : Base
    new, target : Path
        The quarantine of the new files, and the file to write.
    n_bad : mapping of int to int
        Bad rows of each new file that has any, by its place among all files.

    Raises
    ------
    DamagedBarsError
        If the cache's own is not what was written.
    """
    bars = base.bars
    bars.check_quarantine()
    if not n_bad:
        take = copy_file if is_remote(target) else link_or_copy
        take(bars.quarantine_path, target)
        return
    old_rows = dict(zip(base.places, base.facts["bad_rows"], strict=True))
    with (
        local_copy(bars.quarantine_path) as old_path,
        local_copy(new) as new_path,
        written_aside(target, shared=False) as aside,
        pq.ParquetFile(old_path) as old_file,
        pq.ParquetFile(new_path) as new_file,
        pq.ParquetWriter(aside, old_file.schema_arrow) as writer,
    ):
        before, added = _Rows(old_file), _Rows(new_file)
        for place in range(base.n_files):
            source = before if place in old_rows else added
            for batch in source.take(old_rows.get(place, n_bad.get(place, 0))):
                writer.write_batch(batch)


class _Rows:
    """Rows of a Parquet file, taken from its beginning, a few at a time."""

    def __init__(self, file: Any) -> None:
        self._batches = file.iter_batches()
        self._left: Any = None

    def take(self, count: int) -> Iterator[Any]:
        """Give the next rows, in batches."""
        while count:
            if self._left is None or not self._left.num_rows:
                self._left = next(self._batches)
            batch = self._left.slice(0, count)
            self._left = self._left.slice(batch.num_rows)
            count -= batch.num_rows
            yield batch
