"""What a day costs that is added to a universe, beside the whole build, and whether it stays flat.

Bars of many symbols, interleaved by time, lie in a file for each year and then one for each day.
The store of the years is built in the order of periods; then day after day is added to the folder
and the same call made again. The goals: a day takes at most 5 % of the whole build's time, and the
last month of days is as fast as the first, within 15 % (medians; over a month, since the windows of
a day's month are written again, few of them on its first day). Processor time, of all
threads, is told beside: it hardly depends on what else runs. Bytes are those that the
process read and wrote through system calls, from the page cache or to it, as Linux counts them.
Kernels are loaded by a small build before; files are left in the page cache (`--no-durable`).

    python benchmarks/growth.py [--json PATH] [--symbols 200] [--years 5] [--days 100]
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from measuring import Row, metered, options_of, report

import grandbatch as gb

BARS_A_DAY = 48
GOAL, FLAT = 0.05, 1.15


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
    before = counters()

    def build() -> dict[str, float]:
        store = gb.build_store(
            folder / "in", folder / "s.zarr", order="period", period="1M", durable=False
        )
        read, written = (late - early for late, early in zip(counters(), before, strict=True))
        return {"rows": store.attrs["n_rows"], "read": read, "written": written}

    return metered(build)


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
    parser = options_of(__file__, __doc__, rounds=1)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        whole, *days = grow(Path(folder), options.symbols, options.years, options.days)
    month = min(31, -(-len(days) // 2))
    first, last = (
        statistics.median(day["seconds"] for day in some) for some in (days[:month], days[-month:])
    )
    middle = sorted(days, key=lambda day: day["seconds"])[len(days) // 2]
    share, of_processor = (
        statistics.median(day[kind] for day in days) / whole[kind]
        for kind in ("seconds", "processor")
    )
    rows = [
        Row(name, run["seconds"], "s", run, is_cost=True, note=moved(run))
        for name, run in ((f"whole, {whole['rows']:,} bars", whole), ("median day", middle),
                          ("last day", days[-1]))
    ]  # fmt: skip
    rows += [
        Row("a day, of the whole", 100 * share, "%", goal=100 * GOAL, is_cost=True),
        Row("the same, processor time", 100 * of_processor, "%", is_cost=True),
        Row(f"last {month} of {len(days)} days", last, "s", goal=FLAT * first, peer=first,
            is_cost=True, note="its peer are the first"),
    ]  # fmt: skip
    report(__file__, rows, options, whole=whole, days=days)


def moved(run: dict[str, float]) -> str:
    return f"{run['read'] / 1e6:.1f} MB read, {run['written'] / 1e6:.1f} MB written"


if __name__ == "__main__":
    main()
