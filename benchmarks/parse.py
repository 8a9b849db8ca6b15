"""Bars per second from lines of CSV to checked columns, beside pyarrow.csv and a newline index.

Each work reads the whole file (page cache warm), in the blocks that a build reads, on one thread
and on all cores, in turns; medians. `pyarrow.csv` reads the same columns, timestamps as timestamps;
it checks nothing and keeps everything. `a bad line in each block` has a line of too few fields
every 100,000 bars, `17 digits` prices as a program prints doubles.

The limit is the newline index: what it costs to look at every byte once. The peer is pyarrow.csv
on as many threads.

    python benchmarks/parse.py [--json PATH] [--rows N] [--rounds R]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv
from measuring import Figures, Row, in_turns, metered, options_of, report

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
LIMIT, PEER, CHECKED = "newline index", "pyarrow.csv", "columns, all rules on"
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


def measure(run: Callable[[int], None], threads: int, rows: int) -> Figures:
    found = metered(partial(run, threads))
    return {**found, "mbars_per_second": rows / found["seconds"] / 1e6}


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
    parser = options_of(__file__, __doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=4_000_000)
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
        works: dict[str, tuple[Callable[[int], None], int]] = {
            LIMIT: (over_blocks(index_newlines, tasks), rows),
            PEER: (partial(read_with_pyarrow, csv), rows),
            "columns": (over_blocks(to_columns, tasks), rows),
            CHECKED: (over_blocks(to_checked_columns, tasks), rows),
            "  a bad line in each block": (over_blocks(to_checked_columns, bad), rows),
            "  17 digits": (over_blocks(to_checked_columns, digits), rows // 4),
            "sha256 alone": (over_blocks(digested, tasks), rows),
            "task: read, check, write a part": (over_blocks(read_block, unhashed), rows),
            "  with sha256, as a build does": (over_blocks(read_block, tasks), rows),
        }
        cases = {
            f"{name}, {threads} threads": partial(measure, run, threads, n)
            for name, (run, n) in works.items()
            for threads in (1, CORES)
        }
        found = in_turns(cases, options.rounds, warm=1)  # which compiles
    table = []
    for name, run in found.items():
        work_name, threads = name.rsplit(", ", 1)
        peer, limit = (found[f"{other}, {threads}"]["mbars_per_second"] for other in (PEER, LIMIT))
        goal = GOAL * peer if work_name == CHECKED and threads.startswith(str(CORES)) else None
        figures = {"goal": goal, "limit": limit, "peer": peer}
        table.append(Row(name, run["mbars_per_second"], "M bars/s", run, **figures))
    report(__file__, table, options, runs=found)


if __name__ == "__main__":
    main()
