"""`LiveFeatures`: the rows and matrices of a store, bar by bar as bars arrive.

The kernels are those of builds, and read the same bars; so the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from grandbatch.bars.rules import DEFAULT_SYMBOL, BarRules
from grandbatch.errors import ColumnError, UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.features.inputs import BAR_INPUTS, extra_inputs_of, known_inputs, require_inputs
from grandbatch.kernels.bars.bar_rules import MISSING
from grandbatch.live.coarser import LiveWindow
from grandbatch.live.contexts import LiveContext, LiveContexts, checked_contexts, sets_of
from grandbatch.live.judging import REMEMBERED, SYMBOL_KEY, LiveJudge, refusal
from grandbatch.live.reading import NamedBar, alike
from grandbatch.live.segment import LiveSegment, identity_of
from grandbatch.values.arrays import Float32
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import to_duration

if TYPE_CHECKING:
    import pandas as pd

    from grandbatch.values.times import Duration


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
    like : mapping, optional
        The attributes of a store (`MatrixStore.attrs`): bars are read as its were, as far as it
        says, unless one of the following is given: order of day and month, form and zone of times,
        scale of prices, extra columns and what fills them, which bars are taken.
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
    timestamp_format, timezone : str, optional
        As of `BarRules`; a text that begins with its year is read whatever the form.
    time_numbers : str, optional
        What timestamps that are numbers mean: s, ms, us or ns since 1970, date (20240131), HHMM,
        HHMMSS or HHMMSSmmm behind a date.
    price_scale : float, optional
        As of `BarRules`: what prices are multiplied by.
    columns : mapping of str to str, optional
        As of `BarRules`: column name → what it is called in the bars that come.
    no_volume : bool
        As of `BarRules`: there is no volume; it is 0.
    context : mapping of str to (feature set, length) or LiveContext, optional
        Windows of coarser bars, gathered from those that arrive, to come with each window as they
        do in a loader with `context=`: ``{"strategic": ("strategic", "30min")}``.
    max_age : str or timedelta, optional
        As of `SlidingWindowDataLoader`: there is no window where a context is older.
    bar_time : {"open", "close"}
        As of `BarRules`: what the timestamps of bars are. It decides when a context is known.
    bar_duration : str or timedelta, optional
        As of `BarRules`: how long a bar lasts. Unless it is given it is the commonest distance of
        neighbours so far, which in a feed's first bars may differ from that of a whole input.

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

    With coarser bars, each window that one was known with:

    >>> live = gb.LiveFeatures("tactical", context={"quarters": ("strategic", "15min")})
    >>> for minute in range(2_000):
    ...     pair = live.pair({"timestamp": start + minute * 60_000_000_000, **bar})
    >>> pair.matrix.shape, pair.context["quarters"].matrix.shape
    ((60, 7), (48, 13))
    """

    def __init__(
        self,
        feature_set: str | FeatureSet,
        *,
        max_gap: Duration | None = None,
        like: Mapping[str, Any] | None = None,
        allow_non_positive: bool | None = None,
        ohlc_tolerance: float | None = None,
        extra: Sequence[str] = (),
        fill: Mapping[str, Any] | None = None,
        dayfirst: bool | None = None,
        timestamp_format: str | None = None,
        timezone: str | None = None,
        time_numbers: str | None = None,
        price_scale: float | None = None,
        columns: Mapping[str, str] | None = None,
        no_volume: bool | None = None,
        context: Mapping[str, LiveContext | tuple[str | FeatureSet, Duration]] | None = None,
        max_age: Duration | None = None,
        bar_time: Literal["open", "close"] = "open",
        bar_duration: Duration | None = None,
    ) -> None:
        self.feature_set = resolve_feature_set(feature_set)
        self._max_gap_ns = (
            None if max_gap is None else to_duration(max_gap, "max_gap", positive=True)
        )
        sets = [self.feature_set, *sets_of(checked_contexts(context))]
        read = [name for one in sets for name in extra_inputs_of(one.features)]
        said = {
            "allow_non_positive": allow_non_positive,
            "ohlc_tolerance": ohlc_tolerance,
            "dayfirst": dayfirst,
            "timestamp_format": timestamp_format,
            "timezone": timezone,
            "time_numbers": time_numbers,
            "price_scale": price_scale,
            "no_volume": no_volume,
        }
        known = {} if like is None else alike(like)
        asked = known | {name: value for name, value in said.items() if value is not None}
        numbers = asked.pop("time_numbers", None)
        asked["extra"] = tuple(dict.fromkeys((*read, *asked.pop("extra", ()), *extra)))
        asked["fill"] = {**asked.pop("fill", {}), **(fill or {})}
        rules = BarRules(
            **asked, columns=columns or {}, bar_time=bar_time, bar_duration=bar_duration
        )
        may_be = dict((like or {}).get("rules", {}).get("columns", {}))
        if rules.no_volume:
            may_be.pop("volume", None)
        self.read_as = {name: value for name, value in known.items() if said.get(name) is None}
        """By which rules bars are read as those of `like` were."""
        self.time_numbers = numbers
        self._judge = LiveJudge(rules, numbers, may_be)
        self._contexts = LiveContexts(context, rules, max_age)
        self._symbols: dict[str, LiveSegment] = {}

    @classmethod
    def from_bars(cls, feature_set: str | FeatureSet, bars: pd.DataFrame, **options: Any) -> Self:
        """Make one that has seen a history, so that the next bar gives a matrix.

        Parameters
        ----------
        feature_set : str or FeatureSet
        bars : pandas DataFrame
            Each symbol's by rising time, as `read_bars(...).compute()` gives them. No more than
            the last `bars_needed` of each symbol are looked at; with contexts, all of them. The
            timestamp may be the index.
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
        missing = [name for name in (*BAR_INPUTS, *live._judge.fill) if name not in known]
        if missing:
            raise ColumnError(
                f"a history needs the column(s) {', '.join(missing)}; it has {', '.join(known)}. "
                "Rename its columns, or use read_bars"
            )
        if TIMESTAMP not in bars.columns:
            bars = bars.assign(timestamp=bars.index)
        if live._contexts:
            recent = bars
        elif SYMBOL_KEY in bars.columns:
            recent = bars.groupby(SYMBOL_KEY, sort=False, observed=True).tail(live.bars_needed)
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

    def contexts_missing(self, symbol: str) -> dict[str, int]:
        """Whole coarser bars that each context of a symbol still needs until it has a window."""
        return self._contexts.missing(symbol)

    def is_first(self, symbol: str) -> bool:
        """Whether a symbol's last bar begins a segment."""
        segment = self._symbols.get(symbol)
        return segment is not None and segment.is_first

    @property
    def identity(self) -> dict[str, Any]:
        """What a state makes sense with, as JSON types: features, their versions, and rules."""
        return {
            **identity_of(self.feature_set, self._max_gap_ns),
            **self._judge.identity,
            **self._contexts.identity,
        }

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return all that later matrices depend on.

        Returns
        -------
        dict of str to dict
            By symbol: last_time (int), last_extra (name → float), bars (name of each input → (k,)
            array), and rows ((r, F) float32); with contexts also what each needs, and how far
            apart bars were. Arrays are the caller's own.
        """
        return {
            symbol: {**segment.state_dict(), **self._contexts.state_of(symbol)}
            for symbol, segment in self._symbols.items()
        }

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
                loaded[str(symbol)] = LiveSegment(self.feature_set, self._max_gap_ns)
                loaded[str(symbol)].load_state_dict(kept)
            contexts = self._contexts.loaded(state)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"not the state of live {self.feature_set.name} features "
                f"({type(error).__name__}: {error}); begin without it"
            ) from None
        self._symbols, self._contexts = loaded, contexts

    def named(self, bar: Mapping[str, Any]) -> NamedBar:
        """Return a bar with the names that are read, as `push` understands it: one of its own.

        Raises
        ------
        BadRowsError
            If two of its columns have one name.
        """
        return self._judge.named(bar)

    def push(self, bar: Mapping[str, Any]) -> Float32 | None:
        """Take the next bar of a symbol.

        Parameters
        ----------
        bar : mapping
            timestamp (a text has its year first, a time without a zone is of `timezone`, a whole
            number is ns since 1970 UTC, or what `time_numbers` says), open, high, low, close,
            volume, extra columns by their names, and
            symbol where there are several; or under the names that a file's header may have
            (``Open``, ``o``, ``open_time``; ``date`` and ``time``).

        Returns
        -------
        (L, F) float32 or None
            The symbol's window that ends with this bar, an array of the caller's own; None while
            its segment has fewer than `bars_needed` bars, or a context has no window for it.

        Raises
        ------
        BadRowsError
            If a build would quarantine the bar. The next one can come then. Nothing has changed,
            unless the bar comes before the first value of a column that is filled by its last one:
            its time and its other values are remembered, as in a build.
        """
        window = self.pair(bar)
        return None if window is None else window.matrix

    def pair(self, bar: Mapping[str, Any]) -> LiveWindow | None:
        """Take the next bar of a symbol, as `push`; return its window with those of its contexts.

        Returns
        -------
        LiveWindow or None
            What a loader over the stores of the same bars has of the window: `matrix`, `end_time`,
            and `context[name]`, with the same two of it. None as of `push`.

        Raises
        ------
        BadRowsError
            As of `push`.
        UsageError
            If bars turn out to come further apart than a context's; nothing has changed then.
        """
        bar = self.named(bar)
        symbol = symbol_of(bar)
        segment = self._symbols.get(symbol) or LiveSegment(self.feature_set, self._max_gap_ns)
        last = segment.last_time
        values = self._judge.admit(bar, symbol, last, segment.last_extra)
        unfilled = [name for name in self._judge.fill if math.isnan(values[name])]
        if unfilled:
            # in a build such a row goes once all others are judged, and its values count till then
            segment.remember(values)
            self._symbols[symbol] = segment
            raise refusal(bar, symbol, last, MISSING, unfilled[0], REMEMBERED)
        joined = self._contexts.joined(symbol, values)
        contexts = self._contexts.windows(joined)
        matrix = segment.take(values)
        self._symbols[symbol] = segment
        self._contexts.take(symbol, joined)
        if matrix is None or contexts is None:
            return None
        return LiveWindow(matrix, int(values[TIMESTAMP]), contexts)


def symbol_of(bar: Mapping[str, Any]) -> str:
    """Return the symbol that a bar names, or that of those that name none."""
    return str(bar.get(SYMBOL_KEY, DEFAULT_SYMBOL) or "").strip()
