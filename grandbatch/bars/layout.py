"""How a CSV file is written, from its first bytes: delimiter, header, where the bars begin."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from grandbatch.bars.forms import likely_decimal, names_without_header
from grandbatch.bars.header import ColumnMap, fields_of, looks_like_bar, match_columns
from grandbatch.bars.inputs import read_exactly
from grandbatch.bars.rules import BarRules
from grandbatch.errors import ColumnError, InputError

SAMPLE_BYTES = 256 * 1024

_DELIMITERS = "\t;|,"
_MAX_PREAMBLE_LINES = 20
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)  # Excel's


@dataclass(frozen=True)
class CsvLayout:
    """How one CSV file is written."""

    delimiter: str
    n_fields: int
    columns: ColumnMap
    data_start: int
    """Where the first line of bars starts, in bytes."""
    header_lines: int
    """Lines before that."""
    decimal: str = "."
    """What stands before a number's decimals; not the delimiter."""


@dataclass(frozen=True)
class _Line:
    text: str
    start: int
    stop: int
    """Behind its end."""
    delimiter: str


def read_layout(file: BinaryIO, name: str, rules: BarRules) -> tuple[CsvLayout, bytes]:
    """Read the first lines of a text; `name` is what errors call it.

    Lines before the header that start with ``#`` or have one field only are passed over. There is
    no header where the first line is a bar in one of the usual forms without one.

    Returns
    -------
    layout : CsvLayout
    sample : bytes
        Whole lines of bars, at most `SAMPLE_BYTES`.

    Raises
    ------
    InputError
        If there is no line, or nothing after the header, or the text isn't UTF-8, or decimal
        commas can't be told from grouped thousands.
    ColumnError
        If the columns can't be mapped.
    """
    sample = read_exactly(file, SAMPLE_BYTES + 1)
    is_whole = len(sample) <= SAMPLE_BYTES
    sample = sample[:SAMPLE_BYTES]
    utf16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
    if sample.startswith(utf16) or b"\0" in re.split(rb"[\r\n]", sample, maxsplit=1)[0]:
        raise InputError(f"{name}: not UTF-8 text (UTF-16, or not text at all); convert it first")
    start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    head, first = _find_head(sample, start, is_whole, name, rules)
    fields = fields_of(head.text, head.delimiter)
    if not fields:
        raise InputError(f"{name}: its first line is one of {len(head.text):,} letters; is it CSV?")
    headers, has_header = _name_columns(fields, rules, name)
    if rules.names:
        _check_names(headers, sample[first.start :], head.delimiter, name)
    # without a header no line is passed over: what is no bar among the first is quarantined
    data_start = head.stop if has_header else first.start
    body = sample[data_start:]
    columns = match_columns(headers, rules.columns, name)
    if is_whole and not body.strip():
        raise InputError(f"{name}: the file has a header and no bars after it")
    if not is_whole:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    decimal = rules.decimal or likely_decimal(body, head.delimiter, columns.numbers, name)
    if decimal == head.delimiter:
        raise InputError(
            f"{name}: commas part its fields, so they can't stand before decimals; "
            "check --decimal and --delimiter"
        )
    lines_before = len(re.findall(rb"\r\n|\n|\r", sample[start:data_start]))
    layout = CsvLayout(head.delimiter, len(headers), columns, data_start, lines_before, decimal)
    return layout, body


def _find_head(
    sample: bytes, start: int, is_whole: bool, name: str, rules: BarRules
) -> tuple[_Line, _Line]:
    """Find the first line that has fields (where none has, the first line), and the first line."""
    first: _Line | None = None
    delimiter = rules.delimiter
    for begin, stop, text in _lines(sample, start, is_whole):
        excel = _SEPARATOR_LINE.fullmatch(text)
        if excel:
            delimiter = rules.delimiter or excel[1]
            continue
        line = _Line(text, begin, stop, delimiter or _likely_delimiter(text))
        first = first or line
        if line.delimiter in text and not text.startswith("#"):
            return line, first
    if first is not None:
        return first, first
    if sample[start:].strip(b"\r\n"):
        raise InputError(f"{name}: the first line has no end in {SAMPLE_BYTES:,} bytes; is it CSV?")
    raise InputError(f"{name}: the file holds blank lines only; it needs a header and bars")


def _lines(sample: bytes, start: int, is_whole: bool) -> Iterator[tuple[int, int, str]]:
    """First lines that are not empty: where each starts, where the next does, and its text."""
    found = re.compile(rb"([^\r\n]+)(\r\n|\n|\r|\Z)").finditer(sample, start)
    for _, line in zip(range(_MAX_PREAMBLE_LINES), found, strict=False):
        if line[2] or is_whole:
            yield line.start(), line.end(), line[1].decode("utf-8", "replace")


def _likely_delimiter(line: str) -> str:
    bare = re.sub(r'"[^"]*"', "", line)
    return max(_DELIMITERS, key=bare.count)


def _name_columns(fields: Sequence[str], rules: BarRules, name: str) -> tuple[Sequence[str], bool]:
    """Names of the columns, and whether the line that `fields` are of is a header."""
    usual = None if rules.header else names_without_header(fields, is_certain=rules.header is False)
    has_header = rules.header
    if has_header is None:
        has_header = usual is None and not (rules.names and looks_like_bar(fields))
    if rules.names:
        return rules.names, has_header
    if has_header:
        return fields, True
    if usual is None:
        raise ColumnError(
            f"{name}: without a header, {len(fields)} columns ({', '.join(fields)}) are of no "
            "usual form; say what they are with --names timestamp,open,high,low,close,volume"
        )
    return usual, False


def _check_names(names: Sequence[str], text: bytes, delimiter: str, where: str) -> None:
    """Refuse names of which there are not as many as any of the first lines has fields."""
    lines = text.decode("utf-8", "replace").splitlines()[:_MAX_PREAMBLE_LINES]
    rows = [fields_of(line, delimiter) for line in lines]
    if all(len(row) != len(names) for row in rows):
        raise ColumnError(
            f"{where}: --names has {len(names)} names and the first line {len(rows[0])} fields "
            f"({', '.join(rows[0])}); name every column, those not needed with any word"
        )
