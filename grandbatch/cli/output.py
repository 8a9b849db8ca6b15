"""What the command line shows on stdout: results, as text or as JSON."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from grandbatch.files.locations import is_remote
from grandbatch.files.objects import WireError
from grandbatch.values.texts import amount, duration, printable, strict_json


class _PlainConsole(Console):
    """A console that shows of a text what it says, and never does what it says."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            is_plain = segment.control is None
            yield segment._replace(text=printable(segment.text)) if is_plain else segment


def is_quiet() -> bool:
    """Whether nothing but errors is to be told (-q)."""
    return not logging.getLogger("grandbatch").isEnabledFor(logging.INFO)


def console(**options: Any) -> Console:
    """Make the console that all commands write to; the options are rich's."""
    return _PlainConsole(**{"quiet": is_quiet(), **options})


def show(values: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print a command's result: one JSON object, or a small table."""
    if as_json:
        print(strict_json(values))
        return
    if is_quiet():
        return
    shown = console()
    if title:
        # as Text: what stands in brackets is a path or a symbol, no markup
        shown.print(Text(title), soft_wrap=True)
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(Text(key), Text(_said(key, value)))
    shown.print(table)


def show_lines(values: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a command's result: one JSON object, or lines that are laid out already."""
    if as_json:
        show(values, as_json=True)
        return
    shown = console()
    for line in lines:
        # a terminal would break a long one inside a word; who reads a pipe wants it whole
        shown.print(Text(line), soft_wrap=not shown.is_terminal)


def explain(error: OSError) -> str:
    """Say in a line what an error of the system is about, and what to do."""
    if isinstance(error, WireError):
        return f"{error}; what was finished is kept"
    path = error.filename2 or error.filename
    what = error.strerror or str(error)
    if error.errno == errno.EFBIG:
        remedy = "files may not be larger here; raise ulimit -f"
    elif error.errno == errno.ENOMEM:
        remedy = "raise the limit of memory (ulimit -v tells it)"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room, and run the same command again"
    elif path is not None and is_remote(os.fsdecode(path)):
        if isinstance(error, PermissionError) and ";" in what:  # it says what to do itself
            return f"{os.fsdecode(path)}: {what}"
        remedy = "check the URL and what the credentials allow, and run the same command again"
    else:
        remedy = "give another path, or check its rights"
    place = "what was to be written" if path is None else os.fsdecode(path)
    return f"{place}: {what}; {remedy}"


def _said(key: str, value: Any) -> str:
    """Write a value in people's units, by what its key says it counts."""
    if value is None and key.startswith(("limit_", "max_")):
        return "no limit"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key == "bytes" or key.endswith("_bytes"):
            return amount(value)
        if key.endswith("_ns") or key == "bar_duration":
            return duration(value / 1e9)
        if key == "seconds" or key.endswith("_seconds"):
            return duration(value)
        if key.endswith("_per_second"):
            return f"{value:,.0f} /s"
    return _text(value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(str(k), v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(v) for v in value) or "none"
    return str(value)
