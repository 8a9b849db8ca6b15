"""`simulate`, `plan` and `build`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from grandbatch.bars.rules import BarRules
from grandbatch.builder.reuse import Request, survey
from grandbatch.builder.settings import StoreSettings
from grandbatch.cli import options as o
from grandbatch.cli.output import show
from grandbatch.cli.running.loading import loading
from grandbatch.files.locations import as_location
from grandbatch.store.notes import notes, tell_notes
from grandbatch.store.publish import has_leftovers
from grandbatch.store.reader import MatrixStore
from grandbatch.values.checks import parse_bytes
from grandbatch.values.times import iso_time

_Engine = Annotated[str, typer.Option(help="auto, overlap or direct; same bytes.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another store at the path.")]
_Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for another builder of the store.")
]
_Durable = Annotated[
    bool, typer.Option("--durable/--no-durable", help="Sync every file to the disk.")
]
_Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Try kernels of your own on some bars first.")
]


@dataclass(frozen=True, kw_only=True)
class BuildFlags:
    """The flags about how a store is built, as a shell has them."""

    engine: _Engine = "auto"
    partition_bars: o.PartitionBars = None
    scheduler: o.Scheduler = None
    workers: o.Workers = None
    memory_limit: o.MemoryLimitOption = None
    overwrite: _Overwrite = False
    wait: _Wait = True
    durable: _Durable = True
    check: _Check = True


def with_build_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags about how a store is built, as `how`."""
    return o.gathering(command, "how", BuildFlags, lambda flags: flags)


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT.csv", help="The file to write.")],
    rows: Annotated[int, typer.Option(help="Bars to write.")] = 100_000,
    symbols: Annotated[int, typer.Option(help="Symbols, interleaved by time.")] = 1,
    freq: Annotated[str, typer.Option(help="Time between bars.")] = "5min",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    signal: Annotated[
        float,
        typer.Option(
            help="How much of the next move recent bars tell, 0 to below 1; 0 is luck alone."
        ),
    ] = 0.0,
    signal_timeframe: Annotated[
        str | None,
        typer.Option(help="Show the signal in bars of this length alone, e.g. 30min."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Write realistic bars: volatility that clusters, volume with a daily shape.

    Example: grandbatch simulate bars.csv --rows 1000000
    """
    from grandbatch.simulate import create_large_dataset_simulation

    result = create_large_dataset_simulation(
        out,
        rows,
        symbols=symbols,
        freq=freq,
        seed=seed,
        signal=signal,
        signal_timeframe=signal_timeframe,
    )
    show(result, as_json=as_json, title=f"simulated {as_location(out)}")


@o.with_rules
@o.with_settings
def plan(
    settings: StoreSettings,
    inputs: o.Inputs,
    store: o.StoreOption,
    partition_bars: o.PartitionBars = None,
    workers: o.Workers = None,
    memory_limit: o.MemoryLimitOption = None,
    cache: o.Cache = None,
    *,
    rules: BarRules,
    as_json: o.Json = False,
) -> None:
    """Say what a build would do and need, without doing it; exit 1 if it does not fit.

    Example: grandbatch plan strategic bars.csv --store bars.zarr --memory-limit 1GiB
    """
    from grandbatch.builder.estimate import estimate_build

    request = Request.of(inputs, store, settings, rules, cache)
    estimate = estimate_build(
        request,
        partition_bars=partition_bars,
        processes=workers or 0,
        memory_limit_bytes=None if memory_limit is None else parse_bytes(memory_limit),
    )
    show(estimate.to_json(), as_json=as_json, title=f"plan of {store}")
    estimate.check()


@o.with_rules
@o.with_settings
@with_build_flags
def build(
    settings: StoreSettings,
    inputs: o.Inputs,
    store: o.StoreOption,
    how: BuildFlags,
    cache: o.Cache = None,
    *,
    rules: BarRules,
    as_json: o.Json = False,
) -> None:
    """Build the store of a feature set's matrices, or reuse it, or extend it by bars added since.

    Example: grandbatch build strategic bars.csv --store bars.zarr
    """
    result = make_store(Request.of(inputs, store, settings, rules, cache), how)
    show(result, as_json=as_json, title=f"{'reused' if result['reused'] else 'built'} {store}")


def make_store(request: Request, how: BuildFlags) -> dict[str, Any]:
    """Build a store, reuse it, or extend it, and say what there is now.

    Raises
    ------
    GrandbatchError
        As of `build_store`.
    """
    began = time.perf_counter()
    limit = None if how.memory_limit is None else parse_bytes(how.memory_limit)
    # Dask is imported only where there is something to build: a reuse takes a second
    found = None if has_leftovers(request.path) else survey(request, overwrite=how.overwrite).store
    if found is not None:
        tell_notes(found.path, found.attrs)
        return _describe(found, reused=True, resumed=0, kept=0, began=began)
    with loading():
        from grandbatch.builder.builder import BuildOptions
        from grandbatch.builder.builder import build as run_build
        from grandbatch.cli.running.progress import Stages
        from grandbatch.scheduling import open_schedule

        if how.engine != "direct":
            import grandbatch.bars.cache.frames  # noqa: F401  # Dask's frames, needed later on

    with open_schedule(how.scheduler, how.workers, limit) as schedule, Stages() as stages:
        built = run_build(
            request,
            BuildOptions(
                engine=how.engine,
                partition_bars=how.partition_bars,
                schedule=schedule,
                memory_limit_bytes=limit,
                overwrite=how.overwrite,
                wait=how.wait,
                durable=how.durable,
                check=how.check,
            ),
            stages.tell,
        )
    return _describe(
        built.store,
        reused=built.reused,
        resumed=built.resumed_chunks,
        kept=built.kept_chunks,
        began=began,
    )


def _describe(
    store: MatrixStore, *, reused: bool, resumed: int, kept: int, began: float
) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    attrs = store.attrs
    return {
        "n_rows": attrs["n_rows"],
        "first_time": iso_time(attrs["first_time"]),
        "last_time": iso_time(attrs["last_time"]),
        "n_symbols": attrs["n_symbols"],
        "symbols_without_windows": attrs.get("symbols_without_windows", []),
        "n_segments": attrs["n_segments"],
        "n_windows": store.n_windows,
        "n_chunks": store.n_chunks,
        "reused": reused,
        "resumed_chunks": resumed,
        "kept_chunks": kept,
        "seconds": round(seconds, 3),
        "rows_per_second": round(attrs["n_rows"] / seconds),
        "quarantined": attrs["quarantined"],
        "widened": attrs.get("widened", 0),
        "differing_duplicates": attrs.get("differing_duplicates", 0),
        "worth_a_look": notes(attrs),
        "clock_changes": attrs.get("clock_changes", {}),
        "left_out": attrs.get("left_out", 0),
        **({"incomplete": attrs["incomplete"]} if "incomplete" in attrs else {}),
        **{name: attrs[name] for name in ("extra", "fill", "filled") if name in attrs},
        "fingerprint": store.fingerprint,
    }
