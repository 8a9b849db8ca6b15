"""How a CSV file is written, from its first bytes: delimiter, header, where the bars begin."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import BinaryIO

from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.foreign import refuse_other_forms
from grandbatch.bars.form.header import fields_of, has_volume, looks_like_bar, match_columns
from grandbatch.bars.form.headerless import names_without_header, offer_names, refuse_narrow
from grandbatch.bars.form.instruments import SNIFFED_ROWS, may_be_codes, may_be_texts, with_texts
from grandbatch.bars.form.left_out import left_out_numbers, may_be_numbers
from grandbatch.bars.form.side_by_side import match_frame, read_frame_header
from grandbatch.bars.form.texts import likely_decimal, refuse_empty_volume, refuse_grouped
from grandbatch.bars.form.undated import check_dated
from grandbatch.bars.inputs.digests import read_exactly
from grandbatch.bars.inputs.packing import likely_encodings
from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.flags import offer
from grandbatch.bars.timestamps.scales import check_scale
from grandbatch.errors import ColumnError, InputError

SAMPLE_BYTES = 256 * 1024

_DELIMITERS = "\t;|,"
_MAX_PREAMBLE_LINES = 20
_DECIMAL_ROWS = 1000
_ENDING_BYTES = 16 * 1024
_FEWEST_MARKS = 4
"""Between the fields of a bar."""
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)  # Excel's


@dataclass(frozen=True)
class CsvDialect:
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
    grouped: bool = False
    """Whether numbers may have marks between thousands, and letters for powers of them."""
    series: tuple[ColumnMap, ...] = ()
    """Where a row holds bars of several symbols side by side: the columns of each."""
    left_out: tuple[str, ...] = ()
    """Headers of columns of numbers that are read over."""
    assumed: tuple[str, ...] = ()
    """What columns are taken for that neither a header nor a setting names."""


@dataclass(frozen=True)
class _Line:
    text: str
    start: int
    stop: int
    """Behind its end."""
    delimiter: str


def read_dialect(
    file: BinaryIO,
    name: str,
    rules: BarRules,
    folders: Mapping[str, str] = MappingProxyType({}),
    ending: bytes = b"",
) -> tuple[CsvDialect, bytes]:
    """Read the first lines of a text; `name` is what errors call it.

    Columns beside the bars may hold texts further down: the last lines of an `ending` show it, too.

    Lines before the header that start with ``#`` or have one field only are passed over. There is
    no header where the first line is a bar in one of the usual forms without one. A header may have
    several lines, as frames of several symbols do.

    Returns
    -------
    dialect : CsvDialect
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
    refuse_other_forms(sample, name)
    read = partial(
        _read_sample, name=name, rules=rules, folders=folders, is_whole=is_whole, ending=ending
    )
    try:
        return read(sample)
    except InputError as error:
        advice = _other_encoding(sample, rules, read)
        if advice is None:
            raise
        raise InputError(f"{name}: not UTF-8 text; {advice}") from error


def _other_encoding(sample: bytes, rules: BarRules, read: Callable[[bytes], object]) -> str | None:
    """Say in which encoding a text makes sense that can't be read as UTF-8."""
    head = sample[: sample.rfind(b"\n") + 1] or sample
    if rules.encoding is not None or (b"\0" not in head and _is_utf8(head)):
        return None
    wrong = None
    for encoding in likely_encodings(head):
        advice = f"it looks like {encoding}. If so, add {offer('--encoding', encoding)}"
        try:
            read(sample.decode(encoding, "replace").encode())
        except InputError as error:
            wrong = wrong or f"{advice}. Then: {error}"
        else:
            return advice
    # what is odd behind a plain header has nothing to do with it
    return None if _is_utf8(head.partition(b"\n")[0].replace(b"\0", b"\xff")) else wrong


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class _Head:
    """What the lines before the bars say."""

    delimiter: str
    headers: Sequence[str]
    columns: ColumnMap
    series: tuple[ColumnMap, ...]
    data_start: int
    has_header: bool


