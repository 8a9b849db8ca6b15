"""The two engines of a build: how features reach the tasks that write chunks.

`overlap` makes a Dask frame of the bars, adds the features with its one `map_overlap`, and hands
each writing task the partitions, or slices of partitions, that its windows lie in. `direct` lets
each writing task read its own bars, lookback included, from the cache. Both give the same bytes.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from dask.optimization import cull

from grandbatch.bars import Bars
from grandbatch.builder.chunks import FeatureRows, FileJob, NotFiniteError, write_files
from grandbatch.builder.labels import LabelJob, write_label_chunk
from grandbatch.builder.plan import BuildPlan, Group
from grandbatch.errors import KernelError
from grandbatch.features import FeatureSet, add_features, compute_rows
from grandbatch.scheduling import Schedule, Wave, call_waves, fresh, waves_of
from grandbatch.store.staging import Staging

logger = logging.getLogger(__name__)

ENGINES = ("auto", "overlap", "direct")
FEW_JOBS = 8
MOST_JOBS_PER_TASK = 4
LEAST_TASKS_PER_WORKER = 8
TASKS_PER_WORKER_OF_FEW = 4

Graph = dict[Any, Any]
"""A Dask graph: tasks by their keys."""


@dataclass(frozen=True, eq=False)
class GroupJob:
    """What a task needs to write a group's files, but for the features."""

    bars: Bars
    staging: Staging
    feature_set: FeatureSet
    group: Group
    files: Sequence[FileJob]
    starts: npt.NDArray[np.int64]
    """Row numbers where segments start, from the first row of lookback on."""
    gathered: bool
    """Whether the rows of several ranges are gathered, each with a lookback before it."""


def group_jobs(
    plan: BuildPlan,
    bars: Bars,
    staging: Staging,
    finished: set[int],
    most_files: int | None = None,
) -> Iterator[GroupJob]:
    """Describe the groups that still have files to write, each when it is asked for.

    Where it is given, none has more than `most_files` of these files.
    """
    lookback = plan.settings.feature_set.lookback
    for group in plan.groups:
        files = [f for f in range(group.first_file, group.stop_file) if f not in finished]
        at_once = most_files or max(1, len(files))
        for at in range(0, len(files), at_once):
            some = files[at : at + at_once]
            part = group if len(some) == len(files) else plan.group_of(some[0], some[-1] + 1)
            rows = [part.bounds[0, 0] - lookback, part.bounds[-1, 1]]
            lo, hi = np.searchsorted(plan.segments.start, rows)
            yield GroupJob(
                bars=bars,
                staging=staging,
                feature_set=plan.settings.feature_set,
                group=part,
                files=[FileJob(f, plan.runs(f)) for f in some],
                starts=plan.segments.start[lo:hi],
                gathered=plan.stretches is not None,
            )


def count_jobs(plan: BuildPlan, finished: set[int]) -> int:
    """Count the groups that still have files to write."""
    files = (range(group.first_file, group.stop_file) for group in plan.groups)
    return sum(any(file not in finished for file in one) for one in files)


def label_graphs(jobs: Iterable[LabelJob]) -> Iterator[Wave]:
    """Return the graphs that write the per-window arrays, wave by wave, as `graphs` does."""
    return call_waves(write_label_chunk, jobs)


