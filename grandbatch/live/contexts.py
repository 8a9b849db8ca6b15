"""The coarser timeframes of live bars: which there are, and where all symbols stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from grandbatch.bars.rules import BarRules
from grandbatch.errors import UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.live.coarser import Coarser, CoarserBars, LiveWindow
from grandbatch.live.durations import BarDuration
from grandbatch.live.segment import BarValues
from grandbatch.values.columns import TIMESTAMP
from grandbatch.values.times import to_duration, written_duration

if TYPE_CHECKING:
    from grandbatch.values.times import Duration

_CONTEXT = "context"
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class LiveContext:
    """A context of live bars: what was built with ``--resample`` as the context's store.

    Examples
    --------
    >>> import grandbatch as gb
    >>> quarters = gb.LiveContext("strategic", "15min", timezone="America/New_York")
    >>> live = gb.LiveFeatures("tactical", context={"quarters": quarters})
    """

    feature_set: str | FeatureSet
    """A set, or its name."""
    resample: Duration
    """Length of the coarser bars, as of `BarRules`: ``30min``."""
    resample_offset: Duration | None = None
    """As of `BarRules`: how long after midnight a day's first interval begins."""
    timezone: str = "UTC"
    """As of `BarRules`: whose midnight."""
    aggregate: Mapping[str, Any] = field(default_factory=dict)
    """As of `BarRules`: extra column → what a coarser bar has of it, "last" unless named."""
    max_gap: Duration | None = None
    """As of `build_store`: a larger distance of coarser bars starts a new segment."""

    @classmethod
    def of_store(
        cls, feature_set: str | FeatureSet, timeframe: Mapping[str, Any], max_gap_ns: int | None
    ) -> Self:
        """Return what a store was built with, by its attributes ``resample`` and ``max_gap_ns``."""
        ahead = int(timeframe["ahead_ns"]) // _MINUTE_NS
        hours, minutes = divmod(abs(ahead), 60)
        clock = f"{'-' if ahead < 0 else '+'}{hours:02}:{minutes:02}" if ahead else ""
        return cls(
            feature_set,
            int(timeframe["length_ns"]),
            int(timeframe["shift_ns"]) or None,
            timeframe["zone"] + clock,
            dict(timeframe["aggregates"]),
            max_gap_ns,
        )


@dataclass(frozen=True)
class Joined:
    """What a bar changes, before it counts: where its symbol stands in each context."""

    time: int
    delay: int
    """How long after its time the bar is known, in ns."""
    bars: Mapping[str, CoarserBars]

    @property
    def decision(self) -> int:
        """When the bar is known."""
        return self.time + self.delay


