"""Bars per second from lines of CSV to checked columns, beside pyarrow.csv and a newline index.

Each work reads the whole file (page cache warm), in the blocks that a build reads, on one thread
and on all cores, in turns; medians. `pyarrow.csv` reads the same columns, timestamps as timestamps;
it checks nothing and keeps everything. `a bad line in each block` has a line of too few fields
every 100,000 bars, `17 digits` prices as a program prints doubles.

The limit is the newline index: what it costs to look at every byte once.

    python benchmarks/parse.py [--json PATH] [--rows N] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv

import grandbatch as gb
from grandbatch.bars.building.block import BlockJob, read_block
from grandbatch.bars.building.memory import DEFAULT_BLOCK_BYTES
from grandbatch.bars.building.planning import plan_reading
from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.bars.reading.csv_rows import parse_rows
from grandbatch.bars.reading.text_blocks import read_text
from grandbatch.bars.rules import BarRules
from grandbatch.kernels.bars.bar_rules import NEVER, judge_rows
from grandbatch.scheduling import Schedule

CORES = psutil.cpu_count() or 1
GOAL = 0.8
"""Of pyarrow's rate on all cores, with all rules on."""
NUMBERS = ("open", "high", "low", "close", "volume")

Work = Callable[[BlockJob], object]


def index_newlines(task: BlockJob) -> object:
    return np.flatnonzero(read_text(task.block, hashed=False).data == 10)


def to_columns(task: BlockJob) -> object:
    text = read_text(task.block, hashed=False)
    return parse_rows(text, task.dialect, task.form, task.symbol)


def to_checked_columns(task: BlockJob) -> object:
    rows = to_columns(task)
    first, last = np.full((2, 1), NEVER)
    holders, twins = np.full(1, -1), np.empty((2, len(rows)), np.int64)
    columns = rows.times, *rows.numbers, rows.codes
    return judge_rows(*columns, False, 1e-9, False, first, last, holders, rows.reasons, twins)


def digested(task: BlockJob) -> object:
    return read_text(task.block, hashed=True).leaves


def read_with_pyarrow(path: Path, threads: int) -> None:
    types = {"timestamp": pa.timestamp("ns"), **dict.fromkeys(NUMBERS, pa.float64())}
    pa.set_cpu_count(threads)
    pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(use_threads=threads > 1),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )


def plan(path: Path, folder: Path) -> list[BlockJob]:
    (folder / "pieces").mkdir(parents=True)
    rules, schedule = BarRules(max_bad_fraction=1.0), Schedule.local("sync")
    files = resolve_inputs(path)
    return plan_reading(files, rules, schedule, folder, DEFAULT_BLOCK_BYTES)[1]


def over_blocks(work: Work, tasks: list[BlockJob]) -> Callable[[int], None]:
    def forget(task: BlockJob) -> None:
        work(task)  # a build keeps no columns either

    def run(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(forget, tasks))

    return run


def measure(run: Callable[[int], None], threads: int, rows: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run(threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"mbars_per_second": rows / wall / 1e6, "cpu_ns_per_bar": cpu / rows * 1e9}


def write_variants(csv: Path, rows: int) -> dict[str, Path]:
    """The simulated file with bad lines, and with prices of 17 digits."""
    paths = {name: csv.with_name(f"{name}.csv") for name in ("bad", "digits")}
    with csv.open() as source, paths["bad"].open("w") as bad, paths["digits"].open("w") as digits:
        header = source.readline()
        bad.write(header)
        digits.write(header)
        for number, line in enumerate(source):
            bad.write("rubbish\n" if number % 100_000 == 5 else line)
            if number < rows // 4:
                moment, *prices, volume = line.rstrip().split(",")
                texts = (repr(float(price) * 1.0000000123) for price in prices)
                digits.write(",".join([moment, *texts, volume]) + "\n")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-results/parse.json"))
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = options.rows
    with tempfile.TemporaryDirectory() as work:
        csv = Path(work) / "bars.csv"
        gb.create_large_dataset_simulation(csv, rows)
        others = write_variants(csv, rows)
        tasks = plan(csv, Path(work) / "plain")
        bad = plan(others["bad"], Path(work) / "bad")
        digits = plan(others["digits"], Path(work) / "digits")
        unhashed = [replace(task, hashed=False) for task in tasks]
        cases: dict[str, tuple[Callable[[int], None], int]] = {
            "newline index": (over_blocks(index_newlines, tasks), rows),
            "pyarrow.csv": (lambda threads: read_with_pyarrow(csv, threads), rows),
            "columns": (over_blocks(to_columns, tasks), rows),
            "columns, all rules on": (over_blocks(to_checked_columns, tasks), rows),
            "  a bad line in each block": (over_blocks(to_checked_columns, bad), rows),
            "  17 digits": (over_blocks(to_checked_columns, digits), rows // 4),
            "sha256 alone": (over_blocks(digested, tasks), rows),
            "task: read, check, write a part": (over_blocks(read_block, unhashed), rows),
            "  with sha256, as a build does": (over_blocks(read_block, tasks), rows),
        }
        found: dict[str, dict[int, list[dict[str, float]]]] = {}
        for _ in range(options.rounds + 1):  # the first compiles
            for name, (run, n) in cases.items():
                for threads in (1, CORES):
                    result = measure(run, threads, n)
                    found.setdefault(name, {}).setdefault(threads, []).append(result)
    report(found, options)


def report(found: dict[str, dict[int, list[dict[str, float]]]], options: Any) -> None:
    results: dict[str, Any] = {}
    for name, by_threads in found.items():
        results[name.strip()] = {
            str(threads): {key: statistics.median(run[key] for run in runs[1:]) for key in runs[1]}
            for threads, runs in by_threads.items()
        }
    peer = results["pyarrow.csv"][str(CORES)]["mbars_per_second"]
    print(f"{'work':34} {'M bars/s, threads':>18}{'':>9} {'CPU ns/bar':>10} {'of pyarrow':>10}")
    print(f"{'':34} {1:>18} {CORES:>8}")
    for name in found:
        one, many = (results[name.strip()][str(threads)] for threads in (1, CORES))
        print(
            f"{name:34} {one['mbars_per_second']:>18.2f} {many['mbars_per_second']:>8.2f} "
            f"{one['cpu_ns_per_bar']:>10.1f} {many['mbars_per_second'] / peer:>10.2f}"
        )
    ours = results["columns, all rules on"][str(CORES)]["mbars_per_second"]
    reached = ours >= GOAL * peer
    print(f"\nall rules on: {ours / peer:.2f} of pyarrow.csv, goal {GOAL}: ", end="")
    print("reached" if reached else "MISSED")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "parse",
        "machine": {"cpu": platform.processor() or platform.machine(), "pyarrow": pa.__version__},
        "rows": options.rows,
        "rounds": options.rounds,
        "goal_of_pyarrow": GOAL,
        "reached": reached,
        "results": results,
    }
    options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
