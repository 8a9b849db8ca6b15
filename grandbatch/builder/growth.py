"""What each growth of a store corrected in its history: kept beside it, for trainings.

Covers the record. Nothing of a store depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.files import digested
from grandbatch.files.locations import read_location
from grandbatch.store.publish import beside

Corrected = Mapping[str, list[list[int]]]
"""First and last time of stretches of bars, ns since 1970 UTC, by symbol."""

_MAX_BYTES = 2**22
_MOST_GROWTHS = 2_000
_MOST_STRETCHES = 100


def corrected_bars(bars: Bars, rows: npt.NDArray[np.int64]) -> Corrected:
    """Say when bars are that differ from those of before, by symbol.

    Parameters
    ----------
    bars : Bars
    rows : (n,) int64
        Rising, as of `changed_rows`.
    """
    found: dict[str, list[list[int]]] = {}
    symbol = np.searchsorted(bars.symbol_bounds, rows, side="right") - 1
    for code in np.unique(symbol).tolist():
        own = rows[symbol == code]
        breaks = np.flatnonzero(np.diff(own) != 1)
        first, last = np.append(own[0], own[breaks + 1]), np.append(own[breaks], own[-1])
        if len(first) > _MOST_STRETCHES:
            first, last = first[:1], last[-1:]
        found[bars.symbols[code]] = [
            [_time(bars, a), _time(bars, b)]
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]
    return found


def _time(bars: Bars, row: int) -> int:
    return int(bars.read(row, row + 1, ("timestamp",))["timestamp"][0])


def record_growth(store: Path, before: str, after: str, corrected: Corrected | None) -> None:
    """Keep what the growth of a store from one identity of windows to another corrected.

    None says that it isn't known.
    """
    growths = {**_growths(store), after: {"from": before, "corrected": corrected}}
    kept = dict(list(growths.items())[-_MOST_GROWTHS:])
    digested.note(_path(store), {"growths": kept})


def corrected_since(store: Path, before: str, now: str) -> Corrected | None:
    """Say which bars were corrected while a store grew from one identity of windows to another.

    None where no record leads from the one to the other.
    """
    growths, found = _growths(store), dict[str, list[list[int]]]()
    at = now
    for _ in range(_MOST_GROWTHS):
        if at == before:
            return found
        growth = growths.get(at)
        if growth is None or growth["corrected"] is None:
            return None
        for name, stretches in growth["corrected"].items():
            found[name] = [*stretches, *found.get(name, [])]
        at = growth["from"]
    return None


def _growths(store: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = digested.load(read_location(_path(store), _MAX_BYTES))["growths"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _path(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.growths.json"
