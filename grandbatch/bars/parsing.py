"""Lines of CSV to typed columns.

Lines go through Arrow with explicit types. Where a line of a block can't be read that way, the
block is read again with all columns as text, and the lines that are to blame are found; every other
line gets the very values of the typed way, because the same converter reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from grandbatch.bars.blocks import BlockText, Lines, find_lines
from grandbatch.bars.layout import CsvLayout
from grandbatch.bars.times import Evidence, TimeForm, read_times
from grandbatch.kernels.bar_rules import MISSING, UNPARSEABLE, count_fields
from grandbatch.kernels.timestamps import MISSING as TIME_MISSING
from grandbatch.kernels.timestamps import UNPARSEABLE as TIME_UNPARSEABLE

Floats = npt.NDArray[np.float64]

NULL_WORDS = ("", "NA", "N/A", "#N/A", "null", "NULL", "None")
"""A number written so is missing. "nan" is a number that is not finite."""

_CHUNK_BYTES = 1024 * 1024
_SURELY_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Rows:
    """The rows of a block: one for each line that is not empty, in order."""

    times: npt.NDArray[np.int64]
    numbers: tuple[Floats, Floats, Floats, Floats, Floats]
    """Open, high, low, close, volume."""
    codes: npt.NDArray[np.int32]
    """Index into `symbols`."""
    symbols: tuple[str, ...]
    reasons: npt.NDArray[np.uint8]
    """`UNPARSEABLE`, `MISSING` or `ACCEPTED` so far."""
    evidence: Evidence

    def __len__(self) -> int:
        return len(self.times)


def parse_rows(text: BlockText, layout: CsvLayout, form: TimeForm, symbol: str | None) -> Rows:
    """Read a block's lines; `symbol` stands for all rows, or None for those of the column."""
    has_column = symbol is None
    if not len(text.data):
        return rows_of([], [], [] if has_column else symbol, form)
    try:
        table = _read(text.data, layout, has_column, pa.float64())
    except pa.ArrowInvalid:
        return _parse_loosely(text, layout, form, symbol)
    # A quoted field that isn't closed swallows the lines up to the next quote.
    if table.num_rows != text.n_lines and table.num_rows != len(find_lines(text)):
        return _parse_loosely(text, layout, form, symbol)
    times, numbers, symbols = _split(table, layout, has_column)
    return rows_of(times, numbers, symbol if symbol is not None else symbols, form)


def _read(data: npt.NDArray[np.uint8], layout: CsvLayout, has_column: bool, number: Any) -> Any:
    """Read the columns of bars as a table, numbers as the type `number`."""
    names = [str(i) for i in range(layout.n_fields)]
    columns = layout.columns
    types = {names[i]: pa.binary() for i in columns.timestamp}
    types |= {names[i]: number for i in columns.numbers}
    if has_column and columns.symbol is not None:
        types[names[columns.symbol]] = pa.dictionary(pa.int32(), pa.binary())
    return csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)),
        read_options=csv.ReadOptions(
            use_threads=False, block_size=_CHUNK_BYTES, column_names=names
        ),
        parse_options=csv.ParseOptions(delimiter=layout.delimiter),
        convert_options=csv.ConvertOptions(
            check_utf8=False,
            column_types=types,
            include_columns=list(types),
            null_values=list(NULL_WORDS),
            strings_can_be_null=False,
        ),
    )


def _split(table: Any, layout: CsvLayout, has_column: bool) -> tuple[Any, list[Any], Any]:
    """Timestamp texts, the five number columns, and the symbol column or None."""
    columns = layout.columns
    parts = [table[str(i)] for i in columns.timestamp]
    times = parts[0]
    if len(parts) == 2:
        times = pc.binary_join_element_wise(*parts, pa.scalar(b" ", pa.binary()))
    symbols = None
    if has_column and columns.symbol is not None:
        symbols = table[str(columns.symbol)]
    return times, [table[str(i)] for i in columns.numbers], symbols


def rows_of(times: Any, numbers: list[Any], symbols: Any, form: TimeForm) -> Rows:
    """Join columns into rows.

    Parameters
    ----------
    times : ChunkedArray of binary
        Texts, not null.
    numbers : list of five ChunkedArrays of float64
        Null where missing.
    symbols : str, or ChunkedArray of dictionary-encoded binary
        The symbol of all rows, or of each.
    form : TimeForm
        How timestamps are read.
    """
    if not len(times):
        nothing = np.empty(0)
        return Rows(
            np.empty(0, np.int64),
            (nothing, nothing, nothing, nothing, nothing),
            np.empty(0, np.int32),
            (),
            np.empty(0, np.uint8),
            Evidence(),
        )
    ns, status, evidence = read_times(times, form)
    reasons = np.zeros(len(ns), np.uint8)
    for column in numbers:
        if column.null_count:
            reasons[column.is_null().to_numpy()] = MISSING
    if status.max() >= TIME_MISSING:
        reasons[status == TIME_MISSING] = MISSING
    if isinstance(symbols, str):
        codes = np.zeros(len(ns), np.int32)
        names: tuple[str, ...] = (symbols,)
    else:
        codes, names = _read_symbols(symbols, reasons)
    if status.max() >= TIME_UNPARSEABLE:
        reasons[status == TIME_UNPARSEABLE] = UNPARSEABLE
    o, h, l, c, v = (_to_numpy(column) for column in numbers)
    return Rows(ns, (o, h, l, c, v), codes, names, reasons, evidence)


