"""Bars per second and peak memory of a build, beside its limit and polars in RAM.

The work is N simulated bars of CSV (page cache warm) to strategic windows at overlap 12, and the
second store of the same cached bars. Every case is a process of its own, in turns; peak memory is
its own as the system counts it, or that of its whole process tree, sampled. Times are those inside
the process, imports and the loading of compiled kernels apart. Builds leave their files in the
page cache (`--no-durable`); `durable` waits until all is on the disk.

The limit is arithmetic over parts measured alone on one thread in the same run: reading the file,
parsing it with pyarrow.csv, hashing it, computing the features, and writing bars and windows to
the page cache. A build on c cores can't be faster than c over their sum. Goals are shares of the
limit from CSV, also those from cached bars, which have a higher limit of their own: they neither
read, parse nor hash a file, but read the bars.

User and system seconds are those of all processes in the timed part alone.

A virtual machine may get memory from its host only as it is first touched, which here can cost ten
times the write itself. So right before each timing as many bytes as it may need are written to a
file that is then removed: all cases, polars too, start with memory that is there. The rate of such
a first write and of a second one is printed.

On ext4 without a journal the numbers of files that were just removed are passed over one by one
when new ones are made, which can cost ten times the making. So what a case leaves is emptied, and
removed at the very end.

    python benchmarks/build.py [--json PATH] [--rows N] [--rounds R]
"""

from __future__ import annotations

import hashlib
import os
import secrets
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring import Row, answer, in_turns, metered, options_of, report, run_apart

SHARES = {
    "csv, codec none": 0.6,
    "cached bars, codec none": 0.7,
}
"""Goals, of the limit from CSV."""
PEER = "polars in RAM"
BAR_BYTES = 48
WRITE_WINDOWS = "write windows to the page cache"
FROM_CSV = ("read the file", "parse", "sha256 of the file", "features",
            "write bars to the page cache", WRITE_WINDOWS)  # fmt: skip
FROM_CACHE = ("read cached bars", "features", WRITE_WINDOWS)


