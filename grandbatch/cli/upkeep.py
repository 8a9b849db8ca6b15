"""`cache`, `quarantine`, `doctor` and `config`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from grandbatch.bars.cache.manifest import MANIFEST
from grandbatch.bars.cache.upkeep import (
    BadRow,
    CacheEntry,
    caches_of,
    clear_caches,
    iter_bad_rows,
    list_caches,
)
from grandbatch.cli import options as o
from grandbatch.cli.output import console, show
from grandbatch.cli.settings import FILES, settings
from grandbatch.errors import GrandbatchError, InputError, UsageError
from grandbatch.files.locations import as_location, is_remote
from grandbatch.files.refusals import refuse_url
from grandbatch.files.verbs import exists, is_in_objects, names_in
from grandbatch.store.format import MANIFEST_NAME
from grandbatch.store.publish import BESIDE, beside
from grandbatch.store.reader import MatrixStore
from grandbatch.values.texts import strict_json
from grandbatch.values.times import iso_time

_SHORT = 12

cache_app = typer.Typer(
    help="Show or clear the caches of clean bars.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A folder of stores, or a URL of one.")
]


@cache_app.command("list")
@o.with_verbosity
def list_(folder: Folder = Path(), cache: o.Cache = None, as_json: o.Json = False) -> None:
    """Show the caches of bars that stores in a folder were built from.

    Example: grandbatch cache list
    """
    folder, cache_dir = _caches_in(folder, cache)
    stores = _stores(folder)
    found = [_describe(entry, stores) for entry in list_caches(cache_dir)]
    total = sum(entry["bytes"] for entry in found)
    if as_json:
        show({"caches": found, "bytes": total}, as_json=True)
        return
    table = _table(f"{decimal(total)} in {cache_dir}", "fingerprint", "bars", "bytes", "inputs",
                   "until", "stores")  # fmt: skip
    for entry in found:
        table.add_row(
            entry["fingerprint"][:_SHORT],
            "damaged" if entry["n_rows"] is None else f"{entry['n_rows']:,}",
            f"{entry['bytes']:,}",
            Text(", ".join(entry["inputs"])),
            (entry["last_time"] or "").replace("+00:00", "Z"),  # else it is broken at 80 columns
            Text(", ".join(entry["stores"])),
        )
    console().print(table)


@cache_app.command()
@o.with_verbosity
def clear(
    folder: Folder = Path(),
    cache: o.Cache = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Beginning of a fingerprint; may be repeated (all).")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Remove caches of bars; stores stay as they are.

    Builds read their inputs again where they need to. A cache that a process is using
    stays, and is named; at a URL, all do while another process builds there.

    Example: grandbatch cache clear --only 3f77db94
    """
    _, cache_dir = _caches_in(folder, cache)
    removed, used = clear_caches(cache_dir, only or ())
    result: dict[str, Any] = {
        "removed": [entry.path.name for entry in removed],
        "bytes": sum(entry.n_bytes for entry in removed),
    }
    if used:
        result["in_use"] = [entry.path.name for entry in used]
    show(result, as_json=as_json, title=f"cleared {cache_dir}")


def quarantine(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A store, a folder of stores, or a bars cache.")
    ],
    reason: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to list.")] = 100,
    cache: o.Cache = None,
    as_json: o.Json = False,
) -> None:
    """List the rows that are no bars: file, line, reason and text.

    Example: grandbatch quarantine bars.zarr --reason ohlc_inconsistent
    """
    rows: list[BadRow] = []
    counts: Counter[str] = Counter()
    for path in _quarantines(as_location(folder), cache and as_location(cache)):
        for row in iter_bad_rows(path):
            counts[row.reason] += 1
            if len(rows) < limit and reason in (None, row.reason):
                rows.append(row)
    if reason is not None and reason not in counts:
        others = f", but as: {', '.join(counts)}" if counts else "; none was at all"
        raise UsageError(f"no row was quarantined as {reason!r}{others}")
    if as_json:
        show(
            {"rows": [row.to_json() for row in rows], "by_reason": counts, "total": counts.total()},
            as_json=True,
        )
        return
    table = _table(f"{counts.total():,} rows are no bars", "file", "line", "reason", "text")
    for row in rows:
        reason = f"{row.reason} ({row.column})" if row.column else row.reason
        table.add_row(Text(row.file), f"{row.line:,}", Text(reason), Text(row.text))
    console().print(table)
    console().print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))