class LiveContexts:
    """Where symbols stand in coarser timeframes.

    Parameters
    ----------
    given : mapping of str to LiveContext or (feature set, length), optional
    rules : BarRules
        With what says when a bar is known: `bar_time` and `bar_duration`.
    max_age : str or timedelta, optional

    Raises
    ------
    UsageError
        If a context makes no sense, or there is none and something is said of it.
    """

    def __init__(
        self, given: Mapping[str, Any] | None, rules: BarRules, max_age: Duration | None
    ) -> None:
        contexts = checked_contexts(given)
        said = {
            "max_age": max_age,
            "bar_duration": rules.bar_duration,
            "bar_time": None if rules.bar_time == "open" else rules.bar_time,
        }
        for name, value in said.items():
            if value is not None and not contexts:
                raise UsageError(f"{name} is of use with a context only; give context= too")
        self._max_age = None if max_age is None else to_duration(max_age, "max_age")
        self._delay = BarDuration(rules.bar_time, rules.bar_duration_ns)
        self._contexts = {name: _made(one, rules) for name, one in contexts.items()}
        for name in self._contexts:
            self._check_length(name, rules.bar_duration_ns or 0)
        self._symbols: dict[str, Mapping[str, CoarserBars]] = {}

    def __bool__(self) -> bool:
        return bool(self._contexts)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which windows come together, as JSON types; nothing without contexts."""
        if not self:
            return {}
        return {
            _CONTEXT: {name: one.identity for name, one in self._contexts.items()},
            "max_age": self._max_age,
            **self._delay.identity,
        }

    def missing(self, symbol: str) -> dict[str, int]:
        """Return how many coarser bars each context still needs until it has a window."""
        found = {}
        for name, one in self._contexts.items():
            here = self._symbols.get(symbol, {}).get(name, CoarserBars.none_yet(one))
            found[name] = 0 if here.windows or here.ahead else here.closed.missing
        return found

    def joined(self, symbol: str, values: BarValues) -> Joined:
        """Return what a bar changes. Nothing has changed yet."""
        time = int(values[TIMESTAMP])
        delay = self._delay.with_bar(symbol, time) if self else 0
        before = self._symbols.get(symbol, {})
        joined = {
            name: before.get(name, CoarserBars.none_yet(one)).joined(values, time + delay)
            for name, one in self._contexts.items()
        }
        return Joined(time, delay, joined)

    def windows(self, joined: Joined) -> dict[str, LiveWindow] | None:
        """Return the windows that come with a bar; None where a context has none.

        Raises
        ------
        UsageError
            If the finer bars turn out to last longer than coarser ones.
        """
        found = {}
        for name, bars in joined.bars.items():
            window = bars.window(joined.decision, self._max_age)
            if window is None:
                return None
            self._check_length(name, joined.delay)
            found[name] = replace(window, matrix=window.matrix.copy())
        return found

    def take(self, symbol: str, joined: Joined) -> None:
        """Have a bar count."""
        if self:
            self._delay.count(symbol, joined.time)
            self._symbols[symbol] = joined.bars

    def state_of(self, symbol: str) -> dict[str, Any]:
        """Return all that a symbol's later contexts depend on; nothing without contexts."""
        if not self:
            return {}
        bars = self._symbols.get(symbol, {})
        return {
            _CONTEXT: {name: one.state_dict() for name, one in bars.items()},
            "duration": self._delay.state_of(symbol),
        }

    def loaded(self, states: Mapping[str, Mapping[str, Any]]) -> LiveContexts:
        """Return contexts like these, where `state_of` left off for each symbol.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a state is none of such contexts.
        """
        new = copy(self)
        new._symbols, new._delay = {}, self._delay.anew()
        for symbol, state in states.items():
            kept = state.get(_CONTEXT)
            if (set(kept or self._contexts) if self else kept) != (set(self._contexts) or None):
                raise ValueError(f"it has the contexts {sorted(kept or ())}")
            if self:
                new._symbols[symbol] = {
                    name: CoarserBars.of_state(one, kept[name])
                    for name, one in self._contexts.items()
                    if kept
                }
                new._delay.load(symbol, state["duration"])
        return new

    def _check_length(self, name: str, duration_ns: int) -> None:
        length = self._contexts[name].timeframe.length_ns
        if duration_ns > length:
            raise UsageError(
                f"context {name!r}: bars of {written_duration(length)} are made of finer ones, "
                f"and those that arrive last {written_duration(duration_ns)}; choose a longer "
                "timeframe, or say how long they last (bar_duration=)"
            )


def checked_contexts(given: Mapping[str, Any] | None) -> dict[str, LiveContext]:
    """Return contexts by name, as `LiveFeatures` is given them.

    Raises
    ------
    UsageError
        If they are something else.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(
            'context must be contexts by name, such as {"strategic": ("strategic", "30min")}, '
            f"got {given!r:.200}"
        )
    found = {}
    for name, one in (given or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(
                f"a context needs a name of letters, digits and _, such as strategic, got {name!r}"
            )
        is_pair = isinstance(one, tuple) and len(one) == 2
        if not is_pair and not isinstance(one, LiveContext):
            raise UsageError(
                f'context {name!r} must be a feature set and a length, such as ("strategic", '
                f'"30min"), or a LiveContext, got {one!r:.200}'
            )
        found[name] = LiveContext(*one) if is_pair else one
    return found


def sets_of(contexts: Mapping[str, LiveContext]) -> list[FeatureSet]:
    """Return the contexts' feature sets."""
    return [resolve_feature_set(one.feature_set) for one in contexts.values()]


def _made(context: LiveContext, rules: BarRules) -> Coarser:
    timeframe = replace(
        rules,
        resample=context.resample,
        resample_offset=context.resample_offset,
        timezone=context.timezone,
        aggregate=context.aggregate,
    ).timeframe
    if timeframe is None:
        raise UsageError("resample must be the length of a context's bars, such as 30min, got None")
    gap = (
        None if context.max_gap is None else to_duration(context.max_gap, "max_gap", positive=True)
    )
    return Coarser(resolve_feature_set(context.feature_set), timeframe, gap)
