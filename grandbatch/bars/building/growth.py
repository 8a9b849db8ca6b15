"""Growing a cache: where files were added to its inputs, only those are read.

Bars are in the order of symbol, then of files. So where all that a new file holds of a symbol comes
behind what the files before hold of it, and no file behind holds any, the bars that there are stay
as they are, and new ones come to the end of their symbol's. Files are linked into the new cache, or
copied by an object store itself; small ones of late are written as one with what is new.

What could change a row that is cached leads to reading all again, and is named in the log: a file
that is not among the inputs any more, rows in the order of time that lie among older ones, a bar
that gives way to a later row, timestamps whose meaning all files decide together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from grandbatch.bars.building.block import BlockJob, BlockRecord
from grandbatch.bars.building.carries import final_carries
from grandbatch.bars.building.judging import Carry
from grandbatch.bars.building.parts.looking import pack_looks, unpack_looks
from grandbatch.bars.building.planning import Source
from grandbatch.bars.building.quarantine import CLOCK_CHANGES, count_reasons, merge_bad_rows
from grandbatch.bars.cache.bars import load_bars, open_bars
from grandbatch.bars.cache.extremes import Extremes, ManyExtremes
from grandbatch.bars.cache.joining import Base, JoinedParts, join_quarantines
from grandbatch.bars.cache.manifest import Part, cache_folders
from grandbatch.bars.inputs.digests import describe_source, digests_of
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.rules import REASONS, BarRules
from grandbatch.bars.timestamps.evidence import NOTHING
from grandbatch.errors import DamagedBarsError


class EntangledError(Exception):
    """New rows could change what is cached: why."""


def find_base(files: Sequence[InputFile], cache_dir: Path, rules: BarRules) -> Base | None:
    """Find the cache that has the most of some files, was made by the same rules, and may grow."""
    if rules.max_jump is not None or rules.session_start is not None or rules.extra:
        return None  # there bars depend on later ones, on other files' days, on values carried on
    found = None
    described: dict[InputFile, dict[str, Any]] = {}
    for cache in cache_folders(cache_dir):
        bars = open_bars(cache)
        if bars is None or bars.growth is None or bars.rules != rules.identity():
            continue
        if not (len(found.places) if found else 0) < len(bars.source) < len(files):
            continue
        known = {(entry["name"], entry["bytes"]) for entry in bars.source}
        new = [f for f in files if f not in described and (f.name, f.size) in known]
        for file, digest in zip(new, digests_of(new, cache_dir), strict=True):
            described[file] = describe_source(file, digest, rules)
        places = _places(bars.source, [described.get(file) for file in files])
        if places is not None:
            others = sorted(set(range(len(files))) - set(places))
            with suppress(FileNotFoundError, DamagedBarsError):  # it went just now
                found = Base(load_bars(cache, use=True), places, tuple(others))
    return found


def _places(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, ...] | None:
    """Find the members of one list in another, in the same order; None where one is missing."""
    places, place = [], 0
    for entry in old:
        while place < len(new) and new[place] != entry:
            place += 1
        if place == len(new):
            return None
        places.append(place)
        place += 1
    return tuple(places)


def growth_facts(
    sources: Sequence[Source],
    tasks: Sequence[BlockJob],
    records: Sequence[BlockRecord],
    symbols: Sequence[str],
    looks: ManyExtremes,
    rules: BarRules,
    base: Base | None,
) -> dict[str, Any] | None:
    """Return what a cache says of itself for growing; None where it can't grow.

    Parameters
    ----------
    sources, tasks, records : sequence of Source, of BlockJob, of BlockRecord
        What was read.
    symbols : sequence of str
        Of the cache.
    looks : ManyExtremes
        At its parts.
    rules : BarRules
    base : Base or None
        What it grew from.
    """
    if not all(_decides_alone(source, rules) for source in sources) or _are_watched(tasks):
        return None
    n_files = len(sources) if base is None else base.n_files
    new_places = range(n_files) if base is None else base.new_places
    n_bad, last_file = [0] * n_files, dict.fromkeys(symbols, 0)
    before: Mapping[str, Carry] = {}
    if base is not None:
        before = standing_of(base)
        for place, count in zip(base.places, base.facts["bad_rows"], strict=True):
            n_bad[place] = count
        for name, file in zip(base.bars.symbols, base.facts["last_file"], strict=True):
            last_file[name] = base.places[file]
    for record in records:
        place = new_places[record.file]
        n_bad[place] += record.n_bad
        for held in record.symbols:
            if held.name in last_file:
                last_file[held.name] = max(last_file[held.name], place)
    standing = final_carries(records, before)
    return {
        "bad_rows": n_bad,
        "last_file": list(last_file.values()),
        "standing": [list(standing[name]) for name in symbols],
        "looks": pack_looks(looks),
        "from": None if base is None else base.bars.fingerprint,
    }


def looks_of(
    base: Base, joined: JoinedParts, look: Callable[[Sequence[Part]], list[Extremes]]
) -> ManyExtremes:
    """Return the extremes at the parts of a cache that grew: the base knows those of its own."""
    looks = unpack_looks(base.facts["looks"])
    number = {part.place: n for n, part in enumerate(base.parts)}
    others = [part for part in joined.parts if part.place not in number]
    found = iter(look([part for part in others if part.place not in joined.seen]))
    seen = [joined.seen.get(part.place) or next(found) for part in others]
    number.update((part.place, len(looks) + n) for n, part in enumerate(others))
    return looks.taken(ManyExtremes.of(seen), [number[part.place] for part in joined.parts])


def standing_of(base: Base) -> dict[str, Carry]:
    """Return the last bar of each symbol of a cache, as later rows see it."""
    carries = (Carry(*entry) for entry in base.facts["standing"])
    return dict(zip(base.bars.symbols, carries, strict=True))


def _decides_alone(source: Source, rules: BarRules) -> bool:
    """Whether other files have no say in what a file's timestamps mean."""
    own = source.found
    is_open = (
        (own.dates.rows and rules.dayfirst is None and own.dates.verdict is None)
        or (own.numbers.rows and rules.epoch_unit is None and own.numbers.verdict is None)
        or (own.clocks.rows and own.clocks.verdict is None)
    )
    return not is_open and source.meaning == source.meaning.settled(own, NOTHING, rules)


