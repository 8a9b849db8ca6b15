"""Extra columns: what they may be called, and what stands where one has no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grandbatch.errors import UsageError

FILLS = ("require", "zero", "last")
"""Without a value a row is no bar, or the value is 0, or that of the symbol's bar before."""


def checked_extra(names: Any, taken: Sequence[str]) -> tuple[str, ...]:
    """Return the names of extra columns, once it is sure that each can be one.

    Raises
    ------
    UsageError
        If they are no list of different names, or one of them is among `taken`.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise UsageError(
            f"extra must be a list of names, such as ['vwap', 'trades'], got {names!r}"
        )
    for name in names:
        if not isinstance(name, str) or not name or name != name.strip():
            raise UsageError(f"extra must hold names without blanks around them, got {name!r}")
        if name.lower() in taken:
            raise UsageError(
                f"extra has {name!r}, which is no extra column: bars have {', '.join(taken)} anyway"
            )
        if list(names).count(name) > 1:
            raise UsageError(f"extra has {name!r} twice; each column needs a name of its own")
    return tuple(names)


def checked_fill(fill: Any, extra: Sequence[str]) -> dict[str, str]:
    """Return the fill of each extra column, `require` where none is given.

    Raises
    ------
    UsageError
        If it is no mapping, a fill is unknown, or a name is none of `extra`.
    """
    if not isinstance(fill, Mapping):
        raise UsageError(f"fill must map names to fills, such as {{'vwap': 'last'}}, got {fill!r}")
    for name, how in fill.items():
        if name not in extra:
            known = f"; choose from {', '.join(extra)}" if extra else ""
            raise UsageError(f"fill has {name!r}, which extra doesn't name{known}")
        if how not in FILLS:
            raise UsageError(f"fill of {name} must be {', '.join(FILLS)}, got {how!r}")
    return {name: str(fill.get(name, FILLS[0])) for name in extra}
