"""Whether time per bar and peak memory stay flat from 10 to 100 million bars.

Each size is simulated, then built by `grandbatch build` in a process of its own; peak memory is
that of its process tree, sampled. The goal is within 15 % of the smallest size.

    python benchmarks/scale.py [--json PATH] [--millions 10 100] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from build import tree_bytes


def run_build(csv: Path, folder: Path) -> tuple[float, int, int]:
    """Seconds of the build, peak bytes of its process tree, and windows."""
    call = [
        sys.executable, "-m", "grandbatch", "build", "strategic", str(csv),
        "--store", str(folder / "s.zarr"), "--no-durable", "--json",
    ]  # fmt: skip
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as child:
        peak, process = 0, psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, tree_bytes(process))
            time.sleep(0.02)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"the build of {csv} failed")
    result = json.loads(out)
    return result["seconds"], peak, result["n_windows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="bench-results/scale.json")
    parser.add_argument("--millions", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    import grandbatch as gb

    rows = []
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory() as work:
            csv = Path(work) / "bars.csv"
            size = gb.create_large_dataset_simulation(csv, millions * 1_000_000, freq="1min")[
                "bytes"
            ]
            found = []
            for number in range(arguments.rounds):
                folder = Path(work) / str(number)
                folder.mkdir()
                found.append(run_build(csv, folder))
                subprocess.run(["rm", "-rf", str(folder)], check=True)
        rows.append(
            {
                "bars": millions * 1_000_000,
                "csv_bytes": size,
                "seconds": statistics.median(f[0] for f in found),
                "ns_per_bar": statistics.median(f[0] for f in found) / millions * 1e3,
                "peak_bytes": statistics.median(f[1] for f in found),
                "windows": found[0][2],
            }
        )
    print(f"{'M bars':>7} {'GB of CSV':>9} {'seconds':>8} {'ns/bar':>7} {'peak MB':>8}")
    for row in rows:
        print(
            f"{row['bars'] / 1e6:7.0f} {row['csv_bytes'] / 1e9:9.2f} {row['seconds']:8.1f} "
            f"{row['ns_per_bar']:7.0f} {row['peak_bytes'] / 1e6:8.0f}"
        )
    path = Path(arguments.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
