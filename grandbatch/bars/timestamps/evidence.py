"""What the rows of a file say on how its timestamps are meant, and what follows from it.

``2/7/2025``, 1704214800 and 93000 mean nothing for certain by themselves. Each block counts what
its rows say; the sums decide, once for a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from grandbatch.bars.rules import UNITS, BarRules
from grandbatch.bars.timestamps.sessions import Placements
from grandbatch.kernels.bars import epochs, timestamps

Int64 = npt.NDArray[np.int64]

_DENSE = 30
"""Epochs of bars in seconds are farther apart, on average; row numbers aren't."""
_FIRST_DAYS = 1_000_000
"""Times of day, years with a month and days of Excel are below it; in seconds, it is 12 days."""


_GOES_ON: tuple[int, ...] = (120_000_000, *(4 * epochs.FLOORS[1:]).tolist())
"""What goes on from numbers near zero has some below: 1973 in seconds, 1971 in finer units."""


@dataclass(frozen=True)
class Dates:
    """What rows of the form ``a/b/yyyy`` say on whether days or months come first."""

    day_first: int = 0
    month_first: int = 0
    rows: int = 0
    """Rows of that form that mean another day the other way round, or none."""

    @property
    def verdict(self) -> bool | None:
        """Whether days come first; None where neither side has more rows."""
        if self.day_first == self.month_first:
            return None
        return self.day_first > self.month_first


@dataclass(frozen=True)
class Numbers:
    """What timestamps that are numbers say on whether they are dates, or epochs in which unit."""

    rows: int = 0
    compact: int = 0
    """Numbers that are a date."""
    early: int = 0
    """Numbers near zero: epochs before 1973, row numbers, or something else."""
    lowest: int = 0
    """Of those near zero."""
    highest: int = 0
    nearest_s: int = 0
    """Size of the one nearest to zero of the others that lie within 1678 to 2261 in this unit and
    in none coarser; 0 where there is none."""
    nearest_ms: int = 0
    nearest_us: int = 0
    nearest_ns: int = 0
    s: int = 0
    """Numbers that an epoch in this unit fits best, or as well as another."""
    ms: int = 0
    us: int = 0
    ns: int = 0

    @property
    def verdict(self) -> int | None:
        """A meaning of `grandbatch.kernels.bars.epochs`; None where two have as many rows."""
        if 2 * self.compact >= self.rows:
            return None if 2 * self.compact == self.rows else epochs.COMPACT
        if self.are_row_numbers:
            return epochs.NO_TIME
        units = self.likely_units
        return units[0] if len(units) == 1 else None

    @property
    def likely_units(self) -> list[int]:
        """Units that most numbers fit."""
        counts = (self.s, self.ms, self.us, self.ns)
        return [unit for unit, count in enumerate(counts) if count == max(counts)]

    @property
    def nearest(self) -> tuple[int, int, int, int]:
        """Of each unit, the number nearest to zero."""
        return (self.nearest_s, self.nearest_ms, self.nearest_us, self.nearest_ns)

    def has_early(self, unit: int) -> bool:
        """Whether there are numbers near zero, in a unit."""
        return any((self.early, *self.nearest[:unit]))

    def goes_on(self, unit: int) -> bool:
        """Whether numbers near zero are epochs in a unit, as others go on from there."""
        return self.nearest[unit] < _GOES_ON[unit]

    @property
    def mixed_units(self) -> list[int]:
        """Units of which none goes on from one before, where there are several."""
        units = [unit for unit, size in enumerate(self.nearest) if size]
        found = units[:1] + [unit for unit in units[1:] if not self.goes_on(unit)]
        return found if len(found) > 1 else []

    @property
    def misfits(self) -> int:
        """Numbers that don't fit the unit that most fit."""
        return self.rows - max(self.s, self.ms, self.us, self.ns)

    @property
    def are_row_numbers(self) -> bool:
        """Whether numbers are near zero, but for few, and too near or too close to be epochs."""
        if 100 * self.early < 99 * self.rows:
            return False
        return self.are_near_zero or self.highest - self.lowest < _DENSE * self.early

    @property
    def are_near_zero(self) -> bool:
        """Whether the numbers near zero are nearer than epochs of bars in seconds."""
        return self.early > 0 and max(self.highest, -self.lowest) < _FIRST_DAYS


@dataclass(frozen=True)
class Clocks:
    """What times of day without colons say on whether they are HHMM, HHMMSS or HHMMSSmmm."""

    rows: int = 0
    short: int = 0
    """Below 100."""
    padded: int = 0
    """Four digits, the first a zero."""
    seconds: int = 0
    """That can't be HHMM."""
    millis: int = 0
    """That can't be HHMM or HHMMSS."""

    @property
    def verdict(self) -> int | None:
        """A meaning of `grandbatch.kernels.bars.timestamps`; None where rows say this and that."""
        longer = self.seconds + self.millis
        if 100 * longer <= self.rows or 100 * self.padded > self.rows:
            is_hour = self.short == self.rows
            return timestamps.NO_CLOCK if is_hour else timestamps.MINUTES
        if 2 * self.millis > self.rows:
            return timestamps.MILLIS
        if 2 * self.seconds > self.rows:
            return timestamps.SECONDS
        return None


