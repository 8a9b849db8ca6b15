"""What a store's attributes tell that is worth a look: said by builds, and first in reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("grandbatch")

_NAMED = 10


def notes(attrs: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing about a store that a person should know of.

    Parameters
    ----------
    attrs : mapping
        The attributes of a store.
    """
    lines = _differing(attrs), *attrs.get("worth_a_look", ()), _still(attrs), _short_symbols(attrs)
    return [line for line in lines if line]


def tell_notes(path: Path, attrs: Mapping[str, Any]) -> None:
    """Log the notes about a store as warnings."""
    for line in notes(attrs):
        log.warning("%s, worth a look: %s", path.name, line)


def _differing(attrs: Mapping[str, Any]) -> str:
    count = attrs.get("differing_duplicates", 0)
    if not count:
        return ""
    stands, other = ("last", "first") if attrs["duplicates"] == "last" else ("first", "last")
    has, differ = ("row has", "differs") if count == 1 else ("rows have", "differ")
    return (
        f"{count:,} {has} the time of a row before of the same symbol, and {differ} from it; the "
        f"{stands} of a time stands (--duplicates {other} takes the other)"
    )


def _still(attrs: Mapping[str, Any]) -> str:
    names = [name for name, of in attrs["feature_stats"].items() if of["min"] == of["max"]]
    if not names:
        return ""
    value = attrs["feature_stats"][names[0]]["min"]
    if len(names) == 1:
        return f"the feature {named(names)} never changes: it is always {value:.4g}"
    return f"{len(names)} of {len(attrs['feature_names'])} features never change: {named(names)}"


def _short_symbols(attrs: Mapping[str, Any]) -> str:
    names = attrs.get("symbols_without_windows", ())
    if not names:
        return ""
    needed = attrs["lookback"] + attrs["sequence_length"]
    return (
        f"{len(names):,} of {attrs['n_symbols']:,} symbols have no window, for want of {needed} "
        f"bars without a break: {named(names)}"
    )


def named(names: Sequence[str]) -> str:
    """Write the first of some names that data gave."""
    shown = [shown_name(name) for name in names[:_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def shown_name(name: str) -> str:
    """Write a name that data gave, without what a terminal would obey."""
    return name if name.isprintable() else ascii(name)
