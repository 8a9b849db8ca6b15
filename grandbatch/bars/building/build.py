"""Build a bars cache: read blocks, settle what spans blocks, join, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from grandbatch.bars.building.beside import settle_texts, watch_texts
from grandbatch.bars.building.block import (
    BlockJob,
    BlockRecord,
    block_path,
    in_runs,
    looks_while_reading,
    read_blocks,
)
from grandbatch.bars.building.carries import tasks_to_repeat
from grandbatch.bars.building.growth import (
    add_base,
    check_behind,
    check_independent,
    grow_quarantine,
    growth_facts,
    looks_of,
    standing_of,
)
from grandbatch.bars.building.memory import ReadingPlan
from grandbatch.bars.building.parts.assembly import (
    Dealing,
    PlannedPart,
    hold_parts,
    join_bars,
    plan_parts,
)
from grandbatch.bars.building.parts.gaps import fill_gaps
from grandbatch.bars.building.parts.looking import look_at, worth_a_look
from grandbatch.bars.building.parts.made import PartsMade
from grandbatch.bars.building.parts.sorting import sort_bars
from grandbatch.bars.building.parts.spikes import remove_spikes
from grandbatch.bars.building.planning import (
    Source,
    plan_reading,
    under_verdicts,
    unhashed_ranges,
)
from grandbatch.bars.building.quarantine import (
    BadRowsWatch,
    HopelessError,
    check_bad_rows,
    count_rows,
    near_misses,
)
from grandbatch.bars.building.settling import (
    check_weeks,
    refuse_undated,
    settle_meanings,
    settle_sessions,
    spans_of,
)
from grandbatch.bars.cache import bars as cache
from grandbatch.bars.cache.digests import file_digest
from grandbatch.bars.cache.extremes import ManyExtremes
from grandbatch.bars.cache.joining import AnyPart, Base, JoinedParts, join_caches
from grandbatch.bars.cache.manifest import (
    FORMAT,
    QUARANTINE,
    Part,
    bars_fingerprint,
    pack_parts,
    write_manifest,
)
from grandbatch.bars.inputs.digests import (
    describe_source,
    hash_leaves,
    join_leaves,
    remember_digest,
)
from grandbatch.bars.inputs.files import InputFile, refuse_changed
from grandbatch.bars.inputs.joined import months_apart, numbers_apart, refuse_apart
from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import each, make_folder, one_round, remove, see
from grandbatch.files.whole import Syncer
from grandbatch.memory import MemoryLimit
from grandbatch.memory.allocator import give_back_where_tight
from grandbatch.scheduling import Schedule

BytesProgress = Callable[[int, int], None]
"""Told of bytes read, and of those in all."""


class CacheBuild:
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
        base: Base | None,
    ) -> None:
        self.all_files = files
        self.files = files if base is None else base.new_of(files)
        self.base = base
        self.staging = staging
        self.blocks_folder = staging / "pieces"
        # in an object store nothing is renamed: what is made of blocks stays where it is
        self.target = staging if is_remote(staging) else staging / "cache"
        self.rules = rules
        self.reading = plan.limited(schedule, plan.read_bytes, limit)
        self.joining = plan.limited(schedule, plan.join_bytes, limit)
        self.limit = limit
        self.block_bytes = plan.block_bytes
        self.has_gaps = bool({"zero", "last"} & {*rules.fill.values()})
        self.dealing = Dealing(
            plan.part_rows,
            alone=rules.max_jump is not None or self.has_gaps,
            first=0 if base is None else base.next_file,
        )
        self.syncer = syncer
        self.sources: list[Source] = []
        self.tasks: list[BlockJob] = []
        self.records: list[BlockRecord] = []
        self.n_differing = 0
        self.n_filled: dict[str, int] = {}

    def run(self, cache_dir: Path, on_progress: BytesProgress | None) -> cache.Bars:
        """Read, settle, join and publish."""
        make_folder(self.blocks_folder)
        make_folder(self.target)
        self.sources, self.tasks = plan_reading(
            self.files, self.rules, self.reading, self.staging, self.block_bytes
        )
        joined = self._files_joined()
        refuse_apart(joined)
        self.apart = numbers_apart(joined)
        hopeless = self._read_all(on_progress)
        if hopeless:
            refuse_undated(hopeless, self.sources)
            self._check_bad_rows(hopeless)
        self._settle_texts()
        self._settle_meanings()
        self._settle_sessions()
        before = None if self.base is None else self.base.bars.last_time
        self.apart += months_apart(joined, spans_of(self.records, self.files), before)
        give_back_where_tight(self.limit)
        if self.rules.sort:
            symbols, parts = self._sort()
        else:
            symbols, planned = self._settle_carries()
        check = partial(self._check_bad_rows, self.records)
        one_round(partial(refuse_changed, self.files), check, far=is_remote(self.target))
        identity = self._identity(cache_dir)
        fingerprint = bars_fingerprint(identity, self.rules)
        base, seen = self.base, looks_while_reading(self.records)
        look = partial(look_at, self.target, schedule=self.joining, known=seen)
        if base is None:
            if not self.rules.sort:
                parts = self._join(planned)
            symbols, parts = self._mend_parts(symbols, parts)
            looks = ManyExtremes.of(look(parts))
        else:
            new = parts if self.rules.sort else self._join_few(planned)
            grown = self._join_base(base, symbols, new)
            symbols, parts, looks = grown.symbols, grown.parts, looks_of(base, grown, look)
        self._write_manifest(identity, fingerprint, symbols, parts, looks)
        return cache.publish(self.target, cache_dir / fingerprint)

    # reading

    def _files_joined(self) -> list[InputFile]:
        """Files that are read as one series which nobody has named."""
        if self.rules.symbol is not None or self.rules.symbol_from is not None:
            return []
        places = {task.file for task in self.tasks if task.symbol == DEFAULT_SYMBOL}
        if self.base is None:
            return [self.files[place] for place in sorted(places)]
        joined = {self.base.new_places[place] for place in places}
        if DEFAULT_SYMBOL in self.base.bars.symbols:
            joined.update(self.base.places)
        return [self.all_files[place] for place in sorted(joined)]

    def _read_all(self, on_progress: BytesProgress | None) -> list[BlockRecord]:
        """Read every block, and digest every file.

        Where too many rows are bad, whatever comes, stop and return the blocks that show it.
        """
        total = sum(task.block.n_bytes for task in self.tasks)
        done = 0
        names = [file.full_name for file in self.files]
        before = (0, 0) if self.base is None else self.base.n_bad_of_rows
        watch = BadRowsWatch(self.tasks, names, self.rules, before)

        def heard(result: Any) -> None:
            nonlocal done
            records = [record for record in result if isinstance(record, BlockRecord)]
            for record in records:
                watch.hear(record)
                self._sync_block(record)
                done += record.n_bytes
            if records and on_progress is not None:
                on_progress(done, total)

        ranges = unhashed_ranges(self.sources, self.tasks)
        runs = in_runs(self.tasks, self.reading.workers)
        tasks: list[partial[Any]] = [partial(read_blocks, run) for run in runs]
        tasks += [
            partial(hash_leaves, self.files[number].location, start, stop)
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
        if tasks:
            self.syncer.wait()  # it opens files by name, and these go
        for task in tasks:
            for suffix in ("parquet", "raw", "bad"):
                remove(block_path(self.blocks_folder, task.index, suffix))
        runs = in_runs([replace(task, hashed=False) for task in tasks], self.reading.workers)
        for records in self.reading.run([partial(read_blocks, run) for run in runs]):
            for record in records:
                self._sync_block(record)
                self.records[record.index] = record

    def _sync_block(self, record: BlockRecord) -> None:
        if record.n_bad and not is_remote(self.staging):
            see(block_path(self.blocks_folder, record.index, "bad"))
        if record.is_part:
            self._sync_part(block_path(self.blocks_folder, record.index, "parquet"))

    def _sync_part(self, path: Path) -> None:
        if not is_remote(path):  # objects are all seen at once, before they are published
            see(path)
            if self.base is None:  # else it may go again at once, written as one with others
                self.syncer.add(path)

    def _sync_files(self, parts: Sequence[Part]) -> None:
        for path in dict.fromkeys(part.path for part in parts):
            self._sync_part(self.target / path)

    # settling what spans blocks

    def _settle_texts(self) -> None:
        """Read blocks again in which texts turned up among numbers, and judge columns by them."""
        again = watch_texts(self.records, self.tasks)
        for task in again:
            self.tasks[task.index] = task
        self._read_again(again)
        names = [file.full_name for file in self.files]
        self.doubts = settle_texts(self.records, self.tasks, names, self.rules)

    def _settle_meanings(self) -> None:
        """Read files again whose timestamps turn out to be meant otherwise."""
        wrong = settle_meanings(self.records, self.sources, self.rules)
        self.tasks = under_verdicts(self.tasks, self.sources)
        self._read_again([task for task in self.tasks if task.file in wrong])
        check_weeks(self.records, self.sources, self.rules)
        if self.base is not None:
            check_independent(self.sources, self.tasks, self.rules)

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
        before = {} if self.base is None else standing_of(self.base)
        while late := tasks_to_repeat(self.records, self.tasks, before):
            for task in late:
                self.tasks[task.index] = task
            self._read_again(late)
        return plan_parts(self.records, self.dealing.rows)

    def _sort(self) -> tuple[list[str], list[Part]]:
        """Merge the blocks' sorted bars into parts; a time that comes again is a bad row."""
        folders = self.blocks_folder, self.target
        sorting = sort_bars(
            self.records, self.tasks, folders, self.rules, self.joining, self.dealing
        )
        symbols, parts, again, self.n_differing = sorting
        for records in self.reading.run(again):
            for record in records:
                self.records[record.index] = record
        self._sync_files(parts)
        return symbols, parts

    # checking and publishing

    def _identity(self, cache_dir: Path) -> list[dict[str, Any]]:
        """Describe all files, and put the digests of those that were read on record."""

        def remember(source: Source) -> dict[str, Any]:
            assert source.digest is not None
            remember_digest(source.file, source.digest, cache_dir)
            return describe_source(source.file, source.digest, self.rules)

        identity = each(remember, self.sources, far=is_remote(cache_dir))
        return identity if self.base is None else self.base.merged(self.base.bars.source, identity)

    def _join_base(self, base: Base, symbols: list[str], new: Sequence[AnyPart]) -> JoinedParts:
        """Put the parts of the cache that grows before the new ones."""
        self.syncer.wait()  # it opens files by name, and some go here
        joined = join_caches(base, self.target, symbols, new)
        for path in joined.written:
            self.syncer.add(self.target / path)
        return joined

    def _check_bad_rows(self, records: Sequence[BlockRecord]) -> None:
        """Write the quarantine, and refuse too many bad rows."""
        path = self.target / QUARANTINE
        where = self.blocks_folder, self.sources
        if self.base is None:
            check_bad_rows(path, *where, self.tasks, records, self.rules)
        else:
            check_behind(self.base, records, self.rules)
            grow_quarantine(self.base, path, *where, records, self.rules)
        self.syncer.add(path)

    def _join(self, parts: Sequence[PlannedPart]) -> list[Part]:
        """Make parts of the blocks' bars; those that are parts already get their names."""
        self.syncer.wait()  # it opens files by name, and names change here
        folders = self.blocks_folder, self.target
        shared = self.rules.extra, self.joining, self.dealing
        return join_bars(parts, self.records, folders, *shared, self._sync_part)

    def _join_few(self, parts: Sequence[PlannedPart]) -> Sequence[AnyPart]:
        """Make parts as `_join`; few are held, to be written once, with young ones of the base."""
        held = hold_parts(parts, self.blocks_folder, self.dealing)
        return self._join(parts) if held is None else held

    def _mend_parts(self, symbols: list[str], parts: list[Part]) -> tuple[list[str], list[Part]]:
        """Apply the rules that look at bars in order, and write the parts anew that they change.

        Bars that leap out and back go first: what is quarantined gives no value to others.
        """
        max_jump = self.rules.max_jump
        if max_jump is None and not self.has_gaps:
            return symbols, parts
        self.syncer.wait()  # it opens files by name, and they change here
        made = PartsMade(
            self.target, symbols, parts, self.records, self.tasks, self.reading, self.joining
        )
        if max_jump is not None:
            made = remove_spikes(made, max_jump)
        if self.has_gaps:
            made, self.n_filled = fill_gaps(made, self.rules)
        self.records = made.records
        self._check_bad_rows(self.records)
        self._sync_files(made.parts)
        return made.symbols, made.parts

    def _write_manifest(
        self,
        source: list[dict[str, Any]],
        fingerprint: str,
        symbols: list[str],
        parts: Sequence[Part],
        looks: ManyExtremes,
    ) -> None:
        quarantine_bytes, quarantine_crc = file_digest(self.target, QUARANTINE)
        doubts = [*self.doubts, *near_misses(self.records, self.rules)]
        read = self.sources, self.tasks, self.records
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
            "growth": None
            if doubts
            else growth_facts(*read, symbols, looks, self.rules, self.base),
            "worth_a_look": [
                *self.apart,
                *doubts,
                *worth_a_look(symbols, parts, looks, self.rules),
            ],
            "differing_duplicates": self.n_differing
            + sum(record.n_differing for record in self.records),
            "quarantine": {"bytes": quarantine_bytes, "crc32c": quarantine_crc},
            **pack_parts(parts),
        }
        if self.base is not None:
            add_base(self.base, manifest)
        write_manifest(self.target, manifest, self.syncer)
