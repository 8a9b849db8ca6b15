"""What a day costs that is added to a universe, beside the whole build, and whether it stays flat.

Bars of many symbols, interleaved by time, lie in a file for each year and then one for each day.
The store of the years is built in the order of periods; then day after day is added to the folder
and the same call made again. The goals: a day takes at most 5 % of the whole build's time, and the
last quarter of the days is as fast as the first, within 15 % (medians). Processor time, of all
threads, is told beside: it hardly depends on what else runs. Bytes are those that the
process read and wrote through system calls, from the page cache or to it, as Linux counts them.
Kernels are loaded by a small build before; files are left in the page cache (`--no-durable`).

    python benchmarks/growth.py [--json PATH] [--symbols 200] [--years 5] [--days 100]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import grandbatch as gb

BARS_A_DAY = 48
GOAL, FLAT = 0.05, 1.15
TIMES = "seconds", "processor"


def simulate(folder: Path, symbols: int, years: int, days: int) -> list[Path]:
    """Write a file for each year into `folder`/in; return a file for each day, beside it."""
    per_day = symbols * BARS_A_DAY
    source = folder / "all.csv"
    gb.create_large_dataset_simulation(
        source, (365 * years + days) * per_day, symbols=symbols, freq="30min", seed=1
    )
    (folder / "in").mkdir()
    found = []
    with source.open() as lines:
        header = next(lines)
        for year in range(years):
            write(folder / "in" / f"{year:04d}.csv", header, islice(lines, 365 * per_day))
        for day in range(days):
            found.append(folder / f"day-{day:04d}.csv")
            write(found[-1], header, islice(lines, per_day))
    source.unlink()
    return found


def write(path: Path, header: str, lines: Any) -> None:
    """Write lines behind a header."""
    with path.open("w") as out:
        out.write(header)
        out.writelines(lines)


def counters() -> tuple[int, int]:
    """Bytes that this process has read and written so far; 0 where no system tells."""
    try:
        lines = Path("/proc/self/io").read_text().split()
    except OSError:
        return 0, 0
    values = dict(zip(lines[::2], lines[1::2], strict=True))
    return int(values["rchar:"]), int(values["wchar:"])


def timed(folder: Path) -> dict[str, float]:
    """Build the store of what lies in the folder."""
    before, began, busy = counters(), time.perf_counter(), time.process_time()
    store = gb.build_store(
        folder / "in", folder / "s.zarr", order="period", period="1M", durable=False
    )
    seconds, after = time.perf_counter() - began, counters()
    return {
        "seconds": seconds,
        "processor": time.process_time() - busy,
        "read": after[0] - before[0],
        "written": after[1] - before[1],
        "rows": store.attrs["n_rows"],
    }


def grow(folder: Path, symbols: int, years: int, days: int) -> list[dict[str, float]]:
    """Build the whole, then add day after day."""
    files = simulate(folder, symbols, years, days)
    small = folder / "small"
    small.mkdir()
    gb.create_large_dataset_simulation(small / "a.csv", 20_000, symbols=2, freq="30min")
    gb.build_store(small / "a.csv", small / "s.zarr", order="period", durable=False)
    found = [timed(folder)]
    for file in files:
        file.rename(folder / "in" / file.name)
        found.append(timed(folder))
    return found


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("bench-results/growth.json"))
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        whole, *days = grow(Path(folder), options.symbols, options.years, options.days)
    quarter = max(1, len(days) // 4)
    first = statistics.median(day["seconds"] for day in days[:quarter])
    last = statistics.median(day["seconds"] for day in days[-quarter:])
    share, of_processor = (
        statistics.median(day[kind] for day in days) / whole[kind] for kind in TIMES
    )
    print(f"{'':>12} {'seconds':>8} {'processor':>9} {'MB read':>9} {'MB written':>10}")
    middle = sorted(days, key=lambda day: day["seconds"])[len(days) // 2]
    for name, row in (("whole", whole), ("median day", middle), ("last day", days[-1])):
        mb = [row[side] / 1e6 for side in ("read", "written")]
        times = f"{row['seconds']:8.2f} {row['processor']:9.2f}"
        print(f"{name:>12} {times} {mb[0]:9.1f} {mb[1]:10.1f}")
    print(
        f"{whole['rows']:,} bars: a day takes {share:.1%} of the whole build, "
        f"{of_processor:.1%} of its processor time (goal {GOAL:.0%})"
    )
    print(f"the last quarter of {len(days)} days takes {last / first:.2f} of the first ({FLAT})")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    shares = {"share": share, "processor_share": of_processor, "flat": last / first, "goal": GOAL}
    result = {"whole": whole, "days": days, **shares}
    options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
