"""`LiveFeatures`: the rows and matrices of a store, bar by bar as bars arrive.

The kernels are those of builds, and read the same bars; so the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from grandbatch.bars.rules import DEFAULT_SYMBOL, REASONS, BarRules
from grandbatch.errors import BadRowsError, ColumnError, UsageError
from grandbatch.features import PRICES_AND_VOLUME, FeatureSet, resolve_feature_set
from grandbatch.features.inputs import BAR_INPUTS, extra_inputs_of, known_inputs, require_inputs
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    MISSING,
    NEVER,
    NOT_FINITE,
    UNPARSEABLE,
    judge_rows,
    widen,
)
from grandbatch.live.reading import named, to_number
from grandbatch.live.segment import LiveSegment, Values
from grandbatch.values.arrays import Float32
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import shown, to_duration, to_nanoseconds

if TYPE_CHECKING:
    import pandas as pd

    from grandbatch.values.times import Duration

_SYMBOL = "symbol"
_UNCHANGED = "nothing has changed: mend it, or leave it out and push the next one"
_QUARANTINED = f"A build would quarantine this bar; {_UNCHANGED}"
_REMEMBERED = (
    "A build would quarantine this bar; its time and its other values are remembered, as there: "
    "push the next one"
)


class LiveFeatures:
    """Turns bars into matrices as they arrive, for any number of symbols. Not thread-safe.

    After each bar the matrix is the window that ends with it: that of a store at stride 1. A store
    with less overlap holds some of these. For each symbol `lookback + 1` bars and
    `sequence_length` rows are kept, however many bars come. It can be pickled if the set can.

    Parameters
    ----------
    feature_set : str or FeatureSet
        A set, or its name: "strategic", "module:NAME", "path.py:NAME", …
    max_gap : str or timedelta, optional
        As of `build_store`: a larger distance in time starts a new segment.
    allow_non_positive : bool
        As of `BarRules`: accept prices at or below zero.
    ohlc_tolerance : float
        As of `BarRules`: share of a price by which high and low may miss the others.
    extra : sequence of str
        As of `BarRules`: extra columns without which a row is no bar, besides those that the set
        reads.
    fill : mapping of str to {"require", "zero", "last"}, optional
        As of `BarRules`: what stands where an extra column has no value.
    dayfirst : bool, optional
        As of `BarRules`: whether 2/7/2025 is the 2nd of July. Unless it is given, such a date is
        refused, since one bar can't tell.

    Raises
    ------
    UsageError
        If the feature set or an option makes no sense.

    Examples
    --------
    >>> import grandbatch as gb
    >>> live = gb.LiveFeatures("strategic")
    >>> bar = {"open": 99.0, "high": 101.0, "low": 98.0, "close": 100.0, "volume": 7.0}
    >>> start = 1_700_000_000_000_000_000
    >>> for minute in range(200):
    ...     matrix = live.push({"timestamp": start + minute * 60_000_000_000, **bar})
    >>> matrix.shape
    (48, 13)
    """

    def __init__(
        self,
        feature_set: str | FeatureSet,
        *,
        max_gap: Duration | None = None,
        allow_non_positive: bool = False,
        ohlc_tolerance: float = 1e-9,
        extra: Sequence[str] = (),
        fill: Mapping[str, Any] | None = None,
        dayfirst: bool | None = None,
    ) -> None:
        self.feature_set = resolve_feature_set(feature_set)
        self._max_gap_ns = (
            None if max_gap is None else to_duration(max_gap, "max_gap", positive=True)
        )
        self._allow_non_positive = allow_non_positive
        read = extra_inputs_of(self.feature_set.features)
        rules = BarRules(
            ohlc_tolerance=ohlc_tolerance,
            extra=(*read, *(name for name in extra if name not in read)),
            fill=fill or {},
            dayfirst=dayfirst,
        )
        self._day_first = rules.dayfirst
        self._ohlc_tolerance, self._fill = rules.ohlc_tolerance, rules.fill
        self._names = (*BAR_INPUTS, _SYMBOL, *self._fill)
        self._symbols: dict[str, LiveSegment] = {}

    @classmethod
    def from_bars(cls, feature_set: str | FeatureSet, bars: pd.DataFrame, **options: Any) -> Self:
        """Make one that has seen a history, so that the next bar gives a matrix.

        Parameters
        ----------
        feature_set : str or FeatureSet
        bars : pandas DataFrame
            Each symbol's by rising time, as `read_bars(...).compute()` gives them. No more than
            the last `bars_needed` of each symbol are looked at. The timestamp may be the index.
        **options
            As of the class.

        Raises
        ------
        ColumnError
            If a column is missing.
        BadRowsError
            As of `push`.
        """
        live = cls(feature_set, **options)
        known = known_inputs(bars)
        require_inputs(live.feature_set.features, known, bars="the bars of the history")
        missing = [name for name in (*BAR_INPUTS, *live._fill) if name not in known]
        if missing:
            raise ColumnError(
                f"a history needs the column(s) {', '.join(missing)}; it has {', '.join(known)}. "
                "Rename its columns, or use read_bars"
            )
        if TIMESTAMP not in bars.columns:
            bars = bars.assign(timestamp=bars.index)
        if "symbol" in bars.columns:
            recent = bars.groupby("symbol", sort=False, observed=True).tail(live.bars_needed)
        else:
            recent = bars.tail(live.bars_needed)
        for values in zip(*(recent[name] for name in recent.columns), strict=True):
            live.push(dict(zip(recent.columns, values, strict=True)))
        return live

    @property
    def bars_needed(self) -> int:
        """Bars of a segment, from its first on, until there is a matrix."""
        return self.feature_set.lookback + self.feature_set.sequence_length

    @property
    def last_times(self) -> dict[str, int]:
        """Time of each symbol's last bar, ns since 1970 UTC."""
        return {symbol: segment.last_time for symbol, segment in self._symbols.items()}

    def bars_missing(self, symbol: str) -> int:
        """Bars that a symbol's segment still needs until there is a matrix."""
        segment = self._symbols.get(symbol)
        return self.bars_needed if segment is None else segment.missing

    def is_first(self, symbol: str) -> bool:
        """Whether a symbol's last bar begins a segment."""
        segment = self._symbols.get(symbol)
        return segment is not None and segment.is_first

    @property
    def identity(self) -> dict[str, Any]:
        """What a state makes sense with, as JSON types: features, their versions, and rules."""
        chosen = self.feature_set
        pairs = zip(chosen.feature_names, chosen.feature_versions, strict=True)
        return {
            "features": [f"{name}:{version}" for name, version in pairs],
            "sequence_length": chosen.sequence_length,
            "lookback": chosen.lookback,
            "max_gap_ns": self._max_gap_ns,
            "allow_non_positive": self._allow_non_positive,
            "ohlc_tolerance": self._ohlc_tolerance,
            "fill": dict(self._fill),
        }

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return all that later matrices depend on.

        Returns
        -------
        dict of str to dict
            By symbol: last_time (int), last_extra (name → float), bars (name of each input → (k,)
            array), and rows ((r, F) float32); arrays of the caller's own.
        """
        return {symbol: segment.state_dict() for symbol, segment in self._symbols.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up where `state_dict` left off: what comes is as if nothing had happened.

        Raises
        ------
        UsageError
            If the state is none of such a set; nothing has changed then.
        """
        loaded = {}
        try:
            for symbol, kept in state.items():
                loaded[str(symbol)] = LiveSegment(self.feature_set)
                loaded[str(symbol)].load_state_dict(kept)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"not the state of live {self.feature_set.name} features "
                f"({type(error).__name__}: {error}); begin without it"
            ) from None
        self._symbols = loaded

    def named(self, bar: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a bar with the names that are read, as `push` understands it.

        Raises
        ------
        BadRowsError
            If two of its columns have the same name but for case.
        """
        try:
            return named(bar, self._names)
        except UsageError as problem:
            error = BadRowsError(f"{problem}. {_QUARANTINED}")
            error.reason = REASONS[UNPARSEABLE - 1]
            raise error from None

    def push(self, bar: Mapping[str, Any]) -> Float32 | None:
        """Take the next bar of a symbol.

        Parameters
        ----------
        bar : mapping
            timestamp (a text has its year first, a time without a zone is UTC, a whole number is
            ns since 1970 UTC), open, high, low, close, volume, extra columns by their names, and
            symbol where there are several. Case, blanks and ``<>`` around a name don't matter.

        Returns
        -------
        (L, F) float32 or None
            The symbol's window that ends with this bar, an array of the caller's own; None while
            its segment has fewer than `bars_needed` bars.

        Raises
        ------
        BadRowsError
            If a build would quarantine the bar. The next one can come then. Nothing has changed,
            unless the bar comes before the first value of a column that is filled by its last one:
            its time and its other values are remembered, as in a build.
        """
        bar = self.named(bar)
        symbol = symbol_of(bar)
        segment = self._symbols.get(symbol)
        last = NEVER if segment is None else segment.last_time
        values = self._admit(bar, symbol, segment)
        if segment is None:
            segment = self._symbols[symbol] = LiveSegment(self.feature_set)
        elif self._max_gap_ns is not None and values[TIMESTAMP] - last > self._max_gap_ns:
            segment.begin()
        unfilled = [name for name in self._fill if math.isnan(values[name])]
        if unfilled:
            # in a build such a row goes once all others are judged, and its values count till then
            segment.remember(values)
            raise _refusal(bar, symbol, last, MISSING, unfilled[0], _REMEMBERED)
        return segment.take(values)

    def _admit(self, bar: Mapping[str, Any], symbol: str, segment: LiveSegment | None) -> Values:
        """Return what can be read of a bar, by name, if it is one."""
        last = NEVER if segment is None else segment.last_time
        given: list[Any] = [bar.get(name) for name in BAR_INPUTS]
        if not symbol or any(value is None for value in given):
            raise _refusal(bar, symbol, last, MISSING)
        try:
            times = np.array(
                [to_nanoseconds(given[0], TIMESTAMP, day_first=self._day_first)], np.int64
            )
            numbers = [to_number(value) for value in given[1:]]
        except UsageError as error:
            # a build may read it, by evidence that one bar doesn't have
            outcome = f"{error}; {_UNCHANGED}"
            raise _refusal(bar, symbol, last, UNPARSEABLE, outcome=outcome) from None
        except (TypeError, ValueError, OverflowError):
            raise _refusal(bar, symbol, last, UNPARSEABLE) from None
        if times[0] == NEVER:  # what NaT is
            raise _refusal(bar, symbol, last, UNPARSEABLE)
        extra = {name: self._extra_of(bar, symbol, segment, name) for name in self._fill}
        reasons = np.zeros(1, np.uint8)
        o, h, l, c, v = np.array(numbers)[:, None]
        judge_rows(
            times,
            o,
            h,
            l,
            c,
            v,
            np.zeros(1, np.int32),
            self._allow_non_positive,
            self._ohlc_tolerance,
            False,
            np.zeros(1, np.int64),
            np.array([last]),
            np.array([-1]),
            reasons,
            np.empty((2, 1), np.int64),
        )
        if reasons[0] != ACCEPTED:
            raise _refusal(bar, symbol, last, int(reasons[0]))
        h, l = widen(o, h, l, c)
        five = (float(value[0]) for value in (o, h, l, c, v))
        return {
            TIMESTAMP: int(times[0]),
            **dict(zip(PRICES_AND_VOLUME, five, strict=True)),
            **extra,
        }

    def _extra_of(
        self, bar: Mapping[str, Any], symbol: str, segment: LiveSegment | None, name: str
    ) -> float:
        """Return the value of an extra column, or what stands for it; nan where nothing does."""
        given, code = bar.get(name), ACCEPTED
        if isinstance(given, bool):  # as of a Parquet column of flags
            given = float(given)
        try:
            value = to_number("nan" if given is None else given)
        except (TypeError, ValueError, OverflowError):
            code, value = UNPARSEABLE, math.nan
        if math.isfinite(value):
            return value
        if self._fill[name] == "zero":
            return 0.0
        if self._fill[name] == "last":
            return math.nan if segment is None else segment.last_extra.get(name, math.nan)
        if code == ACCEPTED:
            code = MISSING if given is None else NOT_FINITE
        last = NEVER if segment is None else segment.last_time
        raise _refusal(bar, symbol, last, code, name)


def symbol_of(bar: Mapping[str, Any]) -> str:
    """Return the symbol that a bar names, or that of those that name none."""
    return str(bar.get(_SYMBOL, DEFAULT_SYMBOL) or "").strip()


def _refusal(
    bar: Mapping[str, Any],
    symbol: str,
    last: int,
    code: int,
    column: str | None = None,
    outcome: str = _QUARANTINED,
) -> BadRowsError:
    reason = REASONS[code - 1] + (f" ({column})" if column else "")
    after = "it has none yet" if last == NEVER else f"its last one is of {shown(last)}"
    names = BAR_INPUTS if column is None else (*BAR_INPUTS, column)
    values = ", ".join(f"{name} {bar.get(name)!r}" for name in names)
    error = BadRowsError(f"symbol {symbol!r}: {reason}: {values}; {after}. {outcome}")
    error.reason = reason
    return error
