"""Where the columns of a bar stand in a file, and columns whose texts are looked at beside them."""

from __future__ import annotations

from dataclasses import dataclass

NOWHERE = -1
"""Stands for a column that a file doesn't have."""


@dataclass(frozen=True)
class TextColumn:
    """A column that is no part of a bar, but decides on rows or on symbols."""

    field: int
    """Which field of a row; `NOWHERE` where it is a folder's."""
    name: str
    wanted: tuple[str, ...] | None = None
    """Rows with other texts are left out; None where the column must not change instead."""
    constant: str = ""
    """Of a folder's: the text of all rows."""
    is_code: bool = False
    """Whether it holds a number that may stand for an instrument: a change is worth a look."""

    @property
    def is_watched(self) -> bool:
        """Whether it must not change within a symbol."""
        return self.wanted is None


@dataclass(frozen=True)
class ColumnMap:
    """Where each column of a bar stands in a file, as indices of its fields."""

    timestamp: tuple[int, ...]
    """One column, or date and time."""
    numbers: tuple[int, int, int, int, int]
    """Open, high, low, close, volume; `NOWHERE` for a volume that there isn't."""
    symbol: int | None
    texts: tuple[TextColumn, ...] = ()
    unseen: tuple[TextColumn, ...] = ()
    """Columns beside the bar in which no text was seen so far."""
    symbol_name: str | None = None
    """The symbol of all rows where a folder or a header over several columns says it."""
    extras: tuple[int, ...] = ()
    """Extra columns, in the order of `BarRules.extra`."""

    @property
    def all_numbers(self) -> tuple[int, ...]:
        """Open, high, low, close, volume, and the extra columns."""
        return *self.numbers, *self.extras

    @property
    def taken(self) -> set[int]:
        """Fields that are part of a bar."""
        symbol = () if self.symbol is None else (self.symbol,)
        return {*self.timestamp, *self.all_numbers, *symbol}
