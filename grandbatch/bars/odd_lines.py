"""Lines of CSV that the fast reader leaves: quotes within texts, numbers of other forms.

Arrow reads them as texts and converts its numbers. It rounds correctly, as the fast reader does, so
it doesn't matter to a value which of the two reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from grandbatch.bars.layout import CsvLayout
from grandbatch.bars.rows import Rows, rows_of
from grandbatch.bars.times import TimeForm
from grandbatch.kernels.bar_rules import UNPARSEABLE

Int64 = npt.NDArray[np.int64]

NULL_WORDS = ("", "NA", "N/A", "#N/A", "null", "NULL", "None")
"""A number written so is missing. "nan" is a number that is not finite."""

_CHUNK_BYTES = 1024 * 1024
_SURELY_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


def read_odd_lines(
    data: npt.NDArray[np.uint8],
    starts: Int64,
    stops: Int64,
    layout: CsvLayout,
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
    layout : CsvLayout
        How lines are written.
    form : TimeForm
        How timestamps are read.
    symbol : str or None
        The symbol of all rows, or None for those of the column.
    """
    lines = [data[a:b].tobytes() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    table = _read(lines, layout, symbol is None)
    columns = layout.columns
    parts = [table[str(i)] for i in columns.timestamp]
    times = parts[0]
    if len(parts) == 2:
        times = pc.binary_join_element_wise(*parts, pa.scalar(b" ", pa.binary()))
    unread = np.zeros(len(lines), np.bool_)
    numbers = [to_numbers(table[str(i)], layout.decimal, unread) for i in columns.numbers]
    symbols = table[str(columns.symbol)] if symbol is None else symbol
    rows = rows_of(times, numbers, symbols, form)
    rows.reasons[unread] = UNPARSEABLE
    return rows


def _read(lines: list[bytes], layout: CsvLayout, has_column: bool) -> Any:
    """Read the columns of bars as a table of texts."""
    names = [str(i) for i in range(layout.n_fields)]
    columns = layout.columns
    types = {names[i]: pa.binary() for i in (*columns.timestamp, *columns.numbers)}
    if has_column and columns.symbol is not None:
        types[names[columns.symbol]] = pa.dictionary(pa.int32(), pa.binary())
    return csv.read_csv(
        pa.BufferReader(b"\n".join([*lines, b""])),
        read_options=csv.ReadOptions(
            use_threads=False,
            block_size=_CHUNK_BYTES + max(len(line) for line in lines),
            column_names=names,
        ),
        parse_options=csv.ParseOptions(delimiter=layout.delimiter),
        convert_options=csv.ConvertOptions(
            check_utf8=False,
            column_types=types,
            include_columns=list(types),
            strings_can_be_null=False,
        ),
    )


def to_numbers(column: Any, decimal: str, unread: npt.NDArray[np.bool_]) -> Any:
    """Convert texts to float64, null where missing; mark in `unread` what is no number."""
    unchecked = pc.CastOptions(pa.string(), allow_invalid_utf8=True)
    text = pc.cast(column, options=unchecked)
    plain = pc.ascii_trim(text, characters=" \t")
    is_null = pc.or_(pc.is_in(text, value_set=pa.array(NULL_WORDS)), pc.equal(plain, ""))
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


def _is_number(text: Any) -> bool:
    try:
        pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
