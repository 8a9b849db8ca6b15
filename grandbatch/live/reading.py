"""What is read of one bar as it arrives: its columns by name, its time, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from grandbatch.bars.form.header import columns_there, explain_missing, find_header
from grandbatch.bars.form.texts import ungroup
from grandbatch.bars.rules import BarRules
from grandbatch.features.inputs import BAR_INPUTS
from grandbatch.values.times import written_duration

_WHERE = "the bar"

NO_COLUMNS: Mapping[str, str] = MappingProxyType({})

_ALIKE = (
    *("timestamp_format", "dayfirst", "timezone", "price_scale", "grouped", "decimal", "extra"),
    *("fill", "no_volume", "allow_non_positive", "ohlc_tolerance"),
)
"""Rules by which a bar that arrives can be read as a row is."""


def alike(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules by which a store's bars were read, as far as its attributes tell.

    Parameters
    ----------
    attrs : mapping
        `MatrixStore.attrs`, or its parts `rules`, `day_first` and `time_numbers`.

    Returns
    -------
    dict
        Fields of `BarRules`, and `time_numbers` as of `LiveTimes`.
    """
    rules = attrs.get("rules", {})
    found = {name: rules[name] for name in _ALIKE if name in rules}
    numbers = rules.get("epoch_unit") or _only(attrs.get("time_numbers", ()))
    day_first = _only(attrs.get("day_first", ()))
    if numbers is not None:
        found["time_numbers"] = numbers
    if day_first is not None:
        found.setdefault("dayfirst", day_first)
    return found


def doubts(attrs: Mapping[str, Any]) -> list[str]:
    """Say what is to be told of bars that arrive, as a store's attributes don't."""
    rules, found = attrs.get("rules", {}), []
    if {True, False} <= {*attrs.get("day_first", ())} and "dayfirst" not in rules:
        found.append(
            "the files learnt from had days first and months first: say which these have "
            "(--dayfirst or --no-dayfirst)"
        )
    if "session_start" in rules:
        found.append(
            f"evenings from {rules['session_start']} on stood under the trading day that they open "
            "in the files learnt from: send each bar with the date on which it began"
        )
    if "resample" in rules:
        length = written_duration(int(rules["resample"]["length_ns"]))
        found.append(f"bars were gathered in those of {length} to learn from: send such, no finer")
    return found


def _only(values: Sequence[Any]) -> Any:
    """Return the one value that there is but for None; None where there are several."""
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


class NamedBar(dict[str, Any]):
    """A bar whose columns have the names that are read; what it came with stands beside them."""

    headers: tuple[str, ...] = ()
    """The names that it came with."""


def named(
    bar: Mapping[str, Any], rules: BarRules, known: Mapping[str, str] = NO_COLUMNS
) -> NamedBar:
    """Return a bar with the names that are read, found as a file's header is.

    A column that is called as it is read stands, whatever else may be meant.

    Parameters
    ----------
    bar : mapping
    rules : BarRules
    known : mapping of str to str
        Column name → what it may be called: it is, where the bar has that.

    Raises
    ------
    ColumnError
        If two of its columns have one name, or one that `rules` map isn't there.
    """
    if isinstance(bar, NamedBar):
        return bar
    found = NamedBar(bar)
    found.headers = tuple(key for key in bar if isinstance(key, str))
    names = (*BAR_INPUTS, "symbol", *rules.extra)
    columns = dict(rules.columns)
    if known:
        there = [key for key in bar if isinstance(key, str)]
        columns = {
            **{
                name: header
                for name, header in known.items()
                if find_header(there, header) is not None
            },
            **columns,
        }
    exact = {name for name in names if name in bar and name not in columns}
    headers = tuple(key for key in found.headers if key not in exact)
    if headers:
        asked = tuple(columns.items()), tuple(rules.extra), rules.no_volume
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


def what_is_missing(bar: NamedBar, rules: BarRules) -> str | None:
    """Say which columns a bar lacks, if it has others that may have been meant."""
    missing = [name for name in BAR_INPUTS if name not in bar]
    headers = bar.headers
    if not missing or len(headers) <= len(BAR_INPUTS) - len(missing):
        return None
    return explain_missing(headers, rules, _WHERE, missing)


def to_number(value: Any, rules: BarRules) -> float:
    """Read a number as a build does; raise ValueError, TypeError or OverflowError for no number."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{value!r} is no number")
    if isinstance(value, str):
        decimal = rules.decimal or "."
        value = ungroup(value, decimal) if rules.grouped else value
        value = value.replace(decimal, ".")
    return float(value)
