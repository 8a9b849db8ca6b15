"""Records of the files of a store, read by tasks: which files are finished, and all of them joined.

Between the record that a task reads and what this process keeps of it lie the digests, which the
manifest holds anyway; the moments of each chunk go as soon as they are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import each
from grandbatch.kernels.statistics import merge_moments
from grandbatch.scheduling import Schedule, fresh
from grandbatch.store.file_records import join_digests
from grandbatch.store.manifest import ChunkDigests
from grandbatch.store.staging import Staging

_FILES_PER_TASK = 64
_RECORDS_PER_TASK = 256
"""On a disk: many short system calls, at which threads wait for each other."""
_TASKS_PER_WAVE = 256

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FilesJob:
    """Some files of a store, by their numbers, for one task to look at."""

    staging: Staging
    numbers: Sequence[int]


@dataclass(frozen=True, eq=False)
class JoinedRecords:
    """Records of consecutive files: digests and moments of each chunk, extremes of all."""

    digests: ChunkDigests
    count: npt.NDArray[np.int64]
    mean: Float64
    m2: Float64
    low: Float64
    high: Float64


def find_finished(staging: Staging, schedule: Schedule) -> dict[int, int]:
    """Find the files that an interrupted build left whole: number → chunks in it."""
    finished: dict[int, int] = {}
    numbers = staging.recorded()
    for found in _run(schedule, look_for_finished, staging, numbers, _FILES_PER_TASK):
        finished |= found
    return finished


def look_for_finished(job: FilesJob) -> dict[int, int]:
    """Find those of some files that are whole."""
    return job.staging.finished(job.numbers)


def join_records(
    staging: Staging, schedule: Schedule
) -> tuple[ChunkDigests, dict[str, list[float] | list[int]]]:
    """Join the digests of all chunks, and their statistics in chunk order.

    Raises
    ------
    StoreError, DamagedStoreError
        If a record isn't there, or not what was written.
    """
    spec = staging.spec
    digests = []
    count = 0
    mean, m2 = np.zeros((2, spec.n_features))
    low, high = np.full(spec.n_features, np.inf), np.full(spec.n_features, -np.inf)
    per_task = _FILES_PER_TASK if is_remote(staging.records) else _RECORDS_PER_TASK
    step = per_task * _TASKS_PER_WAVE
    for first in range(0, spec.data.n_files, step):
        numbers = range(first, min(first + step, spec.data.n_files))
        for joined in _run(schedule, read_records, staging, numbers, per_task):
            digests.append(joined.digests)
            low, high = np.minimum(low, joined.low), np.maximum(high, joined.high)
            # copies: what comes from a worker can't be written to, a type that would compile anew
            of_chunks = map(np.array, (joined.count, joined.mean, joined.m2))
            count = merge_moments(count, mean, m2, *of_chunks)
    stats: dict[str, list[float] | list[int]] = {
        "count": [count] * spec.n_features,
        "mean": mean.tolist(),
        "std": np.sqrt(m2 / count).tolist(),
        "min": low.tolist(),
        "max": high.tolist(),
    }
    return join_digests(digests), stats


def read_records(job: FilesJob) -> JoinedRecords:
    """Read the records of consecutive files."""
    staging = job.staging
    records = each(staging.read_record, job.numbers, far=is_remote(staging.records))
    none = np.empty(0, np.uint32)
    return JoinedRecords(
        join_digests([ChunkDigests(r.length, r.crc32c, r.sha256, none) for r in records]),
        count=np.concatenate([record.count for record in records]),
        mean=np.concatenate([record.mean for record in records]),
        m2=np.concatenate([record.m2 for record in records]),
        low=np.min([record.low.min(0) for record in records], axis=0),
        high=np.max([record.high.max(0) for record in records], axis=0),
    )


def _run(
    schedule: Schedule, function: Any, staging: Staging, numbers: Sequence[int], per_task: int
) -> list[Any]:
    """Call a function for some files at a time; results in order."""
    # a graph as it is: `delayed` would walk through every number
    name = fresh(function.__name__)
    graph = {
        (name, at): (function, FilesJob(staging, numbers[at : at + per_task]))
        for at in range(0, len(numbers), per_task)
    }
    return schedule.run_graph(graph, list(graph))
