"""What a build of Alpha158 takes: processor time, peak memory, and the floor of what it writes.

The work is N simulated bars of CSV to rows of 157 columns at stride 1 (`--layout rows`), within
`--memory-limit 1GiB`, until all is on the disk. Each build is a process of its own; its memory is
that of its whole tree, sampled. A row for each codec; then its parts, measured alone on one thread
of the same process: the features, what encodes them, sha256, and writing so many bytes to a page
cache that is there. What is left of the build's processor time is reading, parsing and ordering,
rows moved, and memory and pages of files that are touched for the first time.
The floor by the clock is what the disk takes for the store's bytes, written in pieces and synced.

It needs room for the bars, their cache and one store at a time: 8 GB for 10 million bars.

    python benchmarks/alpha158.py [--json PATH] [--rows N] [--rounds R] [--folder PATH]
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figures, Row, answer, in_turns, metered, options_of, report, run_apart

MEMORY_LIMIT = "1GiB"
CODECS = ("zstd", "none")
PIECE = 2**22
SAMPLE = 20_000
"""Bars that parts are measured on."""
PARTS = ("features", "encoding", "sha256", "writing to the page cache")


def build(csv: str, folder: str, codec: str) -> Figures:
    """Build once small, to load everything; then time the build, and its parts."""
    import pandas as pd

    import grandbatch as gb

    options: dict[str, Any] = {
        "feature_set": gb.ALPHA158, "layout": "rows", "codec": codec, "memory_limit": MEMORY_LIMIT,
        "overlap": gb.ALPHA158.sequence_length - 1,
    }  # fmt: skip
    small = Path(folder) / "small.csv"
    pd.read_csv(csv, nrows=SAMPLE).to_csv(small, index=False)
    gb.build_store(small, Path(folder) / "small.zarr", **options)

    def whole() -> Figures:
        store = gb.build_store(csv, Path(folder) / "big.zarr", **options)
        chunks = {name: store.attrs[name] for name in ("block_rows", "chunk_windows")}
        return {"rows": store.attrs["n_rows"], **chunks}

    found = metered(whole, family=True)
    files = [path for path in (Path(folder) / "big.zarr").rglob("*") if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in files)
    shutil.rmtree(Path(folder) / "big.zarr")
    per_row = n_bytes / found["rows"]
    repeats = found["block_rows"] / found["chunk_windows"]
    parts = parts_of(gb.read_bars(small).compute(), codec, per_row, repeats, Path(folder))
    disk = disk_seconds(Path(folder), min(n_bytes, 2**30))
    return {
        **found, **parts, "files": len(files), "bytes": n_bytes, "bytes_per_row": per_row,
        "disk_ns_per_row": disk * per_row * 1e9,
    }  # fmt: skip


def parts_of(bars: Any, codec: str, bytes_per_row: float, repeats: float, folder: Path) -> Figures:
    """Nanoseconds of processor time per bar of each part of `PARTS`.

    A chunk holds the rows of its windows, so the first ones of each stand in the one before too:
    a bar's row is encoded `repeats` times.
    """
    from grandbatch.features import ALPHA158, PRICES_AND_VOLUME, compute_rows
    from grandbatch.store.codecs import encode_chunk

    arrays = {name: bars[name].to_numpy(float) for name in PRICES_AND_VOLUME}
    features = partial(compute_rows, ALPHA158, arrays, np.empty(0, np.int64))
    rows = features()[ALPHA158.lookback :]
    pieces = np.array_split(rows, 8)
    encoded = [b"".join(encode_chunk(piece, codec)) for piece in pieces]

    def hashed() -> None:
        for chunk in encoded:
            hashlib.sha256(chunk).digest()

    def encoding() -> None:
        for piece in pieces:
            encode_chunk(piece, codec)

    n_bytes = int(bytes_per_row * len(rows))
    works = (features, encoding, hashed, partial(write, folder / "pages", n_bytes))
    times = (1.0, repeats, repeats, 1.0)
    costs = (
        processor_seconds(work) / len(rows) * 1e9 * often
        for work, often in zip(works, times, strict=True)
    )
    return dict(zip(PARTS, costs, strict=True))


def processor_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    work()
    return statistics.median(metered(work)["processor"] for _ in range(rounds))


def write(path: Path, n_bytes: int) -> None:
    """Write a file in pieces, wait until it is on the disk if its name says so, and remove it."""
    piece = bytes(PIECE)
    with path.open("wb", buffering=0) as file:
        for begin in range(0, n_bytes, PIECE):
            file.write(piece[: min(PIECE, n_bytes - begin)])
        if path.suffix == ".durable":
            os.fsync(file.fileno())
    path.unlink()


def disk_seconds(folder: Path, n_bytes: int) -> float:
    """Return the seconds a byte that the disk takes."""
    begin = time.perf_counter()
    write(folder / "pages.durable", n_bytes)
    return (time.perf_counter() - begin) / n_bytes


def run_case(csv: str, work: Path, codec: str) -> Figures:
    """Build in a process of its own, in a folder that is removed."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        case = {"kind": "build", "csv": csv, "folder": str(folder), "codec": codec}
        return run_apart(__file__, case, tree=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows_of(codec: str, run: Figures) -> list[Row]:
    """The build beside its floors, and its parts with their share of its processor time."""
    per_row = run["processor"] / run["rows"] * 1e9
    clock = run["seconds"] / run["rows"] * 1e9
    note = f"{run['bytes'] / 1e9:.2f} GB in {run['files']} files"
    floor = run["features"] + run["writing to the page cache"]
    what = f"{run['rows']:,} bars, codec {codec}"
    made = [
        Row(f"{what}: processor time", per_row, "ns a bar", run, None, floor, None, True, note),
        Row(f"{what}: by the clock", clock, "ns a bar", {}, None, run["disk_ns_per_row"], None,
            True, "limit: the disk, for the bytes of the store"),
        Row(f"{what}: peak memory", run["peak_bytes"] / 2**20, "MiB", {}, 1024.0, is_cost=True),
    ]  # fmt: skip
    known = 0.0
    for part in PARTS:
        known += run[part]
        share = f"{run[part] / per_row:.0%} of the processor time"
        made.append(Row(f"  {part}", run[part], "ns a bar", note=share))
    rest = per_row - known
    share = f"{rest / per_row:.0%} of the processor time"
    return [*made, Row("  all else", rest, "ns a bar", note=share)]


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    if options.case:
        answer(options.case, {"build": build})
        return
    import grandbatch as gb

    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        csv = str(Path(work) / "bars.csv")
        gb.create_large_dataset_simulation(csv, options.rows)
        cases = {codec: partial(run_case, csv, Path(work), codec) for codec in CODECS}
        runs = in_turns(cases, options.rounds)
    rows = [row for codec, run in runs.items() for row in rows_of(codec, run)]
    report(__file__, rows, options, runs=runs)


if __name__ == "__main__":
    main()
