"""How a CSV file is written, from its first bytes: delimiter, header, where the bars begin."""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from pathlib import Path

from grandbatch.bars.header import ColumnMap, match_columns
from grandbatch.bars.rules import BarRules
from grandbatch.errors import InputError

SAMPLE_BYTES = 256 * 1024

_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class CsvLayout:
    """How one CSV file is written."""

    delimiter: str
    n_fields: int
    columns: ColumnMap
    data_start: int
    """Where the first line after the header starts, in bytes."""
    header_lines: int
    """Lines before that."""
    decimal: str = "."
    """What stands before a number's decimals; not the delimiter."""


def read_layout(path: Path, name: str, rules: BarRules) -> tuple[CsvLayout, bytes]:
    """Read a file's header; `name` is what errors call the file.

    Returns
    -------
    layout : CsvLayout
    sample : bytes
        Whole lines that follow the header, at most `SAMPLE_BYTES`.

    Raises
    ------
    InputError
        If there is no header or nothing after it, or the text isn't UTF-8.
    ColumnError
        If the header's columns can't be mapped.
    """
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
        is_whole = not file.read(1)
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in sample[:4096]:
        raise InputError(f"{name}: not UTF-8 text (UTF-16, or not text at all); convert it first")
    start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    found = re.compile(rb"[^\r\n]+").search(sample, start)
    if found is None:
        raise InputError(f"{name}: the file holds blank lines only; it needs a header and bars")
    ended = re.compile(rb"\r\n|\n|\r").match(sample, found.end())
    if ended is None:
        if is_whole:
            raise _header_only(name)
        raise InputError(f"{name}: the first line has no end in {SAMPLE_BYTES:,} bytes; is it CSV?")
    line = found.group().decode("utf-8", "replace")
    delimiter = rules.delimiter or _likely_delimiter(line)
    headers = next(csv.reader([line], delimiter=delimiter))
    body = sample[ended.end() :]
    if is_whole and not body.strip():
        raise _header_only(name)
    lines_before = len(re.findall(rb"\r\n|\n|\r", sample[start : ended.end()]))
    layout = CsvLayout(
        delimiter,
        len(headers),
        match_columns(headers, rules.columns, name),
        ended.end(),
        lines_before,
    )
    if not is_whole:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    return layout, body


def _header_only(name: str) -> InputError:
    return InputError(f"{name}: the file has a header and no bars after it")


def _likely_delimiter(line: str) -> str:
    bare = re.sub(r'"[^"]*"', "", line)
    return max(_DELIMITERS, key=bare.count)
