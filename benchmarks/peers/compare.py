"""The loader beside its peers: rate, memory, disk, resume, elasticity, checks, in one table.

The work is that of `benchmarks/loader.py`: shuffled epochs of 1,000,000 strategic windows at stride
1, batch 1,024, page cache warm. Each peer is written as its own documentation advises; its module
names the page. Every piece of work is a process of its own.

`first` is the rate of a fresh loader, `later` the median of the next epochs. VIF is measured: the
variance of a batch's mean position relative to a perfect shuffle (1 is perfect). `RSS` is the peak
of the process tree, `private` the part of it that isn't mapped files or shared: mapped pages are
the page cache's, and the system takes them back when it must. `made` is the time and peak memory
that the form on disk takes: from the CSV with features where marked, else from ready windows.

The promises are tried on fewer windows. *Resume*: an epoch stopped after a third and gone on with
in a new process has the batches of an uninterrupted one. *Elastic*: gone on with by two ranks, the
rest of the epoch comes exactly once. *Damage*: one bit of the largest file is flipped, at three
places in turn; how often reading an epoch is an error, and how often it silently gives other
numbers. A star marks the best of a column; VIFs are estimates (some 5 % at a million windows). A
peer slower than a minute an epoch is measured for a minute.

    python benchmarks/peers/compare.py --python PEERS_PYTHON [--json PATH] [--windows N]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from protocol import CASES, Case
from source import LOOKBACK, L

HERE = Path(__file__).parent
TRIAL_WINDOWS, STOP_AFTER, LIMIT_SECONDS = 50_000, 16, 1800
PLACES = (0.25, 0.5, 0.75)


class FailedError(Exception):
    """A peer's process ended with an error; the text is its last line."""


class Runner:
    """Runs the pieces of one case, each in a process of its own."""

    def __init__(self, case: Case, python: str, batch: int):
        self._python = sys.executable if case.own else python
        self._common = {
            "module": case.module,
            "package": case.package,
            "own": case.own,
            "options": case.options,
            "batch": batch,
        }

    def start(self, action: str, **work: Any) -> subprocess.Popen[str]:
        call = [self._python, str(HERE / "case.py")]
        call.append(json.dumps({**self._common, "action": action, **work}))
        pipe = subprocess.PIPE
        return subprocess.Popen(call, stdout=pipe, stderr=pipe, text=True)

    def run(self, action: str, **work: Any) -> dict[str, Any]:
        """Return what the process found, with its peak memory."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            call = [self._python, str(HERE / "case.py")]
            call.append(json.dumps({**self._common, "action": action, **work}))
            child = subprocess.Popen(call, stdout=out, stderr=errors, text=True)
            peaks = watch(child)
            out.seek(0)
            errors.seek(0)
            return {**parsed(child.returncode, out.read(), errors.read()), **peaks}


def watch(child: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for a process; return the peaks of its tree."""
    rss = private = 0
    process, end = psutil.Process(child.pid), time.monotonic() + LIMIT_SECONDS
    while child.poll() is None:
        try:
            found = [p.memory_info() for p in (process, *process.children(recursive=True))]
            rss = max(rss, sum(m.rss for m in found))
            private = max(private, sum(m.rss - m.shared for m in found))
        except psutil.NoSuchProcess:
            pass
        if time.monotonic() > end:
            child.kill()
        time.sleep(0.02)
    return {"rss_bytes": rss, "private_bytes": private}


def parsed(code: int | None, out: str, errors: str) -> dict[str, Any]:
    if code:
        lines = [line for line in errors.splitlines() if line.strip()]
        raise FailedError(lines[-1][:200] if lines else f"exit code {code}")
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def make_source(folder: Path, windows: int) -> None:
    """Write bars, and the feature rows of as many windows at stride 1."""
    import grandbatch as gb

    if (folder / "rows.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    gb.create_large_dataset_simulation(folder / "bars.csv", windows - 1 + L + LOOKBACK)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        store = gb.build_store(
            folder / "bars.csv", Path(work) / "x.zarr", overlap=47, layout="rows", durable=False
        )
        firsts = store.matrices[:][:, 0] if windows <= TRIAL_WINDOWS else first_rows(store)
        rows = np.concatenate([firsts, store.matrices[len(store) - 1 : len(store)][0, 1:]])
    np.save(folder / "rows.npy", rows)


def first_rows(store: Any) -> Any:
    pieces = range(0, len(store), TRIAL_WINDOWS)
    return np.concatenate([store.matrices[i : i + TRIAL_WINDOWS][:, 0] for i in pieces])


def measure(runner: Runner, source: Path, folder: Path) -> dict[str, Any]:
    """Prepare, then the rate, memory and disk of the work."""
    folder.mkdir(parents=True)
    places = {"source": str(source), "folder": str(folder)}
    made = runner.run("prepare", **places)
    if "missing" in made:
        return made
    rate = runner.run("rate", **places)
    shuffled = runner.run("shuffle", **places)
    disk = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {
        "version": rate["version"],
        **{name: rate[name] for name in ("first", "later", "rss_bytes", "private_bytes")},
        **{name: shuffled[name] for name in ("vif", "windows_read")},
        "disk_bytes": disk,
        "made_seconds": made["made_seconds"],
        "made_rss_bytes": made["rss_bytes"],
    }


