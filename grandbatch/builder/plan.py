"""Cut a build into groups of files, and say what it needs. Integer arithmetic, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.bars import BarRules, Bars
from grandbatch.bars.building.memory import WorkerShare, check_shares, turns_that_fit
from grandbatch.bars.cache.durations import time_attributes
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import MemoryLimitError, NoWindowsError, UsageError
from grandbatch.features.inputs import extra_inputs_of, inputs_of
from grandbatch.grid import ChunkRuns, Grid, Segments, Stretches
from grandbatch.kernels.bars.bar_rules import judge_rows
from grandbatch.kernels.compilation import compiling_bytes
from grandbatch.memory import MemoryLimit
from grandbatch.memory.costs import BASE_BYTES
from grandbatch.scheduling import WAVE_JOBS, Schedule
from grandbatch.store.format import FORMAT, NEXT_RETURN_VERSION, StoreSpec
from grandbatch.targets.rows import longest_horizon
from grandbatch.values.columns import BAR_COLUMNS
from grandbatch.version import __version__

DEFAULT_PARTITION_BARS = 131_072
LABEL_READ_ROWS = 262_144
"""Bars that a task of the per-window arrays reads at once, about."""

_WORKING_COLUMNS = 8
"""Columns that a target's kernel makes for itself, at most: those of the package make six."""


