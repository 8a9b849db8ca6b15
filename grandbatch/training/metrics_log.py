"""The course of a training: its metrics as JSON lines beside its checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from grandbatch.files import json_lines

_log = logging.getLogger("grandbatch")

_LINE_SECONDS = 1.0


class MetricsLog:
    """Writes the means of what the trainer returned, about one line a second. Not thread-safe.

    A disk that is full ends the lines, not the run. A run that goes on from a checkpoint repeats
    the steps since; `read_metrics` keeps the later lines.

    Parameters
    ----------
    folder : Path
        Beside the checkpoints; made where it isn't there.
    rank : int
    """

    def __init__(self, folder: Path, rank: int = 0):
        self._path = folder / f"metrics-rank{rank}.jsonl"
        self._rank = rank
        self._sums: dict[str, float] = {}
        self._windows = 0
        self._span = (0, 0)
        self._due = 0.0
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()

    def add(self, step: int, windows: int, metrics: Mapping[str, float]) -> None:
        """Count the metrics of a step, weighted by its windows."""
        self._span = (self._span[0] if self._windows else step, step)
        self._windows += windows
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * windows
        if time.monotonic() >= self._due:
            self._write()

    def _write(self) -> None:
        if not self._windows or self._broken:
            return
        means = {name: total / self._windows for name, total in self._sums.items()}
        line = {
            "time": round(time.time(), 3),
            "rank": self._rank,
            "first_step": self._span[0],
            "step": self._span[1],
            "windows": self._windows,
            "metrics": {name: mean for name, mean in means.items() if math.isfinite(mean)},
        }
        self._sums, self._windows = {}, 0
        self._due = time.monotonic() + _LINE_SECONDS
        try:
            json_lines.append(self._path, line)
        except OSError as error:
            self._broken = True
            _log.warning("metrics are no longer recorded in %s: %s", self._path, error)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read the lines of all ranks in a folder, each rank's by rising step.

    Of steps that a resumed run trained again, only the last time counts. A line that is not
    as it was written, of a killed run or on a damaged disk, is passed over.

    Returns
    -------
    list of dict
        time, rank, first_step, step, windows, metrics (means over the steps).
    """
    found: list[dict[str, Any]] = []
    for path in sorted(Path(folder).glob("metrics-rank*.jsonl")):
        kept: list[dict[str, Any]] = []
        for line in json_lines.read(path):
            while kept and kept[-1]["step"] >= line["first_step"]:
                kept.pop()
            kept.append(line)
        found += kept
    return found