def _read_sample(
    sample: bytes,
    *,
    name: str,
    rules: BarRules,
    folders: Mapping[str, str],
    is_whole: bool,
    ending: bytes,
) -> tuple[CsvDialect, bytes]:
    line = re.split(rb"[\r\n]", sample, maxsplit=1)[0]
    if line.count(0) > len(line) // 4:
        raise InputError(f"{name}: not UTF-8 text (UTF-16, or not text at all); convert it first")
    start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    head = _read_head(sample, start, is_whole, name, rules, folders)
    body = sample[head.data_start :]
    if is_whole and not body.strip():
        raise InputError(f"{name}: the file has a header and no bars after it")
    if not is_whole:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    rows = list(_rows(body, head.delimiter, SNIFFED_ROWS))
    later = [*_last_rows(body, head.delimiter), *_last_rows(ending, head.delimiter)]
    columns = head.columns
    if not head.series:
        check_dated(head.headers, columns, rows, rules, name)
        columns = _with_texts(head, rows, later, rules, folders, name)
        _check_symbols(columns, rows, name)
        _check_volume(head, body, rules, name)
    if len(columns.timestamp) == 1:
        check_scale(list(_values([*rows, *later], columns.timestamp[0])), rules, name)
    decimal = _decimal_of(body, head.delimiter, columns, rules, name)
    refuse_grouped(rows, columns.all_numbers, decimal, rules, name)
    are_numbers = may_be_numbers(rows, len(head.headers), decimal)
    lines_before = len(re.findall(rb"\r\n|\n|\r", sample[start : head.data_start]))
    dialect = CsvDialect(
        head.delimiter,
        len(head.headers),
        columns,
        head.data_start,
        lines_before,
        decimal,
        rules.grouped,
        head.series,
        left_out_numbers(head.headers, head.series or [columns], rules, are_numbers),
        () if head.has_header or rules.names else tuple(head.headers),
    )
    return dialect, body


def _read_head(
    sample: bytes,
    start: int,
    is_whole: bool,
    name: str,
    rules: BarRules,
    folders: Mapping[str, str],
) -> _Head:
    """Find the columns, by names or by a header of one line or several, and where bars begin."""
    head, first = _find_head(sample, start, is_whole, name, rules)
    fields = fields_of(head.text, head.delimiter)
    if not fields:
        raise InputError(f"{name}: its first line is one of {len(head.text):,} letters; is it CSV?")
    if not rules.names and rules.header is not False:
        frame = read_frame_header(list(_rows(sample[head.start :], head.delimiter, 3)), rules)
        if frame is not None:
            data_start = _skip_lines(sample, head.start, frame.n_lines)
            series = tuple(match_frame(frame, rules, name))
            return _Head(head.delimiter, frame.fields, series[0], series, data_start, True)
    rows = list(_rows(sample[head.start :], head.delimiter, SNIFFED_ROWS))
    if len(fields) == 1:
        _refuse_undelimited(rows, name)
    headers, has_header = _name_columns(rows, rules, name)
    if rules.names:
        _check_names(headers, sample[first.start :], head.delimiter, name)
    # without a header no line is passed over: what is no bar among the first is quarantined
    data_start = head.stop if has_header else first.start
    headers = _without_end(headers, rows[has_header:])
    columns = match_columns(headers, rules, name, folders)
    if has_header and not rules.names:
        refuse_narrow(headers, rows[1:], name)
    return _Head(head.delimiter, headers, columns, (), data_start, has_header)


def _with_texts(
    head: _Head,
    rows: Sequence[Sequence[str]],
    later: Sequence[Sequence[str]],
    rules: BarRules,
    folders: Mapping[str, str],
    name: str,
) -> ColumnMap:
    """Add the columns beside the bars that hold texts."""
    n_columns = len(head.headers)
    seen = may_be_texts([*rows, *later], n_columns), may_be_codes(rows, n_columns)
    may_turn = [True] * n_columns
    return with_texts(head.headers, head.columns, rules, folders, name, *seen, may_turn)


def _check_volume(head: _Head, body: bytes, rules: BarRules, name: str) -> None:
    """Refuse a column of volumes that has none."""
    volume = head.columns.numbers[-1]
    if volume >= 0:
        lines = _rows(body, head.delimiter, _DECIMAL_ROWS)
        refuse_empty_volume(_values(lines, volume), head.headers[volume], rules, name)


