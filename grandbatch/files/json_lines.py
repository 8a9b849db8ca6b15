"""Logs of JSON lines, each with its sha256: one that was cut off or damaged is passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grandbatch.files import digested
from grandbatch.files.ordinary import append_to, open_regular


def append(path: Path, line: Mapping[str, Any]) -> int:
    """Write a line at the end of a log; return the log's bytes.

    Raises
    ------
    OSError
        Also if no ordinary file stands at the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with append_to(path) as file:
        file.write(digested.dump(line).decode() + "\n")
        return file.tell()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines that are as they were written.

    Raises
    ------
    OSError
        If it can't be read, or is no ordinary file.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        for raw in file:
            try:
                line = digested.load(raw)
            except ValueError:
                continue
            yield {name: value for name, value in line.items() if name != digested.KEY}
