"""Settings of inputs as flags: what an error offers is what the command line takes apart again.

A value is quoted for a shell. Lists are parted by commas, and quoted as a line of CSV where a name
has one itself; ``--columns`` is parted only where another ``name=`` follows.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NEXT_COLUMN = re.compile(r",(?=\s*[A-Za-z_]\w*\s*=)")


def offer(flag: str, value: str) -> str:
    """Write a flag and its value as a shell takes them."""
    return f"{flag} {shlex.quote(value)}"


def offer_columns(columns: Iterable[tuple[str, str]]) -> str:
    """Write the flags that map columns to headers; empty where a header can't be written so."""
    pairs = list(columns)
    apart = [split_columns([f"{column}={header}"]) for column, header in pairs]
    if apart != [[pair] for pair in pairs] or not all(header for _, header in pairs):
        return ""
    return " ".join(offer("--columns", f"{column}={header}") for column, header in pairs)


def flags_of(fields: Mapping[str, Any]) -> str:
    """Write rules as the flags that give them."""
    found = []
    for name, value in fields.items():
        flag = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag)
        elif isinstance(value, Mapping):
            found += [offer(flag, f"{one}={text}") for one, text in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found.append(offer_list(flag, value))
        else:
            found.append(offer(flag, str(value)))
    return " ".join(found)


def offer_list(flag: str, names: Sequence[str]) -> str:
    """Write a flag whose value is a list of names."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return offer(flag, line.getvalue())


def split_list(text: str) -> list[str]:
    """Take a list of names apart."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]


def split_columns(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Take ``name=header`` apart, each alone or several parted by commas.

    Either side is empty where there is no ``=``, or nothing beside it.
    """
    pairs = (part.partition("=") for text in texts for part in _NEXT_COLUMN.split(text))
    return [(column.strip(), header.strip()) for column, _, header in pairs]
