"""Take over the files of an older store whose windows are made of the same bars.

The bars of the older store are in the cache still, and the new ones mostly share their files: so it
is known which bars of a symbol are the same, and at the same place in it. A file of chunks is kept
where that holds for all that its windows read, lookback included. It is linked into the staging
folder, or stays where it is in an object store. It is checked by the sha256 in the older store's
manifest, unless it stands as it was published, and gets its record as if written just now.
So is a chunk of the per-window arrays,
where it holds for the bars ahead of its windows, too; but rows may have other numbers. Of one where
it holds for the first windows only, their values are read, and the others computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.bars.cache.comparing import changed_rows
from grandbatch.bars.inputs.files import refuse_changed
from grandbatch.builder.chunks import file_record
from grandbatch.builder.engines import GroupJob, direct_rows, group_jobs
from grandbatch.builder.growth import Corrected, corrected_bars
from grandbatch.builder.history import take_record, unchanged_files
from grandbatch.builder.labels import KeptLabels, kept_labels
from grandbatch.builder.plan import BuildPlan
from grandbatch.builder.reuse import Extension
from grandbatch.errors import DamagedBarsError, DamagedStoreError
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import each
from grandbatch.grid import Grid, Segments, Stretches
from grandbatch.scheduling import Schedule
from grandbatch.store.file_records import is_whole
from grandbatch.store.manifest import ChunkDigests, Manifest
from grandbatch.store.publish import records_folder
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging
from grandbatch.targets.rows import longest_horizon

log = logging.getLogger("grandbatch")

_BLOCK_WINDOWS = 2**20
_FILES_PER_TASK = 16
_LINKS_PER_TASK = 256
"""Files that are only linked, and their records, take many short system calls: threads that make
them at once wait for each other longer than one takes for all."""


@dataclass(frozen=True, eq=False)
class KeepJob:
    """Files that stay as they are, for one task to take over."""

    staging: Staging
    store: Path
    """The older one."""
    records: Path
    """Where records of its files are kept."""
    digests: Mapping[int, ChunkDigests]
    """Of the chunks of each file, by its number."""
    unchanged: frozenset[int]
    """Files that stand as they were published: they are not read again."""


@dataclass(frozen=True)
class Kept:
    """What became of the files of a `KeepJob`, by their numbers."""

    kept: tuple[int, ...]
    n_chunks: int
    damaged: tuple[int, ...]
    without_record: tuple[int, ...]
    """Those of the kept that need one yet."""


@dataclass(frozen=True)
class Taken:
    """What of an older store stays as it is."""

    files: set[int]
    labels: dict[int, KeptLabels]
    """Chunks of the per-window arrays that may, or begin so, by their numbers."""
    corrected: Corrected | None
    """Bars of the older store that differ now; None where that isn't known."""


