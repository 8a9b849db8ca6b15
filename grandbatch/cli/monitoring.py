"""`monitor`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table

from grandbatch.cli import options as o
from grandbatch.cli.output import console
from grandbatch.errors import UsageError
from grandbatch.memory.processes import ProcessMemory, run_processes
from grandbatch.scheduling import open_schedule
from grandbatch.values.texts import strict_json

_WIDTH = 160
"""Of the table where it goes to a file or another program."""


def monitor(
    scheduler: Annotated[
        str | None, typer.Option(help="Address of the Dask scheduler whose workers to show.")
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Checkpoints of the training whose ranks to show.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    as_json: o.Json = False,
) -> None:
    """Show the memory of all processes of a run: trainer ranks and Dask workers.

    A live table on a terminal, until Ctrl-C; else one look.

    Example: grandbatch monitor --scheduler tcp://127.0.0.1:8786 --checkpoint-dir checkpoints
    """
    if scheduler is None and checkpoint_dir is None:
        raise UsageError(
            "nothing to show: name a scheduler, a folder of checkpoints, or both; "
            "see grandbatch monitor --help"
        )
    if scheduler is not None and "://" not in scheduler:
        raise UsageError(f"{scheduler!r} is no address such as tcp://127.0.0.1:8786")
    with ExitStack() as stack:
        looks: list[Callable[[], list[ProcessMemory]]] = []
        if checkpoint_dir is not None:
            looks.append(lambda: run_processes(checkpoint_dir))
        if scheduler is not None:
            from grandbatch.memory.cluster import cluster_processes

            client = stack.enter_context(open_schedule(scheduler, None)).client
            looks.append(lambda: cluster_processes(client))
        _show(lambda: [process for look in looks for process in look()], interval, as_json)


def _show(look: Callable[[], list[ProcessMemory]], interval: float, as_json: bool) -> None:
    if as_json:
        print(strict_json({"processes": [asdict(process) for process in look()]}))
        return
    if not sys.stdout.isatty():
        console(width=_WIDTH).print(_table(look()))
        return
    # Ctrl-C is how one leaves
    with suppress(KeyboardInterrupt), Live(_table(look()), auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(_table(look()), refresh=True)


def _table(processes: list[ProcessMemory]) -> Table:
    table = Table(box=None)
    for title in ("process", "host", "rss", "limit", "%", "level", "status"):
        is_number = title in ("rss", "limit", "%")
        table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
    for title in ("batch", "pauses", "restarts"):
        table.add_column(title, justify="right")
    table.add_column("last reason", overflow="fold")
    for process in processes:
        share = 100 * process.rss_bytes / process.limit_bytes if process.limit_bytes else None
        table.add_row(
            f"{process.kind} {process.name}",
            process.host,
            decimal(process.rss_bytes),
            decimal(process.limit_bytes) if process.limit_bytes else "none",
            "" if share is None else f"{share:.1f}",
            process.level or "",
            process.status,
            "" if process.batch_size is None else f"{process.batch_size:,}",
            str(process.pauses),
            str(process.restarts),
            process.reason or "",
        )
    return table
