"""Parquet inputs: row groups to the rows that lines of CSV give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from grandbatch.bars.form.columns import NOWHERE, ColumnMap, TextColumn
from grandbatch.bars.form.header import match_columns
from grandbatch.bars.form.instruments import SNIFFED_ROWS, may_be_codes, with_texts
from grandbatch.bars.form.left_out import left_out_numbers
from grandbatch.bars.form.side_by_side import match_frame, read_pairs
from grandbatch.bars.form.texts import likely_decimal, refuse_empty_volume, refuse_grouped
from grandbatch.bars.reading.odd_lines import no_numbers, to_numbers
from grandbatch.bars.reading.row_groups import (
    OpenGroups,
    ParquetBlock,
    block_rows,
    open_parquet,
    quoted_rows,
    told_plainly,
)
from grandbatch.bars.reading.rows import Rows, Texts, plain_codes, rows_of
from grandbatch.bars.rules import UNITS, BarRules
from grandbatch.bars.timestamps.evidence import Evidence
from grandbatch.bars.timestamps.scales import check_scale
from grandbatch.bars.timestamps.texts import TimeForm, read_times
from grandbatch.errors import ColumnError, InputError
from grandbatch.kernels.bars.bar_rules import UNPARSEABLE

_EXACT = 2**53
"""Whole numbers up to it are doubles, and so are powers of ten up to the 22nd."""
_EXACT_TENS = 22
_SNIFFED_ROWS = 4096
_DECIMAL_ROWS = 1000
_LARGEST = 2**63 - 1
_MIDNIGHT = b"T00:00:00(\\.0+)?$"


@dataclass(frozen=True)
class ParquetDialect:
    """Where the columns of bars are in one Parquet file."""

    names: tuple[str, ...]
    columns: ColumnMap
    decimal: str = "."
    """What stands before decimals where numbers are texts."""
    grouped: bool = False
    """Whether numbers that are texts may have marks between thousands."""
    series: tuple[ColumnMap, ...] = ()
    """Where a row holds bars of several symbols side by side: the columns of each."""
    left_out: tuple[str, ...] = ()
    """Names of columns of numbers that are read over."""
    header_lines: ClassVar[int] = 0

    @property
    def n_fields(self) -> int:
        """Columns, those of bars and others."""
        return len(self.names)


def read_parquet_dialect(
    location: str, rules: BarRules, block_bytes: int, folders: Mapping[str, str]
) -> tuple[ParquetDialect, list[ParquetBlock]]:
    """Read a Parquet file's schema, and cut its row groups into blocks.

    Raises
    ------
    InputError
        If it is no Parquet file, or has no rows.
    ColumnError
        If its columns can't be mapped.
    """
    with told_plainly(location, "not a Parquet file"), open_parquet(location) as file:
        footer = file.metadata
        schema = file.schema_arrow
        names = tuple(schema.names)
        _check_counts(location, footer)
    if not footer.num_rows:
        raise InputError(f"{location}: the file has columns and no rows")
    blocks = []
    rows_per_block = block_rows(block_bytes, footer.num_columns)
    for group in range(footer.num_row_groups):
        n_rows = footer.row_group(group).num_rows
        size = footer.row_group(group).total_byte_size
        for start in range(0, n_rows, rows_per_block):
            stop = min(start + rows_per_block, n_rows)
            blocks.append(
                ParquetBlock(location, group, start, stop, size * (stop - start) // n_rows)
            )
    kinds = [schema.field(i).type for i in range(len(names))]
    are_numbers = [_is_number(kind) for kind in kinds]
    pairs = read_pairs(names, rules)
    if pairs is not None:
        series = match_frame(pairs, rules, location)
        left_out = left_out_numbers(pairs.fields, series, rules, are_numbers)
        dialect = ParquetDialect(names, series[0], grouped=rules.grouped, series=series)
        return replace(dialect, left_out=left_out), blocks
    columns = match_columns(names, rules, location, folders)
    _refuse_nested(schema, columns, location)
    codes = _may_be_codes(blocks[0], schema, columns)
    may_be_text = [_is_text(kind) for kind in kinds]
    may_turn = [pa.types.is_integer(kind) for kind in kinds]
    columns = with_texts(names, columns, rules, folders, location, may_be_text, codes, may_turn)
    _check_volume(blocks[0], names, columns, rules)
    decimal = _decimal_of(blocks[0], schema, columns, rules)
    left_out = left_out_numbers(names, [columns], rules, are_numbers)
    return ParquetDialect(names, columns, decimal, rules.grouped, left_out=left_out), blocks


def _check_volume(
    block: ParquetBlock, names: Sequence[str], columns: ColumnMap, rules: BarRules
) -> None:
    """Refuse a volume that none of the first rows has."""
    if columns.numbers[-1] == NOWHERE:
        return
    name = names[columns.numbers[-1]]
    first = replace(block, stop=min(block.stop, block.start + _DECIMAL_ROWS))
    with told_plainly(block.path), OpenGroups() as groups:
        volumes = groups.read(first, (name,))[name].to_pylist()
    texts = ("" if volume is None else str(volume) for volume in volumes)
    refuse_empty_volume(texts, name, rules, block.path)


def _may_be_codes(block: ParquetBlock, schema: Any, columns: ColumnMap) -> list[bool]:
    """Of each column, whether its first rows are one whole number, such as of an instrument."""
    beside = [
        i
        for i, field in enumerate(schema)
        if i not in columns.taken and pa.types.is_integer(field.type)
    ]
    found = [False] * len(schema)
    if beside:
        first = replace(block, stop=min(block.stop, block.start + SNIFFED_ROWS))
        with told_plainly(block.path), OpenGroups() as groups:
            table = groups.read(first, tuple(schema.field(i).name for i in beside))
        texts = [[str(value) for value in column.to_pylist()] for column in table.columns]
        rows = list(zip(*texts, strict=True))
        for i, is_code in zip(beside, may_be_codes(rows, len(beside)), strict=True):
            found[i] = is_code
    return found


def _decimal_of(block: ParquetBlock, schema: Any, columns: ColumnMap, rules: BarRules) -> str:
    """Tell what stands before decimals where numbers are texts, from the first rows."""
    fields = [schema.field(i) for i in dict.fromkeys(columns.all_numbers) if i != NOWHERE]
    names = tuple(field.name for field in fields if _is_text(field.type))
    if not names:
        return "."
    first = replace(block, stop=min(block.stop, block.start + _DECIMAL_ROWS))
    with told_plainly(block.path), OpenGroups() as groups:
        table = groups.read(first, names)
    texts = [pc.cast(_to_text(table[name]), pa.string()).to_pylist() for name in names]
    rows, places = list(zip(*texts, strict=True)), range(len(names))
    decimal = rules.decimal or likely_decimal(rows, places, block.path, grouped=rules.grouped)
    refuse_grouped(rows, places, decimal, rules, block.path)
    return decimal


def _refuse_nested(schema: Any, columns: ColumnMap, location: str) -> None:
    for i in sorted(columns.taken - {NOWHERE}):
        kind = schema.field(i).type
        if pa.types.is_nested(kind):
            raise ColumnError(
                f"{location}: the column {schema.field(i).name!r} holds {kind}, not one value a "
                "row; write it as plain columns"
            )


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _check_counts(location: str, footer: Any) -> None:
    """Refuse a footer whose counts of rows contradict each other: what is planned rests on them."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    flat = [group.column(0) for group in groups if footer.num_columns]
    is_flat = all("." not in column.path_in_schema for column in flat)
    counts = [group.num_rows for group in groups]
    if (
        min(counts, default=0) < 0
        or sum(counts) != footer.num_rows
        or (is_flat and [column.num_values for column in flat] != counts)
    ):
        raise InputError(
            f"{location}: its footer contradicts itself: {footer.num_rows:,} rows in all, "
            f"{sum(counts):,} in its row groups; the file is damaged: copy it again"
        )


