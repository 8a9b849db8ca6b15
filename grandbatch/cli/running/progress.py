"""How far a run is, on stderr: bars on a terminal, else a line per stage."""

from __future__ import annotations

import sys
import time

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
from rich.text import Text

from grandbatch.cli.output import console, is_quiet

_TITLES = {
    "bars": "reading bars",
    "chunks": "writing chunks",
    "upload": "uploading",
    "train": "training",
}


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
