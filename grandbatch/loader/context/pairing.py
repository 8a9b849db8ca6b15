"""Which window of coarser bars was known when a window of finer ones was.

A window is known at its decision time: when its last bar is complete. That is a bar's duration
after its time where times are those of openings, and its time where they are those of closings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Int32, Int64
from grandbatch.values.times import written_duration

_SCANNED_WINDOWS = 2**18

TimesOfWindows = Callable[[Int64], Int64]
"""Gives the end times of windows of a store, (n,) int64 both."""


def decision_delay(store: MatrixStore) -> int:
    """Return how long after the time of its last bar a window of a store is known, in ns.

    Raises
    ------
    UsageError
        If the store doesn't tell how long its bars last.
    """
    duration = store.attrs.get("bar_duration") or 0
    if not duration:
        raise UsageError(
            f"{store.path} doesn't say how long its bars last, so not when they are known; build "
            "it again and say so, such as --bar-duration 5min"
        )
    return int(duration) if store.attrs["bar_time"] == "open" else 0


class _Latest:
    """Finds the last element of a group at or before a time.

    Parameters
    ----------
    group, times : (n,) int64
        Sorted by group, then time.
    """

    def __init__(self, group: Int64, times: Int64):
        self._group = group
        self._levels = np.unique(times)
        self._keys = self._key(group, times)

    def _key(self, group: Int64, times: Int64) -> Int64:
        levels = np.searchsorted(self._levels, times, side="right")
        key: Int64 = group * (len(self._levels) + 1) + levels
        return key

    def find(self, group: Int64, times: Int64) -> Int64:
        """Return the elements' places, (m,) int64; -1 where there is none."""
        at = np.searchsorted(self._keys, self._key(group, times), side="right") - 1
        return np.where((at >= 0) & (self._group[at] == group), at, -1)


def distinct(values: Int64) -> tuple[Int64, Int64]:
    """Return the distinct values, rising, and of each element its place among them.

    As `numpy.unique`, which takes longer for the few values of a chunk, rising in most cases.
    """
    steps = np.diff(values)
    if (steps < 0).any():
        found, which = np.unique(values, return_inverse=True)
        return found, which
    new = np.append(True, steps > 0)
    return values[new], np.cumsum(new) - 1


@dataclass(frozen=True, eq=False)
class _Runs:
    """Consecutive windows of one chunk and one symbol, sorted by symbol, then time."""

    symbol: Int64
    first: Int64
    stop: Int64
    latest: _Latest

    @classmethod
    def of(cls, store: MatrixStore) -> _Runs:
        size = store.spec.label_chunk_windows
        step = max(1, _SCANNED_WINDOWS // size) * size
        found = [np.empty((0, 3), np.int64)]
        for begin in range(0, len(store), step):
            end_time = store.end_time[begin : begin + step]
            symbol = store.symbol[begin : begin + step]
            starts = np.arange(begin, begin + len(symbol)) % store.chunk_windows == 0
            starts[0] = True
            starts[1:] |= np.diff(symbol) != 0
            at = np.flatnonzero(starts)
            found.append(np.stack([begin + at, symbol[at], end_time[at]], axis=1))
        first, symbols, times = np.concatenate(found).T
        stop = np.append(first[1:], len(store))
        order = np.argsort(symbols, kind="stable")
        symbols = symbols[order]
        return cls(symbols, first[order], stop[order], _Latest(symbols, times[order]))


class Pairing:
    """Looks up the windows of coarser bars that belong to windows of finer ones.

    To a window belongs the last one of the same symbol whose decision time is not after its own.

    Parameters
    ----------
    name : str
        Of the context.
    fast, slow : MatrixStore
    max_age : int, optional
        ns from the decision time of a context to that of the window it belongs to, at most.

    Raises
    ------
    UsageError
        If the stores don't go together.
    """

    def __init__(self, name: str, fast: MatrixStore, slow: MatrixStore, max_age: int | None):
        self.name, self.fast, self.slow, self.max_age = name, fast, slow, max_age
        self.fast_delay, self.slow_delay = decision_delay(fast), decision_delay(slow)
        durations = [store.attrs["bar_duration"] for store in (fast, slow)]
        if durations[0] > durations[1]:
            fast_bar, slow_bar = map(written_duration, durations)
            raise UsageError(
                f"context {name!r}: bars of {slow.path} last {slow_bar}, those of {fast.path} "
                f"{fast_bar}; give the store of the coarser bars as the context"
            )
        numbers = {symbol: number for number, symbol in enumerate(slow.symbols)}
        self._symbols = np.array([numbers.get(symbol, -1) for symbol in fast.symbols], np.int64)
        if (self._symbols < 0).all():
            raise UsageError(
                f"context {name!r}: {slow.path} has no symbol of {fast.path}; symbols go together "
                f"by their names, such as {fast.symbols[0]} there and {slow.symbols[0]} here"
            )

    @property
    def identity(self) -> dict[str, str | int | None]:
        """What decides which windows go together, as JSON types."""
        return {
            "content_id": self.slow.content_id,
            "max_age": self.max_age,
            "delay": self.fast_delay,
            "context_delay": self.slow_delay,
        }

    def first_shared(self, time: Int64) -> Int64:
        """Return the first time a bar of the finer store may have that reaches into coarser bars.

        Parameters
        ----------
        time : (n,) int64
            Of coarser bars. One whose time is that of its closing began a duration before.

        Returns
        -------
        (n,) int64
        """
        began = time - (self.slow.attrs["bar_duration"] - self.slow_delay)
        first: Int64 = began - self.fast_delay + 1
        return first

    @cached_property
    def _runs(self) -> _Runs:
        return _Runs.of(self.slow)

    def look_up(
        self, symbol: Int32, end_time: Int64, times_of: TimesOfWindows
    ) -> tuple[Int64, Int64]:
        """Find the contexts of windows.

        Parameters
        ----------
        symbol : (n,) int32
        end_time : (n,) int64
            Of the finer windows, as in their store.
        times_of : callable
            Gives end times of windows of the coarser store.

        Returns
        -------
        window : (n,) int64
            Its number in the coarser store; -1 where there is none.
        end_time : (n,) int64
            Its last bar's time, as in its store; 0 where there is none.
        """
        window, ends = np.full(len(symbol), -1, np.int64), np.zeros(len(symbol), np.int64)
        latest = end_time + (self.fast_delay - self.slow_delay)
        run = self._runs.latest.find(self._symbols[symbol], latest)
        asked = np.flatnonzero(run >= 0)
        if not len(asked):
            return window, ends
        some, which = distinct(run[asked])
        first, size = self._runs.first[some], self._runs.stop[some] - self._runs.first[some]
        near = np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)
        times = times_of(near)
        if self._runs.symbol[some[0]] == self._runs.symbol[some[-1]]:
            # runs are sorted by symbol: of one symbol the times rise through all of them
            at = np.searchsorted(times, latest[asked], side="right") - 1
        else:
            group = np.repeat(np.arange(len(some)), size)
            at = _Latest(group, times).find(which, latest[asked])
        if self.max_age is not None:
            recent = latest[asked] - times[at] <= self.max_age
            asked, at = asked[recent], at[recent]
        window[asked], ends[asked] = near[at], times[at]
        return window, ends
