"""Night sessions that stand under the date of the trading day that they open.

``2024-01-08 21:00`` is then the evening of Friday the 5th. Which date comes before another one is
known when all inputs are read: a block goes by the dates that it has seen, and tells what it took.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

DAY = 86_400_000_000_000


class Placements:
    """Dates that stand in a block, as days since 1970, and where its evenings were put."""

    def __init__(self) -> None:
        self.days: list[int] = []
        """Sorted."""
        self.taken: set[tuple[int, int]] = set()
        """Days with an evening, each with the day that it was put on."""

    def put_back(self, wall: Int64, start: int, calendar: Sequence[int] | None) -> Int64:
        """Put times of day at or after a session's start on the day before the one they have.

        Parameters
        ----------
        wall : (T,) int64
            Nanoseconds since 1970 on the clock of the zone. Written.
        start : int
            Nanoseconds since midnight.
        calendar : sequence of int, optional
            All days that stand in the inputs, ascending; else those seen so far.

        Returns
        -------
        (K,) int64
            Rows that were moved.
        """
        written = wall // DAY
        for day in np.unique(written).tolist():
            place = bisect_left(self.days, day)
            if self.days[place : place + 1] != [day]:
                insort(self.days, day)
        late = np.flatnonzero(wall - written * DAY >= start)
        evenings, which = np.unique(written[late], return_inverse=True)
        known = self.days if calendar is None else calendar
        before = np.array([day_before(day, known) for day in evenings.tolist()], np.int64)
        self.taken.update(zip(evenings.tolist(), before.tolist(), strict=True))
        wall[late] += (before - evenings)[which] * DAY
        return late


def day_before(day: int, calendar: Sequence[int]) -> int:
    """Return the last day of a calendar before another; where there is none, the weekday before."""
    place = bisect_left(calendar, day)
    if place:
        return calendar[place - 1]
    before = day - 1
    while (before + 3) % 7 >= 5:  # 1970 began on a Thursday
        before -= 1
    return before