def try_promises(runner: Runner, case: Case, source: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    places = {"source": str(source), "folder": str(folder)}
    runner.run("prepare", **places)
    tried = {"resume": "no", "elastic": "no"}
    state = str(folder.parent / "state")
    stopped = runner.run("stop", **places, state=state, batches=STOP_AFTER)
    if stopped["can_resume"]:
        whole = runner.run("rest", **places)["numbers"]
        tried["resume"] = resumed(runner, places, state, stopped["numbers"], whole)
        if case.rejoins:
            tried["elastic"] = rejoined(runner, places, state, whole)
    return {**tried, **damaged(runner, source, folder)}


def resumed(
    runner: Runner, places: dict[str, str], state: str, taken: list[Any], whole: list[Any]
) -> str:
    try:
        rest = runner.run("rest", **places, state=state)["numbers"]
    except FailedError as failed:
        return f"fails: {failed}"
    if taken + rest == whole:
        return "yes"
    same = sorted(chain.from_iterable(taken + rest)) == sorted(chain.from_iterable(whole))
    return "other batches" if same else "no"


def rejoined(runner: Runner, places: dict[str, str], state: str, whole: list[Any]) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        runner.start("rest", **places, state=state, rank=rank, world=2, port=port)
        for rank in range(2)
    ]
    try:
        ends = [rank.communicate(timeout=LIMIT_SECONDS / 10) for rank in ranks]
        found = [parsed(r.returncode, *end) for r, end in zip(ranks, ends, strict=True)]
    except (FailedError, subprocess.TimeoutExpired) as failed:
        return f"fails: {failed}"
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    got = np.array([n for rank in found for batch in rank["numbers"] for n in batch])
    wanted = np.array([n for batch in whole[STOP_AFTER:] for n in batch])
    lost = len(np.setdiff1d(wanted, got))
    again = len(got) - len(np.unique(got)) + len(np.setdiff1d(got, wanted))
    return "yes" if not lost and not again else f"{lost} lost, {again} again"


def damaged(runner: Runner, source: Path, folder: Path) -> dict[str, Any]:
    """Flip one bit of a copy's largest file and read it, at several places in turn."""
    right = runner.run("read", source=str(source), folder=str(folder))["sum"]
    errors: list[str] = []
    silent = 0
    for place in PLACES:
        copy = folder.with_name("damaged")
        shutil.copytree(folder, copy)
        largest = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        flip(largest, place)
        try:
            silent += runner.run("read", source=str(source), folder=str(copy))["sum"] != right
        except FailedError as failed:
            errors.append(str(failed))
        shutil.rmtree(copy)
    return {"damage_errors": len(errors), "damage_silent": silent, "damage_texts": errors}


def flip(path: Path, place: float) -> None:
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * place))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 16]))


HEADS = ("", "first M/s", "later M/s", "VIF", "RSS MB", "private MB", "disk MB", "made s",
         "made MB", "resume", "elastic", "damage found")  # fmt: skip
NUMBERS = (
    ("first", 1e6, 3, max), ("later", 1e6, 3, max), ("vif", 1, 2, None), ("rss_bytes", 1e6, 0, min),
    ("private_bytes", 1e6, 0, min), ("disk_bytes", 1e6, 0, min), ("made_seconds", 1, 1, min),
    ("made_rss_bytes", 1e6, 0, min),
)  # fmt: skip


def print_table(results: dict[str, dict[str, Any]]) -> None:
    whole = [r for r in results.values() if "later" in r]
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for case in CASES:
        result = results.get(case.name)
        if result is None:
            continue
        cells = [f"{case.name} {result.get('version', '')}".strip()]
        if "later" not in result:
            cells.append(result["failed"])
        else:
            cells += [cell(result, whole, *number) for number in NUMBERS]
            cells[HEADS.index("made s")] += " (CSV)" if case.from_bars else ""
            found = result.get("promises") or damage_text(result)
            cells += [result.get("resume", ""), result.get("elastic", ""), found]
        print("| " + " | ".join(cells) + " |")


def damage_text(result: dict[str, Any]) -> str:
    silent = result["damage_silent"]
    return f"{result['damage_errors']} of {len(PLACES)}" + (f", {silent} silent" if silent else "")


def cell(
    result: dict[str, Any], whole: list[dict[str, Any]], name: str, unit: float, digits: int,
    best: Any,
) -> str:  # fmt: skip
    shown = [round(r[name] / unit, digits) for r in whole]
    value = round(result[name] / unit, digits)
    return f"{value:,.{digits}f}" + ("*" if best and value == best(shown) else "")


def run_case(case: Case, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    runner = Runner(case, options.python, options.batch)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        result = measure(runner, folder / f"source-{options.windows}", work / "full")
        if "missing" in result:
            return {"failed": f"not installed: no module {result['missing']}"}
        shutil.rmtree(work / "full")
        try:
            trial = folder / f"source-{TRIAL_WINDOWS}"
            result |= try_promises(runner, case, trial, work / "trial")
        except FailedError as failed:
            result["promises"] = f"failed: {failed}"
    except FailedError as failed:
        return {"failed": f"failed: {failed}"}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="of the peers' environment")
    parser.add_argument("--json", type=Path, default=Path("bench-results/peers.json"))
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--only", action="append", help="start of a peer's name; may come again")
    parser.add_argument("--folder", type=Path, help="where sources are kept and reused")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for windows in {options.windows, TRIAL_WINDOWS}:
            make_source(folder / f"source-{windows}", windows)
        for case in CASES:
            if not options.only or any(case.name.startswith(o) for o in options.only):
                print(f"{case.name} ...", file=sys.stderr, flush=True)
                results[case.name] = run_case(case, options, folder)
    print_table(results)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cpus": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "windows": options.windows,
        "batch": options.batch,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
