"""What the graph and the scheduler cost per task, beside the work of a real task of a build.

Tasks of no work go through `Schedule.run_graph` on threads and on a LocalCluster, many at a time.
The direct engine's work on a group is timed in the same run. The overhead is the processor time
that a task of no work takes, in all processes together, over that of the groups of a real task
(one on threads, several on a cluster): on a busy machine that is steadier than time on the clock.

    python benchmarks/scheduler.py [--full] [--workers N] [--rounds N] [--json PATH]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
from measuring import Figures, Row, in_turns, medians, metered, options_of, report

import grandbatch as gb
from grandbatch.builder.engines import MOST_JOBS_PER_TASK
from grandbatch.builder.plan import DEFAULT_PARTITION_BARS
from grandbatch.scheduling import Schedule, open_schedule

SIZES = (100, 1_000, 10_000)
FULL = 100_000
GOAL = 0.05
TASK_ROWS = 1_200_000


def nothing(number: int) -> int:
    return number


def run_empty(schedule: Schedule, n: int) -> Figures:
    """Run n tasks of no work; cost per task, and the most that this process grew by."""
    name = f"nothing-{n}-{time.monotonic_ns()}"
    graph = {(name, i): (nothing, i) for i in range(n)}
    me = psutil.Process()
    before = peak = me.memory_info().rss
    heard = 0

    def watch(result: int) -> None:
        nonlocal heard, peak
        heard += 1
        if heard % 500 == 1:
            peak = max(peak, me.memory_info().rss)

    found = metered(lambda: schedule.run_graph(graph, list(graph), watch), family=True)
    assert heard == n
    return {
        **found,
        "clock_ms": found["seconds"] / n * 1e3,
        "cpu_ms": found["processor"] / n * 1e3,
        "grown_mb": (peak - before) / 1e6,
    }


def measure_task(folder: Path) -> Figures:
    """Time the direct engine's tasks of a small build from cached bars, one after the other."""
    source = folder / "bars.csv"
    gb.create_large_dataset_simulation(str(source), num_rows=TASK_ROWS)
    store = folder / "s.zarr"

    def build() -> None:
        shutil.rmtree(store, ignore_errors=True)
        gb.build_store(source, store, engine="direct", scheduler="sync", durable=False)

    build()
    taken = medians([metered(build) for _ in range(3)])
    return {**taken, "cpu_ms": taken["processor"] / (TASK_ROWS / DEFAULT_PARTITION_BARS) * 1e3}


def rows_of(name: str, schedule: Schedule, sizes: list[int], rounds: int, task: Row) -> list[Row]:
    """One row for each number of tasks; the peer is the work that a real task does."""
    run_empty(schedule, 100)
    found = in_turns({str(n): partial(run_empty, schedule, n) for n in sizes}, rounds)
    return [
        Row(
            f"{name}, {int(n):,} tasks of no work",
            run["cpu_ms"],
            "ms a task",
            run,
            goal=GOAL * task.figure,
            peer=task.figure,
            is_cost=True,
            note=f"{run['clock_ms']:.3f} ms by the clock, grown by {run['grown_mb']:.1f} MB",
        )
        for n, run in found.items()
    ]


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--full", action="store_true", help=f"also {FULL:,} tasks")
    parser.add_argument("--workers", type=int, default=2, help="processes of the LocalCluster")
    options = parser.parse_args()
    sizes = [*SIZES, FULL] if options.full else [*SIZES]
    with tempfile.TemporaryDirectory() as folder:
        found = measure_task(Path(folder))
    one, many = (
        Row(what, times * found["cpu_ms"], "ms a task", found if times == 1 else {}, is_cost=True)
        for what, times in (
            (f"work of a group, {DEFAULT_PARTITION_BARS:,} bars", 1),
            (f"work of a cluster's task, {MOST_JOBS_PER_TASK} groups", MOST_JOBS_PER_TASK),
        )
    )
    rows = [one, many, *rows_of("threads", Schedule.local(), sizes, options.rounds, one)]
    began = time.perf_counter()
    with open_schedule(None, options.workers) as schedule:
        started = Row("a LocalCluster starts", time.perf_counter() - began, "s", is_cost=True)
        name = f"cluster {options.workers}x1"
        rows += rows_of(name, schedule, sizes, options.rounds, many)
    report(__file__, [*rows, started], options)


if __name__ == "__main__":
    main()
