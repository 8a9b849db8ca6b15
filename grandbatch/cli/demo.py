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
from grandbatch.cli.judging import write_page
from grandbatch.cli.output import console, show
from grandbatch.cli.running.progress import Stages
from grandbatch.errors import GrandbatchError, UsageError
from grandbatch.evaluation.performance import written
from grandbatch.splits import split_store
from grandbatch.store.reader import MatrixStore

_MARK = ".grandbatch-demo"
_STOP_AFTER = 60
_SIGNAL = 0.2
_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; made anew.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=100_000, help="Bars to simulate.")] = 1_000_000,
    as_json: o.Json = False,
) -> None:
    """Simulate a market with a rule in it, build, train, stop, resume, and judge what was learnt.

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
    every_bar = folder / "strategic-every-bar.zarr"
    run("build every bar", lambda: _build("strategic", bars, every_bar, dense=True))
    judged = run(
        "evaluate", lambda: _evaluate(every_bar, folder / "checkpoints", folder / "evaluation.html")
    )
    run("report", lambda: _report(store, folder / "checkpoints", folder / "report.html"))
    if as_json:
        show({"stages": stages, "folder": str(folder), "verdict": judged["verdict"]}, as_json=True)
        return
    _print(stages, folder, judged["sentence"])


def _make_folder(folder: Path) -> None:
    if folder.exists():
        if any(folder.iterdir()) and not (folder / _MARK).exists():
            raise UsageError(f"{folder} exists and is no demo's; choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


def _simulate(bars: Path, rows: int) -> dict[str, Any]:
    from grandbatch.simulate import create_large_dataset_simulation

    result = create_large_dataset_simulation(bars, rows, signal=_SIGNAL)
    return {"made": f"{rows:,} bars, {result['bytes']:,} bytes", "where": str(bars)}


def _build(set_name: str, bars: Path, store: Path, *, dense: bool = False) -> dict[str, Any]:
    from grandbatch.build import build_store

    chosen: dict[str, Any] = {"overlap": 47, "layout": "rows"} if dense else {}
    with Stages() as progress:
        built = build_store(bars, store, feature_set=set_name, progress=progress.tell, **chosen)
    shape = " x ".join(str(n) for n in built.matrices.shape)
    return {"made": f"{shape} matrices in {built.n_chunks} chunks", "where": str(store)}


def _train(store: Path, checkpoints: Path, stop_after: int | None) -> dict[str, Any]:
    processor, trainer = _training(store, checkpoints)
    first: list[int] = []
    total = len(processor.loader)
    with Stages() as progress:
        for result in processor.process_batches(trainer):
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


def _training(store: Path, checkpoints: Path) -> Any:
    from grandbatch.cli.training import make_config
    from grandbatch.experiment import wire_training

    opened = MatrixStore.open(store)
    splits = split_store(opened, _SHARES, embargo="1D")
    config = make_config(opened, None, None, seed=0)
    return wire_training(opened, config, checkpoints, splits, run_length=8)


def _evaluate(store: Path, checkpoints: Path, page: Path) -> dict[str, Any]:
    from grandbatch.experiment import judge_trainings

    judged = judge_trainings(MatrixStore.open(store), [checkpoints])
    write_page(judged, store, page)
    result = judged.evaluation
    team, hold = (one.performance.total_return for one in (result.seeds[0], result.buy_and_hold))
    is_skill = "no luck" if result.verdict.beats_random else "not to be told from luck"
    said = (written("total_return", value) for value in (team, hold))
    return {
        "made": f"{len(result.times):,} bars traded that nothing was learnt from",
        "where": str(page),
        "verdict": str(result.verdict),
        "sentence": f"On bars it never saw the team made {' after costs, holding '.join(said)}: "
        f"{is_skill} (p = {result.verdict.timing_p:.3g}).",
    }


def _windows_of_step(store: Path, step: int) -> list[int]:
    """Windows of a step of an epoch that nothing interrupts."""
    loader = _training(store, store.parent / "unused")[0].loader
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


def _print(stages: list[dict[str, Any]], folder: Path, sentence: str) -> None:
    # a path may hold what rich would take for markup
    console().print(Text(f"made in {folder}"), soft_wrap=True)
    table = Table()
    for column in ("stage", "seconds", "made", "where"):
        is_number = column == "seconds"
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for stage in stages:
        table.add_row(stage["stage"], f"{stage['seconds']}", stage["made"], Text(stage["where"]))
    console().print(table)
    console().print(
        f"The training was stopped after step {_STOP_AFTER} and went on at the very next batch.\n"
        f"{sentence}\nThe picture: {folder}/evaluation.html. The store: {folder}/report.html"
    )
