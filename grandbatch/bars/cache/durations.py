"""How long bars last, and when they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.digests import GROUP_ROWS
from grandbatch.bars.rules import BarRules


def commonest_distance(bars: Bars) -> int:
    """Return the commonest distance of neighbouring bars in nanoseconds, the least of several.

    The first 16,384 bars of each symbol are looked at. 0 where no symbol has two bars.
    """
    counts: dict[int, int] = {}
    for first, stop in zip(bars.symbol_bounds[:-1], bars.symbol_bounds[1:], strict=True):
        times = bars.read(int(first), min(int(first) + GROUP_ROWS, int(stop)), ("timestamp",))
        found, number = np.unique(np.diff(times["timestamp"]), return_counts=True)
        for distance, count in zip(found.tolist(), number.tolist(), strict=True):
            counts[distance] = counts.get(distance, 0) + count
    return min(counts, key=lambda distance: (-counts[distance], distance), default=0)


def _begin_alike(before: Bars, bars: Bars) -> bool:
    """Whether bars grew from others, and none came to those that `commonest_distance` looks at."""
    if not bars.grew_from(before) or bars.symbols != before.symbols:
        return False
    old, new = np.diff(before.symbol_bounds), np.diff(bars.symbol_bounds)
    return bool(((old >= GROUP_ROWS) | (old == new)).all())


def time_attributes(
    bars: Bars, rules: BarRules, before: tuple[Bars, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return what a store says of its bars' times, as JSON types.

    Parameters
    ----------
    bars : Bars
    rules : BarRules
        By which they were made.
    before : (Bars, mapping), optional
        Other bars by the same rules, and what a store says of theirs.

    Returns
    -------
    dict
        ``bar_duration`` in nanoseconds, and ``bar_time``: whether a bar's timestamp is that of its
        opening (it is known a duration later), or of its closing. Of resampled bars also
        ``resample``, and how many symbols' last intervals are left out, being ``incomplete``.
    """
    timeframe = rules.timeframe
    if timeframe is not None:
        return {
            "bar_duration": timeframe.length_ns,
            "bar_time": "open",
            "resample": timeframe.to_json(),
            "incomplete": bars.incomplete,
        }
    duration = rules.bar_duration_ns
    if duration is None and before is not None and _begin_alike(before[0], bars):
        duration = before[1]["bar_duration"]
    return {
        "bar_duration": commonest_distance(bars) if duration is None else duration,
        "bar_time": rules.bar_time,
    }
