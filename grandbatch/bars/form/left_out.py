"""Columns of numbers that nobody asked for: they are named once, since they may be meant."""

from __future__ import annotations

from collections.abc import Sequence

from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.header import is_number, is_time_name, plain_name
from grandbatch.bars.form.texts import is_grouped_number
from grandbatch.bars.rules import MAPPABLE, BarRules

ALL = "all"
"""In `BarRules.ignore_columns`, any column of numbers."""


def left_out_numbers(
    headers: Sequence[str],
    columns: Sequence[ColumnMap],
    rules: BarRules,
    are_numbers: Sequence[bool],
) -> tuple[str, ...]:
    """Name the columns of numbers that are read over; those that hold times are none.

    Parameters
    ----------
    headers : sequence of str
    columns : sequence of ColumnMap
        What is read of them; where symbols stand side by side, of each.
    rules : BarRules
        They may say that a column, or any, is to be passed over.
    are_numbers : sequence of bool
        Of each field, whether its values are numbers as far as one knows.
    """
    passed = {plain_name(name) for name in rules.ignore_columns}
    if ALL in passed:
        return ()
    taken = {column.field for of in columns for column in of.texts}
    taken.update(*(of.taken for of in columns))
    found = (
        name.strip()
        for field, name in enumerate(headers)
        if are_numbers[field]
        and field not in taken
        and plain_name(name)
        and plain_name(name) not in {*passed, *MAPPABLE}
        and not is_time_name(name)
    )
    return tuple(dict.fromkeys(found))


def may_be_numbers(rows: Sequence[Sequence[str]], n_fields: int, decimal: str) -> list[bool]:
    """Of each field, whether the first rows hold numbers, and nothing else but gaps."""
    return [
        any(texts) and all(is_number(text) or is_grouped_number(text, decimal) for text in texts)
        for texts in (_texts(rows, field) for field in range(n_fields))
    ]


def _texts(rows: Sequence[Sequence[str]], field: int) -> list[str]:
    found = (row[field].strip() for row in rows if field < len(row))
    return [text for text in found if text and text.lower() not in ("nan", "na", "null", "none")]
