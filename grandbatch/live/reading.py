"""What is read of one bar as it arrives: its columns by name, its time, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from grandbatch.bars.form.header import plain_name
from grandbatch.errors import UsageError

_plain = lru_cache(4096)(plain_name)


def named(bar: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Return a bar with these names, which it may write in another case, as a file's header may.

    Raises
    ------
    UsageError
        If two of its columns are alike.
    """
    missing = [name for name in names if name not in bar]
    if len(bar) + len(missing) <= len(names):
        return bar
    found = dict(bar)
    spare = [key for key in bar if isinstance(key, str) and key not in names]
    for name in missing:
        alike = [key for key in spare if _plain(key) == _plain(name)]
        if len(alike) > 1:
            raise UsageError(f"{alike[0]!r} and {alike[1]!r} may both be the {name}; leave one out")
        if alike:
            found[name] = found.pop(alike[0])
    return found


def to_number(value: Any) -> float:
    """Read a number as a build does; raise ValueError, TypeError or OverflowError for no number."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
