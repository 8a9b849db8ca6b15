"""Which window of coarser bars was known when a window of finer ones was.

A window is known at its decision time: when its last bar is complete. That is a bar's duration
after its time where times are those of openings, and its time where they are those of closings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Int32, Int64
from grandbatch.values.times import written_duration

_SCANNED_WINDOWS = 2**18

TimesOfWindows = Callable[[Int64, Int64], Int64]
"""Gives the end times of windows of a store, one after the other, (n,) int64.

They are those of its ranges `[first, stop)`, (m,) int64 each, rising, none of which leaves a chunk.
"""


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


def distinct(values: Int64) -> tuple[Int64, Int64]:
    """Return the distinct values, rising, and of each element its place among them.

    As `numpy.unique`, which takes longer for the few values of a chunk, rising in most cases.
    """
    steps = values[1:] - values[:-1]
    if len(steps) and steps.min() < 0:
        found, which = np.unique(values, return_inverse=True)
        return found, which
    new = np.empty(len(values), np.bool_)
    new[:1], new[1:] = True, steps
    return values[new], new.cumsum() - 1


def grouped(keys: Int64 | Int32) -> list[tuple[int, slice | Int64]]:
    """Return each distinct key, and the places that have it: all of them in most cases."""
    if len(keys) and keys[0] == keys[-1] and (keys == keys[0]).all():
        return [(int(keys[0]), slice(None))]
    order = np.argsort(keys, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return [(int(keys[part[0]]), part) for part in parts if len(part)]


class _Runs(NamedTuple):
    """Runs of one symbol's consecutive windows in one chunk each, by time."""

    time: Int64
    """Of the first window's last bar, rising."""
    first: Int64
    stop: Int64


def _runs_of(store: MatrixStore) -> dict[int, _Runs]:
    """Find each symbol's runs, by its number."""
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
    first, symbol, time = np.concatenate(found).T
    stop = np.append(first[1:], len(store))
    return {code: _Runs(time[mine], first[mine], stop[mine]) for code, mine in grouped(symbol)}


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
    def identity(self) -> dict[str, Any]:
        """What decides which windows go together, as JSON types.

        And from which finer bars the coarser store's windows can be made again.
        """
        return {
            "content_id": self.slow.content_id,
            "max_age": self.max_age,
            "delay": self.fast_delay,
            "context_delay": self.slow_delay,
            "feature_set": self.slow.attrs["feature_set"],
            "sequence_length": self.slow.sequence_length,
            "max_gap_ns": self.slow.attrs["max_gap_ns"],
            "resample": self.slow.attrs.get("resample"),
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

    def stored_times(self, first: Int64, stop: Int64) -> Int64:
        """Return end times of the coarser store's windows, as of `TimesOfWindows`."""
        apart = np.flatnonzero(first[1:] != stop[:-1]) + 1
        begin, end = first[np.append(0, apart)], stop[np.append(apart, len(stop)) - 1]
        times = [self.slow.end_time[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        return np.concatenate(times)

    @cached_property
    def _runs(self) -> dict[int, _Runs]:
        return _runs_of(self.slow)

    def look_up(self, symbol: Int32, end_time: Int64, times_of: TimesOfWindows) -> Int64:
        """Find the contexts of windows.

        Parameters
        ----------
        symbol : (n,) int32
        end_time : (n,) int64
            Of the finer windows, as in their store.
        times_of : callable
            As of `TimesOfWindows`, of the coarser store.

        Returns
        -------
        (n,) int64
            Their numbers in the coarser store; -1 where there is none.
        """
        window = np.full(len(symbol), -1, np.int64)
        latest = end_time + (self.fast_delay - self.slow_delay)
        for code, mine in grouped(symbol):
            runs = self._runs.get(int(self._symbols[code]))
            if runs is not None:
                window[mine] = self._last_of(runs, latest[mine], times_of)
        return window

    def _last_of(self, runs: _Runs, latest: Int64, times_of: TimesOfWindows) -> Int64:
        """Return the last window of some runs at or before each time; -1 where there is none."""
        run = np.searchsorted(runs.time, latest, side="right") - 1
        asked = np.flatnonzero(run >= 0)
        if not len(asked):
            return run
        some, which = distinct(run[asked])
        first, stop = runs.first[some], runs.stop[some]
        times = times_of(first, stop)
        at = np.searchsorted(times, latest[asked], side="right") - 1
        size = stop - first
        found = at + (first - (size.cumsum() - size))[which]
        if self.max_age is not None:
            found[latest[asked] - times[at] > self.max_age] = -1
        run[asked] = found
        return run