def read_parquet(
    block: ParquetBlock,
    dialect: ParquetDialect,
    form: TimeForm,
    symbol: str | None,
    groups: OpenGroups,
) -> Rows:
    """Read a block's rows; `symbol` stands for all rows, or None for those of the column.

    Raises
    ------
    InputError
        If the file can't be read, or a price or volume is no number.
    """
    with told_plainly(block.path):
        return _read_parquet(block, dialect, form, symbol, groups)


def _read_parquet(
    block: ParquetBlock,
    dialect: ParquetDialect,
    form: TimeForm,
    symbol: str | None,
    groups: OpenGroups,
) -> Rows:
    columns = dialect.columns
    fields = {*columns.timestamp, *columns.all_numbers}
    fields |= {column.field for column in columns.texts}
    if symbol is None and columns.symbol is not None:
        fields.add(columns.symbol)
    names = tuple(dialect.names[i] for i in sorted(fields - {NOWHERE}))
    coded = {*(column.field for column in columns.texts), columns.symbol}
    coded -= {NOWHERE, *columns.timestamp, *columns.all_numbers}
    table = groups.read(block, names, frozenset(dialect.names[i] for i in coded if i is not None))
    times = _time_texts(table, dialect)
    unread = np.zeros(len(table), np.bool_)
    extras = [(i, np.zeros(len(table), np.bool_)) for i in columns.extras]
    places = [*((i, unread) for i in columns.numbers), *extras]
    try:
        read = [
            no_numbers(len(table))
            if i == NOWHERE
            else _to_floats(table[dialect.names[i]], lacks, dialect)
            for i, lacks in places
        ]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = "a price, a volume or an extra column" if extras else "a price or volume"
        raise InputError(f"{block.path}: {what} is no number ({error})") from None
    n_numbers = len(columns.numbers)
    symbols: Any = symbol
    if symbol is None:
        assert columns.symbol is not None
        symbols = _to_codes(table[dialect.names[columns.symbol]])
    beside = [(values, lacks) for values, (_, lacks) in zip(read[n_numbers:], extras, strict=True)]
    rows = rows_of(times, read[:n_numbers], symbols, form, beside)
    rows.reasons[unread] = UNPARSEABLE
    return replace(rows, texts=tuple(_texts(table, dialect, column) for column in columns.texts))


