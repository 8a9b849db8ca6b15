"""Whether time per bar and peak memory stay flat from 10 to 100 million bars.

Each size is simulated, then built by `grandbatch build` in a process of its own; peak memory is
that of its process tree, sampled. The goal is within 15 % of the
smallest size, which is the others' peer.

    python benchmarks/scale.py [--json PATH] [--millions 10 100] [--rounds R]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import rmtree

from measuring import Figures, Row, medians, metered, options_of, peak_of_tree, report

import grandbatch as gb

FLAT = 1.15


def build(csv: Path, folder: Path) -> Figures:
    """Seconds of the build, peak bytes of its process tree, and windows."""
    call = [
        sys.executable, "-m", "grandbatch", "build", "strategic", str(csv),
        "--store", str(folder / "s.zarr"), "--no-durable", "--json",
    ]  # fmt: skip
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as child:
        peak = peak_of_tree(child, 0.02)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"the build of {csv} failed")
    result = json.loads(out)
    rmtree(folder)
    return {"inside": result["seconds"], "peak_bytes": peak, "windows": result["n_windows"]}


def measure(millions: int, rounds: int) -> Figures:
    with tempfile.TemporaryDirectory() as work:
        csv = Path(work) / "bars.csv"
        made = gb.create_large_dataset_simulation(csv, millions * 1_000_000, freq="1min")
        folder = Path(work) / "store"
        found = medians([metered(lambda: build(csv, folder), family=True) for _ in range(rounds)])
    return {**found, "csv_bytes": made["bytes"], "ns_per_bar": found["inside"] / millions * 1e3}


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=1)
    parser.add_argument("--millions", type=int, nargs="+", default=[10, 100])
    options = parser.parse_args()
    found = {millions: measure(millions, options.rounds) for millions in options.millions}
    least = found[options.millions[0]]
    rows = []
    for millions, run in found.items():
        name = f"{millions} M bars, {run['csv_bytes'] / 1e9:.1f} GB of CSV"
        for what, unit, figure, first in (
            ("build", "ns a bar", run["ns_per_bar"], least["ns_per_bar"]),
            ("peak", "MB", run["peak_bytes"] / 1e6, least["peak_bytes"] / 1e6),
        ):
            goal = None if run is least else FLAT * first
            peer = None if run is least else first
            rows.append(
                Row(f"{name}: {what}", figure, unit, run, goal=goal, peer=peer, is_cost=True)
            )
    report(__file__, rows, options, sizes=found)


if __name__ == "__main__":
    main()