def _rows(text: bytes, delimiter: str, most: int) -> Iterator[list[str]]:
    """Fields of the first lines that are not empty."""
    lines = (line[0] for line in re.finditer(rb"[^\r\n]+", text))
    for line in itertools.islice(lines, most):
        yield fields_of(line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace"), delimiter)


def _values(rows: Iterable[Sequence[str]], field: int) -> Iterator[str]:
    return (row[field] for row in rows if len(row) > field)


def _last_rows(text: bytes, delimiter: str) -> list[list[str]]:
    """Fields of the last lines of a text whose first may be cut."""
    lines = re.split(rb"[\r\n]+", text[-_ENDING_BYTES:])[1:][-SNIFFED_ROWS:]
    return list(_rows(b"\n".join(lines), delimiter, SNIFFED_ROWS))


def read_ending(file: BinaryIO, size: int) -> bytes:
    """Read the end of a text, beyond what `read_dialect` reads of its beginning."""
    file.seek(max(SAMPLE_BYTES, size - _ENDING_BYTES))
    ending = read_exactly(file, _ENDING_BYTES)
    file.seek(0)
    return ending


def _refuse_undelimited(rows: Sequence[Sequence[str]], name: str) -> None:
    """Refuse lines of one field; name the mark that parts all of them into as many as a bar has."""
    lines = [row[0].strip() for row in rows if row]
    marks = {mark for mark in lines[0] if not mark.isalnum() and mark not in "_-.:"}
    fit = [
        mark
        for mark in sorted(marks, key=lines[0].count, reverse=True)
        if lines[0].count(mark) >= _FEWEST_MARKS
        and all(line.count(mark) == lines[0].count(mark) for line in lines)
    ]
    advice = f". If {fit[0]!r} parts its fields, add {offer('--delimiter', fit[0])}" if fit else ""
    raise InputError(
        f"{name}: its first lines have one field only: none of , ; | or a tab parts them{advice}"
    )


def _skip_lines(sample: bytes, start: int, count: int) -> int:
    """Where the line starts after some that are not empty."""
    lines = re.compile(rb"[^\r\n]+(\r\n|\n|\r|\Z)").finditer(sample, start)
    return [line.end() for line in itertools.islice(lines, count)][-1]


def _check_symbols(columns: ColumnMap, rows: Sequence[Sequence[str]], name: str) -> None:
    """Refuse symbols most of which are no UTF-8."""
    place = columns.symbol
    symbols = [row[place] for row in rows if place is not None and place < len(row)]
    if sum("\ufffd" in symbol for symbol in symbols) > len(symbols) // 2:
        raise InputError(f"{name}: its symbols are no UTF-8 text; convert it first")


def _without_end(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Sequence[str]:
    """Leave out a header of nothing at the end where rows have none there."""
    if not headers[-1].strip() and rows and all(len(row) < len(headers) for row in rows):
        return headers[:-1]
    return headers


def _decimal_of(body: bytes, delimiter: str, columns: ColumnMap, rules: BarRules, name: str) -> str:
    decimal = rules.decimal
    if decimal is None:
        decimal = "."
        if delimiter != "," and b"," in body:
            rows = list(_rows(body, delimiter, _DECIMAL_ROWS))
            decimal = likely_decimal(rows, columns.all_numbers, name, grouped=rules.grouped)
    if decimal == delimiter:
        raise InputError(
            f"{name}: commas part its fields, so they can't stand before decimals; "
            "check the settings of decimal and delimiter"
        )
    return decimal


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


def _name_columns(
    rows: Sequence[Sequence[str]], rules: BarRules, name: str
) -> tuple[Sequence[str], bool]:
    """Names of the columns, and whether the first of `rows` is a header."""
    fields = rows[0]
    plain = rows
    if rules.header is not True and len(fields) > 1 and not fields[-1].strip():
        plain = [row[: len(fields) - 1] for row in rows]  # a delimiter at the end
    usual = None
    if not rules.header:
        usual = names_without_header(
            plain, is_certain=rules.header is False, has_volume=has_volume(rules)
        )
    has_header = rules.header
    if has_header is None:
        has_header = usual is None and not looks_like_bar(fields)
    if rules.names:
        return rules.names, has_header
    if has_header:
        return fields, True
    if usual is None:
        flags = offer_names(plain)
        advice = f". If they are those, add {flags}" if flags else "; name them"
        raise ColumnError(
            f"{name}: without a header, {len(fields)} columns ({', '.join(fields)}) are of no "
            f"usual form{advice}"
        )
    return usual, False


def _width(row: Sequence[str]) -> int:
    """Fields of a row without nothing at its end."""
    return len(row) - (not row[-1].strip())


def _check_names(names: Sequence[str], text: bytes, delimiter: str, where: str) -> None:
    """Refuse names of which there are not as many as any of the first lines has fields."""
    rows = list(_rows(text, delimiter, _MAX_PREAMBLE_LINES))
    if all(_width(row) != len(names) != len(row) for row in rows):
        raise ColumnError(
            f"{where}: there are {len(names)} names and the first line {len(rows[0])} fields "
            f"({', '.join(rows[0])}); name every column, those not needed with any word"
        )
