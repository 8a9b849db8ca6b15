"""Timeframes: how long bars last, when they are known, and how finer ones are gathered in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.values.arrays import Float64, Int64
from grandbatch.values.columns import PRICES_AND_VOLUME
from grandbatch.values.times import to_duration
from grandbatch.values.zones import Zone, zone_of

DAY_NS = 86_400 * 10**9

AGGREGATES = ("last", "first", "sum", "mean", "min", "max")
"""What the extra columns of a coarser bar may be made of."""

_OF_A_BAR = ("first", "max", "min", "last", "sum")
_KERNEL_NAMES = {
    "first": "FIRST",
    "last": "LAST",
    "max": "GREATEST",
    "min": "LEAST",
    "sum": "SUM",
    "mean": "SUM",
}


@dataclass(frozen=True)
class Timeframe:
    """Intervals of a clock, each of which makes one bar of the finer bars in it.

    Parameters
    ----------
    length_ns : int
        Of an interval: up to a day, or whole days.
    shift_ns : int
        After midnight, where the first interval of a day begins.
    zone : Zone
        Whose midnight.
    ahead_ns : int
        What the clock is ahead of the zone's.
    by_closing : bool
        Whether the finer bars carry the time of their end.
    aggregates : tuple of (str, str)
        Extra column, and what it is made of.
    """

    length_ns: int
    shift_ns: int
    zone: Zone
    ahead_ns: int
    by_closing: bool
    aggregates: tuple[tuple[str, str], ...] = ()

    def starts_of(self, times: Int64) -> Int64:
        """Return where the intervals begin that bars of some times, rising, belong to."""
        from grandbatch.kernels.bars.intervals import interval_starts

        found = np.empty(len(times), np.int64)
        # a bar that carries its end belongs to the interval that ends with it
        inside = times - 1 if self.by_closing else times
        clock = self.length_ns, self.shift_ns, self.ahead_ns
        interval_starts(inside, *self.zone.table, *clock, found)
        return found

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of what is gathered: open, high, low, close, volume, and the extra columns."""
        return (*PRICES_AND_VOLUME, *(name for name, _ in self.aggregates))

    @cached_property
    def ways(self) -> Int64:
        """What `gather_rows` makes of each of the columns, (5 + K,) int64."""
        # rules are made where nothing is compiled: a store that is reused
        from grandbatch.kernels.bars import intervals

        return np.array([getattr(intervals, _KERNEL_NAMES[way]) for way in self._how])

    def divide_means(self, values: Float64, counts: Int64) -> None:
        """Make means of the sums that `gather_rows` left, in place: (5 + K, n) and (n,)."""
        for place, way in enumerate(self._how):
            if way == "mean":
                values[place] /= counts

    @property
    def _how(self) -> tuple[str, ...]:
        return (*_OF_A_BAR, *(way for _, way in self.aggregates))

    def to_json(self) -> dict[str, Any]:
        """Return what determines the bars, as JSON types."""
        fixed = len(self.zone.changes) == 8
        return {
            "length_ns": self.length_ns,
            "shift_ns": self.shift_ns,
            "zone": self.zone.name,
            "zone_database": None if fixed else self.zone.database,
            "ahead_ns": self.ahead_ns,
            "by_closing": self.by_closing,
            "aggregates": [list(pair) for pair in self.aggregates],
        }


def made_timeframe(
    length: Any,
    shift: Any,
    zone: tuple[str, int],
    aggregate: Mapping[str, str],
    extra: Sequence[str],
    *,
    by_closing: bool,
) -> Timeframe | None:
    """Check what is asked of coarser bars; None where none are asked for.

    Raises
    ------
    UsageError
        If a length makes no sense, or an aggregate is unknown or of no extra column.
    """
    aggregates = _checked_aggregates(aggregate, extra)
    if length is None:
        for name, value in (("resample_offset", shift), ("aggregate", aggregate)):
            if value:
                raise UsageError(f"{name} {value!r} is of use with resample only, such as 30min")
        return None
    length_ns = to_duration(length, "resample", positive=True)
    if length_ns > DAY_NS and length_ns % DAY_NS:
        raise UsageError(f"resample must be up to a day, or whole days, got {length!r}")
    shift_ns = 0 if shift is None else to_duration(shift, "resample_offset")
    if shift_ns >= DAY_NS:
        raise UsageError(f"resample_offset must be below a day, got {shift!r}")
    name, ahead = zone
    return Timeframe(length_ns, shift_ns, zone_of(name), ahead, by_closing, aggregates)


def _checked_aggregates(
    aggregate: Mapping[str, str], extra: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    if not isinstance(aggregate, Mapping):
        raise UsageError(
            f"aggregate must map extra columns to what they are made of, such as "
            f"{{'trades': 'sum'}}, got {aggregate!r}"
        )
    for name, how in aggregate.items():
        if name not in extra:
            known = f"choose from {', '.join(extra)}" if extra else "there are none"
            raise UsageError(f"aggregate has {name!r}, which is no extra column; {known}")
        if how not in AGGREGATES:
            raise UsageError(
                f"aggregate of {name} must be one of {', '.join(AGGREGATES)}, got {how!r}"
            )
    return tuple((name, str(aggregate.get(name, "last"))) for name in extra)
