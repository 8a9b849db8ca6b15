"""`demo`: the whole way, on simulated bars, in about a minute."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from grandbatch.cli import options as o
from grandbatch.cli.output import Stages, console, show
from grandbatch.errors import GrandbatchError, UsageError
from grandbatch.store.reader import MatrixStore

_MARK = ".grandbatch-demo"
_STOP_AFTER = 60


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; made anew.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=100_000, help="Bars to simulate.")] = 1_000_000,
    as_json: o.Json = False,
) -> None:
    """Simulate bars, build both sets, train, stop in the middle, resume, report.

    Example: grandbatch demo
    """
    _make_folder(folder)
    stages: list[dict[str, Any]] = []

    def run(name: str, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        console(stderr=True).print(f"[bold]{name}[/bold]")
        found = step()
        stages.append({"stage": name, "seconds": round(time.perf_counter() - began, 1), **found})
        return found

    bars = folder / "bars.csv"
    run("simulate", lambda: _simulate(bars, rows))
    for set_name in ("strategic", "tactical"):
        store = folder / f"{set_name}.zarr"
        run(f"build {set_name}", lambda s=set_name, p=store: _build(s, bars, p))  # type: ignore[misc]
    store = folder / "strategic.zarr"
    run("train, stopped", lambda: _train(store, folder / "checkpoints", _STOP_AFTER))
    resumed = run("train, resumed", lambda: _train(store, folder / "checkpoints", None))
    expected = _windows_of_step(store, _STOP_AFTER)
    if resumed["first_windows"] != expected:
        raise GrandbatchError(
            f"the resumed training began with windows {resumed['first_windows']}, "
            f"the next batch has {expected}"
        )
    run("verify", lambda: _verify(store))
    run("report", lambda: _report(store, folder / "checkpoints", folder / "report.html"))
    if as_json:
        show({"stages": stages, "folder": str(folder)}, as_json=True)
        return
    _print(stages, folder)


def _make_folder(folder: Path) -> None:
    if folder.exists():
        if any(folder.iterdir()) and not (folder / _MARK).exists():
            raise UsageError(f"{folder} exists and is no demo's; give another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


def _simulate(bars: Path, rows: int) -> dict[str, Any]:
    from grandbatch.simulate import create_large_dataset_simulation

    result = create_large_dataset_simulation(bars, rows, signal=0.5)
    return {"made": f"{rows:,} bars, {result['bytes']:,} bytes", "where": str(bars)}


def _build(set_name: str, bars: Path, store: Path) -> dict[str, Any]:
    from grandbatch.build import build_store

    with Stages() as progress:
        built = build_store(bars, store, feature_set=set_name, overlap=None, progress=progress.tell)
    shape = " x ".join(str(n) for n in built.matrices.shape)
    return {"made": f"{shape} matrices in {built.n_chunks} chunks", "where": str(store)}


def _train(store: Path, checkpoints: Path, stop_after: int | None) -> dict[str, Any]:
    from grandbatch.cli.training import make_trainer

    opened = MatrixStore.open(store)
    processor = _processor(opened, checkpoints)
    first: list[int] = []
    total = len(processor.loader)
    with Stages() as progress:
        for result in processor.process_batches(make_trainer(opened, seed=0)):
            first = first or result["batch"].index.tolist()
            progress.tell("train", result["batch_idx"] + 1, total)
            if result["batch_idx"] + 1 == stop_after:
                break
    summary = processor.summary
    return {
        "made": f"{summary['steps']} steps, {summary['windows']} windows, "
        f"average reward {summary['avg_reward']:.2e}",
        "where": str(checkpoints),
        "first_windows": first,
    }


def _processor(store: MatrixStore, checkpoints: Path) -> Any:
    from grandbatch.cli.training import make_config
    from grandbatch.processor import BatchProcessor

    config = make_config(store, None, None, seed=0)
    return BatchProcessor(store, config, checkpoints, run_length=8)


def _windows_of_step(store: Path, step: int) -> list[int]:
    """Windows of a step of an epoch that nothing interrupts."""
    opened = MatrixStore.open(store)
    loader = _processor(opened, store.parent / "unused").loader
    for number, batch in enumerate(loader):
        if number == step:
            return list(batch.index.tolist())
    raise GrandbatchError(f"the epoch has fewer than {step + 1} steps")


def _verify(store: Path) -> dict[str, Any]:
    found = MatrixStore.open(store).verify()
    return {"made": f"{found.checked_chunks} chunks checked", "where": str(store)}


def _report(store: Path, checkpoints: Path, page: Path) -> dict[str, Any]:
    from grandbatch.report import write_report

    write_report(MatrixStore.open(store), page, checkpoint_dir=checkpoints)
    return {"made": f"a page of {page.stat().st_size:,} bytes", "where": str(page)}


def _print(stages: list[dict[str, Any]], folder: Path) -> None:
    # a path may hold what rich would take for markup
    table = Table(title=Text(f"made in {folder}"), title_justify="left")
    for column in ("stage", "seconds", "made", "where"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for stage in stages:
        table.add_row(stage["stage"], f"{stage['seconds']}", stage["made"], Text(stage["where"]))
    console().print(table)
    print(
        f"The training was stopped after step {_STOP_AFTER} and went on at the very next batch.\n"
        f"Next: open {folder}/report.html in a browser"
    )
