"""Build a bars cache: read blocks, settle what spans blocks, join, publish."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grandbatch.bars.building.assembly import (
    PlannedPart,
    group_parts,
    join_parts,
    plan_parts,
)
from grandbatch.bars.building.block import (
    BlockJob,
    BlockRecord,
    add_bad_rows,
    block_path,
    in_runs,
    read_blocks,
    size_of,
)
from grandbatch.bars.building.carries import tasks_to_repeat
from grandbatch.bars.building.gaps import fill_gaps
from grandbatch.bars.building.looking import look_at
from grandbatch.bars.building.memory import ReadingPlan, limits_of_workers, plan_memory
from grandbatch.bars.building.planning import (
    Source,
    plan_reading,
    task_of,
    under_verdicts,
    unhashed_ranges,
)
from grandbatch.bars.building.problems import disk_full
from grandbatch.bars.building.quarantine import (
    BadRowsWatch,
    HopelessError,
    check_bad_rows,
    count_rows,
)
from grandbatch.bars.building.settling import refuse_undated, settle_meanings, settle_sessions
from grandbatch.bars.building.sorting import MergedPart, merge_parts, plan_sorted_parts
from grandbatch.bars.building.spikes import remove_spikes
from grandbatch.bars.cache import bars as cache
from grandbatch.bars.cache.digests import PartDigests, file_crc
from grandbatch.bars.cache.keeping import STAGING, build_lock
from grandbatch.bars.cache.manifest import FORMAT, MANIFEST, QUARANTINE, Part, bars_fingerprint
from grandbatch.bars.inputs.files import (
    InputFile,
    describe_source,
    hash_leaves,
    join_leaves,
    remember_digest,
)
from grandbatch.bars.rules import BarRules
from grandbatch.errors import InputError
from grandbatch.files import digested
from grandbatch.files.whole import Syncer, is_full, remove_temporaries, sync_folder
from grandbatch.kernels.bars.bar_rules import DUPLICATE_TIMESTAMP
from grandbatch.memory import MemoryLimit, own_bytes
from grandbatch.memory.allocator import give_back
from grandbatch.scheduling import Schedule

Progress = Callable[[int, int], None]


def build_bars(
    files: Sequence[InputFile],
    cache_dir: Path,
    rules: BarRules,
    schedule: Schedule,
    block_bytes: int | None,
    limit: MemoryLimit,
    on_progress: Progress | None,
    find: Callable[[], cache.Bars | None],
) -> cache.Bars:
    """Read all files, and publish the cache of their bars.

    One process builds: another that wants the same files under the same rules waits, and builds
    anew only if `find` finds no cache then.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    seen = [[file.location, file.size, file.mtime_ns] for file in files]
    text = json.dumps([seen, rules.identity()], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    with build_lock(cache_dir, key):
        bars = find()
        if bars is not None:
            return bars
        for left in cache_dir.glob(f"{STAGING}{key}.*/"):  # of a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        # a name of its own: a cluster's tasks may outlive the build that they belonged to
        staging = cache_dir / f"{STAGING}{key}.{secrets.token_hex(4)}"
        plan = plan_memory(
            files,
            sort=rules.sort,
            workers=schedule.workers,
            limit=limit,
            worker_limits=limits_of_workers(schedule),
            block_bytes=block_bytes,
            n_extra=len(rules.extra),
        )
        plan.check(limit)
        try:
            staging.mkdir()
            with Syncer() as syncer:
                build = _Build(files, staging, rules, schedule, syncer, plan, limit)
                return build.run(cache_dir, on_progress)
        except OSError as error:
            if not is_full(error):
                raise
            raise disk_full(files, cache_dir) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            _give_back_where_tight(limit)


class _Build:
    """One build, from files to a published cache."""

    def __init__(
        self,
        files: Sequence[InputFile],
        staging: Path,
        rules: BarRules,
        schedule: Schedule,
        syncer: Syncer,
        plan: ReadingPlan,
        limit: MemoryLimit,
    ) -> None:
        self.files = files
        self.staging = staging
        self.blocks_folder = staging / "pieces"
        self.target = staging / "cache"
        self.rules = rules
        self.reading = schedule.limited_to(plan.at_once(plan.read_bytes, limit))
        self.joining = schedule.limited_to(plan.at_once(plan.join_bytes, limit))
        self.limit = limit
        self.block_bytes, self.part_rows = plan.block_bytes, plan.part_rows
        self.syncer = syncer
        self.sources: list[Source] = []
        self.tasks: list[BlockJob] = []
        self.records: list[BlockRecord] = []
        self.n_differing = 0
        self.n_filled: dict[str, int] = {}

    def run(self, cache_dir: Path, on_progress: Progress | None) -> cache.Bars:
        self.blocks_folder.mkdir()
        self.target.mkdir()
        self.sources, self.tasks = plan_reading(
            self.files, self.rules, self.reading, self.staging, self.block_bytes
        )
        hopeless = self._read_all(on_progress)
        if hopeless:
            refuse_undated(hopeless, self.sources)
            self._check_bad_rows(hopeless)
        self._settle_meanings()
        self._settle_sessions()
        _give_back_where_tight(self.limit)
        if self.rules.sort:
            symbols, parts = self._sort()
        else:
            symbols, planned = self._settle_carries()
        for file in self.files:
            if not file.is_unchanged():
                raise InputError(f"{file.location}: the file changed while it was read; run again")
        self._check_bad_rows(self.records)
        identity = []
        for source in self.sources:
            assert source.digest is not None
            remember_digest(source.file, source.digest, cache_dir)
            identity.append(describe_source(source.file, source.digest, self.rules))
        fingerprint = bars_fingerprint(identity, self.rules)
        if not self.rules.sort:
            parts = self._join(planned)
        symbols, parts = self._mend_parts(symbols, parts)
        self._write_manifest(identity, fingerprint, symbols, parts)
        return cache.publish(self.target, cache_dir / fingerprint)

    # reading

    def _read_all(self, on_progress: Progress | None) -> list[BlockRecord]:
        """Read every block, and digest every file.

        Where too many rows are bad, whatever comes, stop and return the blocks that show it.
        """
        total = sum(size_of(task) for task in self.tasks)
        done = 0
        names = [file.full_name for file in self.files]
        watch = BadRowsWatch(self.tasks, names, self.rules)

        def heard(result: Any) -> None:
            nonlocal done
            records = [record for record in result if isinstance(record, BlockRecord)]
            for record in records:
                watch.hear(record)
                self._sync_piece(record)
                done += record.n_bytes
            if records and on_progress is not None:
                on_progress(done, total)

        ranges = unhashed_ranges(self.sources, self.tasks)
        runs = in_runs(self.tasks, self.reading.workers)
        tasks = [task_of(read_blocks, run) for run in runs]
        tasks += [
            task_of(hash_leaves, self.files[number].location, start, stop)
            for number, start, stop in ranges
        ]
        try:
            results = self.reading.run(tasks, heard)
        except HopelessError as stopped:
            return stopped.records
        self.records = [record for records in results[: len(runs)] for record in records]
        leaves: list[list[bytes]] = [[] for _ in self.files]
        for record in self.records:
            leaves[record.file].extend(record.leaves)
        for (number, _, _), digests in zip(ranges, results[len(runs) :], strict=True):
            leaves[number].extend(digests)
        for source, of_file in zip(self.sources, leaves, strict=True):
            source.digest = source.digest or join_leaves(of_file)
        return []

    def _read_again(self, tasks: Sequence[BlockJob]) -> None:
        """Read some blocks again, under what the first reading has shown."""
        for task in tasks:
            for suffix in ("parquet", "raw", "bad"):
                block_path(self.blocks_folder, task.index, suffix).unlink(missing_ok=True)
        tasks = [replace(task, hashed=False) for task in tasks]
        runs = in_runs(tasks, self.reading.workers)
        for records in self.reading.run([task_of(read_blocks, run) for run in runs]):
            for record in records:
                self._sync_piece(record)
                self.records[record.index] = record

    def _sync_piece(self, record: BlockRecord) -> None:
        if record.is_part:
            self.syncer.add(block_path(self.blocks_folder, record.index, "parquet"))

    # settling what spans blocks

    def _settle_meanings(self) -> None:
        """Read files again whose timestamps turn out to be meant otherwise."""
        wrong = settle_meanings(self.records, self.sources, self.rules)
        self.tasks = under_verdicts(self.tasks, self.sources)
        self._read_again([task for task in self.tasks if task.file in wrong])

    def _settle_sessions(self) -> None:
        """Read blocks again whose evenings belong to other days than these could know."""
        if self.rules.session_start is None:
            return
        calendar, wrong = settle_sessions(self.records)
        for number in wrong:
            task = self.tasks[number]
            self.tasks[number] = replace(task, form=replace(task.form, calendar=calendar))
        self._read_again([self.tasks[number] for number in wrong])

    def _settle_carries(self) -> tuple[list[str], list[PlannedPart]]:
        """Read blocks again whose rows depend on bars of other blocks."""
        while late := tasks_to_repeat(self.records, self.tasks):
            for task in late:
                self.tasks[task.index] = task
            self._read_again(late)
        return plan_parts(self.records, self.part_rows)

    def _sort(self) -> tuple[list[str], list[Part]]:
        """Merge the blocks' sorted bars into parts; a time that comes again is a bad row."""
        symbols, planned = plan_sorted_parts(self.records, self.part_rows)
        for plan in planned:
            (self.target / plan.path).parent.mkdir(exist_ok=True)
        groups = group_parts(planned, self.part_rows)
        folders = str(self.blocks_folder), str(self.target)
        shared = *folders, self.rules.duplicates == "last", self.rules.extra
        merged: list[MergedPart] = []
        for found in self.joining.run([task_of(merge_parts, group, *shared) for group in groups]):
            merged += found
        self.n_differing = sum(now.n_differing for now in merged)
        parts = [
            Part(plan.symbol, plan.path, now.first_time, now.last_time, now.digests)
            for plan, now in zip(planned, merged, strict=True)
        ]
        again: dict[int, list[Any]] = {}
        for number, rows in (entry for now in merged for entry in now.again):
            again.setdefault(number, []).append(rows)
        runs = [
            [
                (task, self.records[task.index], np.sort(np.concatenate(again[task.index])))
                for task in run
            ]
            for run in in_runs([self.tasks[number] for number in sorted(again)], 1)
        ]
        tasks = [task_of(add_bad_rows, run, DUPLICATE_TIMESTAMP) for run in runs]
        for records in self.reading.run(tasks):
            for record in records:
                self.records[record.index] = record
        for part in parts:
            self.syncer.add(self.target / part.path)
        return symbols, parts

    # checking and publishing

    def _check_bad_rows(self, records: Sequence[BlockRecord]) -> None:
        path = self.target / QUARANTINE
        where = path, self.blocks_folder, self.sources
        check_bad_rows(*where, self.tasks, records, self.rules)
        self.syncer.add(path)

    def _join(self, parts: Sequence[PlannedPart]) -> list[Part]:
        """Make parts of the blocks' bars; those that are parts already get their names."""
        self.syncer.wait()  # it opens files by name, and names change here
        digests = {}
        for part in parts:
            (self.target / part.path).parent.mkdir(exist_ok=True)
            if part.finished is not None:
                digests[part.path] = self.records[part.finished].part
                finished = block_path(self.blocks_folder, part.finished, "parquet")
                finished.rename(self.target / part.path)
        shared = str(self.blocks_folder), str(self.target), self.rules.extra
        groups = group_parts(parts, self.part_rows)
        tasks = [task_of(join_parts, group, *shared) for group in groups]

        def heard(written: list[tuple[PlannedPart, PartDigests]]) -> None:
            for part, found in written:
                digests[part.path] = found
                self.syncer.add(self.target / part.path)

        self.joining.run(tasks, heard)
        joined = []
        for part in parts:
            found = digests[part.path]
            assert found is not None
            joined.append(Part(part.symbol, part.path, part.first_time, part.last_time, found))
        return joined

    def _mend_parts(self, symbols: list[str], parts: list[Part]) -> tuple[list[str], list[Part]]:
        """Apply the rules that look at bars in order, and write the parts anew that they change.

        Bars that leap out and back go first: what is quarantined gives no value to others.
        """
        max_jump, has_gaps = self.rules.max_jump, {"zero", "last"} & {*self.rules.fill.values()}
        if max_jump is None and not has_gaps:
            return symbols, parts
        self.syncer.wait()  # it opens files by name, and they change here
        schedules = self.reading, self.joining
        if max_jump is not None:
            held = symbols, parts, self.records, self.tasks
            self.records, parts = remove_spikes(self.target, *held, *schedules, max_jump)
        if has_gaps:
            held = symbols, parts, self.records, self.tasks
            found = fill_gaps(self.target, *held, *schedules, self.rules)
            symbols, parts = found.symbols, found.parts
            self.records, self.n_filled = found.records, found.counts
        self._check_bad_rows(self.records)
        for part in parts:
            self.syncer.add(self.target / part.path)
        return symbols, parts

    def _write_manifest(
        self,
        source: list[dict[str, Any]],
        fingerprint: str,
        symbols: list[str],
        parts: Sequence[Part],
    ) -> None:
        quarantine = self.target / QUARANTINE
        manifest = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "source": source,
            "rules": self.rules.identity(),
            "day_first": [
                source.meaning.day_first if source.found.dates.rows else None
                for source in self.sources
            ],
            "time_numbers": [source.meaning.name_of(source.found) for source in self.sources],
            "symbols": symbols,
            "extra": list(self.rules.extra),
            "fill": dict(self.rules.fill),
            "filled": self.n_filled,
            "n_rows": sum(part.rows for part in parts),
            **count_rows(self.records),
            "worth_a_look": look_at(self.target, symbols, parts, self.rules, self.joining),
            "differing_duplicates": self.n_differing
            + sum(record.n_differing for record in self.records),
            "quarantine": {
                "bytes": quarantine.stat().st_size,
                "crc32c": file_crc(self.target, QUARANTINE),
            },
            "parts": [part.to_json() for part in parts],
        }
        path = self.target / MANIFEST
        path.write_bytes(digested.dump(manifest))
        self.syncer.add(path)
        self.syncer.wait()
        remove_temporaries(self.target)  # of tasks that a cluster ran twice
        for folder in {(self.target / part.path).parent for part in parts}:
            sync_folder(folder)
        sync_folder(self.target)


def _give_back_where_tight(limit: MemoryLimit) -> None:
    """Give back what tasks have freed and kept: threads can't use what others have kept."""
    if own_bytes()[0] > limit.limit_bytes // 2:
        give_back()