def _texts(table: Any, dialect: ParquetDialect, column: TextColumn) -> Texts:
    """Texts of a column beside the bars."""
    if column.field == NOWHERE:
        return Texts(np.zeros(len(table), np.int32), (column.constant,))
    codes, names = plain_codes(_to_codes(table[dialect.names[column.field]]))
    return Texts(codes, tuple(name.decode("utf-8", "replace").strip() for name in names))


def sniff_parquet(block: ParquetBlock, dialect: ParquetDialect, rules: BarRules) -> Evidence:
    """Evidence of a block's first rows."""
    names = tuple(dialect.names[i] for i in dialect.columns.timestamp)
    first = replace(block, stop=min(block.stop, block.start + _SNIFFED_ROWS))
    with told_plainly(block.path), OpenGroups() as groups:
        times = _time_texts(groups.read(first, names), dialect)
    if len(names) == 1:
        texts = [text.decode("utf-8", "replace") for text in times[:SNIFFED_ROWS].to_pylist()]
        check_scale(texts, rules, block.path)
    return read_times(times, TimeForm(strptime=rules.timestamp_format))[2]


def _time_texts(table: Any, dialect: ParquetDialect) -> Any:
    parts = [_to_text(table[dialect.names[i]]) for i in dialect.columns.timestamp]
    if len(parts) == 1:
        return parts[0]
    date, clock = parts
    if pa.types.is_timestamp(table[dialect.names[dialect.columns.timestamp[0]]].type):
        date = pc.replace_substring_regex(date, _MIDNIGHT, b"")
    return pc.binary_join_element_wise(date, clock, pa.scalar(b" ", pa.binary()))


def _to_floats(column: Any, unread: npt.NDArray[np.bool_], dialect: ParquetDialect) -> Any:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return to_numbers(column, dialect.decimal, unread, grouped=dialect.grouped)
    if pa.types.is_decimal(column.type):
        chunks = [decimals_to_floats(chunk) for chunk in column.chunks]
        return pa.chunked_array(chunks, pa.float64())
    return pc.cast(column, pa.float64(), safe=False)


