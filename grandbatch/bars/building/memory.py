"""What reading bars needs, before it is done: sizes of blocks, and how many tasks run at once.

Integer arithmetic over sizes of files; of Parquet files the footers are looked at. Figures are for
short lines and many symbols: others take less.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from grandbatch.bars.building.parts.assembly import PART_ROWS
from grandbatch.bars.form.side_by_side import read_pairs
from grandbatch.bars.inputs.digests import LEAF_BYTES
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.reading.row_groups import (
    BATCH_ROWS,
    READ_BUFFER_BYTES,
    block_rows,
    open_parquet,
    quoted_rows,
    told_plainly,
    wide_buffer,
)
from grandbatch.bars.rules import BarRules
from grandbatch.errors import MemoryLimitError
from grandbatch.files.locations import is_remote
from grandbatch.kernels.bars.bar_rules import judge_rows
from grandbatch.kernels.compilation import compiling_bytes
from grandbatch.memory import MemoryLimit
from grandbatch.memory.costs import BASE_BYTES, WORKER_BYTES
from grandbatch.scheduling import FAR_TURNS, Schedule

DEFAULT_BLOCK_BYTES = 2 * LEAF_BYTES

_LEAST_BLOCK_BYTES = LEAF_BYTES // 4
_LEAST_PART_ROWS = 32_768
_LINE_BYTES = 24
# parsed (53), put in order (60), and as they are written (56)
_ROW_BYTES = 170
# as read (60), timestamps as text and its copies (130), numbers cast (40)
_TABLE_ROW_BYTES = 230
_WIDE_VALUE_BYTES = 16
# a page, and the page unpacked
_PAGE_BYTES = 2 * 2**20
# of a bad row's value its text, and that again as an array
_QUOTED_BYTES = 20
_BAR_COLUMNS = 8
# joined (48), and as read from a block of many symbols (48); merged, in order, and as written
_JOINED_ROW_BYTES, _MERGED_ROW_BYTES = 100, 170
# of an extra column: parsed (9), with its gaps marked (11), put in order (8), as it is written (8)
_EXTRA_BYTES = 36
# as read (8), cast (8)
_EXTRA_TABLE_BYTES = 16
# joined, and as read from a block; merged, in order, and as written
_EXTRA_JOINED_BYTES, _EXTRA_MERGED_BYTES = 16, 27
_TASK_HELD_BYTES = 4_000
_PAUSED_SHARE = 0.8
"""Of its limit, where Dask pauses a worker."""


class WorkerShare(NamedTuple):
    """What a worker process of a cluster has, and holds before it does anything."""

    limit_bytes: int
    """0 for none."""
    threads: int
    own_bytes: int
    address: str = "one"
    """What errors call it: a worker that is yet to start has no address."""
    is_here: bool = True
    """Whether it runs on the machine that this process runs on, and takes of its memory."""

    def needs(self, task_bytes: int) -> int:
        """Bytes that it holds when each thread has a task of that size."""
        return self.own_bytes + self.threads * task_bytes

    def fits(self, task_bytes: int) -> bool:
        """Whether it takes as many tasks of that size as it has threads."""
        most = self.limit_bytes
        return not most or self.needs(task_bytes) <= _PAUSED_SHARE * most


def check_shares(
    shares: Sequence[WorkerShare],
    task_bytes: int,
    what: str,
    remedy: Callable[[], str] | None = None,
) -> None:
    """Raise MemoryLimitError, with the arithmetic, where a worker has no room for its tasks.

    `remedy` says what else than more memory would fit.
    """
    lacking = [share for share in shares if not share.fits(task_bytes)]
    if not lacking:
        return
    least = min(lacking)
    needed = int(least.needs(task_bytes) / _PAUSED_SHARE)
    others = f" ({len(lacking) - 1} more lack it)" if len(lacking) > 1 else ""
    raise MemoryLimitError(
        f"{what} needs {needed:,} bytes in each worker and {least.address} has "
        f"{least.limit_bytes:,}{others}: {least.own_bytes:,} for the interpreter, libraries and "
        f"compiling + {task_bytes:,} for each of {least.threads} threads, with a fifth to "
        f"spare; {remedy() if remedy else ''}give each worker {-(-needed // 2**20)}MiB, or start "
        "fewer"
    )


def turns_that_fit(turns: int, task_bytes: int, shares: Sequence[WorkerShare]) -> int:
    """Return how many tasks of a size each thread of workers takes at once: all turns, or one."""
    return turns if shares and all(share.fits(turns * task_bytes) for share in shares) else 1


@dataclass(frozen=True)
class ReadingPlan:
    """The reading of some inputs, before it runs.

    Parameters
    ----------
    block_bytes : int
        Of text that a task reads.
    part_rows : int
        Bars that a task writes as parts.
    read_bytes, join_bytes : int
        Most that a task holds that reads a block, and one that writes parts.
    held_bytes : int
        What the driver holds.
    workers : int
        Tasks at once, if they fit.
    worker_shares : tuple of WorkerShare
        Of each worker process of a cluster.
    turns : int
        Tasks under way for each thread of these, if they fit.
    """

    block_bytes: int
    part_rows: int
    read_bytes: int
    join_bytes: int
    held_bytes: int
    workers: int
    worker_shares: tuple[WorkerShare, ...] = ()
    turns: int = 1

    @property
    def base_bytes(self) -> int:
        """Bytes of the interpreter, the libraries, compiling, and worker processes."""
        own = BASE_BYTES + compiling_bytes(judge_rows)
        return own + sum(share.own_bytes for share in self.worker_shares)

    def at_once(self, task_bytes: int, limit: MemoryLimit) -> int:
        """Tasks of a size that fit at once, at most `workers`; on a cluster all of them, or 0."""
        room = limit.limit_bytes - self.base_bytes - self.held_bytes
        if not self.worker_shares:
            return max(0, min(self.workers, room // task_bytes))
        return self.workers if all(share.fits(task_bytes) for share in self.worker_shares) else 0

    def turns_of(self, task_bytes: int) -> int:
        """Tasks of a size under way for each thread of a cluster's workers."""
        return turns_that_fit(self.turns, task_bytes, self.worker_shares)

    def limited(self, schedule: Schedule, task_bytes: int, limit: MemoryLimit) -> Schedule:
        """Return the same schedule with as many tasks of a size at once as fit."""
        fitting = schedule.limited_to(self.at_once(task_bytes, limit))
        return fitting.in_turns(self.turns_of(task_bytes))

    def fits(self, limit: MemoryLimit) -> bool:
        """Whether at least one task of each kind fits."""
        return self.at_once(max(self.read_bytes, self.join_bytes), limit) > 0

    def projected_bytes(self, limit: MemoryLimit) -> int:
        """Peak memory of the reading, with as many tasks at once as fit, or one."""
        most = max(
            size * max(1, self.at_once(size, limit) * self.turns_of(size)) for size in self._sizes
        )
        return self.base_bytes + self.held_bytes + most

    def to_json(self, limit: MemoryLimit) -> dict[str, int]:
        """Return the plan's figures as JSON types."""
        return {
            "reading_task_bytes": self.read_bytes,
            "reading_tasks_in_flight": self.at_once(self.read_bytes, limit),
            "joining_task_bytes": self.join_bytes,
        }

    def check(self, limit: MemoryLimit) -> None:
        """Raise MemoryLimitError, with the arithmetic, where not even one task fits."""
        if self.fits(limit):
            return
        size = max(self._sizes)
        check_shares(self.worker_shares, size, "reading the bars")
        needed = self.base_bytes + self.held_bytes + size
        raise MemoryLimitError(
            f"reading the bars needs {needed:,} bytes and may use {limit.limit_bytes:,} "
            f"({limit.source}): {self.base_bytes:,} for the interpreter and libraries + "
            f"{self.held_bytes:,} held + {size:,} for one task; "
            f"{limit.remedy(needed)}"
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.read_bytes, self.join_bytes


def plan_memory(
    files: Sequence[InputFile],
    *,
    rules: BarRules,
    workers: int,
    limit: MemoryLimit,
    worker_shares: tuple[WorkerShare, ...] = (),
    block_bytes: int | None = None,
    turns: int = 1,
) -> ReadingPlan:
    """Choose the size of blocks by the memory there is.

    The largest with which all workers can read at once; else as many read as can.

    Parameters
    ----------
    files : sequence of InputFile
    rules : BarRules
    workers : int
        Tasks at once, if they fit.
    limit : MemoryLimit
    worker_shares : tuple of WorkerShare
        Of each worker process of a cluster.
    block_bytes : int, optional
        Blocks of this size, and no other.
    turns : int
        Tasks under way for each thread of a cluster's workers, if they fit.

    Raises
    ------
    InputError
        If a Parquet file can't be read.
    """
    shapes = [_shape(file, rules) for file in files if file.kind == "parquet"]
    most_rows = PART_ROWS if shapes else sum(file.text_bytes for file in files) // _LINE_BYTES
    n_extra = len(rules.extra)
    likely = likely_block_bytes(files, workers)

    def plan(block: int, part_rows: int) -> ReadingPlan:
        per_row = _MERGED_ROW_BYTES if rules.sort else _JOINED_ROW_BYTES
        per_row += n_extra * (_EXTRA_MERGED_BYTES if rules.sort else _EXTRA_JOINED_BYTES)
        n_tasks = sum(file.text_bytes for file in files) // block + len(files)
        return ReadingPlan(
            block_bytes=block,
            part_rows=part_rows,
            read_bytes=max(
                [_text_bytes(files, block, n_extra)]
                + [shape.read_bytes(block, n_extra) for shape in shapes]
            ),
            join_bytes=max(1, min(most_rows, part_rows) * per_row),
            held_bytes=n_tasks * _TASK_HELD_BYTES,
            workers=workers,
            worker_shares=worker_shares,
            turns=turns,
        )

    blocks = [block_bytes] if block_bytes else _halved(likely, _LEAST_BLOCK_BYTES)
    plans = [plan(block, PART_ROWS) for block in blocks]
    counts = [plan.at_once(plan.read_bytes, limit) for plan in plans]
    if workers in counts:
        block = blocks[counts.index(workers)]
    else:
        # larger blocks on fewer workers; but leaves of files are digested whole while they are read
        fitting = [size for size, n in zip(blocks, counts, strict=True) if n and size <= LEAF_BYTES]
        block = fitting[0] if fitting else blocks[-1]
    plans = [plan(block, rows) for rows in _halved(PART_ROWS, _LEAST_PART_ROWS)]
    return next((plan for plan in plans if plan.at_once(plan.join_bytes, limit)), plans[-1])


def likely_block_bytes(files: Sequence[InputFile], workers: int) -> int:
    """Bytes of a block: less for little data, so that all workers have some."""
    leaves = sum(file.size for file in files) // (2 * max(workers, 1) * LEAF_BYTES)
    return min(DEFAULT_BLOCK_BYTES, max(leaves, 1) * LEAF_BYTES)


def turns_of_reading(files: Sequence[InputFile], cache: Path) -> int:
    """Tasks for each thread of a cluster's workers: more where they wait for requests."""
    return FAR_TURNS if is_remote(cache) or any(file.is_remote for file in files) else 1


def shares_of_workers(schedule: Schedule) -> tuple[WorkerShare, ...]:
    """Return what each worker process of a cluster has; nothing on threads."""
    if schedule.is_local:
        return ()
    workers = schedule.client.scheduler_info(n_workers=-1)["workers"]
    told = schedule.run_on_workers(_bytes_and_host)
    here = socket.gethostname()
    return tuple(
        WorkerShare(
            limit_bytes=int(worker["memory_limit"] or 0),
            threads=int(worker["nthreads"]),
            own_bytes=told[address][0],
            address=address,
            is_here=told[address][1] == here,
        )
        for address, worker in workers.items()
        if address in told
    )


def _bytes_and_host() -> tuple[int, str]:
    """Return what this process holds as a worker, and the name of its machine, or container."""
    return worker_bytes(), socket.gethostname()


def worker_bytes() -> int:
    """Return the bytes that this process holds as a worker, or one that would start here."""
    return WORKER_BYTES + compiling_bytes(judge_rows)


def _halved(size: int, least: int) -> list[int]:
    found = [size]
    while found[-1] > least:
        found.append(found[-1] // 2)
    return found


@dataclass(frozen=True)
class _Shape:
    """What of a Parquet file says how much its reading takes."""

    n_columns: int
    n_read: int
    """Columns that are read at most, where no row is bad."""
    row_bytes: int
    """Bytes of a row in its row group of the longest."""
    column_bytes: int
    """Bytes of a column, on average, in its largest row group."""

    def read_bytes(self, block_bytes: int, n_extra: int) -> int:
        """Most bytes of a task that reads a block of it."""
        n_rows = block_rows(block_bytes, self.n_columns)
        held = n_rows * (
            _ROW_BYTES + _TABLE_ROW_BYTES + n_extra * (_EXTRA_BYTES + _EXTRA_TABLE_BYTES)
        )
        # texts longer than values, as read and as texts of bars
        held += 2 * n_rows * max(0, self.row_bytes - self.n_columns * _WIDE_VALUE_BYTES)
        held += self.n_read * (self._page_bytes(READ_BUFFER_BYTES) + _batch_bytes(n_rows))
        # all columns where rows are bad, and all their texts
        quoted = min(n_rows, quoted_rows(self.n_columns)) * _WIDE_VALUE_BYTES
        of_texts = n_rows * _QUOTED_BYTES
        buffer_bytes = wide_buffer(self.n_columns)
        return held + self.n_columns * (self._page_bytes(buffer_bytes) + quoted + of_texts)

    def _page_bytes(self, buffer_bytes: int) -> int:
        """Bytes of a column of which a page is read: as it lies in the file, and unpacked."""
        return min(buffer_bytes + _PAGE_BYTES, 3 * self.column_bytes)


def _batch_bytes(n_rows: int) -> int:
    return min(n_rows, BATCH_ROWS) * _WIDE_VALUE_BYTES


def _shape(file: InputFile, rules: BarRules) -> _Shape:
    with told_plainly(file.location, "not a Parquet file"), open_parquet(file.location) as table:
        footer, schema = table.metadata, table.schema
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        row_bytes = [group.total_byte_size // max(group.num_rows, 1) for group in groups]
        largest = max((group.total_byte_size for group in groups), default=0)
        n_columns = int(footer.num_columns)
        are_floats = [column.physical_type in ("FLOAT", "DOUBLE") for column in schema]
        is_frame = read_pairs([column.path for column in schema], rules) is not None
    # any column of texts or whole numbers may be one that is watched
    watched = n_columns - sum(are_floats)
    n_read = min(n_columns, _BAR_COLUMNS + len(rules.extra) + watched)
    return _Shape(
        n_columns,
        n_columns if is_frame else n_read,
        max(row_bytes, default=0),
        largest // max(n_columns, 1),
    )


def _text_bytes(files: Sequence[InputFile], block_bytes: int, n_extra: int) -> int:
    """Most bytes of a task that reads a block of text."""
    texts = [file.text_bytes for file in files if file.kind != "parquet"]
    block = min(block_bytes, max(texts, default=0))
    return block + block // (_LINE_BYTES + n_extra) * (_ROW_BYTES + n_extra * _EXTRA_BYTES)
