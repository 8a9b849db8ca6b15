"""What a build would do and need.

Of much data only lines are counted; of little, bars are read, into a folder that goes again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from grandbatch.bars.building.memory import (
    ReadingPlan,
    WorkerShare,
    plan_memory,
    turns_of_reading,
    worker_bytes,
)
from grandbatch.bars.form.dialect import read_dialect
from grandbatch.bars.inputs.files import InputFile, resolve_inputs
from grandbatch.bars.inputs.opening import open_raw
from grandbatch.bars.inputs.packing import open_text
from grandbatch.bars.prepare import find_bars, prepare_bars
from grandbatch.bars.rules import BarRules
from grandbatch.builder.history import rates_beside
from grandbatch.builder.plan import BuildPlan
from grandbatch.builder.reuse import Request, is_free
from grandbatch.errors import DamagedBarsError, DiskFullError, InputError, MemoryLimitError
from grandbatch.files.locations import is_remote
from grandbatch.files.system import available_cores
from grandbatch.files.whole import free_bytes
from grandbatch.grid import Segments, Stretches
from grandbatch.memory import MemoryLimit, memory_limit
from grandbatch.scheduling import FAR_TURNS

EXACT_BYTES = 64 * 2**20
"""Inputs with up to this much text are read for a plan: it takes about a second."""

_LOADING_SECONDS = 1.5
"""Until what a build works with is loaded, whatever its size."""

_BAR_BYTES = 48
_LABEL_BYTES = 40

_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Estimate:
    """A plan, the limit it is held against, and whether the bars were counted or known.

    Parameters
    ----------
    plan : BuildPlan
    limit : MemoryLimit
    exact : bool
        True where the bars are cached, or few enough to be read. Otherwise lines were counted,
        every one taken for a good bar of one symbol, without gaps.
    """

    plan: BuildPlan
    limit: MemoryLimit
    exact: bool
    reading: ReadingPlan | None = None
    """None where the bars are cached."""
    rows_per_second: float = 1e6
    rate_source: str = "a rate often met: no build was recorded beside this store"
    disk_free_bytes: int | None = None
    loading_seconds: float = 0.0
    """Until what a build works with is loaded; recorded rates have it in them."""

    @property
    def tasks_in_flight(self) -> int:
        """Tasks that fit at once; at least 1, whether that fits or not."""
        return max(1, self.plan.tasks_that_fit(self.limit))

    @property
    def projected_bytes(self) -> int:
        """Peak memory of the build: of the reading of bars, or of the writing of chunks."""
        writing = self.plan.projected_bytes(self.tasks_in_flight)
        return max(writing, self.reading.projected_bytes(self.limit) if self.reading else 0)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit."""
        can_read = self.reading is None or self.reading.fits(self.limit)
        return can_read and self.projected_bytes <= self.limit.limit_bytes

    @property
    def disk_bytes(self) -> int:
        """Space that store and bars cache take, about: as if nothing but repeats were packed."""
        spec = self.plan.spec
        each = 4 * spec.n_features
        is_once = spec.layout == "rows" or (
            spec.codec == "zstd" and 2 * spec.stride < spec.sequence_length
        )
        # a chunk stands alone: it begins with the rows that it shares with the one before
        shared = (spec.sequence_length - spec.stride) / spec.chunk_windows
        rows = spec.stride + shared if is_once else spec.sequence_length
        bars = 0 if self.reading is None else self.plan.n_rows * _BAR_BYTES
        return int(spec.n_windows * (rows * each + _LABEL_BYTES)) + bars

    def check(self) -> None:
        """Raise MemoryLimitError where the build does not fit."""
        if self.reading is not None:
            self.reading.check(self.limit)
        self.plan.admitted(self.limit)

    def to_json(self) -> dict[str, Any]:
        """Return the plan's figures as JSON types."""
        plan, spec = self.plan, self.plan.spec
        return {
            "n_rows": plan.n_rows,
            "exact": self.exact,
            "inputs": list(plan.settings.inputs),
            "n_segments": len(plan.segments),
            "n_windows": spec.n_windows,
            "n_chunks": spec.n_chunks,
            "n_files": spec.data.n_files,
            "layout": spec.layout,
            "codec": spec.codec,
            "decoded_bytes": spec.decoded_bytes,
            "base_bytes": plan.base_bytes,
            "held_bytes": plan.held_bytes,
            "task_bytes": plan.task_bytes,
            "tasks_in_flight": self.tasks_in_flight,
            **({} if self.reading is None else self.reading.to_json(self.limit)),
            "disk_bytes": self.disk_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "expected_seconds": round(self.loading_seconds + plan.n_rows / self.rows_per_second, 1),
            "expected_from": self.rate_source,
            "projected_bytes": self.projected_bytes,
            "limit_bytes": self.limit.limit_bytes,
            "limit_source": self.limit.source,
            "fits": self.fits,
        }