def doctor(
    folder: Annotated[
        Path, typer.Option(help="Where stores are to lie, a URL too: how fast that is, is timed.")
    ] = Path(),
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to try as well.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show versions, limits and the disk's speed, and try a cluster; exit 1 if something is wrong.

    Example: grandbatch doctor --scheduler tcp://127.0.0.1:8786
    """
    from grandbatch.doctor import examine

    found = examine(folder, scheduler)
    if as_json:
        show(found, as_json=True)
    else:
        _print_health(found)
    if found["problems"]:
        raise GrandbatchError("; ".join(found["problems"]))
    if not as_json:
        console().print("nothing is wrong")


def config(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(help="Show all settings of a command (those that are set).")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show the settings in force where no flag says otherwise, and where each comes from.

    Flags go before GRANDBATCH_* variables, these before the file that --config names (or
    grandbatch.yaml of this folder), that before ~/.config/grandbatch/grandbatch.yaml, that before
    defaults. What reaches other machines or names code is not taken from a file nobody named.


    GRANDBATCH_LAYOUT=rows, or "layout: rows" in the file, is for all commands that have --layout;
    GRANDBATCH_BUILD_LAYOUT, or "layout: rows" below "build:", for one.

    Example: grandbatch config build
    """
    parent: Any = context.parent
    file = parent.meta[FILES][-1] if parent.meta.get(FILES) else None
    known = settings(parent)
    if command is not None and command not in {setting.command for setting in known}:
        raise UsageError(f"no command is called {command!r}; see grandbatch --help")
    chosen = [
        setting
        for setting in known
        if command == setting.command or (command is None and setting.source != "default")
    ]
    if as_json:
        path = None if file is None else str(file)
        rows = [asdict(setting) for setting in chosen]
        print(strict_json({"file": path, "settings": rows}))
        return
    if not chosen:
        console().print(
            "Nothing is set: all commands have their defaults. See grandbatch config --help"
        )
        return
    table = _table(f"file: {file or 'none'}", "command", "flag", "value", "from")
    for setting in chosen:
        value = "not set" if setting.value is None else str(setting.value)
        table.add_row(setting.command, setting.flag, Text(value), Text(setting.source))
    console().print(table)


def _caches_in(folder: Path, cache: Path | None) -> tuple[Path, Path]:
    """Return a folder of stores, and that of the bars caches: the one given, or the one in it.

    Raises
    ------
    UsageError
        If one is at a URL of no object store.
    """
    folder, cache_dir = as_location(folder), as_location(cache or folder / BESIDE / "bars")
    for place, what in ((folder, "a folder of stores"), (cache_dir, "the bars cache (--cache)")):
        refuse_url(place, what, but=is_in_objects)
    return folder, cache_dir


def _stores(folder: Path) -> list[MatrixStore]:
    """Open the finished stores in a folder."""
    found = []
    names = (name.rstrip("/") for name in names_in(folder) if name.endswith("/"))
    for path in (folder / name for name in names):
        if path.name != BESIDE and exists(path / MANIFEST_NAME):
            try:
                found.append(MatrixStore.open(path))
            except GrandbatchError:
                # whose bars are whose is still worth knowing of the others
                continue
    return found


def _describe(entry: CacheEntry, stores: list[MatrixStore]) -> dict[str, Any]:
    bars = entry.bars
    users = [
        store.path.name
        for store in stores
        if any(
            used.path == _whole(entry.path) for used in caches_of(store.attrs, entry.path.parent)
        )
    ]
    return {
        "fingerprint": entry.path.name,
        "path": str(entry.path),
        "bytes": entry.n_bytes,
        "n_rows": None if bars is None else bars.n_rows,
        "n_symbols": None if bars is None else len(bars.symbols),
        "inputs": [] if bars is None else [source["name"] for source in bars.source],
        "first_time": None if bars is None else iso_time(bars.first_time),
        "last_time": None if bars is None else iso_time(bars.last_time),
        "stores": users,
    }


def _whole(path: Path) -> Path:
    return path if is_remote(path) else path.absolute()


def _quarantines(folder: Path, cache: Path | None) -> list[Path]:
    """Find the caches whose bad rows a folder stands for.

    Raises
    ------
    InputError
        If there is none.
    """
    if exists(folder / MANIFEST):
        return [folder]
    if exists(folder / "zarr.json"):
        cache_dir = cache or beside(_whole(folder)) / "bars"
        # where there are more they differ in nothing that makes a row bad
        found = [bars.path for bars in caches_of(MatrixStore.open(folder).attrs, cache_dir)][:1]
    else:
        places = [cache] if cache else [folder / BESIDE / "bars", folder]
        found = [entry.path for place in places for entry in list_caches(place) if entry.bars]
    if not found:
        raise InputError(
            f"{folder}: no bars cache belongs to it, so its bad rows aren't there any more; build "
            "again to see them"
        )
    return found


def _print_health(found: dict[str, Any]) -> None:
    table = _table("", "what", "is")
    for name, value in found["versions"].items():
        table.add_row(name, value or "not installed")
    for number, gpu in enumerate(found["gpus"]):
        table.add_row(f"GPU {number}", f"{gpu['name']}, {decimal(gpu['memory_bytes'])}")
    if not found["gpus"]:
        table.add_row("GPU", "none that torch can use")
    table.add_row("cores", str(found["limits"]["cores"]))
    files = found["limits"]["open_files"]
    table.add_row("open files", "no limit" if files is None else f"{files:,}")
    for limit in found["limits"]["memory"]:
        free = "" if limit["free_bytes"] is None else f", {decimal(limit['free_bytes'])} free"
        table.add_row(f"memory, {limit['source']}", decimal(limit["limit_bytes"]) + free)
    if found["disk"]:
        disk = found["disk"]
        table.add_row("disk, free", decimal(disk["free_bytes"]))
        table.add_row("disk, written and synced", decimal(disk["write_bytes_per_second"]) + "/s")
        table.add_row("disk, read", decimal(disk["read_bytes_per_second"]) + "/s")
    if "objects" in found:
        store = found["objects"]
        table.add_row("object store, a request", f"{1e3 * store['request_seconds']:.1f} ms")
        table.add_row("object store, written", decimal(store["write_bytes_per_second"]) + "/s")
        table.add_row("object store, read", decimal(store["read_bytes_per_second"]) + "/s")
    if "cluster" in found:
        cluster = found["cluster"]
        table.add_row(
            "cluster",
            f"{cluster['workers']} workers, {cluster['threads']} threads, "
            f"{decimal(cluster['memory_bytes'])}",
        )
    console().print(table)


def _table(title: str, *columns: str) -> Table:
    if title:
        console().print(Text(title), soft_wrap=True)
    table = Table(box=None)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in ("bars", "bytes", "line") else "left",
            overflow="fold",
        )
    return table
