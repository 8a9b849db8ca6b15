"""Rows of a block as columns, and how columns of text become them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from grandbatch.bars.timestamps.evidence import Evidence
from grandbatch.bars.timestamps.texts import ClockChanges, TimeForm, read_times
from grandbatch.kernels.bars.bar_rules import ACCEPTED, MISSING, UNPARSEABLE
from grandbatch.kernels.bars.timestamps import EMPTY, UNREADABLE

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

_NO_PRICE = 2.0**63
"""What 9223372036854775807 is as a double: where prices are whole numbers, that there is none."""


@dataclass(frozen=True)
class Texts:
    """Texts of a column that is no part of a bar, one for each row."""

    codes: Codes
    """Index into `names`."""
    names: tuple[str, ...]
    """In the order in which they first come, without blanks around them."""


@dataclass(frozen=True)
class Rows:
    """The rows of a block: one for each line that is not empty, in order."""

    times: npt.NDArray[np.int64]
    numbers: tuple[Floats, Floats, Floats, Floats, Floats]
    """Open, high, low, close, volume."""
    codes: Codes
    """Index into `symbols`."""
    symbols: tuple[str, ...]
    """Sorted."""
    reasons: UInt8
    """`UNPARSEABLE`, `MISSING` or `ACCEPTED` so far."""
    evidence: Evidence
    changes: ClockChanges
    texts: tuple[Texts, ...] = ()
    """Of each of `ColumnMap.texts`."""
    extras: tuple[Floats, ...] = ()
    """Of each of `ColumnMap.extras`."""
    gaps: tuple[UInt8, ...] = ()
    """Of each of these, `MISSING` or `UNPARSEABLE` where a row has no number, else `ACCEPTED`."""
    faults: npt.NDArray[np.uint16] | None = None
    """Which extra column gave a row its reason, from 1; 0 for none."""
    turned: tuple[str, ...] = ()
    """Plain names of those of `ColumnMap.unseen` that may hold a text here."""

    def __len__(self) -> int:
        return len(self.times)


def scale_prices(rows: Rows, scale: float) -> Rows:
    """Multiply prices by a decimal number."""
    done: dict[int, Floats] = {}
    for values in rows.numbers[:4]:  # one array may stand for several
        if id(values) not in done:
            done[id(values)] = scaled(values, scale)
    o, h, l, c = (done[id(values)] for values in rows.numbers[:4])
    return replace(rows, numbers=(o, h, l, c, rows.numbers[4]))


def scaled(prices: Floats, scale: float) -> Floats:
    """Multiply prices by a decimal number.

    A price times its digits is divided by their power of ten: rounded once, as if it stood in the
    file with its point. The largest number of 64 bits stands for no price: it is not finite.
    """
    factor, power = scale, 1.0
    if Decimal(scale) != Decimal(repr(scale)):
        _, digits, exponent = Decimal(repr(scale)).as_tuple()
        assert isinstance(exponent, int)  # it is finite
        factor, power = float(int("".join(map(str, digits)))), float(10**-exponent)
    found: Floats = np.where(prices == _NO_PRICE, np.nan, prices * factor / power)
    return found


def rows_of(
    times: Any,
    numbers: list[Any],
    symbols: Any,
    form: TimeForm,
    extras: Sequence[tuple[Any, npt.NDArray[np.bool_]]] = (),
) -> Rows:
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
    extras : sequence of (ChunkedArray of float64, (T,) bool)
        Extra columns, null where there is no number, and where that is for a text that is none.
    """
    ns, status, evidence, changes = read_times(times, form)
    reasons = np.zeros(len(ns), np.uint8)
    for column in numbers:
        if column.null_count:
            reasons[column.is_null().to_numpy()] = MISSING
    mark_times(status, reasons)
    if isinstance(symbols, str):
        codes = np.zeros(len(ns), np.int32)
        names: tuple[str, ...] = (symbols,)
    else:
        codes, raw = plain_codes(symbols)
        codes, names = name_symbols(raw, codes, reasons)
    o, h, l, c, v = (column.to_numpy() for column in numbers)
    read = Rows(ns, (o, h, l, c, v), codes, names, reasons, evidence, changes)
    if not extras:
        return read
    values, gaps = zip(*(_extra(*extra) for extra in extras), strict=True)
    return replace(read, extras=values, gaps=gaps)


def _extra(column: Any, unread: npt.NDArray[np.bool_]) -> tuple[Floats, UInt8]:
    """Values of an extra column, and why some are none."""
    gaps = np.zeros(len(column), np.uint8)
    if column.null_count:
        gaps[column.is_null().to_numpy()] = MISSING
    gaps[unread] = UNPARSEABLE
    return column.to_numpy(), gaps


def plain_codes(texts: Any) -> tuple[Codes, list[bytes]]:
    """Codes and dictionary of a ChunkedArray of dictionary-encoded binary."""
    whole = texts.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return whole.indices.to_numpy(), whole.dictionary.to_pylist()


def mark_times(status: UInt8, reasons: UInt8) -> None:
    """Give rows without a readable time their reason, in place; unparseable goes first."""
    if status.max(initial=0) < EMPTY:
        return
    reasons[(status == EMPTY) & (reasons == ACCEPTED)] = MISSING
    reasons[status == UNREADABLE] = UNPARSEABLE


def name_symbols(
    raw: Sequence[bytes], indices: Codes, reasons: UInt8
) -> tuple[Codes, tuple[str, ...]]:
    """Codes into the sorted names; rows without a readable name get their reason, in place."""
    names: list[str | None] = []
    for value in raw:
        try:
            names.append(value.decode("utf-8").strip())
        except UnicodeDecodeError:
            names.append(None)
    unnamed, unread = (np.array([name == unfit for name in names]) for unfit in ("", None))
    if unnamed.any():
        reasons[unnamed[indices] & (reasons == ACCEPTED)] = MISSING
    if unread.any():
        reasons[unread[indices]] = UNPARSEABLE
    kept = tuple(sorted({name for name in names if name})) or ("",)
    return recode(indices, [name or "" for name in names], kept), kept


def recode(codes: Codes, names: Sequence[str], kept: Sequence[str]) -> Codes:
    """Turn indices into `names` into indices into `kept`; 0 for a name that isn't kept."""
    place = {name: code for code, name in enumerate(kept)}
    lookup = np.array([place.get(name, 0) for name in names], np.int32)
    recoded: Codes = lookup[codes]
    return recoded
