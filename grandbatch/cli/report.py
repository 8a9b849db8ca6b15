"""`report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grandbatch.cli import options as o
from grandbatch.cli.output import show
from grandbatch.store.reader import MatrixStore


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

    write_report(MatrixStore.open(store), out, cache_dir=cache, checkpoint_dir=checkpoint_dir)
    show(
        {"path": str(out), "bytes": out.stat().st_size},
        as_json=as_json,
        title=f"reported on {store}",
    )
