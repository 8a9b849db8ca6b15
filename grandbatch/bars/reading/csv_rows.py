"""Lines of CSV to typed columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from grandbatch.bars.form.columns import NOWHERE, TextColumn
from grandbatch.bars.form.dialect import CsvDialect
from grandbatch.bars.form.header import plain_name
from grandbatch.bars.reading.odd_lines import read_odd_lines
from grandbatch.bars.reading.rows import Codes, Rows, Texts, mark_times, name_symbols, recode
from grandbatch.bars.reading.text_blocks import BlockText
from grandbatch.bars.timestamps.evidence import Tally
from grandbatch.bars.timestamps.texts import NO_CHANGES, TimeForm, join_changes, read_texts
from grandbatch.kernels.bars.bar_rules import UNPARSEABLE
from grandbatch.kernels.bars.csv_rows import (
    DATE,
    N_NUMBERS,
    N_TEXTS,
    PADDING,
    SKIPPED,
    SYMBOL,
    TIME,
    read_lines,
)
from grandbatch.kernels.bars.texts import copy_field, join_texts, number_texts
from grandbatch.kernels.bars.words import has_words

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

_TILE_ROWS = 8192
"""Lines between two steps of the parse: what the first leaves for the second is still in cache."""
_FEW_SYMBOLS = 64


def parse_rows(text: BlockText, dialect: CsvDialect, form: TimeForm, symbol: str | None) -> Rows:
    """Read a block's lines; `symbol` stands for all rows, or None for those of the column."""
    size, tile = len(text.data), max(1, min(_TILE_ROWS, text.n_lines))
    times, codes = np.empty(text.n_lines, np.int64), np.zeros(text.n_lines, np.int32)
    n_extra = len(dialect.columns.extras)
    numbers = np.empty((N_NUMBERS + n_extra, text.n_lines))
    gaps = np.zeros((n_extra, text.n_lines), np.uint8)
    reasons = np.empty(text.n_lines, np.uint8)
    if dialect.series:
        numbers[:] = np.nan  # where prices stay so, a symbol has no bar
    if dialect.columns.numbers[-1] == NOWHERE:
        numbers[N_NUMBERS - 1] = 0
    beside = _Beside(text.padded, dialect.columns.texts, text.n_lines)
    texts = np.zeros((N_TEXTS + len(beside.columns), 2, tile), np.int64)
    status, turned = np.empty(tile, np.uint8), _Turned(text.padded, dialect, tile)
    odd, odd_lines = np.empty((3, tile), np.int64), [np.empty((3, 0), np.int64)]
    tally, changes = Tally(), [NO_CHANGES]
    symbols = _Names(text.padded)
    roles = _roles(dialect, symbol is None)
    written = numbers, gaps, reasons, texts, odd, turned.places, turned.counts
    shared = ord(dialect.delimiter), ord(dialect.decimal), *written
    at = row = 0
    while at < size:
        at, count, n_odd = read_lines(text.padded, at, row, tile, roles, *shared)
        rows = slice(row, row + count)
        row += count
        odd_lines.append(odd[:, :n_odd].copy())
        data, moments = text.padded, texts[DATE, :, :count]
        if len(dialect.columns.timestamp) == 2:
            data, moments = _join(data, texts[DATE], texts[TIME], count)
        found = read_texts(data, moments, form, times[rows], status[:count], tally)
        if found is not NO_CHANGES:
            changes.append(found.at(rows.start))
        mark_times(status[:count], reasons[rows])
        if symbol is None:
            symbols.number(texts[SYMBOL], codes[rows])
        beside.number(texts[N_TEXTS:], rows)
        turned.look()
    codes = codes[:row]
    names: tuple[str, ...] = (symbol or "",)
    if symbol is None:
        codes, names = name_symbols(symbols.texts(), codes, reasons[:row])
    o, h, l, c, v = (numbers[_first_role(dialect, number), :row] for number in range(N_NUMBERS))
    read = Rows(
        times[:row],
        (o, h, l, c, v),
        codes,
        names,
        reasons[:row],
        tally.evidence(),
        join_changes(changes),
        beside.texts(row),
        tuple(numbers[N_NUMBERS:, :row]),
        tuple(gaps[:, :row]),
    )
    places, starts, stops = np.concatenate(odd_lines, axis=1)
    if len(places):
        others = read_odd_lines(text.padded, starts, stops, dialect, form, symbol)
        read = _insert(read, places, others)
        turned.look_at_lines(starts, stops, others.reasons != UNPARSEABLE)
    return replace(read, turned=turned.names())


def _roles(dialect: CsvDialect, has_column: bool) -> npt.NDArray[np.uint16]:
    """Return what each field of a line is."""
    columns = dialect.columns
    first = len(columns.all_numbers)
    roles = np.full(dialect.n_fields, first + SKIPPED, np.uint16)
    for role, column in enumerate((*columns.texts, *columns.unseen), start=first + N_TEXTS):
        if column.field != NOWHERE:
            roles[column.field] = role
    for role, field in enumerate(columns.timestamp, start=first + DATE):
        roles[field] = role
    for number, field in enumerate(columns.all_numbers):
        if field != NOWHERE:
            roles[field] = _first_role(dialect, number)
    if has_column and columns.symbol is not None:
        roles[columns.symbol] = first + SYMBOL
    return roles