def keep_files(
    extension: Extension,
    bars: Bars,
    plan: BuildPlan,
    staging: Staging,
    finished: set[int],
    schedule: Schedule,
    on_result: Callable[[int], None],
) -> Taken:
    """Stage the files of the older store that stay as they are, each with its record.

    Parameters
    ----------
    extension : Extension
        The older store, its bars, and how its inputs grew.
    bars, plan
        The new bars, and how they are built.
    staging : Staging
    finished : set of int
        Files that are staged already.
    schedule : Schedule
    on_result : callable
        Called with the chunks kept by each task.

    Returns
    -------
    Taken
        What is kept. The log says how many files, or why there are none.

    Raises
    ------
    InputError
        If an input changed since it was compared with the older store's.
    StoreChangedError
        If the older store was replaced or deleted meanwhile.
    """
    refuse_changed(extension.grown)
    old = extension.store
    changed, obstacle = _changed_rows(extension, bars)
    same, same_labels = set[int](), dict[int, int]()
    if changed is not None:
        same, same_labels, obstacle = _same_files(extension, bars, plan, changed)
    manifest, unchanged = Manifest.read(old.path), unchanged_files(old)
    chunks = manifest.arrays[old.spec.data.name]
    jobs = _keep_jobs(old, staging, sorted(same - finished), chunks, unchanged)
    calls = [partial(keep_some, job) for job in jobs]
    results: list[Kept] = schedule.run(calls, lambda result: on_result(result.n_chunks))
    without = {number for result in results for number in result.without_record}
    if without:
        digests = {number: of for job in jobs for number, of in job.digests.items()}
        others = set(range(plan.spec.data.n_files)) - without
        groups = list(group_jobs(plan, bars, staging, others))
        of_group = [{file.number: digests[file.number] for file in one.files} for one in groups]
        pairs = zip(groups, of_group, strict=True)
        schedule.run([partial(write_records, group, known) for group, known in pairs])
    for number in sorted(number for result in results for number in result.damaged):
        path = old.path / plan.spec.data.file(number)
        log.warning("%s is damaged; written anew", path)
    kept = {number for result in results for number in result.kept}
    moved = _moved_symbol(old, bars, plan)
    if kept or finished:
        n_files = plan.spec.data.n_files
        more = f"; {moved}" if moved else ""
        log.info("%s grows: %d of %d files are kept%s", old.path, len(kept), n_files, more)
    else:
        obstacle = moved or obstacle
        log.info("%s grows and is built from scratch: %s", old.path, obstacle)
    corrected = None if changed is None else corrected_bars(bars, changed)
    return Taken(kept, kept_labels(old, same_labels, manifest, unchanged), corrected)


def _changed_rows(extension: Extension, bars: Bars) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Find the bars of the older store that differ now, or say why that isn't known."""
    if extension.bars is None:
        return None, "the cache of its bars is not there any more to compare with"
    try:
        return changed_rows(extension.bars, bars), ""
    except DamagedBarsError as error:
        return None, str(error)