@dataclass(frozen=True)
class Evidence:
    """What rows say on the meaning of their timestamps."""

    dates: Dates = Dates()
    numbers: Numbers = Numbers()
    clocks: Clocks = Clocks()
    undated: int = 0
    """Times of day with colons that stand alone."""
    days: frozenset[int] = frozenset()
    """Dates, as days since 1970, where sessions start before midnight."""
    taken: frozenset[tuple[int, int]] = frozenset()
    """Dates of evenings, each with the day that they were put on."""

    def __add__(self, other: Evidence) -> Evidence:
        numbers = _sum(self.numbers, other.numbers)
        a, b = self.numbers, other.numbers
        if a.early and b.early:
            ends = {"lowest": min(a.lowest, b.lowest), "highest": max(a.highest, b.highest)}
            numbers = replace(numbers, **ends)
        for name in ("nearest_s", "nearest_ms", "nearest_us", "nearest_ns"):
            sizes = getattr(a, name), getattr(b, name)
            if all(sizes):
                numbers = replace(numbers, **{name: min(sizes)})
        return Evidence(
            _sum(self.dates, other.dates),
            numbers,
            _sum(self.clocks, other.clocks),
            self.undated + other.undated,
            self.days | other.days,
            self.taken | other.taken,
        )

    def is_open(self, rules: BarRules) -> bool:
        """Whether the meaning of any row depends on others."""
        is_date_open = self.dates.rows and rules.dayfirst is None
        is_number_open = self.numbers.rows and rules.epoch_unit is None
        return bool(is_date_open or is_number_open or self.clocks.rows)


NOTHING = Evidence()

_Counts = TypeVar("_Counts", Dates, Numbers, Clocks)


def _sum(a: _Counts, b: _Counts) -> _Counts:
    return type(a)(*(getattr(a, f.name) + getattr(b, f.name) for f in fields(a)))


class Tally:
    """Counts of the kernels, and the evidence that they are."""

    def __init__(self) -> None:
        self.texts = np.zeros(timestamps.N_TALLY, np.int64)
        self.numbers = np.zeros(epochs.N_NUMBER_TALLY, np.int64)
        self.placements = Placements()

    def evidence(self) -> Evidence:
        """Return what was counted."""
        texts = self.texts.tolist()
        dates, undated, clocks = texts[:3], texts[3], texts[4:]
        numbers = Numbers(*self.numbers.tolist())
        days, taken = frozenset(self.placements.days), frozenset(self.placements.taken)
        return Evidence(Dates(*dates), numbers, Clocks(*clocks), undated, days, taken)


@dataclass(frozen=True)
class Meaning:
    """How the timestamps of a file are meant."""

    day_first: bool = True
    numbers: int = epochs.NO_TIME
    """A meaning of `grandbatch.kernels.bars.epochs`."""
    early: bool = False
    """Whether numbers near zero, in their unit, are epochs, too."""
    clocks: int = timestamps.NO_CLOCK
    """A meaning of `grandbatch.kernels.bars.timestamps`."""

    def settled(self, own: Evidence, everywhere: Evidence, rules: BarRules) -> Meaning:
        """Return what rules say, else a file's own rows, else those of all files together.

        What none of them decides stays as it is.
        """
        dates = first_verdict(own.dates, everywhere.dates)
        numbers = first_verdict(own.numbers, everywhere.numbers)
        clocks = first_verdict(own.clocks, everywhere.clocks)
        if rules.dayfirst is not None:
            dates = rules.dayfirst
        if rules.epoch_unit is not None:
            numbers = UNITS.index(rules.epoch_unit)
        early = False
        if numbers is not None and 0 <= numbers < epochs.COMPACT:
            is_said = rules.epoch_unit is not None
            early = own.numbers.has_early(numbers) and (is_said or own.numbers.goes_on(numbers))
        return Meaning(
            self.day_first if dates is None else bool(dates),
            self.numbers if numbers is None else numbers,
            early,
            self.clocks if clocks is None else clocks,
        )

    def name_of(self, evidence: Evidence) -> str | None:
        """Name what numbers in timestamps mean, where there are any."""
        if evidence.numbers.rows and self.numbers != epochs.NO_TIME:
            return (*UNITS, "date")[self.numbers]
        if evidence.clocks.rows and self.clocks != timestamps.NO_CLOCK:
            return ("HHMM", "HHMMSS", "HHMMSSmmm")[self.clocks - 1]
        return None


UNSETTLED = Meaning()
"""What is assumed of timestamps before any is seen."""


def first_verdict(*counts: Dates | Numbers | Clocks) -> int | None:
    """Return the first verdict that there is; None too where the first has no rows."""
    if not counts[0].rows:
        return None
    return next((count.verdict for count in counts if count.verdict is not None), None)


def total(evidence: Sequence[Evidence]) -> Evidence:
    """Return what all of these say together."""
    return sum(evidence, NOTHING)