def _first_role(dialect: CsvDialect, number: int) -> int:
    """Return the first number of the same field: one price may be all four of a bar."""
    numbers = dialect.columns.all_numbers
    return numbers.index(numbers[number])


def _join(data: Bytes, dates: Int64, times: Int64, count: int) -> tuple[Bytes, Int64]:
    """Join dates and times, where they are columns of their own, to texts in an own buffer."""
    lengths = (dates[1] - dates[0] + times[1] - times[0])[:count]
    joined = np.empty(int(lengths.sum()) + count, np.uint8)
    places = np.empty((2, count), np.int64)
    join_texts(data, dates, times, count, joined, places)
    joined.flags.writeable = False
    return joined, places


class _Names:
    """Numbers for the texts of a column in a block, as they come."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.n_known = 0
        self.known = np.empty((2, _FEW_SYMBOLS), np.int64)
        self.slots = np.full(2 * _FEW_SYMBOLS, -1, np.int32)

    def number(self, places: Int64, codes: Codes) -> None:
        """Write the numbers of the first `len(codes)` texts."""
        row, stop = 0, len(codes)
        while row < stop:
            row, self.n_known = number_texts(
                self.data, places, row, stop, self.slots, self.known, self.n_known, codes
            )
            if row < stop:
                self._grow()

    def _grow(self) -> None:
        """Make room for twice as many, which get the same numbers as before."""
        before, n = self.known, self.n_known
        self.known = np.empty((2, 2 * n), np.int64)
        self.slots = np.full(4 * n, -1, np.int32)
        number_texts(self.data, before, 0, n, self.slots, self.known, 0, np.empty(n, np.int32))

    def texts(self) -> list[bytes]:
        """Text of each number."""
        places = self.known[:, : self.n_known].T.tolist()
        return [self.data[a:b].tobytes() for a, b in places]

    def decoded(self) -> tuple[str, ...]:
        """Text of each number, as one that a user may write."""
        return tuple(text.decode("utf-8", "replace").strip() for text in self.texts())


class _Beside:
    """Texts of a block that stand beside its bars."""

    def __init__(self, data: Bytes, columns: Sequence[TextColumn], n_lines: int) -> None:
        self.columns = columns
        self._names = [_Names(data) for _ in columns]
        self._codes = np.zeros((len(columns), n_lines), np.int32)

    def number(self, texts: Int64, rows: slice) -> None:
        """Take note of some rows' texts."""
        for column, names, codes, places in zip(
            self.columns, self._names, self._codes, texts, strict=True
        ):
            if column.field != NOWHERE:
                names.number(places, codes[rows])

    def texts(self, n_rows: int) -> tuple[Texts, ...]:
        """Return the texts of the rows so far."""
        return tuple(
            Texts(
                codes[:n_rows], (column.constant,) if column.field == NOWHERE else names.decoded()
            )
            for column, names, codes in zip(self.columns, self._names, self._codes, strict=True)
        )


class _Turned:
    """Columns of a block in which texts turn up, and none was seen in the file before."""

    def __init__(self, data: Bytes, dialect: CsvDialect, n_lines: int) -> None:
        self._data, self._delimiter = data, ord(dialect.delimiter)
        self._columns = dialect.columns.unseen
        self._found = [False] * len(self._columns)
        self.places = np.empty((len(self._columns), 2, n_lines), np.int64)
        self.counts = np.zeros(len(self._columns), np.int64)

    def look(self) -> None:
        """Look at the fields with letters that were found."""
        for column in np.flatnonzero(self.counts).tolist():
            if not self._found[column]:
                count = int(self.counts[column])
                self._found[column] = has_words(self._data, self.places[column], count)

    def look_at_lines(self, starts: Int64, stops: Int64, counts: npt.NDArray[np.bool_]) -> None:
        """Look at some lines by themselves, those of them that count."""
        starts, stops = starts[counts], stops[counts]
        room = int((stops - starts).sum()) + PADDING
        for place, column in enumerate(self._columns):
            if not self._found[place]:
                out, offsets = np.empty(room, np.uint8), np.empty(len(starts) + 1, np.int32)
                copy_field(self._data, starts, stops, column.field, self._delimiter, out, offsets)
                fields = np.array([offsets[:-1], offsets[1:]], np.int64)
                self._found[place] = has_words(out, fields, len(starts))

    def names(self) -> tuple[str, ...]:
        """Plain names of those that may hold texts."""
        pairs = zip(self._columns, self._found, strict=True)
        return tuple(plain_name(column.name) for column, found in pairs if found)


def _insert(rows: Rows, places: Int64, others: Rows) -> Rows:
    """Put other rows at some places."""
    kept = tuple(sorted({*rows.symbols, *others.symbols} - {""})) or ("",)
    codes = recode(rows.codes, rows.symbols, kept)
    codes[places] = recode(others.codes, others.symbols, kept)
    rows.times[places] = others.times
    rows.reasons[places] = others.reasons
    for values, other in zip(
        (*rows.numbers, *rows.extras), (*others.numbers, *others.extras), strict=True
    ):
        values[places] = other
    for gaps, other_gaps in zip(rows.gaps, others.gaps, strict=True):
        gaps[places] = other_gaps
    evidence = rows.evidence + others.evidence
    moved = replace(others.changes, rows=places[others.changes.rows])
    changes = join_changes([rows.changes, moved])
    return replace(rows, codes=codes, symbols=kept, evidence=evidence, changes=changes)
