"""`inspect`, `verify`, `stream` and `report`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from grandbatch.bars.cache.manifest import MANIFEST
from grandbatch.bars.cache.upkeep import cache_problems
from grandbatch.cli import options as o
from grandbatch.cli.output import show
from grandbatch.files.locations import as_location, reaching
from grandbatch.files.verbs import exists, size_of
from grandbatch.scheduling import open_schedule
from grandbatch.store.notes import notes
from grandbatch.store.reader import CACHE_BYTES, MatrixStore
from grandbatch.store.verification import Verification, verify_store
from grandbatch.values.times import iso_time

_SHOWN_NAMES = 20


def inspect(store: o.StoreArgument, as_json: o.Json = False) -> None:
    """Show what is in a store.

    Example: grandbatch inspect bars.zarr
    """
    opened = MatrixStore.open(store)
    attrs = {**opened.attrs, "worth_a_look": notes(opened.attrs)}
    if not as_json:
        attrs.pop("feature_stats")
        for name in ("first_time", "last_time"):
            attrs[name] = iso_time(attrs[name])
        attrs["source"] = [f"{s['name']} ({s['bytes']:,} bytes)" for s in attrs["source"]]
        for name in ("source", "symbols", "symbols_without_windows"):
            attrs[name] = _first_of(attrs.get(name, []))
    show(attrs, as_json=as_json, title=str(as_location(store)))


def _first_of(names: list[str]) -> list[str]:
    """Leave out what nobody reads to the end."""
    more = len(names) - _SHOWN_NAMES
    return names if more <= 1 else [*names[:_SHOWN_NAMES], f"and {more:,} more (all by --json)"]


def verify(
    store: o.StoreArgument,
    scheduler: o.Scheduler = None,
    workers: o.Workers = None,
    as_json: o.Json = False,
) -> None:
    """Read every chunk back and check it; exit 1 if one is bad. Also takes a cache of bars.

    With the address of a scheduler, workers read and check: each must reach the store itself.

    Example: grandbatch verify bars.zarr
    """
    place = as_location(store)
    with reaching(place):
        is_cache = exists(place / MANIFEST)
    opened = None if is_cache else MatrixStore.open(store)
    alone = "sync" if workers is None else None
    with open_schedule(scheduler or alone, workers) as schedule:
        if opened is None:
            n_parts, problems = cache_problems(place, schedule)
            told = {"ok": not problems, "checked_parts": n_parts, "problems": problems}
        else:
            told = _verified(verify_store(opened, schedule), as_json=as_json)
    show(told, as_json=as_json, title=f"verified {place}")
    if not told["ok"]:
        raise typer.Exit(1)


def _verified(found: Verification, *, as_json: bool) -> dict[str, Any]:
    n_chunks = found.checked_chunks
    return {
        "ok": found.ok,
        "checked_chunks": n_chunks if as_json else f"{n_chunks:,} of all arrays",
        "bad_chunks": [
            {"array": array, "chunk": chunk, "problem": problem}
            for array, chunk, problem in found.bad_chunks
        ],
    }


def stream(
    store: o.StoreArgument,
    batch_size: Annotated[int, typer.Option(help="Windows in a batch.")] = 1024,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Shuffle the windows.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Times through the store.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    store_cache: o.StoreCache = None,
    store_cache_bytes: o.StoreCacheBytes = CACHE_BYTES,
    as_json: o.Json = False,
) -> None:
    """Run the loader alone, and measure its rate.

    Example: grandbatch stream bars.zarr --batch-size 1024 --shuffle
    """
    from grandbatch.config import BatchConfig
    from grandbatch.loader import SlidingWindowDataLoader
    from grandbatch.memory import peak_bytes

    opened = MatrixStore.open(store, store_cache, store_cache_bytes)
    config = BatchConfig(
        batch_size=batch_size,
        sequence_length=opened.sequence_length,
        overlap=opened.overlap,
        seed=seed,
    )
    loader = SlidingWindowDataLoader(opened, config, shuffle=shuffle)
    windows = batches = 0
    began = time.perf_counter()
    for _ in range(epochs):
        for batch in loader:
            windows += len(batch)
            batches += 1
    seconds = time.perf_counter() - began
    show(
        {
            "windows": windows,
            "batches": batches,
            "seconds": round(seconds, 3),
            "windows_per_second": round(windows / seconds),
            "peak_rss_bytes": peak_bytes(),
        },
        as_json=as_json,
        title=f"streamed {as_location(store)}",
    )


def report(
    store: o.StoreArgument,
    out: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path(
        "report.html"
    ),
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Checkpoints of a training to show as well.")
    ] = None,
    cache: o.Cache = None,
    as_json: o.Json = False,
) -> None:
    """Write a page about a store: inputs, coverage, quarantine, features, samples, training.

    One HTML file that needs nothing else, for light and dark, for desk and phone.

    Example: grandbatch report bars.zarr -o report.html --checkpoint-dir checkpoints
    """
    from grandbatch.report import write_report

    page = as_location(out)
    write_report(MatrixStore.open(store), page, cache_dir=cache, checkpoint_dir=checkpoint_dir)
    show(
        {"path": str(page), "bytes": size_of(page)},
        as_json=as_json,
        title=f"reported on {as_location(store)}",
    )
