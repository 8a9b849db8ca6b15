"""What is read of one bar as it arrives: its columns by name, its time, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from grandbatch.bars.form.header import columns_there, explain_missing
from grandbatch.bars.rules import BarRules
from grandbatch.features.inputs import BAR_INPUTS

_WHERE = "the bar"


class NamedBar(dict[str, Any]):
    """A bar whose columns have the names that are read; what it came with stands beside them."""


def named(bar: Mapping[str, Any], rules: BarRules) -> NamedBar:
    """Return a bar with the names that are read, found as a file's header is.

    A column that is called as it is read stands, whatever else may be meant.

    Raises
    ------
    ColumnError
        If two of its columns have one name, or one that `rules` map isn't there.
    """
    if isinstance(bar, NamedBar):
        return bar
    found = NamedBar(bar)
    names = (*BAR_INPUTS, "symbol", *rules.extra)
    exact = {name for name in names if name in bar and name not in rules.columns}
    headers = tuple(key for key in bar if isinstance(key, str) and key not in exact)
    if headers:
        asked = tuple(rules.columns.items()), tuple(rules.extra), rules.no_volume
        for name, places in _places(headers, *asked):
            if name not in exact:
                values = [bar[headers[place]] for place in places]
                found[name] = values[0] if len(values) == 1 else " ".join(map(str, values))
    if rules.no_volume:
        found["volume"] = 0.0
    return found


@lru_cache(256)
def _places(
    headers: tuple[str, ...],
    columns: tuple[tuple[str, str], ...],
    extra: tuple[str, ...],
    no_volume: bool,
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    rules = BarRules(columns=dict(columns), extra=extra, no_volume=no_volume)
    return tuple(columns_there(headers, rules, _WHERE).items())


def what_is_missing(bar: Mapping[str, Any], rules: BarRules) -> str | None:
    """Say which columns a bar lacks, if it has others that may have been meant."""
    missing = [name for name in BAR_INPUTS if name not in bar]
    headers = [key for key in bar if isinstance(key, str)]
    if not missing or len(headers) <= len(BAR_INPUTS) - len(missing):
        return None
    return explain_missing(headers, rules, _WHERE, missing)


def to_number(value: Any) -> float:
    """Read a number as a build does; raise ValueError, TypeError or OverflowError for no number."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
