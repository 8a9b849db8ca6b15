"""`build_store`: bars, plan, chunks, publication; whole or absent, and resumed where it stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any

from grandbatch.bars import Bars, prepare_bars, with_bars
from grandbatch.bars.building.memory import shares_of_workers
from grandbatch.bars.cache.cutting import cuts_of
from grandbatch.builder.check import check_on_bars, check_on_simulated
from grandbatch.builder.engines import ENGINES, choose_engine, graphs, label_graphs
from grandbatch.builder.extend import keep_files
from grandbatch.builder.growth import record_growth
from grandbatch.builder.history import (
    BuildClock,
    keep_records,
    known_cuts,
    record_build,
    remember_cuts,
    remember_files,
)
from grandbatch.builder.labels import KeptLabels, label_jobs
from grandbatch.builder.plan import BuildPlan, attributes_of
from grandbatch.builder.records import find_finished, join_records
from grandbatch.builder.reuse import Extension, Request, Survey, survey
from grandbatch.builder.workers import prepare_workers
from grandbatch.errors import UsageError
from grandbatch.files.leases import Lease
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import begun, both, is_in_objects, one_round
from grandbatch.files.whole import remove_temporaries, room_for
from grandbatch.memory import MemoryLimit, memory_limit
from grandbatch.memory.allocator import kept_memory
from grandbatch.scheduling import FAR_TURNS, Schedule, fuller_waves
from grandbatch.store.file_records import join_digests
from grandbatch.store.manifest import ChunkDigests, Manifest
from grandbatch.store.notes import tell_notes
from grandbatch.store.publish import (
    Listing,
    begin_at_url,
    builder_lock,
    clean_staging,
    finish_replacement,
    has_leftovers,
    keep_folders,
    publish,
    replace_by_staged,
    staging_folder,
    take_folders,
)
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging
from grandbatch.store.upload import StageProgress, upload_store


@dataclass(frozen=True)
class BuildOptions:
    """How a store is built. Nothing here changes a bit of it.

    Raises
    ------
    UsageError
        If the engine is unknown.
    """

    engine: str = "auto"
    partition_bars: int | None = None
    schedule: Schedule | None = None
    memory_limit_bytes: int | None = None
    overwrite: bool = False
    wait: bool = True
    durable: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"unknown engine {self.engine!r}; choose auto, overlap or direct")


@dataclass(frozen=True)
class BuildResult:
    """A store, and what it took."""

    store: MatrixStore
    reused: bool
    resumed_chunks: int = 0
    """Chunks that an interrupted build had finished."""
    kept_chunks: int = 0
    """Chunks taken over from the store that was extended."""


def build(
    request: Request, options: BuildOptions, progress: StageProgress | None = None
) -> BuildResult:
    """Build a store, or find it built.

    Raises
    ------
    InputError, UsageError, StoreError, MemoryLimitError, DiskFullError
        As their classes say.
    """
    clock = BuildClock()

    def told(stage: str, done: int, total: int) -> None:
        clock.tell(stage, done, total)
        if progress is not None:
            progress(stage, done, total)

    if is_remote(request.path) and not is_in_objects(request.path):
        return _build_remote(request, options, progress)
    found = _look_at_place(request, options)
    if not has_leftovers(request.path) and (there := found().store) is not None:
        return BuildResult(there, True)
    schedule = options.schedule or Schedule.local()
    with (
        kept_memory() if schedule.is_local else nullcontext(),
        room_for(request.path),
        builder_lock(
            request.path, wait=options.wait, on_wait=lambda message: told(message, 0, 0)
        ) as lease,
        ExitStack() as stack,  # what workers are told by goes before the lock does
    ):
        found = _look_at_place(request, options)
        if finish_replacement(request.path, durable=options.durable, lease=lease):
            found = _look_at_place(request, options)  # what stood there may be another
        if (there := found().store) is not None:
            clean_staging(request.path)
            return BuildResult(there, True)
        extension = found().extension
        if options.check:
            check_on_simulated(request.settings)
        schedule = stack.enter_context(prepare_workers(schedule, request))

        def prepare() -> Bars:
            return prepare_bars(
                request.inputs,
                request.cache,
                request.rules,
                schedule=schedule,
                on_progress=lambda done, total: told("bars", done, total),
                memory_limit_bytes=options.memory_limit_bytes,
            )

        def write(bars: Bars) -> BuildResult:
            plan = plan_build(request, bars, options, schedule, extension)
            if options.check:
                check_on_bars(request.settings, bars, plan.segments)
            held = _Held(request, options, schedule, lease)
            result = _build_locked(held, bars, plan, extension, told)
            limit = memory_limit(options.memory_limit_bytes)
            record = partial(_record, request, plan, result, clock, limit)
            one_round(record, stack.close, far=lease is not None)
            return result

        return with_bars(prepare, write)


def _look_at_place(request: Request, options: BuildOptions) -> Callable[[], Survey]:
    """Return what surveys a request's place; begun where each look is a request."""
    look = cache(partial(survey, request, overwrite=options.overwrite))
    return begun(look) if is_in_objects(request.path) else look


