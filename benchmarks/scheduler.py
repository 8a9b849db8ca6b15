"""What the graph and the scheduler cost per task, beside the work of a real task of a build.

Tasks of no work go through `Schedule.run_graph` on threads and on a LocalCluster, many at a time.
The direct engine's work on a group is timed in the same run. The overhead is the processor time
that a task of no work takes, in all processes together, over that of the groups of a real task
(one on threads, several on a cluster): on a busy machine that is steadier than time on the clock.

    python benchmarks/scheduler.py [--full] [--workers N] [--rounds N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import psutil

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


def cpu_seconds() -> float:
    """Processor time of this process and its children so far."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of processors, that a call takes."""
    cpu, began = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - began, cpu_seconds() - cpu


def run_empty(schedule: Schedule, n: int, round_: int) -> dict[str, float]:
    """Run n tasks of no work; cost per task, and the most that this process grew by."""
    name = f"nothing-{n}-{round_}"
    graph = {(name, i): (nothing, i) for i in range(n)}
    me = psutil.Process()
    before = peak = me.memory_info().rss
    heard = 0

    def watch(result: int) -> None:
        nonlocal heard, peak
        heard += 1
        if heard % 500 == 1:
            peak = max(peak, me.memory_info().rss)

    clock, cpu = timed(lambda: schedule.run_graph(graph, list(graph), watch))
    assert heard == n
    return {
        "clock_ms": clock / n * 1e3,
        "cpu_ms": cpu / n * 1e3,
        "grown_mb": (peak - before) / 1e6,
    }


def measure_task(folder: Path) -> dict[str, float]:
    """Time the direct engine's tasks of a small build from cached bars, one after the other."""
    source = folder / "bars.csv"
    gb.create_large_dataset_simulation(str(source), num_rows=TASK_ROWS)
    store = folder / "s.zarr"

    def build() -> None:
        shutil.rmtree(store, ignore_errors=True)
        gb.build_store(source, store, engine="direct", scheduler="sync", durable=False)

    build()
    taken = [timed(build) for _ in range(3)]
    n_tasks = TASK_ROWS / DEFAULT_PARTITION_BARS
    clock, cpu = (statistics.median(values) / n_tasks * 1e3 for values in zip(*taken, strict=True))
    return {"bars": DEFAULT_PARTITION_BARS, "clock_ms": round(clock, 2), "cpu_ms": round(cpu, 2)}


def measure(
    name: str, schedule: Schedule, sizes: list[int], rounds: int, work_cpu_ms: float
) -> list[dict[str, Any]]:
    run_empty(schedule, 100, -1)
    results = []
    for n in sizes:
        taken = [run_empty(schedule, n, round_) for round_ in range(1 if n >= FULL else rounds)]
        result: dict[str, Any] = {"schedule": name, "tasks": n}
        for key, digits in (("clock_ms", 4), ("cpu_ms", 4), ("grown_mb", 1)):
            result[key] = round(statistics.median(run[key] for run in taken), digits)
        result["overhead"] = round(result["cpu_ms"] / work_cpu_ms, 4)
        result["reached"] = result["overhead"] <= GOAL
        results.append(result)
        print(
            f"{name:<14} {n:>8,} {result['clock_ms']:>10.3f} {result['cpu_ms']:>10.3f} "
            f"{result['grown_mb']:>8.1f} {result['overhead']:>9.1%}   "
            f"{'reached' if result['reached'] else 'MISSED'}",
            flush=True,
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("bench-results/scheduler.json"))
    parser.add_argument("--full", action="store_true", help=f"also {FULL:,} tasks")
    parser.add_argument("--workers", type=int, default=2, help="processes of the LocalCluster")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is reported")
    options = parser.parse_args()
    sizes = [*SIZES, FULL] if options.full else [*SIZES]
    with tempfile.TemporaryDirectory() as folder:
        task = measure_task(Path(folder))
    print(
        f"a group of {task['bars']:,} bars takes {task['cpu_ms']:.1f} ms of processor time, and a "
        f"cluster's task writes {MOST_JOBS_PER_TASK}; goal: an overhead of at most {GOAL:.0%}"
    )
    print(
        f"{'schedule':<14} {'tasks':>8} {'ms a task':>10} {'cpu ms':>10} {'+MB':>8} {'overhead':>9}"
    )
    results = measure("threads", Schedule.local(), sizes, options.rounds, task["cpu_ms"])
    began = time.perf_counter()
    with open_schedule(None, options.workers) as schedule:
        start_seconds = round(time.perf_counter() - began, 2)
        name = f"cluster {options.workers}x1"
        work_cpu_ms = MOST_JOBS_PER_TASK * task["cpu_ms"]
        results += measure(name, schedule, sizes, options.rounds, work_cpu_ms)
    print(f"the LocalCluster started in {start_seconds} s")
    record = {
        "benchmark": "scheduler",
        "unit": "ms per task of no work, median",
        "rounds": options.rounds,
        "goal": GOAL,
        "group": task,
        "groups_per_task_on_a_cluster": MOST_JOBS_PER_TASK,
        "cluster_start_seconds": start_seconds,
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": Schedule.local().workers,
            "dask": dask.__version__,
            "distributed": distributed.__version__,
        },
        "results": results,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
