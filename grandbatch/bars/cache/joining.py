"""Joining a cache that is there with the bars of files that were added to its inputs.

Bars are in the order of symbol, then of files: new ones come to the end of their symbol's. Files of
parts are linked, or, in an object store, copied by it. Those of one reading are one file, of all
symbols; small ones are written as one, so that they stay few however often a cache grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.digests import STORED, CacheFile, PartRows, copy_parts
from grandbatch.bars.cache.extremes import Extremes, extremes_of
from grandbatch.bars.cache.manifest import Part, PartPlace
from grandbatch.bars.cache.parts import (
    MOST_PARTS,
    BarsOfPart,
    file_name,
    file_number,
    write_parts,
)
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import copy_file, copy_files, local_copy, remove
from grandbatch.files.whole import link_or_copy, written_aside

T = TypeVar("T")

TAIL_ROWS = 4_096
"""Files with fewer bars of a symbol, in the mean, may be written anew with those that come."""

LAYER_ROWS = 16_384
"""As long as young files have no more bars together they are one: 0.8 MB are written in no time."""

_KEPT = "kept/"
_MOST_ROWS = 131_072
"""Bars of one symbol that are held at once."""


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

        In an object store no file changes its name any more: there these have names of their own.
        """
        parts = list(self.bars.parts)
        if not is_remote(self.bars.path):
            return parts
        names = {path: _KEPT + file_name(n) for n, path in enumerate(files_by_age(parts))}
        return [replace(part, path=names[part.path]) for part in parts]

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
    def next_file(self) -> int:
        """Number of the next file of parts."""
        return 1 + max(map(file_number, {part.path for part in self.bars.parts}))

    @property
    def facts(self) -> dict[str, Any]:
        """What the cache says of itself for growing."""
        assert self.bars.growth is not None
        return self.bars.growth


@dataclass(frozen=True, eq=False)
class HeldPart:
    """A part whose bars are held, and lie in no file yet."""

    symbol: int
    path: str
    """Of the file in which it belongs."""
    first_time: int
    last_time: int
    bars: BarsOfPart

    @property
    def rows(self) -> int:
        """Bars."""
        return len(self.bars[0])


AnyPart = Part | HeldPart
APart = TypeVar("APart", Part, HeldPart, AnyPart)


@dataclass(frozen=True)
class JoinedParts:
    """The parts of a cache that grew."""

    symbols: list[str]
    parts: list[Part]
    """In bars order."""
    written: list[str]
    """Paths of files that are new."""
    seen: dict[PartPlace, Extremes]
    """What there is to tell of those parts that were written here."""


def join_caches(
    base: Base, target: Path, symbols: Sequence[str], parts: Sequence[AnyPart]
) -> JoinedParts:
    """Put the parts of a cache before new ones of the same symbols.

    Parameters
    ----------
    base : Base
    target : Path
        Where the new cache is built, and new parts lie, under names that the base has not.
    symbols : sequence of str
        Of the new parts, sorted.
    parts : sequence of Part or HeldPart
        The new ones, in bars order; those that are held are written.

    Raises
    ------
    DamagedBarsError
        If what must be written anew is not what was written.
    """
    bars = base.bars
    names = sorted({*bars.symbols, *symbols})
    code_of = {name: code for code, name in enumerate(names)}
    old = _renumbered(base.parts, [code_of[name] for name in bars.symbols])
    new = _renumbered(parts, [code_of[name] for name in symbols])
    merged = files_to_merge(old, new)
    there = {now.path: before.path for now, before in zip(old, bars.parts, strict=True)}
    _take_over(base, target, [(there[path], path) for path in there if path not in merged])
    planned = _planned(old, new, merged)
    to_write: dict[str, list[list[AnyPart]]] = {}
    for path, of in planned:
        if path != of[0].path or isinstance(of[0], HeldPart):
            to_write.setdefault(path, []).append(of)
    places = {path: (target, path) for path in merged}
    places.update((path, (bars.files, there[path])) for path in merged.intersection(there))
    made: dict[str, Iterator[Part]] = {}
    seen: dict[PartPlace, Extremes] = {}
    for path, some in to_write.items():
        found, looks = _write(target / path, places, some, bars.extra)
        made[path] = iter(found)
        seen.update(zip((part.place for part in found), looks, strict=True))
    joined = [
        next(made[path]) if path in made or isinstance(first, HeldPart) else first
        for path, (first, *_) in planned
    ]
    in_files = dict.fromkeys(part.path for part in new if isinstance(part, Part))
    for left in merged.intersection(in_files):
        remove(target / left)
    written = [*(path for path in in_files if path not in merged), *made]
    return JoinedParts(names, joined, written, seen)


def _take_over(base: Base, target: Path, taken: Sequence[tuple[str, str]]) -> None:
    """Put files of a cache, by their names there and here, where another is built."""
    places = [(base.bars.files / name, target / path) for name, path in taken]
    if is_remote(target):
        copy_files(places)
        return
    for source, place in places:
        link_or_copy(source, place)


