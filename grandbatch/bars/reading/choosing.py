"""Rows that are left out: others than those asked for, and gaps where symbols stand side by side.

They are no bars and no bad rows; they are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grandbatch.bars.form.columns import ColumnMap, TextColumn
from grandbatch.bars.form.instruments import first_texts
from grandbatch.bars.reading.rows import Rows, Texts
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    DUPLICATE_TIMESTAMP,
    LEFT_OUT,
    MISSING,
    UNPARSEABLE,
)

_CELLS_PER_ROW = 4


def leave_out(rows: Rows, columns: ColumnMap, symbol: str | None, *, side_by_side: bool) -> int:
    """Mark the rows that are left out, in place; return how many.

    `symbol` is that of all rows, or None where it is that of a column.
    """
    for column, beside in zip(columns.texts, rows.texts, strict=True):
        if column.wanted is None:
            continue
        is_symbol = symbol is None and column.field == columns.symbol
        texts = Texts(rows.codes, rows.symbols) if is_symbol else beside
        is_other = np.array([name not in column.wanted for name in texts.names], np.bool_)
        is_empty = np.array([not name for name in texts.names], np.bool_)
        # what can't be split into fields can't be chosen by one
        torn = (rows.reasons == UNPARSEABLE) & is_empty[texts.codes]
        rows.reasons[is_other[texts.codes] & ~torn] = LEFT_OUT
    if side_by_side:
        empty = np.all([np.isnan(values) for values in rows.numbers[:4]], axis=0)
        rows.reasons[empty & ((rows.reasons == MISSING) | (rows.reasons == ACCEPTED))] = LEFT_OUT
    return int(np.count_nonzero(rows.reasons == LEFT_OUT))


def texts_by_symbol(
    rows: Rows, columns: Sequence[TextColumn]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """First different texts of each watched column, of each symbol, among rows that may be bars.

    Parameters
    ----------
    rows : Rows
        Judged: bars, and rows whose time alone is wrong, count.
    columns : sequence of TextColumn
        Those of `Rows.texts`.
    """
    watched = [
        (column, texts)
        for column, texts in zip(columns, rows.texts, strict=True)
        if column.is_watched
    ]
    if not watched:
        return {}
    counts = (rows.reasons == ACCEPTED) | (
        (rows.reasons >= DUPLICATE_TIMESTAMP) & (rows.reasons != LEFT_OUT)
    )
    codes = rows.codes[counts]
    found: dict[str, list[tuple[str, ...]]] = {name: [] for name in rows.symbols}
    for column, texts in watched:
        by_symbol = _pairs(codes, texts.codes[counts], len(rows.symbols), len(texts.names))
        for code, name in enumerate(rows.symbols):
            names = [texts.names[text] for text in by_symbol.get(code, ())]
            found[name].append(first_texts(column, names))
    return {name: tuple(of) for name, of in found.items()}


def _pairs(
    codes: npt.NDArray[np.int32], texts: npt.NDArray[np.int32], n_symbols: int, n_texts: int
) -> dict[int, list[int]]:
    """Of each symbol, the texts that come with it, in the order in which they first come at all."""
    both = codes.astype(np.int64) * n_texts + texts
    if n_symbols * n_texts <= _CELLS_PER_ROW * len(both) + 1024:
        different = np.flatnonzero(np.bincount(both, minlength=1))
    else:
        different = np.unique(both)
    found: dict[int, list[int]] = {}
    for pair in different.tolist():
        found.setdefault(pair // n_texts, []).append(pair % n_texts)
    return found
