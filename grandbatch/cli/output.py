"""What the command line shows: progress on stderr, results on stdout, as text or as JSON."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from grandbatch.values.texts import amount, duration, printable, strict_json

_TITLES = {
    "bars": "reading bars",
    "chunks": "writing chunks",
    "upload": "uploading",
    "train": "training",
}


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
    for line in lines:
        console().print(Text(line), soft_wrap=True)


def explain(error: OSError) -> str:
    """Say in a line what an error of the system is about, and what to do."""
    path = error.filename2 or error.filename
    what = error.strerror or str(error)
    if error.errno == errno.EFBIG:
        remedy = "files may not be larger here; raise ulimit -f"
    elif error.errno == errno.ENOMEM:
        remedy = "raise the limit of memory (ulimit -v tells it)"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room, and run the same command again"
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


class _Rate(ProgressColumn):
    """How much of a stage is done in a second: bytes of bars, chunks, steps of training."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0.0
        if task.description == _TITLES["bars"]:
            return Text(f"{decimal(int(speed))}/s")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")


class Stages:
    """Progress of a run in stages, on stderr: bars on a terminal, else a line per stage.

    Its `tell` is what `build` calls: (stage, done, total).
    """

    def __init__(self) -> None:
        self._is_quiet = is_quiet()
        self._console = console(stderr=True)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._ended: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Stages:
        if self._console.is_terminal and not self._is_quiet:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                _Rate(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        for stage in self._began.keys() - self._ended.keys():
            done, total = self._last[stage]
            print(f"{_TITLES.get(stage, stage)}: ended at {done:,} of {total:,}", file=sys.stderr)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is. A total of 0 is a message."""
        if self._is_quiet:
            return
        if not total:
            self._console.print(stage, markup=False)
            return
        title = _TITLES.get(stage, stage)
        if self._progress is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(title, total=total)
            self._progress.update(self._tasks[stage], completed=done, total=total)
            return
        self._began.setdefault(stage, time.monotonic())
        self._last[stage] = done, total
        if done >= total and stage not in self._ended:
            self._ended[stage] = time.monotonic()
            seconds = self._ended[stage] - self._began[stage]
            print(f"{title}: {total:,} of {total:,} in {seconds:.1f} s", file=sys.stderr)