def _planned(
    old: Sequence[Part], new: Sequence[AnyPart], merged: Set[str]
) -> list[tuple[str, list[AnyPart]]]:
    """Say of each part, in bars order, in which file it is to lie, and of which parts it is made.

    Of each symbol those in files that are `merged` are one part, in files behind those of the new.
    """
    planned: list[list[AnyPart]] = []
    for part in sorted([*old, *new], key=lambda part: part.symbol):  # old ones stay before new
        of = planned[-1] if planned and part.path in merged else []
        if of and of[0].symbol == part.symbol and of[0].path in merged:
            of.append(part)
        else:
            planned.append([part])
    next_file = 1 + max((file_number(part.path) for part in new), default=0)
    names = (file_name(next_file + place // MOST_PARTS) for place in count())
    return [(next(names) if of[0].path in merged else of[0].path, of) for of in planned]


def _renumbered(parts: Sequence[APart], codes: Sequence[int]) -> list[APart]:
    """Give parts' symbols the numbers that they have among others."""
    return [
        part if codes[part.symbol] == part.symbol else replace(part, symbol=codes[part.symbol])
        for part in parts
    ]


def files_by_age(parts: Sequence[AnyPart]) -> list[str]:
    """List the files of parts, which are in bars order, the oldest first.

    Numbers tell. At a URL, where parts of blocks keep their names, those that were taken over from
    another cache are older than the others, which came in bars order.
    """
    paths = list(dict.fromkeys(part.path for part in parts))
    if not any("/" in path for path in paths):
        return sorted(paths, key=file_number)
    kept = sorted((path for path in paths if path.startswith(_KEPT)), key=file_number)
    return [*kept, *(path for path in paths if not path.startswith(_KEPT))]


def files_to_merge(old: Sequence[Part], new: Sequence[AnyPart]) -> set[str]:
    """Choose the files that are written as one with those of new parts, the youngest ones.

    They hold the last bars of their symbols. As long as they are small they become one each time;
    then two of about a size do, so that a bar is written again the more seldom the more there are;
    and not where symbols have enough in them.
    """
    by_file: dict[str, list[AnyPart]] = {}
    for part in [*old, *new]:
        by_file.setdefault(part.path, []).append(part)
    rows: Counter[int] = Counter()
    chosen: list[str] = []
    by_age = [*files_by_age(old), *files_by_age(new)] if new else []
    for path in reversed(by_age):
        own: Counter[int] = Counter()
        for part in by_file[path]:
            own[part.symbol] += part.rows
        together = own + rows
        n_rows = together.total()
        is_enough = n_rows > TAIL_ROWS * len(together) or max(together.values()) > _MOST_ROWS
        if is_enough or (chosen and own.total() > rows.total() and n_rows > LAYER_ROWS):
            break
        chosen.append(path)
        rows = together
    return set(chosen) if len(chosen) > 1 else set()


def _write(
    target: Path,
    places: Mapping[str, tuple[Path, str]],
    sources: Sequence[Sequence[AnyPart]],
    extra: Sequence[str],
) -> tuple[list[Part], list[Extremes]]:
    """Write parts, each of several of a symbol, into a file; return what there is to tell of each.

    `places` are, of the files in which these lie, the cache, and their names there.
    """
    looks: list[Extremes] = []
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(closing(CacheFile(*places[name])))
            for name in {part.path for of in sources for part in of if isinstance(part, Part)}
        }

        def bars() -> Iterator[BarsOfPart]:
            for some in _in_batches(sources):
                for times, numbers in _read(files, some, (*STORED, *extra)):
                    looks.append(extremes_of(times, numbers[1], numbers[2], numbers[4]))
                    yield times, numbers

        digests = write_parts(target, bars(), extra)
    parts = [
        Part(of[0].symbol, target.name, of[0].first_time, of[-1].last_time, one)
        for of, one in zip(sources, digests, strict=True)
    ]
    return parts, looks


def _in_batches(sources: Sequence[Sequence[AnyPart]]) -> Iterator[list[Sequence[AnyPart]]]:
    """Gather what is read at once: no more bars than may be held of one symbol."""
    batch: list[Sequence[AnyPart]] = []
    n_rows = 0
    for parts in sources:
        rows = sum(part.rows for part in parts)
        if batch and n_rows + rows > _MOST_ROWS:
            yield batch
            batch, n_rows = [], 0
        batch.append(parts)
        n_rows += rows
    if batch:
        yield batch


def _read(
    files: Mapping[str, CacheFile], sources: Sequence[Sequence[AnyPart]], names: Sequence[str]
) -> Iterator[BarsOfPart]:
    """Read bars of some symbols, each of several parts: of a file all that lies there together."""
    n_rows = sum(part.rows for parts in sources for part in parts)
    times, numbers = np.empty(n_rows, np.int64), np.empty((len(names) - 1, n_rows))
    wanted: dict[str, list[PartRows]] = {}
    at = 0
    for part in chain.from_iterable(sources):
        here = slice(at, at + part.rows)
        out = times[here], *numbers[:, here]
        if isinstance(part, HeldPart):
            for values, held in zip(out, (part.bars[0], *part.bars[1]), strict=True):
                values[:] = held
        else:
            rows = PartRows(part.path, part.digests, (0, part.rows), out)
            wanted.setdefault(part.path, []).append(rows)
        at = here.stop
    for path, some in wanted.items():
        copy_parts(files[path], some, names)
    at = 0
    for parts in sources:
        here = slice(at, at + sum(part.rows for part in parts))
        yield times[here], [*numbers[:, here]]
        at = here.stop


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
