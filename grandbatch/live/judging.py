"""Whether a bar that arrives is one: by the kernels that judge the rows of a build."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from grandbatch.bars.reading.rows import scaled
from grandbatch.bars.rules import REASONS, BarRules
from grandbatch.errors import BadRowsError, ColumnError, UsageError
from grandbatch.features.inputs import BAR_INPUTS
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    MISSING,
    NEVER,
    NOT_FINITE,
    UNPARSEABLE,
    judge_rows,
    widen,
)
from grandbatch.live.reading import NO_COLUMNS, NamedBar, named, to_number, what_is_missing
from grandbatch.live.segment import BarValues
from grandbatch.live.times import LiveTimes
from grandbatch.values.columns import PRICES_AND_VOLUME, TIMESTAMP
from grandbatch.values.times import shown, to_nanoseconds

SYMBOL_KEY = "symbol"

_UNCHANGED = "nothing has changed: mend it, or leave it out and push the next one"
QUARANTINED = f"A build would quarantine this bar; {_UNCHANGED}"
REMEMBERED = (
    "A build would quarantine this bar; its time and its other values are remembered, as there: "
    "push the next one"
)


class LiveJudge:
    """Judges bars one by one.

    Parameters
    ----------
    rules : BarRules
        Their names of columns, extra columns and fills, tolerance, scale, and what times mean.
    numbers : str, optional
        As of `LiveTimes`.
    columns : mapping of str to str
        Column name → what it may be called, where a bar has that.
    """

    def __init__(
        self, rules: BarRules, numbers: str | None = None, columns: Mapping[str, str] = NO_COLUMNS
    ) -> None:
        self.fill = rules.fill
        self._times, self._columns = LiveTimes(rules, numbers), columns
        self.ohlc_tolerance = rules.ohlc_tolerance
        self.allow_non_positive = rules.allow_non_positive
        self._rules = rules

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which bars are taken, as JSON types."""
        return {
            "allow_non_positive": self.allow_non_positive,
            "ohlc_tolerance": self.ohlc_tolerance,
            "fill": dict(self.fill),
            **({"no_volume": True} if self._rules.no_volume else {}),
            **({"price_scale": self._rules.price_scale} if self._rules.price_scale != 1 else {}),
        }

    def named(self, bar: Mapping[str, Any]) -> NamedBar:
        """Return a bar with the names that are read.

        Raises
        ------
        BadRowsError
            If two of its columns have one name.
        """
        try:
            return named(bar, self._rules, self._columns)
        except ColumnError as problem:
            error = BadRowsError(f"{problem}. {QUARANTINED}")
            error.reason = REASONS[UNPARSEABLE - 1]
            raise error from None

    def admit(self, bar: NamedBar, symbol: str, last: int, last_extra: BarValues) -> BarValues:
        """Return what can be read of a bar, by name, if it is one.

        Parameters
        ----------
        bar : NamedBar
        symbol : str
        last : int
            Time of the symbol's last bar; `NEVER` where there is none.
        last_extra : dict
            Values of its extra columns.

        Raises
        ------
        BadRowsError
            If a build would quarantine it.
        """
        given: list[Any] = [bar.get(name) for name in BAR_INPUTS]
        time = None if given[0] is None else self._time_of(given[0], bar, symbol, last)
        if not symbol or any(value is None for value in given):
            meant = what_is_missing(bar, self._rules)
            outcome = QUARANTINED if meant is None else f"{meant}; {_UNCHANGED}"
            raise refusal(bar, symbol, last, MISSING, outcome=outcome)
        try:
            times = np.array([time], np.int64)
            numbers = [to_number(value, self._rules) for value in given[1:]]
        except (TypeError, ValueError, OverflowError):
            raise refusal(bar, symbol, last, UNPARSEABLE) from None
        if times[0] == NEVER:  # what NaT is
            raise refusal(bar, symbol, last, UNPARSEABLE)
        extra = {name: self._extra_of(bar, symbol, last, last_extra, name) for name in self.fill}
        reasons = np.zeros(1, np.uint8)
        o, h, l, c, v = np.array(numbers)[:, None]
        if self._rules.price_scale != 1:
            o, h, l, c = (scaled(price, self._rules.price_scale) for price in (o, h, l, c))
        judge_rows(
            times,
            o,
            h,
            l,
            c,
            v,
            np.zeros(1, np.int32),
            self.allow_non_positive,
            self.ohlc_tolerance,
            False,
            np.zeros(1, np.int64),
            np.array([last]),
            np.array([-1]),
            reasons,
            np.empty((2, 1), np.int64),
        )
        if reasons[0] != ACCEPTED:
            raise refusal(bar, symbol, last, int(reasons[0]))
        h, l = widen(o, h, l, c)
        five = (float(value[0]) for value in (o, h, l, c, v))
        return {
            TIMESTAMP: int(times[0]),
            **dict(zip(PRICES_AND_VOLUME, five, strict=True)),
            **extra,
        }

    def _time_of(self, value: Any, bar: Mapping[str, Any], symbol: str, last: int) -> int:
        try:
            return self._times.read(value, last)
        except UsageError as error:
            # a build may read it, by evidence that one bar doesn't have
            outcome = f"{error}{self._day_or_month(value)}; {_UNCHANGED}"
            raise refusal(bar, symbol, last, UNPARSEABLE, outcome=outcome) from None

    def _day_or_month(self, time: Any) -> str:
        """Say what makes a time one, if that is nothing but which of day and month comes first."""
        if self._rules.dayfirst is not None or not isinstance(time, str):
            return ""
        flags = []
        for is_first, flag in ((True, "--dayfirst"), (False, "--no-dayfirst")):
            with suppress(UsageError):
                to_nanoseconds(time, TIMESTAMP, day_first=is_first)
                flags.append(flag)
        if len(flags) == 1:
            return f" ({flags[0]})"
        told = " (--dayfirst if the day comes first, --no-dayfirst if the month does)"
        return told if flags else ""

    def _extra_of(
        self, bar: Mapping[str, Any], symbol: str, last: int, last_extra: BarValues, name: str
    ) -> float:
        """Return the value of an extra column, or what stands for it; nan where nothing does."""
        given, code = bar.get(name), ACCEPTED
        if isinstance(given, bool):  # as of a Parquet column of flags
            given = float(given)
        try:
            value = to_number("nan" if given is None else given, self._rules)
        except (TypeError, ValueError, OverflowError):
            code, value = UNPARSEABLE, math.nan
        if math.isfinite(value):
            return value
        if self.fill[name] == "zero":
            return 0.0
        if self.fill[name] == "last":
            return last_extra.get(name, math.nan)
        if code == ACCEPTED:
            code = MISSING if given is None else NOT_FINITE
        raise refusal(bar, symbol, last, code, name)


def refusal(
    bar: Mapping[str, Any],
    symbol: str,
    last: int,
    code: int,
    column: str | None = None,
    outcome: str = QUARANTINED,
) -> BadRowsError:
    """Return the error that tells why a bar is none, and what has become of it."""
    reason = REASONS[code - 1] + (f" ({column})" if column else "")
    after = "it has none yet" if last == NEVER else f"its last one is of {shown(last)}"
    names = BAR_INPUTS if column is None else (*BAR_INPUTS, column)
    values = ", ".join(f"{name} {bar.get(name)!r}" for name in names)
    error = BadRowsError(f"symbol {symbol!r}: {reason}: {values}; {after}. {outcome}")
    error.reason = reason
    return error
