"""Take over the files of an older store that new bars at the end of its inputs leave as they are.

Bars are read row by row: a row's values, and whether it is a bar, depend on the rows before it
alone; but a symbol's last bar may give way to a new row, of its time (`duplicates="last"`) or
behind a spike (`max_jump`). So where the inputs begin with those of the older store, each symbol's
bars do too, but for the last, and a window of the same symbol that ends at the same time before
that holds the same bars. A file of chunks is kept where that holds for each of its windows. It is
linked into the staging folder, checked by the sha256 in the older store's manifest, and gets its
record as if it had been written just now: its statistics are computed again. The per-window arrays
are written anew: a window that was a symbol's last has a next return now.

Three things could change a row after the fact, and each leads to a full build: a verdict on the
order of days and months, a last line without an end, and text that is compressed as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.bars.inputs.files import ends_line
from grandbatch.bars.rules import BarRules
from grandbatch.builder.chunks import FileJob, file_record
from grandbatch.builder.engines import GroupJob, direct_rows, group_jobs
from grandbatch.builder.labels import Labels, window_labels
from grandbatch.builder.plan import BuildPlan
from grandbatch.builder.reuse import Extension
from grandbatch.errors import DamagedStoreError, InputError
from grandbatch.scheduling import Schedule
from grandbatch.store.file_records import is_whole
from grandbatch.store.manifest import ChunkDigests, Manifest
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging

log = logging.getLogger("grandbatch")


@dataclass(frozen=True, eq=False)
class KeepJob:
    """Files of one group that may stay as they are, for one task to look at."""

    group: GroupJob
    store: MatrixStore
    """The older one."""
    digests: Mapping[int, ChunkDigests]
    """Of the chunks of each file, by its number."""
    codes: npt.NDArray[np.int64]
    """The index that each of the older store's symbols has now; -1 where it has none."""
    last_bars_stay: bool
    """Whether no symbol's last bar of then can have given way to a later row of its time."""


@dataclass(frozen=True)
class Kept:
    """What became of the files of a `KeepJob`, by their numbers."""

    kept: tuple[int, ...]
    n_chunks: int
    damaged: tuple[int, ...]


def keep_files(
    extension: Extension,
    bars: Bars,
    plan: BuildPlan,
    staging: Staging,
    finished: set[int],
    schedule: Schedule,
    on_result: Callable[[int], None],
    *,
    rules: BarRules,
) -> set[int]:
    """Stage the files of the older store that stay as they are, each with its record.

    Parameters
    ----------
    extension : Extension
        The older store, and how its inputs grew.
    bars, plan
        The new bars, and how they are built.
    staging : Staging
    finished : set of int
        Files that are staged already.
    schedule : Schedule
    on_result : callable
        Called with the chunks kept by each task.
    rules : BarRules
        By which both stores' bars were read.

    Returns
    -------
    set of int
        Numbers of the files kept. The log says how many, or why there are none.

    Raises
    ------
    InputError
        If an input changed since it was compared with the older store's.
    StoreChangedError
        If the older store was replaced or deleted meanwhile.
    """
    _check_inputs_stayed(extension, bars)
    old = extension.store
    gave_way = rules.duplicates == "last" and _duplicates(bars) != _duplicates(old)
    obstacle = _obstacle(extension, bars, plan)
    if gave_way and rules.sort:
        obstacle = "later rows stand instead of bars of the same time, which may be anywhere"
    if obstacle is None:
        jobs = _keep_jobs(old, bars, plan, staging, finished, last_bars_stay=not gave_way)
        # a graph as it is: `delayed` would walk through every array of every job
        graph = {("keep", number): (keep_group, job) for number, job in enumerate(jobs)}
        results: list[Kept] = schedule.run_graph(
            graph, list(graph), lambda result: on_result(result.n_chunks)
        )
        for number in sorted(number for result in results for number in result.damaged):
            path = old.path / plan.spec.data.file(number)
            log.warning("%s, or what is known of its windows, is damaged; written anew", path)
        kept = {number for result in results for number in result.kept}
        moved = _moved_symbol(old, bars)
        if kept or finished:
            more = f"; {moved}" if moved else ""
            n_files = plan.spec.data.n_files
            log.info("%s grows: %d of %d files are kept%s", old.path, len(kept), n_files, more)
            return kept
        obstacle = moved or "no file of chunks is full before the first window that changes"
    log.info("%s grows and is built from scratch: %s", old.path, obstacle)
    return set()


def _duplicates(counted: Bars | MatrixStore) -> int:
    """Rows that were left out for another one of their time."""
    counts = counted.quarantined if isinstance(counted, Bars) else counted.attrs["quarantined"]
    return int(counts.get("duplicate_timestamp", 0))


def keep_group(job: KeepJob) -> Kept:
    """Stage those files of a group that stay as they are."""
    group = job.group
    kept: list[FileJob] = []
    damaged = []
    for file in group.files:
        labels = window_labels(group.staging.spec, file.chunks, group.bars)
        try:
            if not _has_same_windows(job, file, labels):
                continue
            whole = _take_whole(job, file)
        except (DamagedStoreError, FileNotFoundError):
            whole = False
        if whole:
            kept.append(file)
        else:
            damaged.append(file.number)
    if kept:
        _write_records(job, kept)
    n_chunks = sum(len(file.chunks) for file in kept)
    return Kept(tuple(file.number for file in kept), n_chunks, tuple(damaged))