def graphs(
    engine: str,
    plan: BuildPlan,
    bars: Bars,
    staging: Staging,
    finished: set[int],
    schedule: Schedule,
) -> Iterator[Wave]:
    """Return the graphs that write the groups which still have files to write, wave by wave.

    Each comes with the keys of its tasks that write.
    """
    most_files = None
    if engine == "direct" and schedule.is_local and count_jobs(plan, finished) <= FEW_JOBS:
        n_left = plan.spec.data.n_files - len(finished)  # few large tasks end at different times
        most_files = -(-n_left // (TASKS_PER_WORKER_OF_FEW * schedule.workers))
    jobs = group_jobs(plan, bars, staging, finished, most_files)
    for wave in waves_of(jobs):
        if engine == "direct":
            graph = direct_graph(wave, _jobs_per_task(len(plan.groups), schedule))
            yield graph, list(graph)
        else:
            yield overlap_graph(wave, plan, bars)


def choose_engine(engine: str, schedule: Schedule) -> str:
    """Resolve "auto": the direct engine, each task of which reads all it needs.

    Frames of bars and of features cost the overlap engine a quarter of its speed on threads, and
    about half where they move between workers, which is told (docs/scaling.md has the figures).
    """
    if engine != "auto":
        return engine
    if not schedule.is_local:
        logger.info(
            "engine auto is direct on a cluster, where overlap runs at about half its speed; "
            "--engine overlap gives the same bytes"
        )
    return "direct"


def direct_graph(jobs: Sequence[GroupJob], per_task: int) -> Graph:
    """Return the tasks that write the groups, each from its own rows of the bars cache."""
    name = fresh("write")
    return {
        (name, at): (write_direct, _Literal(jobs[at : at + per_task]))
        for at in range(0, len(jobs), per_task)
    }


@dataclass(frozen=True, eq=False)
class _Literal:
    """Keeps Dask from walking through a task's argument."""

    value: Any


def _jobs_per_task(n_jobs: int, schedule: Schedule) -> int:
    """Return how many groups a task writes: several on a cluster, where a task is dear.

    It stays one where workers would have few tasks each, and end at different times.
    """
    if schedule.is_local:
        return 1
    most = n_jobs // (LEAST_TASKS_PER_WORKER * schedule.tasks_at_once)
    return max(1, min(MOST_JOBS_PER_TASK, most))


def write_direct(jobs: _Literal) -> int:
    """Write groups one after the other, as `_write_direct` does; return the chunks."""
    return sum(_write_direct(job) for job in jobs.value)


def _write_direct(value: GroupJob) -> int:
    """Read a group's bars, compute its features and write its files; return the chunks."""
    return _write(value, direct_rows(value))


def direct_rows(job: GroupJob) -> FeatureRows:
    """Compute a group's feature rows from the bars cache."""
    lookback = job.feature_set.lookback
    read = [(start - lookback, stop) for start, stop in job.group.ranges]
    columns = job.bars.read_ranges(read, job.feature_set.inputs)
    starts = job.starts - read[0][0]
    if job.gathered:
        # windows never cross a segment, and what a range begins with is lookback
        starts = np.cumsum([stop - start for start, stop in read])[:-1]
    values = compute_rows(job.feature_set, columns, starts, lookback)
    return FeatureRows.of(values, job.group.bounds, lookback)


def overlap_graph(jobs: Sequence[GroupJob], plan: BuildPlan, bars: Bars) -> tuple[Graph, list[Any]]:
    """Return the graph that writes the groups from the partitions of one frame with features.

    Its second part are the keys of the tasks that write, each with the chunks as its result.
    """
    if plan.stretches is not None:
        return _gathered_graph(jobs, plan, bars)
    begin = bisect_right(plan.bounds, jobs[0].group.bounds[0, 0]) - 1
    end = bisect_left(plan.bounds, jobs[-1].group.bounds[-1, 1])
    # the one before has the lookback of the first
    bounds = plan.bounds[max(0, begin - 1) : end + 1]
    frame = bars.gathered_frame([[rows] for rows in pairwise(bounds)])
    graph, parts = _with_features(plan, frame, [int(n) for n in np.diff(bounds)])
    write_name, slice_name = fresh("write"), fresh("slice")
    keys: list[Any] = []
    for job in jobs:
        slices = []
        ((first_row, stop_row),) = job.group.ranges
        first = int(np.searchsorted(bounds, first_row, side="right")) - 1
        for number in range(first, len(parts)):
            begin, stop = bounds[number], bounds[number + 1]
            if begin >= stop_row:
                break
            lo, hi = max(first_row - begin, 0), min(stop_row, stop) - begin
            if (lo, hi) == (0, stop - begin):
                slices.append(parts[number])
            else:
                part = (slice_name, job.group.number, number)
                graph[part] = (take_rows, parts[number], lo, hi)
                slices.append(part)
        key = (write_name, job.group.number)
        graph[key] = (write_overlap, _Literal(job), slices)
        keys.append(key)
    # a build that goes on needs few partitions
    return cull(graph, keys)[0], keys


def _gathered_graph(
    jobs: Sequence[GroupJob], plan: BuildPlan, bars: Bars
) -> tuple[Graph, list[Any]]:
    """Do as `overlap_graph` where the rows of a group are gathered from many places.

    Each group is a partition: its ranges, each with its lookback before it. So no row that is
    needed reads another range, or the partition before.
    """
    lookback = plan.settings.feature_set.lookback
    read = [[(start - lookback, stop) for start, stop in job.group.ranges] for job in jobs]
    rows = [job.group.n_rows(lookback) for job in jobs]
    graph, parts = _with_features(plan, bars.gathered_frame(read), rows)
    name = fresh("write")
    keys = [(name, job.group.number) for job in jobs]
    for key, job, part in zip(keys, jobs, parts, strict=True):
        graph[key] = (write_overlap, _Literal(job), [part])
    return graph, list(keys)


def _with_features(plan: BuildPlan, frame: Any, rows: list[int]) -> tuple[Graph, list[Any]]:
    """Add the features to a frame of bars; return the graph, and the keys of its partitions."""
    gap = plan.settings.max_gap_ns
    features = add_features(
        frame,
        plan.settings.feature_set,
        max_gap=None if gap is None else pd.Timedelta(gap, "ns"),
        keep_bars=False,
        partition_rows=rows,
    ).optimize()
    return dict(features.__dask_graph__()), features.__dask_keys__()


def take_rows(frame: pd.DataFrame, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Copy some feature rows, so that only they travel and the partition can go."""
    return frame.iloc[start:stop].to_numpy().copy()


def write_overlap(job: _Literal, parts: Sequence[pd.DataFrame | npt.NDArray[np.float32]]) -> int:
    """Join a group's feature rows and write its files; return the chunks."""
    value: GroupJob = job.value
    arrays = [part if isinstance(part, np.ndarray) else part.to_numpy() for part in parts]
    features = np.concatenate(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])
    before = value.feature_set.lookback if value.gathered else 0
    return _write(value, FeatureRows.of(features[before:], value.group.bounds, before))


def _write(job: GroupJob, features: FeatureRows) -> int:
    """Write a group's files from its feature rows; return the chunks.

    Raises
    ------
    KernelError
        If a feature isn't finite: a store never holds NaN or an infinity.
    """
    try:
        return write_files(job.staging, job.files, features)
    except NotFiniteError as found:
        bar = job.bars.read(found.row, found.row + 1, ("timestamp", "symbol"))
        time = np.datetime64(int(bar["timestamp"][0]), "ns")
        raise KernelError(
            f"feature {job.feature_set.feature_names[found.feature]} of {job.feature_set.name} is "
            f"{found.value} for {job.bars.symbols[int(bar['symbol'][0])]} at {time} UTC, and a "
            "store holds finite numbers only; have its kernel give one there (as 0), or leave out "
            "the bars that it can't take"
        ) from None
