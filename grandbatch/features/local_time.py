"""Local time as features: where a bar stands in its day, its week and its year.

A set that has one is tied to a version of the zone database, since clocks change by decree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grandbatch.features.fused import FusedColumn, FusedKernel
from grandbatch.features.sets import Feature
from grandbatch.values.arrays import Float32, Int64
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.zones import Zone, zone_of

_READ = (TIMESTAMP,)


@dataclass(frozen=True)
class LocalTime:
    """A kernel of two columns, sine and cosine: ``circle`` of local time in a zone.

    Parameters
    ----------
    circle : {"day", "week", "year"}
    zone : Zone
        With its table: workers need no database of their own.
    """

    circle: str
    zone: Zone

    @property
    def zone_database(self) -> str:
        """The version of the zone database that values depend on."""
        return self.zone.database

    def __call__(self, timestamp: Int64, first: int, out: Float32) -> None:
        """Write the columns: called as ``kernel(*inputs, first, out)``."""
        from grandbatch.kernels import local_time as kernels

        circles: dict[str, Any] = {
            "day": kernels.day_circle,
            "week": kernels.week_circle,
            "year": kernels.year_circle,
        }
        times = timestamp[first:]
        times.flags.writeable = False
        circles[self.circle](times, *self.zone.table, out)


def time_of_day(timezone: str) -> tuple[Feature, Feature]:
    """Return sine and cosine of the time of day, 2 pi at local midnight.

    Local time is what clocks show: 24 hours of a circle, of which one is left out, or comes twice,
    where clocks change. Lookback: 0.

    Parameters
    ----------
    timezone : str
        An IANA name, such as America/New_York.

    Raises
    ------
    UsageError
        If there is no such zone.
    """
    return _circle("time_of_day", "day", timezone)


def day_of_week(timezone: str) -> tuple[Feature, Feature]:
    """Return sine and cosine of the local day of the week: 2 pi / 7 times 0 for Monday to 6.

    Parameters and errors as of `time_of_day`. Lookback: 0.
    """
    return _circle("day_of_week", "week", timezone)


def day_of_year(timezone: str) -> tuple[Feature, Feature]:
    """Return sine and cosine of the local day of the year.

    2 pi / n times 0 for 1 January to n - 1 for 31 December, n being 365 or 366. Parameters and
    errors as of `time_of_day`. Lookback: 0.
    """
    return _circle("day_of_year", "year", timezone)


def _circle(name: str, circle: str, timezone: str) -> tuple[Feature, Feature]:
    fused = FusedKernel(LocalTime(circle, zone_of(timezone)), _READ, 2, 0)
    sine, cosine = (
        Feature(f"{name}_{part}_{timezone}", 0, FusedColumn(fused, column, _READ), _READ)
        for column, part in enumerate(("sin", "cos"))
    )
    return sine, cosine