def _to_numpy(column: Any) -> Floats:
    if column.num_chunks == 1 and not column.null_count:
        values: Floats = column.chunk(0).to_numpy(zero_copy_only=True)
        return values
    copied: Floats = column.to_numpy()
    return copied


def _read_symbols(
    column: Any, reasons: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Codes into the sorted names; rows without a readable name get their reason."""
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    raw: list[bytes] = whole.dictionary.to_pylist()
    names: list[str | None] = []
    for value in raw:
        try:
            names.append(value.decode("utf-8").strip())
        except UnicodeDecodeError:
            names.append(None)
    indices = whole.indices.to_numpy()
    for reason, unfit in ((MISSING, ""), (UNPARSEABLE, None)):
        bad = np.array([name == unfit for name in names])
        if bad.any():
            reasons[bad[indices]] = reason
    kept = sorted({name for name in names if name})
    place = {name: code for code, name in enumerate(kept)}
    lookup = np.array([place.get(name or "", 0) for name in names], np.int32)
    return lookup[indices], tuple(kept) or ("",)


def _parse_loosely(text: BlockText, layout: CsvLayout, form: TimeForm, symbol: str | None) -> Rows:
    """Read the lines of a block of which some are malformed."""
    lines = find_lines(text)
    counts = np.empty(len(lines), np.int32)
    count_fields(text.data, lines.starts, lines.stops, ord(layout.delimiter), counts)
    whole = np.flatnonzero(counts == layout.n_fields)
    has_column = symbol is None
    if not len(whole):
        rows = rows_of([], [], symbol or "", form)
        return _spread(rows, whole, len(lines))
    table = _read(_keep_lines(text.data, lines, whole), layout, has_column, pa.binary())
    times, texts, symbols = _split(table, layout, has_column)
    unread = np.zeros(len(whole), np.bool_)
    numbers = [_to_numbers(column, unread) for column in texts]
    rows = rows_of(times, numbers, symbol if symbol is not None else symbols, form)
    rows.reasons[unread] = UNPARSEABLE
    return _spread(rows, whole, len(lines))


def _keep_lines(
    data: npt.NDArray[np.uint8], lines: Lines, kept: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Copy some of a text's lines, each with a line feed."""
    raw = data.tobytes()
    pieces = [
        raw[start:stop]
        for start, stop in zip(lines.starts[kept].tolist(), lines.stops[kept].tolist(), strict=True)
    ]
    pieces.append(b"")
    return np.frombuffer(b"\n".join(pieces), np.uint8)


def _to_numbers(column: Any, unread: npt.NDArray[np.bool_]) -> Any:
    """Convert texts to float64, null where missing; mark in `unread` what is no number."""
    unchecked = pc.CastOptions(pa.string(), allow_invalid_utf8=True)
    text = pc.cast(column, options=unchecked)
    plain = pc.ascii_trim(text, characters=" \t")
    is_null = pc.or_(pc.is_in(text, value_set=pa.array(NULL_WORDS)), pc.equal(plain, ""))
    doubtful = pc.and_not(pc.invert(pc.match_substring_regex(plain, _SURELY_NUMBER)), is_null)
    kinds = pc.unique(pc.filter(plain, doubtful))
    bad = [kind for kind in kinds if not _is_number(kind)]
    if bad:
        is_bad = pc.and_not(pc.is_in(plain, value_set=pa.array(bad, pa.string())), is_null)
        unread |= is_bad.to_numpy()
        is_null = pc.or_(is_null, is_bad)
    return pc.cast(pc.if_else(is_null, pa.scalar(None, pa.string()), plain), pa.float64())


def _is_number(text: Any) -> bool:
    try:
        pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _spread(rows: Rows, places: npt.NDArray[np.int64], n_rows: int) -> Rows:
    """Put rows at `places` among `n_rows`; the others are unparseable."""

    def spread(values: npt.NDArray[Any], rest: int = 0) -> npt.NDArray[Any]:
        out = np.full(n_rows, rest, values.dtype)
        out[places] = values
        return out

    o, h, l, c, v = (spread(column) for column in rows.numbers)
    return Rows(
        spread(rows.times),
        (o, h, l, c, v),
        spread(rows.codes),
        rows.symbols or ("",),
        spread(rows.reasons, UNPARSEABLE),
        rows.evidence,
    )