def decimals_to_floats(chunk: Any) -> Any:
    """Return the doubles nearest to decimals, of any precision and scale: those of their text.

    Arrow's own cast is an ulp off for every fourth price.
    """
    scale = chunk.type.scale
    if pa.types.is_decimal128(chunk.type) and abs(scale) <= _EXACT_TENS and chunk.buffers()[1]:
        halves = np.frombuffer(chunk.buffers()[1], np.int64).reshape(-1, 2)
        low, high = halves[chunk.offset : chunk.offset + len(chunk)].T
        # one operation on two exact doubles rounds correctly
        values = low / 10.0**scale if scale >= 0 else low * 10.0**-scale
        is_exact = (high == low >> 63) & (low <= _EXACT) & (low >= -_EXACT)
        others = pa.array(np.flatnonzero(~is_exact & chunk.is_valid().to_numpy(False)))
        values[others.to_numpy()] = _through_text(chunk.take(others))
    else:
        values = _through_text(chunk)
    return pa.array(values, mask=chunk.is_null().to_numpy(False))


def _through_text(decimals: Any) -> npt.NDArray[np.float64]:
    floats = pc.cast(pc.cast(decimals, pa.string()), pa.float64())
    values: npt.NDArray[np.float64] = pc.fill_null(floats, 0.0).to_numpy(False)
    return values


def _to_codes(column: Any) -> Any:
    """Write values as texts that are coded, in the order in which they first come."""
    if not pa.types.is_dictionary(column.type):
        return _to_text(column).dictionary_encode()
    chunks = []
    for chunk in column.chunks:
        # files may list texts that no row here has, or one twice
        used = chunk.indices.dictionary_encode(null_encoding="encode")
        texts = _to_text(pa.chunked_array([chunk.dictionary.take(used.dictionary)]))
        told = texts.combine_chunks().dictionary_encode()
        codes = told.indices.take(used.indices)
        chunks.append(pa.DictionaryArray.from_arrays(codes, told.dictionary))
    kind = pa.dictionary(pa.int32(), pa.binary())
    return pa.chunked_array(chunks, kind).unify_dictionaries()


def _to_text(column: Any) -> Any:
    """Write values as text in binary, nulls as empty text: the ways of CSV apply from there."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind):
        # exact to the nanosecond, and independent of a zone database
        zone = "" if kind.tz is None else "Z"
        plain = pc.cast(column, pa.timestamp(kind.unit))
        text = pc.strftime(plain, format=f"%Y-%m-%dT%H:%M:%S{zone}")
        # it takes years beyond 32767 for others
        limit = _LARGEST // 10 ** (9 - 3 * UNITS.index(kind.unit))
        ticks = pc.cast(plain, pa.int64())
        is_near = pc.and_(pc.less_equal(ticks, limit), pc.greater_equal(ticks, -limit))
        column = pc.if_else(is_near, text, "out of range")
    elif pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
        column = pc.cast(column, pa.decimal128(38, 9), safe=False)  # no exponents
        column = pc.cast(column, pa.string())
        column = pc.replace_substring_regex(column, "^0E-9$", "0")
        column = pc.replace_substring_regex(column, r"\.0+$", "")  # 93000.0 may be a time of day
    elif pa.types.is_duration(kind):  # since midnight
        ns = pc.cast(pc.cast(column, pa.duration("ns")), pa.int64())
        column = pc.cast(pc.cast(ns, pa.time64("ns")), pa.string())
    elif not pa.types.is_binary(kind):
        column = pc.cast(column, pa.string())
    text = pc.cast(column, pa.binary())
    return pc.fill_null(text, b"")


def _values_of(column: Any) -> list[Any]:
    """Return values as Python has them; times that it hasn't, as their numbers."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        is_day = pa.types.is_date32(column.type)
        return list(column.cast(pa.int32() if is_day else pa.int64()).to_pylist())


def parquet_texts(
    block: ParquetBlock, n_columns: int, rows: npt.NDArray[np.int64], groups: OpenGroups
) -> list[str]:
    """Write some of a block's rows as text, values parted by commas; of a few rows at a time."""
    texts: list[str] = []
    step = quoted_rows(n_columns)
    for start in range(block.start, block.stop, step):
        piece = replace(block, start=start, stop=min(start + step, block.stop))
        low, high = np.searchsorted(rows, (start - block.start, piece.stop - block.start))
        if low == high:
            continue
        table = groups.read(piece, None).take(pa.array(rows[low:high] - (start - block.start)))
        columns = [_values_of(column) for column in table.columns]
        texts += [
            ",".join("" if value is None else str(value) for value in row)
            for row in zip(*columns, strict=True)
        ]
    return texts
