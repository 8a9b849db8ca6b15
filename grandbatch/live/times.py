"""The times of bars as they arrive, read as a build reads those of a file."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from grandbatch.bars.rules import TIME_NUMBERS, UNITS, BarRules
from grandbatch.bars.timestamps.evidence import Meaning, Tally
from grandbatch.bars.timestamps.texts import TimeForm, read_texts
from grandbatch.errors import UsageError
from grandbatch.kernels.bars import epochs
from grandbatch.kernels.bars.timestamps import ABSOLUTE, NO_CLOCK
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import refuse_year_last, to_nanoseconds

_CLOCKS = TIME_NUMBERS[-3:]
_NS = dict(zip(UNITS, (10**9, 10**6, 10**3, 1), strict=True))
_YEAR_FIRST = re.compile(r"\s*\d{4}[-/. T]")


class LiveTimes:
    """Reads times one by one.

    Parameters
    ----------
    rules : BarRules
        Their zone, their form of timestamps, and which of day and month comes first.
    numbers : str, optional
        One of `TIME_NUMBERS`; None where numbers are ns, and texts of digits dates.

    Raises
    ------
    UsageError
        If there are no such numbers.
    """

    def __init__(self, rules: BarRules, numbers: str | None) -> None:
        if numbers not in (None, *TIME_NUMBERS):
            raise UsageError(
                f"time_numbers must be one of {', '.join(TIME_NUMBERS)}, got {numbers!r}"
            )
        self._numbers = numbers
        meaning = Meaning(
            rules.dayfirst is not False,
            UNITS.index(numbers) if numbers in UNITS else epochs.COMPACT,
            clocks=_CLOCKS.index(numbers) + 1 if numbers in _CLOCKS else NO_CLOCK,
        )
        self._form = TimeForm(meaning, rules.timezone, rules.timestamp_format)
        self._is_told = rules.dayfirst is not None or rules.timestamp_format is not None

    def read(self, value: Any, last: int) -> int:
        """Read a time as ns since 1970 UTC.

        Parameters
        ----------
        value : str, int, float or time
        last : int
            Time of the symbol's last bar: of a time that clocks show twice it is the second if the
            first isn't behind that.

        Raises
        ------
        UsageError
            If it is none.
        """
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if is_number and self._numbers in UNITS:
            exact = value * _NS[self._numbers]
            if not abs(exact) < 2**63:
                raise UsageError(f"{TIMESTAMP} is a number of {self._numbers} that no time has")
            nearest: int = round(exact)
            return nearest
        if is_number and self._numbers is not None:
            value = f"{value:.0f}"
        if isinstance(value, datetime) and value.tzinfo is None and value is not pd.NaT:
            value = value.isoformat()
        if not isinstance(value, str):
            return to_nanoseconds(value, TIMESTAMP)
        if not self._is_told:
            refuse_year_last(value, TIMESTAMP)
        time = _read(value, self._form, last)
        if time is None and self._form.strptime and _YEAR_FIRST.match(value):
            time = _read(value, replace(self._form, strptime=None), last)
        if time is None:
            form = f" or of the form {self._form.strptime}" if self._form.strptime else ""
            raise UsageError(
                f"{TIMESTAMP} must be a time such as 2024-01-31T09:30{form}, or a number, got "
                f"{value!r}"
            )
        return time


def _read(text: str, form: TimeForm, last: int) -> int | None:
    raw = text.encode(errors="replace")
    times, status, tally = np.empty(1, np.int64), np.empty(1, np.uint8), Tally()
    places = np.array([[0], [len(raw)]], np.int64)
    changes = read_texts(np.frombuffer(raw, np.uint8), places, form, times, status, tally)
    if status[0] > ABSOLUTE or tally.evidence().undated:
        return None
    if len(changes.rows) and times[0] <= last:
        return int(changes.second[0])
    return int(times[0])
