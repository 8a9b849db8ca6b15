"""Read every chunk of a store back, some files at a time: here, or by tasks on a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

from grandbatch.errors import DamagedStoreError
from grandbatch.files.locations import file_sizes
from grandbatch.scheduling import Schedule, admit_readers, call_waves
from grandbatch.store.format import MANIFEST_NAME, StoreSpec
from grandbatch.store.reading import ArrayReader

BadChunk = tuple[str, int, str]
"""Array, chunk, and what is wrong with it."""

_REQUESTS = 16
_ROOM_BYTES = 128 * 2**20
"""What chunks that are checked at once may take, encoded and decoded."""
_JOB_BYTES = 16 * 2**20
_JOB_FILES = 128


class Readable(Protocol):
    """A store, opened for reading; pickled, it opens itself where it is used."""

    path: Path

    @property
    def spec(self) -> StoreSpec:
        """The sizes of the arrays."""
        ...

    def array_reader(self, name: str) -> ArrayReader:
        """Return what reads the chunks of an array."""
        ...

    def check_unchanged(self) -> None:
        """Raise StoreChangedError where another store is at the path, or none."""


@dataclass(frozen=True)
class Verification:
    """What `MatrixStore.verify` found: `bad_chunks` are (array, chunk, what is wrong)."""

    checked_chunks: int
    bad_chunks: tuple[BadChunk, ...]

    @property
    def ok(self) -> bool:
        """Whether every chunk is what was written."""
        return not self.bad_chunks


@dataclass(frozen=True, eq=False)
class VerifyJob:
    """Some files of one array of a store, to be checked."""

    run: str
    """Which verification it is of."""
    store: Readable
    array: str
    files: range
    listed: tuple[int, ...] | None
    """Bytes of each as the object store lists it, -1 where it does not; None to look at each."""
    threads: int


@dataclass(frozen=True)
class Findings:
    """What is wrong with some files of an array, and what with chunks in them."""

    array: str
    files: list[BadChunk]
    chunks: list[BadChunk]


def verify_store(store: Readable, schedule: Schedule) -> Verification:
    """Check length, crc32c and sha256 of every chunk, and that it decodes.

    Parameters
    ----------
    store : Readable
    schedule : Schedule
        Where chunks are checked. Of a cluster every worker must reach the store itself; what comes
        back to this process is what is wrong. The findings are the same wherever that is.

    Raises
    ------
    StoreError
        As `MatrixStore.verify`.
    """
    sizes = file_sizes(store.path)
    if not schedule.is_local:
        store.check_unchanged()
        schedule = admit_readers(schedule, store.path / MANIFEST_NAME)
    # from a server, many at once
    here = schedule.workers if schedule.is_local else 1
    jobs = _jobs(store, sizes, here if sizes is None else _REQUESTS)
    found: Iterable[Findings]
    if schedule.is_local:
        found = (_check(job, store) for job in jobs)
    else:
        found = schedule.run_waves(call_waves(check_files, jobs))
    bad: list[BadChunk] = []
    for _, of_array in groupby(found, key=lambda findings: findings.array):
        parts = list(of_array)
        bad += [wrong for part in parts for wrong in part.files]
        bad += [wrong for part in parts for wrong in part.chunks]
    return Verification(sum(array.n_chunks for array in store.spec.arrays), tuple(bad))


def _jobs(store: Readable, sizes: dict[str, int] | None, threads: int) -> Iterator[VerifyJob]:
    """Cut the files of all arrays into jobs, each when it is asked for."""
    run = secrets.token_hex(8)
    for array in store.spec.arrays:
        reader = store.array_reader(array.name)
        mean_bytes = reader.n_bytes // array.n_files
        step = max(1, min(_JOB_FILES, _JOB_BYTES // max(1, mean_bytes)))
        # read, without its checksum, and decoded
        room = max(1, _ROOM_BYTES // (3 * array.chunk_bytes))
        for first in range(0, array.n_files, step):
            files = range(first, min(first + step, array.n_files))
            listed = None
            if sizes is not None:
                listed = tuple(sizes.get(array.file(number), -1) for number in files)
            yield VerifyJob(run, store, array.name, files, listed, min(threads, room))


def check_files(job: VerifyJob) -> Findings:
    """Check some files of an array, and all chunks in them, in a worker."""
    return _check(job, _opened(job))


def _check(job: VerifyJob, store: Readable) -> Findings:
    reader = store.array_reader(job.array)
    spec = reader.spec

    def look(number: int) -> str | None:
        wanted = reader.file_bytes(number)
        if job.listed is None:
            there = _size_of(store.path / spec.file(number))
        else:
            there = job.listed[number - job.files.start]
        if there == wanted:
            return _problem(reader.check_index, number * spec.shard_chunks)
        # of one that is missing each chunk says so
        return None if there < 0 else f"its file has {there} bytes instead of {wanted}"

    chunks = range(
        job.files.start * spec.shard_chunks,
        min(job.files.stop * spec.shard_chunks, spec.n_chunks),
    )
    with ThreadPoolExecutor(job.threads) as pool:
        of_files = pool.map(look, job.files)
        of_chunks = pool.map(partial(_problem, reader.check), chunks)
        firsts = (number * spec.shard_chunks for number in job.files)
        wrong_files = zip(firsts, of_files, strict=True)
        wrong_chunks = zip(chunks, of_chunks, strict=True)
        return Findings(
            job.array,
            [(job.array, first, wrong) for first, wrong in wrong_files if wrong],
            [(job.array, chunk, wrong) for chunk, wrong in wrong_chunks if wrong],
        )


_stores: dict[str, Readable] = {}
"""What a worker checks, by the run: its first job opens it, not each."""


def _opened(job: VerifyJob) -> Readable:
    store = _stores.get(job.run)
    if store is None:
        _stores.clear()
        store = _stores[job.run] = job.store
    return store


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _problem(check: Callable[[int], None], chunk: int) -> str | None:
    """Say what a check finds wrong with a chunk; None if nothing."""
    try:
        check(chunk)
    except DamagedStoreError as error:
        return str(error)
    return None