def _build_remote(
    request: Request, options: BuildOptions, progress: StageProgress | None
) -> BuildResult:
    """Build a store in a folder of its own beside the bars cache, and upload it."""
    found = survey(request, overwrite=options.overwrite)
    if found.store is not None:
        return BuildResult(found.store, True)
    folder = request.cache / "uploads" / hashlib.sha256(str(request.path).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    local = folder / request.path.name
    heard = progress or (lambda stage, done, total: None)
    with builder_lock(folder, wait=options.wait, on_wait=lambda message: heard(message, 0, 0)):
        found = survey(request, overwrite=options.overwrite)
        if found.store is not None:
            return BuildResult(found.store, True)
        # what stands there is of an upload that was cut off, perhaps of other inputs
        built = build(replace(request, path=local), replace(options, overwrite=True), progress)
        upload_store(local, request.path, progress)
        shutil.rmtree(folder)
        return replace(built, store=MatrixStore.open(request.path), reused=False)


def _record(
    request: Request, plan: BuildPlan, result: BuildResult, clock: BuildClock, limit: MemoryLimit
) -> None:
    """Keep what a build took, for reports."""
    tasks = plan.admitted(limit)
    record_build(
        request.path,
        {
            "fingerprint": result.store.fingerprint,
            **clock.facts(),
            "n_rows": plan.n_rows,
            "n_windows": plan.spec.n_windows,
            "resumed_chunks": result.resumed_chunks,
            "kept_chunks": result.kept_chunks,
            "tasks_in_flight": tasks,
            "worker_processes": plan.processes,
            "projected_bytes": plan.projected_bytes(tasks),
            "limit_bytes": limit.limit_bytes,
            "limit_source": limit.source,
        },
    )


def plan_build(
    request: Request,
    bars: Bars,
    options: BuildOptions,
    schedule: Schedule,
    extension: Extension | None = None,
) -> BuildPlan:
    """Plan the build of a store from its bars."""
    known = None
    if extension is not None and extension.bars is not None:
        known = known_cuts(extension.store, request.settings, extension.bars, bars)
    segments, stretches = request.settings.cut(bars, known)
    return BuildPlan(
        settings=request.settings,
        segments=segments,
        stretches=stretches,
        n_rows=bars.n_rows,
        partition_bars=options.partition_bars,
        workers=schedule.workers,
        worker_shares=shares_of_workers(schedule),
        # in the overlap engine what one task leaves waits in memory for others
        turns=FAR_TURNS if request.is_far and options.engine != "overlap" else 1,
    )


@dataclass(frozen=True)
class _Held:
    """What is built, how and where, under the lock of the store."""

    request: Request
    options: BuildOptions
    schedule: Schedule
    lease: Lease | None
    """The lock, where the store is to be in an object store."""

    def staging(self, plan: BuildPlan, fingerprint: str, *, keeps: bool) -> Staging:
        """Make the place to write in ready; what other builds left there goes.

        `keeps` says whether files of the store that stands there stay.
        """
        path = self.request.path
        folder = staging_folder(path, fingerprint)
        clean = partial(clean_staging, path, keep=folder)
        if self.lease is not None:
            both(clean, partial(begin_at_url, path, aside=keeps))
            durable, fence = self.options.durable, self.lease.fence
            return Staging(folder, plan.spec, durable, path, fence, keeps)
        clean()
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
        staging = Staging(folder, plan.spec, self.options.durable)
        if keeps and not staging.store.exists():
            take_folders(path, staging.store, plan.spec)
        return staging

    def publish(
        self, staging: Staging, manifest: Manifest, there: Listing, *, extends: bool
    ) -> MatrixStore:
        """Make what is staged the store, in one step; `there` is what was seen at its URL."""
        path = self.request.path
        opened = partial(MatrixStore.open, path)
        if self.lease is not None:
            self.lease.check()
            staging.write_manifest(manifest)
            if staging.aside:
                there = replace_by_staged(staging.store, path, self.lease.renew)
            # from the manifest on there is a store: what is beside it comes and goes in any order
            store: MatrixStore = one_round(
                opened,
                partial(staging.remove_others, there),
                partial(remember_files, staging, manifest, there),
                partial(keep_records, staging, path),
                partial(clean_staging, path),
                far=True,
            )[0]
            return store
        staging.write_manifest(manifest)
        remember_files(staging, manifest, there)
        publish(staging.store, path, durable=self.options.durable)
        keep_records(staging, path)
        if extends:
            keep_folders(path)
        clean_staging(path)
        return opened()


def _build_locked(
    held: _Held,
    bars: Bars,
    plan: BuildPlan,
    extension: Extension | None,
    told: StageProgress,
) -> BuildResult:
    request, options = held.request, held.options
    schedule = plan.limited(held.schedule, memory_limit(options.memory_limit_bytes))
    fingerprint = request.settings.fingerprint(bars.fingerprint)
    staging = held.staging(plan, fingerprint, keeps=extension is not None)
    finished = find_finished(staging, schedule)
    resumed = sum(finished.values())
    done, total = resumed, plan.grid.n_chunks

    def heard(result: Any) -> None:
        nonlocal done
        if held.lease is not None:
            held.lease.check()
        if isinstance(result, int):
            done += result
            told("chunks", done, total)

    told("chunks", done, total)
    skipped = set(finished)
    same_labels: dict[int, KeptLabels] = {}
    if extension is not None:
        taken = keep_files(extension, bars, plan, staging, skipped, schedule, heard)
        skipped |= taken.files
        same_labels = taken.labels
        record_growth(
            request.path,
            extension.store.content_id,
            request.settings.content_id(bars.fingerprint),
            taken.corrected,
        )
    kept = done - resumed

    def note() -> None:
        cuts = cuts_of(bars, plan.segments, plan.stretches)
        remember_cuts(staging, request.settings, bars, cuts)

    beside_tasks = held.lease is not None and not schedule.is_local
    noted = begun(note) if beside_tasks else note
    engine = choose_engine(options.engine, schedule)
    waves = graphs(engine, plan, bars, staging, skipped, schedule)
    labels = label_graphs(label_jobs(plan, bars, staging, same_labels))
    all_waves = chain(waves, labels)  # on a cluster one is sent before the last has ended
    results = schedule.run_waves(fuller_waves(all_waves) if schedule.is_local else all_waves, heard)
    labelled = [result for result in results if not isinstance(result, int)]
    before = None if extension is None else extension.before
    attributes = attributes_of(plan, bars, request.rules, fingerprint, before)
    noted()
    renew = (lambda: None) if held.lease is None else held.lease.renew
    finished_store = _finish(staging, attributes, labelled, schedule, renew)
    store = held.publish(staging, *finished_store, extends=extension is not None)
    tell_notes(request.path, attributes)
    return BuildResult(store, False, resumed, kept)


def _finish(
    staging: Staging,
    attributes: dict[str, Any],
    labelled: Sequence[dict[str, ChunkDigests]],
    schedule: Schedule,
    renew: Callable[[], None],
) -> tuple[Manifest, Listing]:
    """Write the metadata; return the manifest, and files seen. `labelled`: digests of labels."""
    arrays = {
        array.name: join_digests([digests[array.name] for digests in labelled])
        for array in staging.spec.labels
    }
    arrays[staging.spec.data.name], stats = join_records(staging, schedule)
    names = attributes["feature_names"]
    attributes["feature_stats"] = {
        name: {key: values[f] for key, values in stats.items()} for f, name in enumerate(names)
    }
    # in any order: nothing is published before all are done
    check = partial(staging.check_files, arrays)
    write = partial(staging.write_metadata, attributes)
    _, there, metadata = one_round(renew, check, write, far=staging.final is not None)
    return Manifest(arrays, metadata), there