def _same_files(
    extension: Extension, bars: Bars, plan: BuildPlan, changed: npt.NDArray[np.int64]
) -> tuple[set[int], dict[int, int], str]:
    """Find the files whose windows read the same bars as those of the older store.

    Returns
    -------
    same : set of int
    same_labels : dict of int to int
        Chunks of the per-window arrays that say the same, but for the numbers of rows, of how many
        windows from their first on.
    obstacle : str
        Why there are none, where there are none.
    """
    old, before = extension.store, extension.bars
    assert before is not None
    spec = plan.spec
    if spec.block_rows != old.spec.block_rows:
        return (
            set(),
            {},
            (
                f"a chunk now needs blocks of {spec.block_rows:,} rows "
                f"instead of {old.spec.block_rows:,}"
            ),
        )
    try:
        old_grid = plan.settings.grid(*_cut_of(before, bars, plan))
    except DamagedBarsError as error:
        return set(), {}, str(error)
    per_file = spec.data.shard_chunks * spec.chunk_windows
    n = min(spec.n_windows, old.spec.n_windows)
    if spec.n_windows != old.spec.n_windows:
        n = n // per_file * per_file
    same: set[int] = set()
    per_label = spec.label_chunk_windows
    label_begins = np.arange(n // per_label + 1) * per_label
    label_stops = np.minimum(label_begins + per_label, n)
    ahead = max(1, longest_horizon(plan.settings.targets))
    step = max(1, _BLOCK_WINDOWS // per_file) * per_file
    grids = (before, old_grid), (bars, plan.grid)
    begin = 0 if len(changed) else min(_windows_before_changes(*grids, ahead), n)
    begin = begin // per_file * per_file
    same.update(range(begin // per_file))
    for first in range(begin, n, step):
        windows = first, min(first + step, n)
        are_same, say_same = _same_windows(windows, *grids, changed, ahead)
        counts = np.add.reduceat(~are_same, np.arange(0, len(are_same), per_file))
        same.update((first // per_file + np.flatnonzero(counts == 0)).tolist())
        others = first + np.flatnonzero(~say_same)
        np.minimum.at(label_stops, others // per_label, others)
    same_labels: dict[int, int] = {}
    if per_label == old.spec.label_chunk_windows:
        counts = (label_stops - label_begins).tolist()
        same_labels = {n: count for n, count in enumerate(counts) if count >= spec.chunk_windows}
    return same, same_labels, "no file of chunks is full before the first window that changes"


def _cut_of(before: Bars, bars: Bars, plan: BuildPlan) -> tuple[Segments, Stretches | None]:
    """Cut the older store's bars: as the new ones are, where these grew from them."""
    if not bars.grew_from(before):
        return plan.settings.cut(before)
    rows, _, symbol = _rows_before(before, bars, plan.segments.start)
    segments = Segments(rows, np.diff(rows, append=before.n_rows), symbol)
    if plan.stretches is None:
        return segments, None
    rows, taken, _ = _rows_before(before, bars, plan.stretches.start)
    return segments, Stretches(rows, plan.stretches.period[taken])


def _rows_before(
    before: Bars, bars: Bars, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    """Find the numbers that rows of grown bars had before.

    Returns
    -------
    rows : (k,) int64
        Of those that were there.
    taken : (n,) bool
        Which they are.
    symbol : (k,) int32
        Theirs, before.
    """
    codes = {name: code for code, name in enumerate(before.symbols)}
    code_before = np.array([codes.get(name, -1) for name in bars.symbols], np.int32)
    code = np.searchsorted(bars.symbol_bounds, rows, side="right") - 1
    symbol, place = code_before[code], rows - bars.symbol_bounds[code]
    taken = (symbol >= 0) & (place < np.diff(before.symbol_bounds)[symbol])
    return before.symbol_bounds[symbol[taken]] + place[taken], taken, symbol[taken]


def _windows_before_changes(before: tuple[Bars, Grid], now: tuple[Bars, Grid], ahead: int) -> int:
    """Count windows, from the first on, that are the same in two grids if no bar has changed.

    So are those bars that their labels read, up to `ahead` behind a window in its segment. Spans
    are compared, not windows: of each the last window, behind which the least is left.
    """
    reach = now[1].sequence_length + ahead
    n = min(len(grid.spans.segment) for _, grid in (before, now))
    columns = []
    for bars, grid in (before, now):
        segment, stop = grid.spans.segment[:n], grid.spans.bounds[1 : n + 1]
        begin, count = grid.spans.begin[:n], np.diff(grid.spans.bounds[: n + 1])
        symbol = grid.segments.symbol[segment]
        place = grid.segments.start[segment] - bars.symbol_bounds[symbol]
        last = grid.lookback + (begin + count - 1) * grid.stride
        left = np.minimum(grid.segments.length[segment] - last, reach)
        columns.append(np.stack([symbol, place, begin, stop, left]))
    are_same = (columns[0] == columns[1]).all(axis=0)
    # symbols keep their numbers as long as none comes before them
    names = zip(before[0].symbols, now[0].symbols, strict=False)
    n_alike = next((code for code, (one, other) in enumerate(names) if one != other), None)
    if n_alike is not None:
        are_same &= columns[1][0] < n_alike
    spans = np.append(are_same, False)
    return int(now[1].spans.bounds[np.argmin(spans)])


def _same_windows(
    windows: tuple[int, int],
    before: tuple[Bars, Grid],
    now: tuple[Bars, Grid],
    changed: npt.NDArray[np.int64],
    ahead: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether consecutive windows read the same bars in two grids, each over its bars, (W,) bool.

    And whether those are the same, too, that their labels read: up to `ahead` behind a window in
    its segment.
    """
    (old, old_grid), (new, grid) = before, now
    codes = {name: code for code, name in enumerate(new.symbols)}
    code_now = np.array([codes.get(name, -1) for name in old.symbols], np.int64)
    (old_segment, old_first), (segment, first) = old_grid.locate(*windows), grid.locate(*windows)
    old_symbol = old_grid.segments.symbol[old_segment]
    symbol = grid.segments.symbol[segment]
    place = first - new.symbol_bounds[symbol]
    old_place = old_first - old.symbol_bounds[old_symbol]
    are_same: npt.NDArray[np.bool_] = (code_now[old_symbol] == symbol) & (old_place == place)
    left = grid.segments.stops[segment] - first
    old_left = old_grid.segments.stops[old_segment] - old_first
    reach = grid.sequence_length + ahead
    say_same: npt.NDArray[np.bool_] = (
        are_same & (old_symbol == symbol) & (np.minimum(left, reach) == np.minimum(old_left, reach))
    )
    if len(changed):
        low, high, behind = (
            np.searchsorted(changed, first + rows)
            for rows in (-grid.lookback, grid.sequence_length, reach)
        )
        are_same &= low == high
        say_same &= low == behind
    return are_same, say_same


def _moved_symbol(old: MatrixStore, bars: Bars, plan: BuildPlan) -> str | None:
    """Name a new symbol that comes before an old one, and so moves its windows."""
    known = set(old.symbols)
    for name, after in pairwise(bars.symbols):
        if plan.settings.period is None and name not in known and after in known:
            return (
                f"the order of symbols has changed: {name} now comes before {after} "
                "(with --order period it would move windows of its own time only)"
            )
    return None


def keep_some(job: KeepJob) -> Kept:
    """Stage files that stay as they are, with their records as they were kept."""

    def keep(number: int) -> tuple[bool, bool]:
        digests = job.digests[number]
        try:
            whole = _take_whole(job, number, digests)
        except (DamagedStoreError, FileNotFoundError):
            whole = False
        return whole, whole and take_record(job.records, number, digests.sha256, job.staging)

    # files that are read are held whole: one at a time
    far = is_remote(job.store) and job.unchanged >= job.digests.keys()
    found = dict(zip(job.digests, each(keep, job.digests, far=far), strict=True))
    kept = [number for number, (whole, _) in found.items() if whole]
    damaged = [number for number, (whole, _) in found.items() if not whole]
    without = [number for number, (whole, recorded) in found.items() if whole and not recorded]
    n_chunks = sum(len(job.digests[number].length) for number in kept)
    return Kept(tuple(kept), n_chunks, tuple(damaged), tuple(without))


def _take_whole(job: KeepJob, number: int, digests: ChunkDigests) -> bool:
    """Stage a file of the older store, unless it is damaged."""
    data = job.staging.spec.data
    path = job.store / data.file(number)
    whole = number in job.unchanged or is_whole(path, data, number, digests.length, digests.sha256)
    if whole:
        job.staging.take_file(number, job.store)
    return whole


def write_records(group: GroupJob, digests: Mapping[int, ChunkDigests]) -> None:
    """Write the records of files that were taken over, computed again."""
    features = direct_rows(group)
    for file in group.files:
        found = digests[file.number]
        known = {name: getattr(found, name) for name in ("length", "crc32c", "sha256")}
        group.staging.write_record(file_record(group.staging.spec, file, known, features))


def _keep_jobs(
    old: MatrixStore,
    staging: Staging,
    numbers: Sequence[int],
    digests: ChunkDigests,
    as_published: set[str],
) -> list[KeepJob]:
    """Describe files to take over, a few for each task."""
    data = staging.spec.data
    records = records_folder(old.path, old.fingerprint)
    chunks = {n: slice(n * data.shard_chunks, (n + 1) * data.shard_chunks) for n in numbers}
    of_files = {
        number: ChunkDigests(
            digests.length[of], digests.crc32c[of], digests.sha256[of], digests.part_crc32c[:0]
        )
        for number, of in chunks.items()
    }
    unchanged = frozenset(n for n in numbers if data.file(n) in as_published)
    linked = frozenset() if is_remote(old.path) else unchanged
    others = [number for number in numbers if number not in linked]
    jobs = []
    for per_task, of_kind in (_LINKS_PER_TASK, sorted(linked)), (_FILES_PER_TASK, others):
        for at in range(0, len(of_kind), per_task):
            some = {number: of_files[number] for number in of_kind[at : at + per_task]}
            jobs.append(KeepJob(staging, old.path, records, some, unchanged & some.keys()))
    return jobs
