"""Build a cache of coarser bars from one of finer bars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grandbatch.bars.cache.bars import Bars, publish
from grandbatch.bars.cache.digests import damaged, file_digest
from grandbatch.bars.cache.durations import commonest_distance
from grandbatch.bars.cache.keeping import build_lock, fresh_staging, remove_staging
from grandbatch.bars.cache.manifest import (
    QUARANTINE,
    Part,
    bars_fingerprint,
    pack_parts,
    read_manifest,
    write_manifest,
)
from grandbatch.bars.cache.parts import file_name, write_part
from grandbatch.bars.resampling.gathering import (
    SLAB_ROWS,
    gather,
    incomplete_start,
    refuse_overflow,
)
from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.timeframe import Timeframe
from grandbatch.errors import DiskFullError, InputError, MemoryLimitError
from grandbatch.files.locations import location_of
from grandbatch.files.verbs import copy_file, make_folder
from grandbatch.files.whole import Syncer, is_full
from grandbatch.memory import MemoryLimit
from grandbatch.memory.costs import BASE_BYTES
from grandbatch.scheduling import Schedule
from grandbatch.values.texts import duration

SLICE_ROWS = 1_048_576
"""Finer bars whose intervals are gathered by one task."""


@dataclass(frozen=True)
class GatherJob:
    """The intervals that begin among some rows of a symbol, for one task."""

    bars: Bars
    symbol: int
    rows: tuple[int, int]
    timeframe: Timeframe
    duration_ns: int
    """Of the finer bars."""
    incomplete: int | None
    """Where the symbol's last interval begins, if it is not whole yet: it is left out."""
    target: str
    path: str
    """Of the part, relative to the target."""


def resample_bars(finer: Bars, rules: BarRules, schedule: Schedule, limit: MemoryLimit) -> Bars:
    """Gather finer bars in the intervals of a timeframe, and publish the cache of the coarser.

    Parameters
    ----------
    finer : Bars
        In whose folder the cache of the coarser bars will be, too.
    rules : BarRules
        With `resample`.
    schedule : Schedule
    limit : MemoryLimit

    Raises
    ------
    InputError
        If no interval is whole.
    DiskFullError, MemoryLimitError
        As their classes say.
    """
    cache_dir = finer.path.parent
    fingerprint = bars_fingerprint(finer.source, rules)
    key = fingerprint[:24]
    with build_lock(cache_dir, key):
        staging = fresh_staging(cache_dir, key)
        try:
            make_folder(staging)
            _fill(staging, fingerprint, finer, rules, schedule, limit)
            return publish(staging, cache_dir / fingerprint)
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFullError(
                f"{cache_dir}: the disk is full: bars of {rules.resample} take up to "
                f"{finer.n_rows * 8 * len(finer.columns):,} bytes; free some room, or choose "
                "another folder for the cache"
            ) from None
        finally:
            remove_staging(staging)


def _fill(
    target: Path,
    fingerprint: str,
    finer: Bars,
    rules: BarRules,
    schedule: Schedule,
    limit: MemoryLimit,
) -> None:
    """Write all of a cache into a folder."""
    timeframe = rules.timeframe
    assert timeframe is not None
    with Syncer() as syncer:
        duration_ns = _duration(finer, timeframe, rules.bar_duration_ns)
        jobs, n_incomplete = _jobs(finer, timeframe, duration_ns, target)
        made: list[tuple[Part | None, int]] = _admitted(schedule, finer, limit).run(
            [partial(write_gathered, job) for job in jobs]
        )
        parts = [part for part, _ in made if part is not None]
        if not parts:
            raise InputError(
                f"{finer.n_rows:,} bars fill no interval of {rules.resample}; "
                "choose a shorter interval, or give more bars"
            )
        codes = sorted({part.symbol for part in parts})
        finer_manifest = read_manifest(finer.path)
        copy_file(finer.quarantine_path, target / QUARANTINE)
        if file_digest(target, QUARANTINE)[1] != finer_manifest["quarantine"]["crc32c"]:
            raise damaged(finer.path, f"{QUARANTINE} is not what was written")
        manifest = {
            **{name: value for name, value in finer_manifest.items() if name != "sha256"},
            "fingerprint": fingerprint,
            "rules": rules.identity(),
            "symbols": [finer.symbols[code] for code in codes],
            "n_rows": sum(part.rows for part in parts),
            "incomplete": n_incomplete,
            "worth_a_look": [
                *finer_manifest["worth_a_look"],
                *_cut(sum(n_cut for _, n_cut in made), duration_ns, timeframe),
            ],
            **pack_parts([replace(part, symbol=codes.index(part.symbol)) for part in parts]),
        }
        for name in (QUARANTINE, *(part.path for part in parts)):
            syncer.add(target / name)
        write_manifest(target, manifest, syncer)


