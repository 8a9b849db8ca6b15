"""Lines of CSV that the fast reader leaves: quotes within texts, numbers of other forms.

Each line is read by itself, and Arrow converts its numbers. It rounds correctly, as the fast reader
does, so it doesn't matter to a value which of the two reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from grandbatch.bars.form.columns import NOWHERE
from grandbatch.bars.form.dialect import CsvDialect
from grandbatch.bars.form.texts import ungroup
from grandbatch.bars.reading.rows import Rows, plain_codes, rows_of
from grandbatch.bars.timestamps.texts import TimeForm
from grandbatch.kernels.bars.bar_rules import UNPARSEABLE
from grandbatch.kernels.bars.texts import copy_field

Int64 = npt.NDArray[np.int64]

NULL_WORDS = ("", "NA", "N/A", "#N/A", "null", "NULL", "None")
"""A number written so is missing. "nan" is a number that is not finite."""

_SURELY_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


def read_odd_lines(
    data: npt.NDArray[np.uint8],
    starts: Int64,
    stops: Int64,
    dialect: CsvDialect,
    form: TimeForm,
    symbol: str | None,
) -> Rows:
    """Read lines that have the right number of fields.

    Parameters
    ----------
    data : (B,) uint8
        Where the lines are.
    starts, stops : (T,) int64
        Where each starts and stops, without its end; at least one.
    dialect : CsvDialect
        How lines are written.
    form : TimeForm
        How timestamps are read.
    symbol : str or None
        The symbol of all rows, or None for those of the column.
    """
    columns, room = dialect.columns, int((stops - starts).sum())

    def texts(field: int) -> Any:
        out, offsets = np.empty(room, np.uint8), np.empty(len(starts) + 1, np.int32)
        copy_field(data, starts, stops, field, ord(dialect.delimiter), out, offsets)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out)]
        return pa.chunked_array([pa.Array.from_buffers(pa.binary(), len(starts), buffers)])

    parts = [texts(field) for field in columns.timestamp]
    times = parts[0]
    if len(parts) == 2:
        times = pc.binary_join_element_wise(*parts, pa.scalar(b" ", pa.binary()))
    unread = np.zeros(len(starts), np.bool_)
    numbers = [
        no_numbers(len(starts))
        if field == NOWHERE
        else to_numbers(texts(field), dialect.decimal, unread, grouped=dialect.grouped)
        for field in columns.numbers
    ]
    extras = []
    for field in columns.extras:
        lacks = np.zeros(len(starts), np.bool_)
        read = to_numbers(texts(field), dialect.decimal, lacks, grouped=dialect.grouped)
        extras.append((read, lacks))
    symbols: Any = symbol
    if symbol is None:
        assert columns.symbol is not None
        symbols = texts(columns.symbol).dictionary_encode()
    rows = rows_of(times, numbers, symbols, form, extras)
    rows.reasons[unread] = UNPARSEABLE
    return rows


def no_numbers(count: int) -> Any:
    """Write zeros for a column that there isn't."""
    return pa.chunked_array([np.zeros(count)])


def to_numbers(
    column: Any, decimal: str, unread: npt.NDArray[np.bool_], *, grouped: bool = False
) -> Any:
    """Convert texts to float64, null where missing; mark in `unread` what is no number."""
    unchecked = pc.CastOptions(pa.string(), allow_invalid_utf8=True)
    text = pc.cast(column, options=unchecked)
    plain = pc.ascii_trim(text, characters=" \t")
    is_null = pc.or_(pc.is_in(text, value_set=pa.array(NULL_WORDS)), pc.equal(plain, ""))
    if grouped:
        plain = _without_groups(plain, decimal)
    if decimal != ".":
        # a point groups thousands there, which no number may have
        plain = pc.replace_substring(plain, ".", "?")
        plain = pc.replace_substring(plain, decimal, ".")
    doubtful = pc.and_not(pc.invert(pc.match_substring_regex(plain, _SURELY_NUMBER)), is_null)
    kinds = pc.unique(pc.filter(plain, doubtful))
    bad = [kind for kind in kinds if not _is_number(kind)]
    if bad:
        is_bad = pc.and_not(pc.is_in(plain, value_set=pa.array(bad, pa.string())), is_null)
        unread |= is_bad.to_numpy()
        is_null = pc.or_(is_null, is_bad)
    return pc.cast(pc.if_else(is_null, pa.scalar(None, pa.string()), plain), pa.float64())


def _without_groups(texts: Any, decimal: str) -> Any:
    """Write grouped numbers plainly, each different one once; leave other texts as they are."""
    codes, raw = plain_codes(pc.cast(texts, pa.binary()).dictionary_encode())
    plain = [ungroup(text.decode("utf-8", "replace"), decimal) for text in raw]
    return pa.chunked_array([pa.array(plain, pa.string()).take(pa.array(codes))])


def _is_number(text: Any) -> bool:
    try:
        pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
