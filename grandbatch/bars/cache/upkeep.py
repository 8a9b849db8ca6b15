"""Looking after a folder of caches: what is there, whose it is, its bad rows, clearing it.

Listing imports neither dask nor pandas nor pyarrow; reading a quarantine imports pyarrow.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grandbatch.bars.cache.bars import Bars, load_bars, open_bars
from grandbatch.bars.cache.keeping import (
    STAGING,
    leases_of,
    put_aside_unused,
    remove_abandoned,
)
from grandbatch.bars.cache.manifest import MANIFEST, cache_folders
from grandbatch.bars.cache.published import remove_objects, sweep_others
from grandbatch.errors import DamagedBarsError, InputError, UsageError
from grandbatch.files.leases import living_holders
from grandbatch.files.locations import is_remote, reaching
from grandbatch.files.verbs import local_copy, sizes_below
from grandbatch.scheduling import Schedule, admit_readers, call_waves

logger = logging.getLogger(__name__)

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class CacheEntry:
    """One cache in a folder of caches.

    Parameters
    ----------
    path : Path
    n_bytes : int
        On disk.
    bars : Bars or None
        None where files of it are missing, or it is of another format.
    """

    path: Path
    n_bytes: int
    bars: Bars | None


@dataclass(frozen=True)
class BadRow:
    """A row that is no bar: where it stands, what it says, and which rule it breaks."""

    file: str
    line: int
    text: str
    reason: str
    column: str = ""
    """The extra column that breaks it, if one does."""

    def to_json(self) -> dict[str, str | int]:
        """Return it as JSON types; without a column where there is none to name."""
        value = asdict(self)
        return value if self.column else {name: value[name] for name in value if name != "column"}


def list_caches(cache_dir: Path) -> list[CacheEntry]:
    """List the caches in a folder, by name; none where there is no such folder."""
    if is_remote(cache_dir):
        return _list_objects(cache_dir)
    return [CacheEntry(path, _size(path), open_bars(path)) for path in cache_folders(cache_dir)]


def clear_caches(
    cache_dir: Path, chosen: Sequence[str] = ()
) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Remove caches, and what killed builds left; builds make them again from their inputs.

    One that a process uses stays. In an object store that is not known: where another process
    builds there, or in its place beside stores, all stay.

    Parameters
    ----------
    cache_dir : Path
    chosen : sequence of str
        Beginnings of the fingerprints of those to remove; none means all.

    Returns
    -------
    removed, used : list of CacheEntry
        What was removed, and what was not.

    Raises
    ------
    UsageError
        If a beginning fits no cache.
    StoreUnreachableError
        If the object store can't be reached.
    """
    entries = list_caches(cache_dir)
    for beginning in chosen:
        if not any(entry.path.name.startswith(beginning) for entry in entries):
            raise UsageError(f"no cache in {cache_dir} begins with {beginning!r}; see cache list")
    if chosen:
        entries = [entry for entry in entries if entry.path.name.startswith(tuple(chosen))]
    if is_remote(cache_dir):
        return _clear_objects(cache_dir, entries)
    removed = [entry for entry in entries if put_aside_unused(entry.path)]
    remove_abandoned(cache_dir)
    return removed, [entry for entry in entries if entry not in removed]


def _clear_objects(
    cache_dir: Path, entries: list[CacheEntry]
) -> tuple[list[CacheEntry], list[CacheEntry]]:
    with reaching(cache_dir):
        living = living_holders(leases_of(cache_dir))
        if living:
            logger.warning("nothing is removed: %s builds there", ", ".join(living))
            return [], entries
        for entry in entries:
            remove_objects(entry.path)
        sweep_others(cache_dir, STAGING)
    return entries, []


def cache_problems(cache: Path, schedule: Schedule | None = None) -> tuple[int, list[str]]:
    """Read all of a cache; return its parts, and what of it is not as it was written.

    On a cluster its tasks do, and every worker must reach the cache itself.

    Raises
    ------
    StoreError
        If a worker can't take part.
    """
    try:
        bars = load_bars(cache)
    except DamagedBarsError as error:
        return 0, [str(error)]
    numbers = range(len(bars.parts) + 1)
    if schedule is None or schedule.is_local:
        return len(bars.parts), check_some(CacheCheck(bars, numbers))
    schedule = admit_readers(schedule, bars.path / MANIFEST)
    jobs = (CacheCheck(bars, range(number, number + 1)) for number in numbers)
    found = schedule.run_waves(call_waves(check_some, jobs))
    return len(bars.parts), [problem for problems in found for problem in problems]


@dataclass(frozen=True, eq=False)
class CacheCheck:
    """Some parts of a cache, by their numbers, to be checked; the quarantine is behind the last."""

    bars: Bars
    numbers: range


def check_some(job: CacheCheck) -> list[str]:
    """Say what of some parts of a cache is not as it was written."""
    return [str(problem) for problem in job.bars.problems(job.numbers)]


def caches_of(attrs: Mapping[str, Any], cache_dir: Path) -> list[Bars]:
    """Return the caches that a store with these attributes can have been built from.

    Equal are inputs, symbols, counts of bars and of bad rows, and the first and last time. More
    than one is found only where bars were read by rules that differ in none of these.
    """
    return [
        entry.bars
        for entry in list_caches(cache_dir)
        if entry.bars is not None
        and entry.bars.source == attrs["source"]
        and entry.bars.n_rows == attrs["n_rows"]
        and list(entry.bars.symbols) == attrs["symbols"]
        and entry.bars.quarantined == attrs["quarantined"]
        and (entry.bars.first_time, entry.bars.last_time)
        == (attrs["first_time"], attrs["last_time"])
    ]


def iter_bad_rows(cache: Path) -> Iterator[BadRow]:
    """Read the quarantine of a cache, in file order, few rows at a time.

    Raises
    ------
    InputError
        If there is no such cache.
    DamagedBarsError
        If it is not what was written.
    """
    import pyarrow.parquet as pq

    try:
        bars = load_bars(cache)
        bars.check_quarantine()
    except FileNotFoundError:
        raise InputError(
            f"{cache}: no bars cache of this version is there, and bad rows are in nothing else; "
            "build again to see them"
        ) from None

    with local_copy(bars.quarantine_path) as path, pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                yield BadRow(**row)


def sample_bad_rows(bars: Bars, per_reason: int) -> dict[str, list[BadRow]]:
    """Return the first bad rows of each reason, at most `per_reason` each."""
    found: dict[str, list[BadRow]] = {reason: [] for reason in bars.quarantined}
    missing = Counter({r: min(per_reason, count) for r, count in bars.quarantined.items()})
    for row in iter_bad_rows(bars.path) if missing.total() else ():
        if missing[row.reason]:
            missing[row.reason] -= 1
            found[row.reason].append(row)
            if not missing.total():
                break
    return found


def _list_objects(cache_dir: Path) -> list[CacheEntry]:
    """List the caches in a folder of an object store, by name."""
    sizes = sizes_below(cache_dir)
    found = []
    for name in sorted(sizes):
        folder, _, rest = name.partition("/")
        if rest != MANIFEST or folder.startswith(STAGING):
            continue
        bars = open_bars(cache_dir / folder)
        inside = {f"{folder}/"} if bars is None else {f"{folder}/", f"{bars.files.name}/"}
        n_bytes = sum(n for file, n in sizes.items() if file.startswith(tuple(inside)))
        found.append(CacheEntry(cache_dir / folder, n_bytes, bars))
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