@dataclass(frozen=True, eq=False)
class Group:
    """Consecutive files of chunks that one task writes, and the feature rows that they need."""

    number: int
    first_file: int
    stop_file: int
    bounds: npt.NDArray[np.int64]
    """(k, 2): half-open ranges of rows, rising, disjoint; one but in the order of periods."""

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Half-open ranges of rows."""
        return [(start, stop) for start, stop in self.bounds.tolist()]

    def n_rows(self, lookback: int) -> int:
        """Rows of the ranges, each with a lookback before it."""
        return int(np.diff(self.bounds).sum()) + lookback * len(self.bounds)


class _Account(NamedTuple):
    """A limit, and what of a build counts against it."""

    limit: MemoryLimit
    shares: tuple[WorkerShare, ...]
    tasks: int
    """In flight, if all fit together."""


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """A build, before it runs.

    Parameters
    ----------
    settings : StoreSettings
    segments : Segments
        Of all bars.
    n_rows : int
        Bars.
    partition_bars : int, optional
        Bars in a partition; by default about 131,072, cut where a file of chunks ends.
    workers : int
        Tasks in flight.
    worker_shares : tuple of WorkerShare
        Of each worker process beside this one; none on threads.
    turns : int
        Tasks under way for each thread of these, if they fit.
    stretches : Stretches, optional
        In the order of periods: where these begin. None stands for one period of all.

    Raises
    ------
    NoWindowsError
        If no segment is long enough for one window.
    UsageError
        If a setting makes no sense for these bars.
    """

    settings: StoreSettings
    segments: Segments
    n_rows: int
    partition_bars: int | None = None
    workers: int = 1
    worker_shares: tuple[WorkerShare, ...] = ()
    turns: int = 1
    stretches: Stretches | None = None

    def __post_init__(self) -> None:
        if self.partition_bars is not None and self.partition_bars < 1:
            raise UsageError(f"partition bars must be at least 1, got {self.partition_bars}")
        chosen = self.settings.feature_set
        if not self.grid.n_windows:
            longest = int(self.segments.length.max()) if len(self.segments) else 0
            needed = chosen.lookback + chosen.sequence_length
            raise NoWindowsError(
                f"{self.n_rows:,} bars in {len(self.segments):,} segments give no window: "
                f"{chosen.name} needs {needed} bars without a break ({chosen.lookback} of "
                f"lookback and {chosen.sequence_length} of sequence), the longest segment has "
                f"{longest}; give more bars, or let larger gaps part them"
            )
        limit = 4 * self.grid.unbroken_block_rows
        if self.spec.layout == "rows" and self.grid.block_rows > limit:
            raise UsageError(
                f"layout rows would need blocks of {self.grid.block_rows:,} rows, more than four "
                f"times the {self.grid.unbroken_block_rows:,} of an unbroken chunk: there are too "
                "many short segments; add --layout windows"
            )

    @cached_property
    def grid(self) -> Grid:
        """Windows over the segments."""
        return self.settings.grid(self.segments, self.stretches)

    @cached_property
    def spec(self) -> StoreSpec:
        """Sizes of the store's arrays."""
        rows = self.grid.block_rows if self.settings.layout == "rows" else 0
        return self.settings.spec(n_windows=self.grid.n_windows, block_rows=rows)

    @property
    def target_rows(self) -> int:
        """Feature rows that a group aims at."""
        return self.partition_bars or DEFAULT_PARTITION_BARS

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Files dealt into groups of about `target_rows` feature rows, at least one file each."""
        groups: list[Group] = []
        begin = 0
        n_files = self.spec.data.n_files
        for file in range(n_files):
            group = self.group_of(begin, file + 1, len(groups))
            if group.n_rows(0) >= self.target_rows or file == n_files - 1:
                groups.append(group)
                begin = file + 1
        return tuple(groups)

    def group_of(self, first_file: int, stop_file: int, number: int = 0) -> Group:
        """Return consecutive files, with the rows that they need."""
        per_file = self.spec.data.shard_chunks
        chunks = first_file * per_file, min(stop_file * per_file, self.grid.n_chunks)
        return Group(number, first_file, stop_file, self.grid.row_ranges(*chunks))

    @cached_property
    def bounds(self) -> list[int]:
        """Row numbers between the partitions of the frame of bars.

        Partitions end where groups do, or every `partition_bars` bars where that is given. None
        is shorter than the lookback, which `map_overlap` takes from the one before. In the order of
        periods there are none: each group is a partition.
        """
        if self.partition_bars is None:
            ends = [int(group.bounds[-1, 1]) for group in self.groups]
        else:
            ends = [*range(self.partition_bars, self.n_rows, self.partition_bars)]
        least = max(1, self.settings.feature_set.lookback)
        bounds = [0]
        for end in ends:
            if end - bounds[-1] >= least:
                bounds.append(end)
        if self.n_rows - bounds[-1] < least and len(bounds) > 1:
            bounds.pop()
        if bounds[-1] != self.n_rows:
            bounds.append(self.n_rows)
        return bounds

    def runs(self, file: int) -> ChunkRuns:
        """Pieces of each chunk of a file."""
        per_file = self.spec.data.shard_chunks
        stop = min((file + 1) * per_file, self.grid.n_chunks)
        return self.grid.runs_of(file * per_file, stop)

    @cached_property
    def task_bytes(self) -> int:
        """Most bytes that one task holds at once."""
        lookback = 0 if self.stretches is None else self.settings.feature_set.lookback
        rows = max(group.n_rows(lookback) for group in self.groups)
        if self.stretches is None:
            rows = max(rows, int(np.diff(self.bounds).max()))
        n_features = self.spec.n_features
        # bars as columns, once as read from Parquet and once joined with the tail before
        columns = len(BAR_COLUMNS) + len(extra_inputs_of(self.settings.feature_set.features))
        bars = rows * 2 * columns * 8
        # features as computed, and joined over partitions
        features = rows * 2 * n_features * 4
        # one decoded chunk, and the encoded chunks of a file twice: apart and joined
        data = self.spec.data
        chunks = data.chunk_bytes + 2 * data.chunk_bytes * min(data.shard_chunks, 2)
        return max(int(bars + features + chunks), self._target_bytes)

    @property
    def _target_bytes(self) -> int:
        """Most bytes that a task of the per-window arrays holds where there are targets."""
        targets = self.settings.targets
        if not targets:
            return 0
        rows = LABEL_READ_ROWS + self.grid.unbroken_block_rows + longest_horizon(targets)
        rows = min(rows, self.n_rows)
        # bars as columns, what a kernel works with, the targets of every bar, those of the windows
        # as cut, joined and encoded
        bars = rows * (2 + len(inputs_of(targets)) + _WORKING_COLUMNS) * 8
        labels = self.spec.label_chunk_windows * (40 + 4 * len(targets)) * 3
        return bars + rows * 4 * len(targets) + labels

    @property
    def order_attributes(self) -> dict[str, Any]:
        """What a store says of the order of its windows; nothing where it is by symbol first."""
        settings = self.settings
        if settings.period is None:
            return {}
        return {
            "order": settings.order,
            "period": settings.period,
            "most_runs": self.grid.most_runs,
        }

    @property
    def processes(self) -> int:
        """Worker processes beside this one."""
        return len(self.worker_shares)

    @property
    def base_bytes(self) -> int:
        """Bytes of the interpreter, the libraries, compiling, and worker processes."""
        return _base_bytes(self.worker_shares)

    @property
    def held_bytes(self) -> int:
        """Bytes that the driver and the scheduler hold: the manifest, and two waves of tasks."""
        tasks = 6 * min(len(self.groups), 2 * WAVE_JOBS)
        stretches = 0 if self.stretches is None else 96 * len(self.stretches.start)
        listed = 400 * len(self.groups) + 750 * self.grid.n_chunks
        return tasks * 2_000 + listed + 32 * len(self.segments) + stretches

    def projected_bytes(self, workers: int | None = None) -> int:
        """Peak memory of the build with a number of tasks in flight."""
        in_flight = self.most_tasks if workers is None else workers
        return self.base_bytes + self.held_bytes + in_flight * self.task_bytes

    @property
    def most_tasks(self) -> int:
        """Tasks in flight, if all fit together."""
        return self.workers * turns_that_fit(self.turns, self.task_bytes, self.worker_shares)

    def tasks_that_fit(self, limit: MemoryLimit) -> int:
        """Tasks in flight that fit under a limit, at most `most_tasks`; none may."""
        accounts = self._accounts(limit)
        if not all(self._has_room(account) for account in accounts):
            return 0
        most = self.most_tasks
        return min(most - max(0, of.tasks - self._room(of)) for of in accounts)

    def _accounts(self, limit: MemoryLimit) -> list[_Account]:
        """Of this machine, where other machines' workers take nothing; of a setting, with all."""
        found = []
        most = self.most_tasks
        if limit.setting_bytes is not None:
            setting = MemoryLimit(limit.setting_bytes, "--memory-limit")
            found.append(_Account(setting, self.worker_shares, most))
        here = tuple(share for share in self.worker_shares if share.is_here)
        away = sum(share.threads for share in self.worker_shares if not share.is_here)
        # workers come and go while they are asked: one that is not known may be of this machine
        threads = max(self.workers - away, sum(share.threads for share in here))
        tasks = min(most, threads * (most // self.workers))
        return [*found, _Account(limit, here, tasks)]

    def _room(self, account: _Account) -> int:
        """Tasks that an account has room for; less than none where not even workers fit."""
        free = account.limit.limit_bytes - _base_bytes(account.shares) - self.held_bytes
        return int(free // self.task_bytes)

    def _has_room(self, account: _Account) -> bool:
        """Whether at least one task fits, or no task counts and all else does."""
        return self._room(account) >= min(1, account.tasks)

    def limited(self, schedule: Schedule, limit: MemoryLimit) -> Schedule:
        """Return the same schedule with as many tasks at once as are admitted."""
        admitted = self.admitted(limit)
        have_turns = admitted >= self.workers * self.turns
        return schedule.limited_to(admitted).in_turns(self.turns if have_turns else 1)

    def admitted(self, limit: MemoryLimit) -> int:
        """Return how many tasks in flight fit under a limit, at most `most_tasks`.

        Raises
        ------
        MemoryLimitError
            If not even one fits, or a cluster's worker has no room for one in each thread; shows
            the arithmetic and what would fit.
        """

        def fewer_bars() -> str:
            smaller = self._smaller(limit)
            return f"--partition-bars {smaller} would fit; or " if smaller else ""

        check_shares(self.worker_shares, self.task_bytes, "writing the store", fewer_bars)
        fitting = self.tasks_that_fit(limit)
        if fitting >= 1:
            return fitting
        raise self._refusal(limit)

    def _refusal(self, limit: MemoryLimit) -> MemoryLimitError:
        account = next(of for of in self._accounts(limit) if not self._has_room(of))
        base, task = _base_bytes(account.shares), min(1, account.tasks) * self.task_bytes
        needed = base + self.held_bytes + task
        smaller = self._smaller(limit)
        remedy = f"--partition-bars {smaller} would fit" if smaller else ""
        away = sum(not share.is_here for share in account.shares)
        elsewhere = f" ({away} on other machines)" if away else ""
        return MemoryLimitError(
            f"the build needs {needed:,} bytes and may use {account.limit.limit_bytes:,} "
            f"({account.limit.source}): {base:,} for the interpreter, libraries and "
            f"{len(account.shares)} worker processes{elsewhere} + {self.held_bytes:,} held for "
            f"{len(self.groups)} tasks + {task:,} for one task of "
            f"{self.target_rows:,} bars; {remedy or account.limit.remedy(needed)}"
        )

    def _smaller(self, limit: MemoryLimit) -> int:
        """Return how many bars in a partition would fit, here and in each worker; 0 for none."""
        smaller = self.target_rows
        while smaller > 4096:
            smaller //= 2
            plan = replace(self, partition_bars=smaller)
            has_room = all(share.fits(plan.task_bytes) for share in self.worker_shares)
            if has_room and plan.tasks_that_fit(limit) >= 1:
                return smaller
        return 0


def _base_bytes(shares: tuple[WorkerShare, ...]) -> int:
    """Bytes of the interpreter, the libraries, compiling, and worker processes."""
    return BASE_BYTES + compiling_bytes(judge_rows) + sum(share.own_bytes for share in shares)


def attributes_of(
    plan: BuildPlan,
    bars: Bars,
    rules: BarRules,
    fingerprint: str,
    before: tuple[Bars, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Return the attributes of a store's group, but for the statistics.

    `before` are the bars of the store that it grew from, and what that says of them.
    """
    settings, spec = plan.settings, plan.spec
    chosen = settings.feature_set
    return {
        **settings.target_attributes,
        "format": FORMAT,
        "feature_set": chosen.name,
        "feature_names": list(chosen.feature_names),
        "feature_versions": list(chosen.feature_versions),
        "next_return_version": NEXT_RETURN_VERSION,
        **({"zone_database": chosen.zone_database} if chosen.zone_database else {}),
        "inputs": list(chosen.inputs),
        "lookback": chosen.lookback,
        "sequence_length": spec.sequence_length,
        "overlap": spec.overlap,
        "stride": spec.stride,
        "chunk_windows": spec.chunk_windows,
        "n_windows": spec.n_windows,
        "n_rows": bars.n_rows,
        "n_symbols": len(bars.symbols),
        "first_time": bars.first_time,
        "last_time": bars.last_time,
        "layout": spec.layout,
        "codec": spec.codec,
        "block_rows": spec.block_rows,
        "shard_chunks": spec.shard_chunks,
        "max_gap_ns": settings.max_gap_ns,
        "symbols": list(bars.symbols),
        "symbols_without_windows": [
            bars.symbols[code] for code in plan.grid.symbols_without_windows()
        ],
        "n_segments": len(plan.segments),
        "source": [dict(entry) for entry in bars.source],
        "day_first": list(bars.day_first),
        "time_numbers": list(bars.time_numbers),
        "rules": rules.told(),
        "quarantined": dict(bars.quarantined),
        "clock_changes": dict(bars.clock_changes),
        "left_out": bars.left_out,
        "worth_a_look": list(bars.worth_a_look),
        "widened": bars.widened,
        "differing_duplicates": bars.differing_duplicates,
        "duplicates": rules.duplicates,
        **plan.order_attributes,
        **time_attributes(bars, rules, before),
        **(
            {"extra": list(bars.extra), "fill": bars.fill, "filled": bars.filled}
            if bars.extra
            else {}
        ),
        "fingerprint": fingerprint,
        "content_id": settings.content_id(bars.fingerprint),
        "created_by": f"grandbatch {__version__}",
    }
