"""A change's before and after: the hot paths of two trees, in turns, in five minutes.

Each case is a process of its own, with the `grandbatch` of one tree or the other; a first round, in
which kernels compile, isn't counted. Figures are processor time, since a machine that others use
changes that least: rates are those of one core. The peer is the tree before the change, so `times`
is how many times as good the change made it. Without `--before` this tree's figures stand alone.

    make bench-quick BEFORE=main
    python benchmarks/quick.py [--before REVISION] [--json PATH] [--rounds R] [--bars N]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import (
    Figures,
    Row,
    answer,
    in_turns,
    medians,
    metered,
    options_of,
    report,
    run_apart,
)

import grandbatch as gb

HERE = Path(__file__).parent
STORES = {
    "rows, stride 1": {"layout": "rows", "overlap": 47},
    "windows, stride 1": {"layout": "windows", "overlap": 47},
    "rows, stride 36, codec none": {"layout": "rows", "codec": "none"},
}
BUILDS = {
    "from CSV, codec none": {"codec": "none"},
    "from cached bars, codec none": {"codec": "none", "cached": True},
    "from cached bars, rows, stride 1": {"layout": "rows", "overlap": 47, "cached": True},
}
SIZES = (32, 1_024)
REPEATS = 5


def prepare(csv: str, folder: str) -> Figures:
    """Build a tree's stores and cache, which may differ from the other tree's."""
    for number, settings in enumerate(STORES.values()):
        cache = Path(folder) / "cache"
        gb.build_store(csv, Path(folder) / f"{number}.zarr", cache=cache, durable=False, **settings)
    return {}


def compute_features() -> Figures:
    from features import NO_STARTS, simulated_bars

    from grandbatch.features import STRATEGIC, compute_rows

    bars = simulated_bars(262_144)
    runs = [metered(partial(compute_rows, STRATEGIC, bars, NO_STARTS)) for _ in range(REPEATS + 1)]
    found = medians(runs[1:])
    return {**found, "figure": found["processor"] / 262_144 * 1e9}


def train(store: str, size: int) -> Figures:
    from training import steps, steps_for, team_and_batch

    trainer, batch = team_and_batch(gb.MatrixStore.open(store), size, 1)
    work, count = partial(trainer.train_batch, batch), steps_for(size)
    found = medians([steps(work, count) for _ in range(REPEATS)][1:])
    return {**found, "figure": found["ms"]}


class Tree:
    """One tree's cases, on stores of its own."""

    def __init__(self, source: Path, csv: str, folder: Path) -> None:
        self.environment = {"PYTHONPATH": str(source)}
        self.csv, self.folder = csv, folder
        folder.mkdir()
        self.apart("quick", {"kind": "prepare", "csv": csv, "folder": str(folder)})
        self.start_up()

    def apart(self, script: str, case: Figures) -> Figures:
        return run_apart(str(HERE / f"{script}.py"), dict(case), environment=self.environment)

    def build(self, settings: Figures) -> Figures:
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        variant = dict(settings)
        if variant.pop("cached", False):
            variant["cache"] = str(self.folder / "cache")
        case = {"kind": "run_build", "csv": self.csv, "folder": str(work), "variant": variant}
        found = self.apart("build", case)
        return {**found, "figure": found["processor"] / found["rows"] * 1e9}

    def load(self, number: int) -> Figures:
        case = {"kind": "loader", "store": str(self.folder / f"{number}.zarr")}
        found = self.apart("loader", {**case, "batch_size": 1_024, "shuffle_chunks": None})
        return {**found, "figure": found["later_of_processor"] / 1e6}

    def start_up(self) -> Figures:
        """Build a store again that is there: what a whole process costs besides its work."""
        call = [sys.executable, "-m", "grandbatch", "build", "strategic", self.csv, "--store",
                str(self.folder / "again.zarr"), "--json"]  # fmt: skip
        run = partial(subprocess.run, call, check=True, capture_output=True, env=self.environment)
        found = metered(lambda: bool(run()), family=True)
        return {**found, "figure": found["processor"]}

    def cases(self) -> dict[str, tuple[str, partial[Figures]]]:
        """Name of each case, its unit, and what measures it."""
        found = {
            f"build {name}": ("ns a bar", partial(self.build, settings))
            for name, settings in BUILDS.items()
        }
        found |= {
            f"load {name}": ("M windows/s", partial(self.load, number))
            for number, name in enumerate(STORES)
        }
        store = str(self.folder / "0.zarr")
        for size in SIZES:
            case = {"kind": "train", "store": store, "size": size}
            found[f"train_batch, {size:,} windows"] = ("ms", partial(self.apart, "quick", case))
        case = {"kind": "features"}
        found["strategic features"] = ("ns a bar", partial(self.apart, "quick", case))
        found["a whole process that reuses its store"] = ("s", partial(self.start_up))
        return found


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--before", help="a revision; the tree as it is comes after it")
    parser.add_argument("--bars", type=int, default=600_000)
    options = parser.parse_args()
    if options.case:
        works = {"prepare": prepare, "features": compute_features, "train": train}
        answer(options.case, works)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv = str(folder / "bars.csv")
        gb.create_large_dataset_simulation(csv, options.bars)
        trees = {"after": Tree(HERE.parent, csv, folder / "after")}
        if options.before:
            source = folder / "source"
            source.mkdir()
            packed = subprocess.run(
                ["git", "-C", str(HERE.parent), "archive", options.before, "grandbatch"],
                check=True, capture_output=True,
            )  # fmt: skip
            subprocess.run(["tar", "-x", "-C", str(source)], input=packed.stdout, check=True)
            trees["before"] = Tree(source, csv, folder / "before")
        cases = {(case, which): found for which, tree in trees.items()
                 for case, found in tree.cases().items()}  # fmt: skip
        turns = {f"{case}|{which}": cases[case, which][1] for case, which in sorted(cases)}
        found = in_turns(turns, options.rounds, warm=1)
    rows = []
    for (case, which), (unit, _) in cases.items():
        if which == "after":
            before = found.get(f"{case}|before")
            peer = before["figure"] if before else None
            run = found[f"{case}|after"]
            is_cost = not unit.endswith("/s")
            rows.append(Row(case, run["figure"], unit, run, peer=peer, is_cost=is_cost))
    report(__file__, rows, options)


if __name__ == "__main__":
    main()