def _cut(n_cut: int, duration_ns: int, timeframe: Timeframe) -> list[str]:
    """Say how many finer bars end later than the coarser ones that hold them, if any do."""
    if not n_cut:
        return []
    length, coarse = duration(duration_ns / 10**9), duration(timeframe.length_ns / 10**9)
    bars = "1 bar ends" if n_cut == 1 else f"{n_cut:,} bars end"
    return [
        f"{bars} up to {length} later than the bar of {coarse} that holds it: coarser bars are "
        "taken to be known too early by that"
    ]


def _duration(finer: Bars, timeframe: Timeframe, named_ns: int | None) -> int:
    """Return how long finer bars last; one that outlasts an interval would be known too early."""
    duration_ns = commonest_distance(finer) if named_ns is None else named_ns
    if duration_ns <= timeframe.length_ns:
        return duration_ns
    seconds = timeframe.length_ns / 10**9
    remedy = "" if named_ns else f", or, if they last no longer, add --bar-duration {seconds:.9g}s"
    raise InputError(
        f"bars of the inputs last {duration(duration_ns / 10**9)}"
        f"{'' if named_ns else ' (the commonest distance of neighbours)'}, more than the "
        f"{duration(seconds)} of resample: coarser bars are made of finer ones; choose a longer "
        f"timeframe{remedy}"
    )


def _jobs(
    finer: Bars, timeframe: Timeframe, duration_ns: int, target: Path
) -> tuple[list[GatherJob], int]:
    """Cut each symbol's bars into tasks; say how many symbols' last intervals are left out."""
    last_times = {part.symbol: part.last_time for part in finer.parts}
    jobs: list[GatherJob] = []
    n_incomplete = 0
    for code in range(len(finer.symbols)):
        first, stop = int(finer.symbol_bounds[code]), int(finer.symbol_bounds[code + 1])
        incomplete = incomplete_start(last_times[code], timeframe, duration_ns)
        n_incomplete += incomplete is not None
        clock = timeframe, duration_ns, incomplete
        for at in range(first, stop, SLICE_ROWS):
            rows, path = (at, min(at + SLICE_ROWS, stop)), file_name(len(jobs))
            jobs.append(GatherJob(finer, code, rows, *clock, str(target), path))
    return jobs, n_incomplete


def write_gathered(job: GatherJob) -> tuple[Part | None, int]:
    """Write the part of a task, None where no interval is left; count the bars that it cuts."""
    gathered = gather(job.bars, job.symbol, job.rows, job.timeframe, job.duration_ns)
    n = len(gathered.times)
    if n and gathered.times[-1] == job.incomplete:
        n -= 1
    if not n:
        return None, gathered.n_cut
    times, values = gathered.times[:n], gathered.values[:, :n]
    refuse_overflow(times, values, job.bars.extra)
    path = location_of(job.target) / job.path
    digests = write_part(path, times, list(values), job.bars.extra)
    part = Part(job.symbol, job.path, int(times[0]), int(times[-1]), digests)
    return part, gathered.n_cut


def _admitted(schedule: Schedule, finer: Bars, limit: MemoryLimit) -> Schedule:
    """Let as many tasks run at once as fit."""
    columns = len(finer.columns) + 1
    longest = int(max(finer.symbol_bounds[1:] - finer.symbol_bounds[:-1]))
    # as gathered, and as written; slabs as read, and one column behind the other
    task = 8 * columns * (2 * min(longest, SLICE_ROWS) + 3 * min(longest, SLAB_ROWS))
    room = limit.limit_bytes - BASE_BYTES
    if room < task:
        raise MemoryLimitError(
            f"gathering bars needs {BASE_BYTES + task:,} bytes and may use "
            f"{limit.limit_bytes:,} ({limit.source}): {BASE_BYTES:,} for the interpreter and "
            f"libraries + {task:,} for one task; "
            f"{limit.remedy(BASE_BYTES + task)}"
        )
    return schedule.limited_to(room // task)