def _take_whole(job: KeepJob, file: FileJob) -> bool:
    """Stage a file of the older store, unless it is damaged."""
    group, digests, store = job.group, job.digests[file.number], job.store.path
    data = group.staging.spec.data
    path = store / data.file(file.number)
    whole = is_whole(path, data, file.number, digests.length, digests.sha256)
    if whole:
        group.staging.take_file(file.number, store)
    return whole


def _write_records(job: KeepJob, kept: Sequence[FileJob]) -> None:
    group = job.group
    features = direct_rows(group)
    for file in kept:
        digests = job.digests[file.number]
        known = {name: getattr(digests, name) for name in ("length", "crc32c", "sha256")}
        record = file_record(group.staging.spec, file, known, features)
        group.staging.write_record(record)


def _has_same_windows(job: KeepJob, file: FileJob, labels: Labels) -> bool:
    """Whether the older store's windows of a file are those of the same bars."""
    spec, old = job.group.staging.spec, job.store
    first = file.number * spec.data.shard_chunks * spec.chunk_windows
    stop = first + len(labels["end_time"])
    if not job.last_bars_stay:
        # a window that holds a symbol's last bar is that symbol's last
        of_next = old.symbol[first + 1 : stop + 1]
        if len(of_next) < stop - first or (old.symbol[first:stop] != of_next).any():
            return False
    return (
        np.array_equal(job.codes[old.symbol[first:stop]], labels["symbol"])
        and np.array_equal(old.end_time[first:stop], labels["end_time"])
        and np.array_equal(old.close_price[first:stop], labels["close_price"])
    )


def _keep_jobs(
    old: MatrixStore,
    bars: Bars,
    plan: BuildPlan,
    staging: Staging,
    finished: set[int],
    *,
    last_bars_stay: bool,
) -> list[KeepJob]:
    """Describe the groups with files that hold the windows of the same numbers in both stores."""
    data, was = plan.spec.data, old.spec.data
    windows = data.shard_chunks * plan.spec.chunk_windows
    same = min(plan.spec.n_windows, old.spec.n_windows) // windows
    if plan.spec.n_windows == old.spec.n_windows:
        same = data.n_files
    place = {name: code for code, name in enumerate(bars.symbols)}
    codes = np.array([place.get(name, -1) for name in old.symbols], np.int64)
    digests = Manifest.read(old.path).arrays[was.name]
    jobs = []
    others = finished | set(range(same, data.n_files))
    for group in group_jobs(plan, bars, staging, others):
        of_files = {}
        for file in group.files:
            first = file.number * data.shard_chunks
            chunks = slice(first, first + len(file.chunks))
            of_files[file.number] = ChunkDigests(
                digests.length[chunks],
                digests.crc32c[chunks],
                digests.sha256[chunks],
                digests.part_crc32c[:0],
            )
        jobs.append(KeepJob(group, old, of_files, codes, last_bars_stay))
    return jobs


def _check_inputs_stayed(extension: Extension, bars: Bars) -> None:
    source, grown = extension.store.attrs["source"], extension.grown
    n_same = len(source) - (grown is not None)
    if bars.source[:n_same] != source[:n_same]:
        raise InputError(
            f"{', '.join(entry['name'] for entry in source[:n_same][:5])}: a file changed while "
            "it was read; run again"
        )
    if grown is not None and not grown.is_unchanged():
        raise InputError(f"{grown.location}: the file changed while it was read; run again")


def _obstacle(extension: Extension, bars: Bars, plan: BuildPlan) -> str | None:
    """Why nothing of the older store can be kept, where that is plain beforehand."""
    old, grown = extension.store, extension.grown
    if grown is not None and grown.kind != "csv":
        return f"{grown.location} grew, and what is compressed can't be compared line by line"
    if grown is not None and not ends_line(grown, extension.old_bytes):
        return f"the last line of {grown.location} has changed"
    for entry, was, now in zip(bars.source, old.attrs["day_first"], bars.day_first, strict=False):
        if was is not None and was != now:
            first = "days" if now else "months"
            return f"the dates of {entry['name']} are now read with {first} first"
    meanings = zip(bars.source, old.attrs["time_numbers"], bars.time_numbers, strict=False)
    for entry, before, after in meanings:
        if before is not None and before != after:
            return f"timestamps of {entry['name']} that are numbers are now read as {after}"
    if plan.spec.block_rows != old.spec.block_rows:
        return (
            f"a chunk now needs blocks of {plan.spec.block_rows:,} rows "
            f"instead of {old.spec.block_rows:,}"
        )
    return None


def _moved_symbol(old: MatrixStore, bars: Bars) -> str | None:
    """Name a new symbol that comes before an old one, and so moves its windows."""
    known = set(old.symbols)
    for name, after in pairwise(bars.symbols):
        if name not in known and after in known:
            return f"the order of symbols has changed: {name} now comes before {after}"
    return None
