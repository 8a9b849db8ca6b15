"""What reading bars needs, before it is done: sizes of blocks, and how many tasks run at once.

Integer arithmetic over sizes of files; of Parquet files the footers are looked at. Figures are for
short lines and many symbols: others take less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grandbatch.bars.building.assembly import PART_ROWS
from grandbatch.bars.inputs.files import LEAF_BYTES, InputFile
from grandbatch.bars.reading.row_groups import BUFFER_BYTES, open_parquet, told_plainly
from grandbatch.errors import MemoryLimitError
from grandbatch.kernels.bars.bar_rules import judge_rows
from grandbatch.kernels.compilation import compiling_bytes
from grandbatch.memory import MemoryLimit
from grandbatch.memory.costs import BASE_BYTES, WORKER_BYTES
from grandbatch.scheduling import Schedule

DEFAULT_BLOCK_BYTES = 2 * LEAF_BYTES
TEXT_BYTES_PER_ROW = 64
"""Of Parquet files, so that their blocks hold about as many rows as those of CSV."""

_LEAST_BLOCK_BYTES = LEAF_BYTES // 4
_LEAST_PART_ROWS = 32_768
_LINE_BYTES = 24
# parsed (53), put in order (60), and as they are written (56)
_ROW_BYTES = 170
# as read (60), timestamps as text and its copies (130), numbers cast (40)
_TABLE_ROW_BYTES = 230
_WIDE_VALUE_BYTES = 16
# what is read at once, a page, and the page unpacked
_COLUMN_BYTES = 3 * BUFFER_BYTES
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
    worker_limits : tuple of (int, int)
        Of each worker process of a cluster its limit, 0 for none, and its threads.
    """

    block_bytes: int
    part_rows: int
    read_bytes: int
    join_bytes: int
    held_bytes: int
    workers: int
    worker_limits: tuple[tuple[int, int], ...] = ()

    @property
    def base_bytes(self) -> int:
        """Bytes of the interpreter, the libraries, compiling, and worker processes."""
        own = BASE_BYTES + compiling_bytes(judge_rows)
        return own + len(self.worker_limits) * WORKER_BYTES

    def at_once(self, task_bytes: int, limit: MemoryLimit) -> int:
        """Tasks of a size that fit at once, at most `workers`; on a cluster all of them, or 0."""
        room = limit.limit_bytes - self.base_bytes - self.held_bytes
        if not self.worker_limits:
            return max(0, min(self.workers, room // task_bytes))
        fit = all(
            not most or WORKER_BYTES + threads * task_bytes <= _PAUSED_SHARE * most
            for most, threads in self.worker_limits
        )
        return self.workers if fit else 0

    def fits(self, limit: MemoryLimit) -> bool:
        """Whether at least one task of each kind fits."""
        return self.at_once(max(self.read_bytes, self.join_bytes), limit) > 0

    def projected_bytes(self, limit: MemoryLimit) -> int:
        """Peak memory of the reading, with as many tasks at once as fit, or one."""
        most = max(size * max(1, self.at_once(size, limit)) for size in self._sizes)
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
        if self.worker_limits:
            most, threads = min(pair for pair in self.worker_limits if pair[0])
            needed = int((WORKER_BYTES + threads * size) / _PAUSED_SHARE)
            raise MemoryLimitError(
                f"reading the bars needs {needed:,} bytes in each worker and one has {most:,}: "
                f"{WORKER_BYTES:,} for the interpreter and libraries + {size:,} for each of "
                f"{threads} threads, with a fifth to spare; give each worker more memory, "
                "or start fewer"
            )
        needed = self.base_bytes + self.held_bytes + size
        raise MemoryLimitError(
            f"reading the bars needs {needed:,} bytes and may use {limit.limit_bytes:,} "
            f"({limit.source}): {self.base_bytes:,} for the interpreter and libraries + "
            f"{self.held_bytes:,} held + {size:,} for one task; "
            f"--memory-limit {-(-needed // 2**20)}MiB would fit"
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.read_bytes, self.join_bytes


def plan_memory(
    files: Sequence[InputFile],
    *,
    sort: bool,
    workers: int,
    limit: MemoryLimit,
    worker_limits: tuple[tuple[int, int], ...] = (),
    block_bytes: int | None = None,
    n_extra: int = 0,
) -> ReadingPlan:
    """Choose the size of blocks by the memory there is.

    The largest with which all workers can read at once; else as many read as can.

    Parameters
    ----------
    files : sequence of InputFile
    sort : bool
        Whether bars are sorted.
    workers : int
        Tasks at once, if they fit.
    limit : MemoryLimit
    worker_limits : tuple of (int, int)
        As in `ReadingPlan`.
    block_bytes : int, optional
        Blocks of this size, and no other.
    n_extra : int
        Extra columns.

    Raises
    ------
    InputError
        If a Parquet file can't be read.
    """
    tables = [_shape(file) for file in files if file.kind == "parquet"]
    n_columns = max((columns for columns, _ in tables), default=0)
    row_bytes = max((size for _, size in tables), default=0)
    most_rows = PART_ROWS if n_columns else sum(file.text_bytes for file in files) // _LINE_BYTES
    likely = likely_block_bytes(files, workers)

    def plan(block: int, part_rows: int) -> ReadingPlan:
        per_row = _MERGED_ROW_BYTES if sort else _JOINED_ROW_BYTES
        per_row += n_extra * (_EXTRA_MERGED_BYTES if sort else _EXTRA_JOINED_BYTES)
        n_tasks = sum(file.text_bytes for file in files) // block + len(files)
        return ReadingPlan(
            block_bytes=block,
            part_rows=part_rows,
            read_bytes=_read_bytes(files, block, n_columns, row_bytes, n_extra),
            join_bytes=max(1, min(most_rows, part_rows) * per_row),
            held_bytes=n_tasks * _TASK_HELD_BYTES,
            workers=workers,
            worker_limits=worker_limits,
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


def limits_of_workers(schedule: Schedule) -> tuple[tuple[int, int], ...]:
    """Limit and threads of each worker process of a cluster; nothing on threads."""
    if schedule.is_local:
        return ()
    workers = schedule.client.scheduler_info(n_workers=-1)["workers"].values()
    return tuple((int(worker["memory_limit"] or 0), int(worker["nthreads"])) for worker in workers)


def _halved(size: int, least: int) -> list[int]:
    found = [size]
    while found[-1] > least:
        found.append(found[-1] // 2)
    return found


def _shape(file: InputFile) -> tuple[int, int]:
    """Columns of a Parquet file, and the bytes of a row in its row group of the longest."""
    with told_plainly(file.location, "not a Parquet file"), open_parquet(file.location) as table:
        footer = table.metadata
        groups = (footer.row_group(number) for number in range(footer.num_row_groups))
        row_bytes = [group.total_byte_size // max(group.num_rows, 1) for group in groups]
        return int(footer.num_columns), max(row_bytes, default=0)


def _read_bytes(
    files: Sequence[InputFile], block_bytes: int, n_columns: int, row_bytes: int, n_extra: int
) -> int:
    """Most bytes of a task that reads a block: of text, or of Parquet of so many columns."""
    of_row = _ROW_BYTES + n_extra * _EXTRA_BYTES
    texts = [file.text_bytes for file in files if file.kind != "parquet"]
    block = min(block_bytes, max(texts, default=0))
    text = block + block // (_LINE_BYTES + n_extra) * of_row
    if not n_columns:
        return text
    n_rows = max(1, block_bytes // TEXT_BYTES_PER_ROW)
    # all columns where rows are bad, and those of bars beside them
    columns = n_columns * (2 * _COLUMN_BYTES + n_rows * _WIDE_VALUE_BYTES)
    # texts longer than values, as read and as texts of bars
    columns += 2 * n_rows * max(0, row_bytes - n_columns * _WIDE_VALUE_BYTES)
    return max(text, n_rows * (of_row + _TABLE_ROW_BYTES + n_extra * _EXTRA_TABLE_BYTES) + columns)