def check_independent(
    sources: Sequence[Source], tasks: Sequence[BlockJob], rules: BarRules
) -> None:
    """Check that new files, once read, leave the meaning of the others' rows alone.

    Raises
    ------
    EntangledError
    """
    for source in sources:
        if not _decides_alone(source, rules):
            raise EntangledError(
                f"the rows of {source.file.name} alone don't tell what its timestamps mean"
            )
    if _are_watched(tasks):
        raise EntangledError("text columns are compared over all files")


def _are_watched(tasks: Sequence[BlockJob]) -> bool:
    """Whether columns must not change in all files together."""
    return any(column.is_watched for task in tasks for column in task.dialect.columns.texts)


def check_behind(base: Base, records: Sequence[BlockRecord], rules: BarRules) -> None:
    """Check that new rows of a symbol come behind those that are cached.

    Raises
    ------
    EntangledError
    """
    if any(record.n_near for record in records):
        raise EntangledError("highs and lows that miss by a rounding are counted over all files")
    standing = standing_of(base)
    last_file = dict(zip(base.bars.symbols, base.facts["last_file"], strict=True))
    for record in records:
        for held in record.symbols:
            if held.name not in standing:
                continue
            if base.places[last_file[held.name]] > base.new_places[record.file]:
                raise EntangledError(f"a file behind a new one holds bars of {held.name}, too")
            time = standing[held.name].time
            if rules.sort and held.rows and held.first_time <= time:
                raise EntangledError(f"new rows of {held.name} lie among those that are cached")
            if held.replaces and held.first_candidate <= time:
                raise EntangledError(f"the last bar of {held.name} gives way to a later row")


def grow_quarantine(
    base: Base,
    path: Path,
    folder: Path,
    sources: Sequence[Source],
    records: Sequence[BlockRecord],
    rules: BarRules,
) -> None:
    """Write the quarantine of a cache and of new files.

    Parameters are those of `check_bad_rows`.

    Raises
    ------
    EntangledError
        If too many rows are bad: which, is told in view of all files.
    """
    n_bad, n_rows = base.n_bad_of_rows
    n_bad += sum(record.n_bad for record in records)
    n_rows += sum(record.n_rows for record in records)
    again = count_reasons(records).get("duplicate_timestamp")
    if not rules.allows(n_bad, n_rows) or (rules.duplicates == "raise" and again):
        raise EntangledError("too many rows are bad")
    of_file: Counter[int] = Counter()
    for record in records:
        of_file[base.new_places[record.file]] += record.n_bad
    new = folder / "quarantine"
    names = [source.file.name for source in sources]
    first_line = [source.first_line for source in sources]
    merge_bad_rows(records, folder, new, names, first_line.__getitem__, rules.extra)
    join_quarantines(base, new, path, +of_file)


def add_base(base: Base, manifest: dict[str, Any]) -> None:
    """Add what a cache says of its files to what the manifest says of the new ones."""
    bars = base.bars
    for name, kinds in (("quarantined", REASONS), ("clock_changes", CLOCK_CHANGES)):
        counts = Counter(getattr(bars, name)) + Counter(manifest[name])
        # in the order that they have where all is read at once
        manifest[name] = {kind: counts[kind] for kind in kinds if counts[kind]}
    for name in ("left_out", "widened", "differing_duplicates"):
        manifest[name] += getattr(bars, name)
    for name in ("day_first", "time_numbers"):
        manifest[name] = base.merged(getattr(bars, name), manifest[name])