def estimate_build(
    request: Request,
    *,
    partition_bars: int | None = None,
    workers: int | None = None,
    processes: int = 0,
    memory_limit_bytes: int | None = None,
    exact_bytes: int = EXACT_BYTES,
) -> Estimate:
    """Plan a build from its bars, or from the headers and the number of lines of its inputs.

    Raises
    ------
    InputError, NoWindowsError, StoreMismatchError, UsageError
        As their classes say.
    """
    is_free(request.path)
    limit = memory_limit(memory_limit_bytes)
    in_flight = workers or processes or available_cores()
    shares = (WorkerShare(limit.limit_bytes // (processes + 1), 1, worker_bytes()),) * processes
    reading = None
    if find_bars(request.inputs, request.cache, request.rules) is None:
        files = resolve_inputs(request.inputs)
        reading = plan_memory(
            files,
            rules=request.rules,
            workers=in_flight,
            limit=limit,
            worker_shares=shares,
            turns=turns_of_reading(files, request.cache),
        )
    cuts, n_rows, exact = _cut(request, exact_bytes, memory_limit_bytes)
    plan = BuildPlan(
        request.settings,
        cuts[0],
        n_rows,
        partition_bars,
        in_flight,
        shares,
        FAR_TURNS if request.is_far else 1,
        cuts[1],
    )
    free = None if is_remote(request.path) else free_bytes(request.path)
    rates = rates_beside(request.path)
    if not rates:
        return Estimate(
            plan, limit, exact, reading, disk_free_bytes=free, loading_seconds=_LOADING_SECONDS
        )
    source = f"the {len(rates)} build(s) recorded beside this store"
    return Estimate(plan, limit, exact, reading, rates[len(rates) // 2], source, free)


def _cut(
    request: Request, exact_bytes: int, memory_limit_bytes: int | None
) -> tuple[tuple[Segments, Stretches | None], int, bool]:
    """Return how the bars are cut, their number, and whether both are known for sure."""
    bars = find_bars(request.inputs, request.cache, request.rules)
    if bars is not None:
        # of a damaged cache the build will not be made either
        with suppress(DamagedBarsError):
            return request.settings.cut(bars), bars.n_rows, True
    files = resolve_inputs(request.inputs)
    if sum(file.text_bytes for file in files) <= exact_bytes:
        # where there is no room for it, lines are counted as for large inputs
        no_room = (DiskFullError, MemoryLimitError)
        with suppress(*no_room), TemporaryDirectory(prefix="grandbatch-plan-") as folder:
            bars = prepare_bars(
                request.inputs, folder, request.rules, memory_limit_bytes=memory_limit_bytes
            )
            return request.settings.cut(bars), bars.n_rows, True
    n_rows = sum(_count_rows(file, request.rules) for file in files)
    timeframe, duration = request.rules.timeframe, request.rules.bar_duration_ns
    if timeframe is not None and duration is not None:
        n_rows = n_rows * duration // max(duration, timeframe.length_ns)
    return (Segments.single(n_rows), None), n_rows, False


def _count_rows(file: InputFile, rules: BarRules) -> int:
    """Lines after the header of a CSV file, rows of a Parquet file.

    Raises
    ------
    InputError, ColumnError
        If it can't be read, or its header is not understood.
    """
    try:
        return _count(file, rules)
    except OSError as error:
        raise InputError(f"{file.location} can't be read ({error}); check the file") from None


def _count(file: InputFile, rules: BarRules) -> int:
    if file.kind == "parquet":
        import pyarrow.parquet as pq

        with open_raw(file.location, _BLOCK_BYTES) as raw:
            return int(pq.read_metadata(raw).num_rows)
    count, last = 0, b"\n"
    opened = partial(open_text, file.location, file.kind, file.member, rules.encoding)
    with opened() as text:
        dialect, _ = read_dialect(text, file.full_name, rules, file.path_columns)
    with opened() as text:
        while block := text.read(_BLOCK_BYTES):
            count += block.count(b"\n")
            last = block[-1:]
    return max(0, count - dialect.header_lines + (last != b"\n"))
