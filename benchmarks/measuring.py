"""What all benchmarks share: what a run costs, rounds in turns, processes of their own, one table.

A row of the table has a figure and its goal; the limit that the machine sets, and the share of it
that is reached; what a peer comes to in the same run, and how many times as good the figure is;
user and system seconds of one round; and the load meanwhile, as the system tells it: how many
processes wanted a core over the last minute. Figures are medians over rounds in which all cases
take turns, so that a busy minute is everybody's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

SAMPLE_SECONDS = 0.1
"""Each look at a process tree takes milliseconds of a core from what is measured."""

Figures = dict[str, Any]
Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of a table. Less is better of a figure that `is_cost`."""

    what: str
    figure: float
    unit: str
    cost: Mapping[str, float] = field(default_factory=dict)
    goal: float | None = None
    limit: float | None = None
    peer: float | None = None
    is_cost: bool = False
    note: str = ""

    def times(self, other: float | None) -> float | None:
        """Tell how many times as good as another the figure is."""
        if other is None:
            return None
        better, worse = (other, self.figure) if self.is_cost else (self.figure, other)
        return better / worse if worse else None

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.figure <= self.goal if self.is_cost else self.figure >= self.goal

    def plain(self) -> Figures:
        shares = {"of_limit": self.times(self.limit), "of_peer": self.times(self.peer)}
        return {**asdict(self), **shares, "reached": self.reached}


def options_of(script: str, doc: str, rounds: int) -> argparse.ArgumentParser:
    """Make the parser of the options that all scripts have; `--case` is what `run_apart` gives."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    record = Path("bench-results") / f"{Path(script).stem}.json"
    parser.add_argument("--json", type=Path, default=record, help="where the record goes")
    parser.add_argument("--rounds", type=int, default=rounds, help="medians of so many are told")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    return parser


def processor_seconds(family: bool = False) -> tuple[float, float]:
    """User and system seconds of this process so far; of its descendants too, if asked."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    user, system = own.ru_utime, own.ru_stime
    if family:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = user + ended.ru_utime, system + ended.ru_stime
        for child in psutil.Process().children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            user += times.user + times.children_user
            system += times.system + times.children_system
    return user, system


def metered(work: Work, *, family: bool = False) -> Figures:
    """Run a work; return its costs, and what it returns where that is a mapping."""
    before, began = processor_seconds(family), time.perf_counter()
    found = work()
    seconds, after = time.perf_counter() - began, processor_seconds(family)
    user, system = (late - early for late, early in zip(after, before, strict=True))
    costs = {"seconds": seconds, "user": user, "system": system, "load": os.getloadavg()[0]}
    costs["processor"] = user + system
    return {**costs, **(found if isinstance(found, dict) else {})}


def in_turns(
    cases: Mapping[str, Callable[[], Figures]], rounds: int, warm: int = 0
) -> dict[str, Figures]:
    """Run all cases round by round; return the medians of each figure behind `warm` rounds."""
    found: dict[str, list[Figures]] = {name: [] for name in cases}
    for number in range(warm + rounds):
        for name, case in cases.items():
            figures = case()
            if number >= warm:
                found[name].append(figures)
    return {name: medians(runs) for name, runs in found.items()}


def medians(runs: Sequence[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def own_peak_bytes() -> int:
    """Peak memory of this process, without what it inherited."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def run_apart(
    script: str, case: Figures, *, tree: bool = False, environment: Mapping[str, str] | None = None
) -> Figures:
    """Run one case of a script in a process of its own, by `answer`; `tree` counts its children's
    memory too, sampled.
    """
    call = [sys.executable, script, "--case", json.dumps(case)]
    peak = 0
    settings = {**os.environ, **(environment or {})}
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=settings) as child:
        if tree:
            peak = peak_of_tree(child)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{script}: the case {case} failed")
    found: Figures = json.loads(out.splitlines()[-1])
    return {**found, "peak_bytes": max(peak, found["peak_bytes"])}


def peak_of_tree(child: subprocess.Popen[str], seconds: float = SAMPLE_SECONDS) -> int:
    """Wait for a process; return the most bytes that it and its descendants held together."""
    peak, process = 0, psutil.Process(child.pid)
    while child.poll() is None:
        try:
            members = (process, *process.children(recursive=True))
            peak = max(peak, sum(member.memory_info().rss for member in members))
        except psutil.NoSuchProcess:
            pass
        time.sleep(seconds)
    return peak


def answer(case: Figures, works: Mapping[str, Callable[..., Figures]]) -> None:
    """Run the case that `run_apart` asks for, and print what it found."""
    found = works[case.pop("kind")](**case)
    print(json.dumps({**found, "peak_bytes": own_peak_bytes()}))


def report(script: str, rows: Sequence[Row], options: argparse.Namespace, **more: Any) -> None:
    """Print the table, and write the record with all that is in it, and `more`."""
    print_rows(rows)
    chosen = {k: v for k, v in vars(options).items() if isinstance(v, int | float | list)}
    record = {
        "benchmark": Path(script).stem,
        "machine": machine(),
        "options": chosen,
        "rows": [row.plain() for row in rows],
        **more,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=1) + "\n")


def machine() -> Figures:
    libraries = ("numpy", "numba", "torch", "dask", "pyarrow")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        **{name: version(name) for name in libraries},
    }


HEADS = ("figure", "unit", "goal", "", "limit", "of it", "peer", "times", "user s", "system s",
         "load")  # fmt: skip
WIDTHS = (9, -14, 8, -7, 9, 6, 9, 6, 8, 8, 5)


def print_rows(rows: Sequence[Row]) -> None:
    longest = max(len(row.what) for row in rows)
    print(_line("", longest, HEADS))
    for row in rows:
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        cost = [_shown(row.cost.get(name)) for name in ("user", "system", "load")]
        figures = [_shown(row.figure), row.unit, _shown(row.goal), verdict]
        against = [
            text
            for other in (row.limit, row.peer)
            for text in (_shown(other), _shown(row.times(other)))
        ]
        print(_line(row.what, longest, [*figures, *against, *cost]) + f"  {row.note}".rstrip())


def _line(what: str, longest: int, cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(width) if width > 0 else cell.ljust(-width)
        for cell, width in zip(cells, WIDTHS, strict=True)
    )
    return f"{what:{longest}} {' '.join(padded)}"


def _shown(value: float | None) -> str:
    """Three digits of a number."""
    if value is None:
        return ""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 4
    return f"{value:,.{digits}f}"