def run_build(csv: str, folder: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Build once small, to load everything; then time the build."""
    import pandas as pd

    import grandbatch as gb
    from grandbatch.scheduling import open_schedule

    variant = dict(variant)
    workers = variant.pop("processes", None)
    small = Path(folder) / "small.csv"
    pd.read_csv(csv, nrows=20_000).to_csv(small, index=False)
    with open_schedule(None, workers) as schedule:
        options = {"durable": False, "client": schedule.client, **variant}
        gb.build_store(small, Path(folder) / "small.zarr", **options)
        write_pages(Path(folder), int(4.5 * Path(csv).stat().st_size))

        def build() -> dict[str, int]:
            store = gb.build_store(csv, Path(folder) / "big.zarr", **options)
            return {"rows": store.attrs["n_rows"]}

        return metered(build, family=True)


def run_polars(csv: str, folder: str, variant: dict[str, Any]) -> dict[str, Any]:
    """The same features and windows as a person would write them with polars and numpy.

    Run lazily, polars computes what expressions share once, and parses only close and volume.
    """
    import polars as pl
    import zarr

    sys.path.append(str(Path(__file__).parent / "peers"))
    from polars_features import features

    write_pages(Path(folder), int(4.5 * Path(csv).stat().st_size))

    def build() -> dict[str, int]:
        frame = features(pl.scan_csv(csv, try_parse_dates=True)).collect()
        rows = np.ascontiguousarray(frame.to_numpy())
        n = (len(rows) - 40 - 48) // 36 + 1
        windows = np.lib.stride_tricks.as_strided(
            rows[40:], (n, 48, 13), (36 * 52, 52, 4), writeable=False
        )
        array = zarr.create_array(
            store=Path(folder) / "polars.zarr",
            shape=windows.shape,
            chunks=(1024, 48, 13),
            dtype="float32",
            compressors=None,
        )
        array[:] = windows
        return {"rows": len(rows)}

    return metered(build)


def write_pages(folder: Path, n_bytes: int) -> float:
    """Write a file in pieces of 4 MiB and remove it; return the nanoseconds per byte."""
    piece = bytes(2**22)
    path = folder / "pages"
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(n_bytes // len(piece)):
            file.write(piece)
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds / n_bytes * 1e9


def measure_limits(csv: str) -> dict[str, float]:
    """Nanoseconds per bar of each unavoidable part, one thread."""
    import pyarrow as pa
    import pyarrow.csv as pc

    from grandbatch.features import STRATEGIC, compute_rows

    def timed(work: Any, rows: int) -> float:
        work()
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) / rows * 1e9

    with Path(csv).open("rb") as file:
        head = file.read(32 * 2**20)
    head = head[: head.rfind(b"\n") + 1]
    rows = head.count(b"\n") - 1
    types = {name: pa.float64() for name in ("open", "high", "low", "close", "volume")}
    options = pc.ConvertOptions(column_types={"timestamp": pa.string(), **types})

    def parse() -> Any:
        return pc.read_csv(
            pa.BufferReader(head),
            read_options=pc.ReadOptions(use_threads=False),
            convert_options=options,
        )

    table = parse()
    columns = {n: table[n].combine_chunks().to_numpy()[:131_072] for n in types}
    features = compute_rows(STRATEGIC, columns, np.empty(0, np.int64), 40)

    def read() -> None:
        with Path(csv).open("rb", buffering=0) as file:
            file.readinto(bytearray(len(head)))

    writing = min(write_pages(Path(csv).parent, 2**29) for _ in range(2))
    parts = {
        "read the file": timed(read, rows),
        "parse": timed(parse, rows),
        "read cached bars": timed(read, rows) * BAR_BYTES * rows / len(head),
        "sha256 of the file": timed(lambda: hashlib.sha256(head).digest(), rows),
        "features": timed(
            lambda: compute_rows(STRATEGIC, columns, np.empty(0, np.int64), 40), len(features)
        ),
        "write bars to the page cache": writing * BAR_BYTES,
        WRITE_WINDOWS: writing * 48 / 36 * 52,
    }
    return {name: round(value, 1) for name, value in parts.items()}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "csv, codec none": ("run_build", {"codec": "none"}),
    "csv, default codec": ("run_build", {}),
    "csv, default codec, durable": ("run_build", {"durable": True}),
    "csv, codec none, 2 processes": ("run_build", {"codec": "none", "processes": 2}),
    "csv, codec none, engine overlap": ("run_build", {"codec": "none", "engine": "overlap"}),
    "cached bars, codec none": ("run_build", {"codec": "none", "cached": True}),
    "cached bars, codec none, engine overlap": (
        "run_build", {"codec": "none", "cached": True, "engine": "overlap"},
    ),
    "cached bars, default codec": ("run_build", {"cached": True}),
    "cached bars, layout rows, stride 36": ("run_build", {"cached": True, "layout": "rows"}),
    "cached bars, layout rows, stride 1": (
        "run_build", {"cached": True, "layout": "rows", "overlap": 47},
    ),
    "cached bars, windows, stride 1": ("run_build", {"cached": True, "overlap": 47}),
    PEER: ("run_polars", {}),
}  # fmt: skip


def run_case(name: str, csv: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Run a case in a process of its own and sample its memory."""
    kind, variant = CASES[name]
    variant = dict(variant)
    if variant.pop("cached", False):
        variant["cache"] = str(cache)
    folder.mkdir()
    case = {"kind": kind, "csv": csv, "folder": str(folder), "variant": variant}
    found = run_apart(__file__, case, tree=True)
    put_aside(folder)
    return {**found, "mbars_per_second": found["rows"] / found["seconds"] / 1e6}


def put_aside(folder: Path) -> None:
    """Empty the files of a folder, and give it another name."""
    for where, _, names in os.walk(folder):
        for name in names:
            os.truncate(Path(where, name), 0)
    folder.rename(folder.with_name(f"emptied-{secrets.token_hex(4)}"))


def rows_of(runs: dict[str, dict[str, Any]], limits: dict[str, float]) -> list[Row]:
    """Rates beside what all cores could do at most, and beside polars."""
    cores = psutil.cpu_count() or 1
    from_csv, from_cache = (
        cores / sum(limits[name] for name in parts) * 1e3 for parts in (FROM_CSV, FROM_CACHE)
    )
    rows = []
    for name, run in runs.items():
        share = SHARES.get(name)
        rows.append(
            Row(
                name,
                run["mbars_per_second"],
                "M bars/s",
                run,
                goal=None if share is None else share * from_csv,
                limit=from_cache if name.startswith("cached") else from_csv,
                peer=None if name == PEER else runs[PEER]["mbars_per_second"],
                note=(
                    f"peak {run['peak_bytes'] / 1e6:.0f} MB, "
                    f"{run['processor'] / run['rows'] * 1e9:.0f} ns of processor time per bar"
                ),
            )
        )
    whole, wide = (
        runs[f"cached bars, layout rows, stride {n}"]["mbars_per_second"] for n in (1, 36)
    )
    rows.append(Row("layout rows: stride 1 of stride 36", whole / wide, "", goal=0.7))
    return rows


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    if options.case:
        answer(options.case, {"run_build": run_build, "run_polars": run_polars})
        return
    import grandbatch as gb

    with tempfile.TemporaryDirectory() as work:
        csv, cache = str(Path(work) / "bars.csv"), Path(work) / "cache"
        first, second = (write_pages(Path(work), 2**30) for _ in range(2))
        print(f"page cache: {1 / first:.2f} GB/s first, {1 / second:.2f} GB/s second\n")
        gb.create_large_dataset_simulation(csv, options.rows)
        gb.build_store(csv, Path(work) / "first" / "x.zarr", cache=cache, durable=False)
        limits = measure_limits(csv)
        cases = {name: partial(run_case, name, csv, Path(work) / "case", cache) for name in CASES}
        runs = in_turns(cases, options.rounds)
    print(f"limit, ns of one thread per bar: {limits}\n")
    report(__file__, rows_of(runs, limits), options, limits_ns=limits, runs=runs)


if __name__ == "__main__":
    main()
