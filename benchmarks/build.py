"""Bars per second and peak memory of a build, beside its limit and polars in RAM.

The work is N simulated bars of CSV (page cache warm) to strategic windows at overlap 12, and the
second store of the same cached bars. Every case is a process of its own, in turns; peak memory is
its own as the system counts it, or that of its whole process tree, sampled. Times are those inside
the process, imports and the loading of compiled kernels apart. Builds leave their files in the
page cache (`--no-durable`); `durable` waits until all is on the disk.

The limit is arithmetic over parts measured alone on one thread in the same run: reading the file,
parsing it with pyarrow.csv, hashing it, computing the features, and writing bars and windows to
the page cache. A build on c cores can't be faster than c over their sum.

A virtual machine may get memory from its host only as it is first touched, which here can cost ten
times the write itself. So right before each timing as many bytes as it may need are written to a
file that is then removed: all cases, polars too, start with memory that is there. The rate of such
a first write and of a second one is printed.

    python benchmarks/build.py [--json PATH] [--rows N] [--rounds R]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SAMPLE_SECONDS = 0.1
"""Each look at the process tree takes milliseconds of a core from the build."""

GOALS = {
    "csv, codec none": 3.5,
    "csv, default codec": 3.0,
    "cached bars, codec none": 6.0,
}


def run_build(csv: str, folder: str, variant: dict[str, Any]) -> dict[str, float]:
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
        begin = time.perf_counter()
        store = gb.build_store(csv, Path(folder) / "big.zarr", **options)
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rows": store.attrs["n_rows"]}


def run_polars(csv: str, folder: str, variant: dict[str, Any]) -> dict[str, float]:
    """The same features and windows as a person would write them with polars and numpy.

    Run lazily, polars computes what expressions share once, and parses only close and volume.
    """
    import polars as pl
    import zarr

    sys.path.append(str(Path(__file__).parent / "peers"))
    from polars_features import features

    write_pages(Path(folder), int(4.5 * Path(csv).stat().st_size))
    begin = time.perf_counter()
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
    return {"seconds": time.perf_counter() - begin, "rows": len(rows)}


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


def measure_limits(csv: str, n_rows: int) -> dict[str, float]:
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
    written_bytes = 48 + 48 / 36 * 52

    def read() -> None:
        with Path(csv).open("rb", buffering=0) as file:
            file.readinto(bytearray(len(head)))

    parts = {
        "read the file": timed(read, rows),
        "parse": timed(parse, rows),
        "sha256 of the file": timed(lambda: hashlib.sha256(head).digest(), rows),
        "features": timed(
            lambda: compute_rows(STRATEGIC, columns, np.empty(0, np.int64), 40), len(features)
        ),
        "write bars and windows to the page cache": min(
            write_pages(Path(csv).parent, 2**29) for _ in range(2)
        )
        * written_bytes,
    }
    return {name: round(value, 1) for name, value in parts.items()}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "csv, codec none": ("run_build", {"codec": "none"}),
    "csv, default codec": ("run_build", {}),
    "csv, default codec, durable": ("run_build", {"durable": True}),
    "csv, codec none, 2 processes": ("run_build", {"codec": "none", "processes": 2}),
    "cached bars, codec none": ("run_build", {"codec": "none", "cached": True}),
    "cached bars, default codec": ("run_build", {"cached": True}),
    "cached bars, layout rows, stride 1": (
        "run_build", {"cached": True, "layout": "rows", "overlap": 47},
    ),
    "cached bars, windows, stride 1": ("run_build", {"cached": True, "overlap": 47}),
    "polars in RAM": ("run_polars", {}),
}  # fmt: skip


def run_case(name: str, csv: str, folder: Path, cache: Path) -> dict[str, float]:
    """Run a case in a process of its own and sample its memory."""
    kind, variant = CASES[name]
    variant = dict(variant)
    if variant.pop("cached", False):
        variant["cache"] = str(cache)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    call = [sys.executable, __file__, "--case", json.dumps([kind, csv, str(folder), variant])]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as child:
        peak, process = 0, psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, tree_bytes(process))
            time.sleep(SAMPLE_SECONDS)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{name} failed")
    shutil.rmtree(folder, ignore_errors=True)
    found = json.loads(out.splitlines()[-1])
    return {**found, "peak_bytes": max(peak, found["peak_bytes"])}


def peak_bytes() -> int:
    """Peak memory of this process, without what it inherited."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def tree_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="bench-results/build.json")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        kind, *rest = json.loads(arguments.case)
        found = globals()[kind](*rest)
        found["peak_bytes"] = peak_bytes()
        print(json.dumps(found))
        return
    import grandbatch as gb

    with tempfile.TemporaryDirectory() as work:
        csv, cache = str(Path(work) / "bars.csv"), Path(work) / "cache"
        first, second = (write_pages(Path(work), 2**30) for _ in range(2))
        print(f"page cache: {1 / first:.2f} GB/s first, {1 / second:.2f} GB/s second\n")
        gb.create_large_dataset_simulation(csv, arguments.rows)
        gb.build_store(csv, Path(work) / "first" / "x.zarr", cache=cache, durable=False)
        limits = measure_limits(csv, arguments.rows)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
        for _ in range(arguments.rounds):
            for name in CASES:
                runs[name].append(run_case(name, csv, Path(work) / "case", cache))
    total = sum(limits.values())
    cores = psutil.cpu_count() or 1
    print(f"limit, ns of one thread per bar: {limits}")
    print(f"sum {total:.0f} ns: {cores / total * 1e3:.1f} M bars/s on {cores} cores\n")
    print(f"{'case':38} {'M bars/s':>9} {'goal':>5} {'of polars':>9} {'peak MB':>8}")
    rates = {
        name: statistics.median(r["rows"] / r["seconds"] / 1e6 for r in found)
        for name, found in runs.items()
    }
    result: dict[str, Any] = {"machine": platform.processor(), "limits_ns": limits, "cases": {}}
    for name, found in runs.items():
        peak = statistics.median(r["peak_bytes"] for r in found)
        goal = GOALS.get(name)
        print(
            f"{name:38} {rates[name]:9.2f} {goal or '':>5} "
            f"{rates[name] / rates['polars in RAM']:9.2f} {peak / 1e6:8.0f}"
        )
        result["cases"][name] = {"mbars_per_second": rates[name], "peak_bytes": peak, "runs": found}
    path = Path(arguments.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
