"""`LiveFeatures`: the rows and matrices of a store, bar by bar as bars arrive.

The kernels are those of builds, and read the same bars; so the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from grandbatch.bars.rules import DEFAULT_SYMBOL, REASONS, BarRules
from grandbatch.errors import BadRowsError, ColumnError
from grandbatch.features import FIELDS, FeatureSet, compute_rows, resolve_feature_set
from grandbatch.features.inputs import (
    BAR_INPUTS,
    TIMESTAMP,
    dtype_of,
    extra_inputs_of,
    known_inputs,
    require_inputs,
)
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    MISSING,
    NEVER,
    NOT_FINITE,
    UNPARSEABLE,
    judge_rows,
    widen,
)
from grandbatch.values.arrays import Array, Float32
from grandbatch.values.times import shown, to_duration, to_nanoseconds

if TYPE_CHECKING:
    import pandas as pd

    from grandbatch.values.times import Duration


_Values = dict[str, float]
"""A bar's inputs by name; its timestamp is an int."""

_NO_STARTS = np.empty(0, np.int64)


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
        )
        self._ohlc_tolerance, self._fill = rules.ohlc_tolerance, rules.fill
        self._symbols: dict[str, _Segment] = {}

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

    def push(self, bar: Mapping[str, Any]) -> Float32 | None:
        """Take the next bar of a symbol.

        Parameters
        ----------
        bar : mapping
            timestamp (a time without a zone is UTC, a whole number is ns since 1970 UTC), open,
            high, low, close, volume, extra columns by their names, and symbol where there are
            several.

        Returns
        -------
        (L, F) float32 or None
            The symbol's window that ends with this bar, an array of the caller's own; None while
            its segment has fewer than `bars_needed` bars.

        Raises
        ------
        BadRowsError
            If a build would quarantine the bar. Nothing has changed then: the next one can come.
        """
        symbol = str(bar.get("symbol", DEFAULT_SYMBOL) or "").strip()
        segment = self._symbols.get(symbol)
        last = NEVER if segment is None else segment.last_time
        values = self._admit(bar, symbol, segment)
        if segment is None:
            segment = self._symbols[symbol] = _Segment(self.feature_set)
        elif self._max_gap_ns is not None and values[TIMESTAMP] - last > self._max_gap_ns:
            segment.begin()
        return segment.take(values)

    def _admit(self, bar: Mapping[str, Any], symbol: str, segment: _Segment | None) -> _Values:
        """Return what can be read of a bar, by name, if it is one."""
        last = NEVER if segment is None else segment.last_time
        given: list[Any] = [bar.get(name) for name in BAR_INPUTS]
        if not symbol or any(value is None for value in given):
            raise _refusal(bar, symbol, last, MISSING)
        try:
            times = np.array([to_nanoseconds(given[0], TIMESTAMP)], np.int64)
            numbers = [float(value) for value in given[1:]]
        except (TypeError, ValueError, OverflowError):  # a UsageError is a ValueError
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
        return {TIMESTAMP: int(times[0]), **dict(zip(FIELDS, five, strict=True)), **extra}

    def _extra_of(
        self, bar: Mapping[str, Any], symbol: str, segment: _Segment | None, name: str
    ) -> float:
        """Return the value of an extra column, or what stands for it."""
        given, code = bar.get(name), ACCEPTED
        try:
            value = float("nan" if given is None else given)
        except (TypeError, ValueError, OverflowError):
            code, value = UNPARSEABLE, math.nan
        if math.isfinite(value):
            return value
        if self._fill[name] == "zero":
            return 0.0
        if self._fill[name] == "last" and segment is not None:
            return segment.last_extra[name]
        if code == ACCEPTED:
            is_missing = given is None or self._fill[name] == "last"
            code = MISSING if is_missing else NOT_FINITE
        last = NEVER if segment is None else segment.last_time
        raise _refusal(bar, symbol, last, code, name)


class _Segment:
    """What is kept of a symbol: the end of its segment."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self._set = feature_set
        self.last_time = NEVER
        self.last_extra: _Values = {}
        self._bars = {
            n: _Ring(feature_set.lookback + 1, (), dtype_of(n)) for n in feature_set.inputs
        }
        self._rows = _Ring(feature_set.sequence_length, (feature_set.n_features,), np.float32)

    def begin(self) -> None:
        """Forget all but the last bar's time and extra values: what comes starts a new segment."""
        for ring in (*self._bars.values(), self._rows):
            ring.clear()

    def take(self, values: _Values) -> Float32 | None:
        """Add a bar; return the window that ends with it, if there is one."""
        for name, ring in self._bars.items():
            ring.append(values[name])
        try:
            columns = {name: ring.last() for name, ring in self._bars.items()}
            if all(ring.is_full for ring in self._bars.values()):
                self._rows.append(compute_rows(self._set, columns, _NO_STARTS, self._set.lookback))
        except BaseException:
            # a kernel of the user's own may fail: the bar then never came
            for ring in self._bars.values():
                ring.drop()
            raise
        self.last_time = int(values[TIMESTAMP])
        self.last_extra = {name: value for name, value in values.items() if name not in BAR_INPUTS}
        return self._rows.last().copy() if self._rows.is_full else None


class _Ring:
    """The last `keep` items that were appended, always contiguous.

    The array has twice the room, so that they are moved once in about `keep` times.
    """

    def __init__(self, keep: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._keep, self._stop = keep, 0
        self._data = np.empty((2 * keep, *shape), dtype)

    @property
    def is_full(self) -> bool:
        return self._stop >= self._keep

    def append(self, item: Any) -> None:
        if self._stop == len(self._data):
            held = self._keep - 1
            self._data[:held] = self._data[self._stop - held :]
            self._stop = held
        self._data[self._stop] = item
        self._stop += 1

    def drop(self) -> None:
        """Take the last append back."""
        self._stop -= 1

    def clear(self) -> None:
        self._stop = 0

    def last(self) -> Array:
        return self._data[max(0, self._stop - self._keep) : self._stop]


def _refusal(
    bar: Mapping[str, Any], symbol: str, last: int, code: int, column: str | None = None
) -> BadRowsError:
    reason = REASONS[code - 1] + (f" ({column})" if column else "")
    after = "it has none yet" if last == NEVER else f"its last one is of {shown(last)}"
    names = BAR_INPUTS if column is None else (*BAR_INPUTS, column)
    values = ", ".join(f"{name} {bar.get(name)!r}" for name in names)
    return BadRowsError(
        f"symbol {symbol!r}: {reason}: {values}; {after}. A build would quarantine this bar; "
        "nothing has changed: mend it, or leave it out and push the next one"
    )
