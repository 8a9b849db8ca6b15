"""`LiveFeatures`: the rows and matrices of a store, bar by bar as bars arrive.

The kernels are those of builds, and read the same bars; so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from grandbatch.bars.rules import DEFAULT_SYMBOL, REASONS, BarRules
from grandbatch.errors import BadRowsError, ColumnError
from grandbatch.features import FIELDS, FeatureSet, compute_rows, resolve_feature_set
from grandbatch.kernels.bars.bar_rules import (
    ACCEPTED,
    MISSING,
    NEVER,
    UNPARSEABLE,
    judge_rows,
    widen,
)
from grandbatch.values.arrays import Array, Float32
from grandbatch.values.times import shown, to_duration, to_nanoseconds

if TYPE_CHECKING:
    import pandas as pd

    from grandbatch.values.times import Duration


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

    Raises
    ------
    UsageError
        If the feature set or `max_gap` makes no sense.

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
    ) -> None:
        self.feature_set = resolve_feature_set(feature_set)
        self._max_gap_ns = (
            None if max_gap is None else to_duration(max_gap, "max_gap", positive=True)
        )
        self._allow_non_positive = allow_non_positive
        self._ohlc_tolerance = BarRules(ohlc_tolerance=ohlc_tolerance).ohlc_tolerance
        self._symbols: dict[str, _Segment] = {}

    @classmethod
    def from_bars(cls, feature_set: str | FeatureSet, bars: pd.DataFrame, **options: Any) -> Self:
        """Make one that has seen a history, so that the next bar gives a matrix.

        Parameters
        ----------
        feature_set : str or FeatureSet
        bars : pandas DataFrame
            Each symbol's by rising time, as `read_bars(...).compute()` gives them. No more than
            the last `bars_needed` of each symbol are looked at.
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
        missing = [name for name in ("timestamp", *FIELDS) if name not in bars.columns]
        if missing:
            raise ColumnError(
                f"a history needs the column(s) {', '.join(missing)}; it has "
                f"{', '.join(map(str, bars.columns))}. Rename its columns, or use read_bars"
            )
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
            high, low, close, volume, and symbol where there are several.

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
        time, numbers = self._admit(bar, symbol, last)
        if segment is None:
            segment = self._symbols[symbol] = _Segment(self.feature_set)
        elif self._max_gap_ns is not None and time - last > self._max_gap_ns:
            segment.begin()
        return segment.take(time, numbers)

    def _admit(self, bar: Mapping[str, Any], symbol: str, last: int) -> tuple[int, list[float]]:
        """Return a bar's time and numbers, in the order of `FIELDS`, if it is one."""
        values: list[Any] = [bar.get(name) for name in ("timestamp", *FIELDS)]
        if not symbol or any(value is None for value in values):
            raise _refusal(bar, symbol, last, MISSING)
        try:
            times = np.array([to_nanoseconds(values[0], "timestamp")], np.int64)
            numbers = [float(value) for value in values[1:]]
        except (TypeError, ValueError, OverflowError):  # a UsageError is a ValueError
            raise _refusal(bar, symbol, last, UNPARSEABLE) from None
        if times[0] == NEVER:  # what NaT is
            raise _refusal(bar, symbol, last, UNPARSEABLE)
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
        return int(times[0]), [float(value[0]) for value in (o, h, l, c, v)]


class _Segment:
    """What is kept of a symbol: the end of its segment."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self._set = feature_set
        self.last_time = NEVER
        self._bars = {
            n: _Ring(feature_set.lookback + 1, (), np.float64) for n in feature_set.inputs
        }
        self._rows = _Ring(feature_set.sequence_length, (feature_set.n_features,), np.float32)

    def begin(self) -> None:
        """Forget all but the time: what comes starts a new segment."""
        for ring in (*self._bars.values(), self._rows):
            ring.clear()

    def take(self, time: int, numbers: list[float]) -> Float32 | None:
        """Add a bar; return the window that ends with it, if there is one."""
        values = dict(zip(FIELDS, numbers, strict=True))
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
        self.last_time = time
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


def _refusal(bar: Mapping[str, Any], symbol: str, last: int, code: int) -> BadRowsError:
    reason = REASONS[code - 1]
    after = "it has none yet" if last == NEVER else f"its last one is of {shown(last)}"
    values = ", ".join(f"{name} {bar.get(name)!r}" for name in ("timestamp", *FIELDS))
    return BadRowsError(
        f"symbol {symbol!r}: {reason}: {values}; {after}. A build would quarantine this bar; "
        "nothing has changed: mend it, or leave it out and push the next one"
    )
