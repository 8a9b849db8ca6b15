"""How long the bars of a feed last: as named, or the commonest distance, as a build takes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grandbatch.bars.cache.digests import GROUP_ROWS


@dataclass
class _Symbol:
    """The distances of a symbol's first bars."""

    last_time: int
    counts: Counter[int] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        """Whether a build looks at no more of its bars."""
        return self.counts.total() >= GROUP_ROWS - 1


class BarDuration:
    """How long after its time a bar is known.

    Parameters
    ----------
    bar_time : {"open", "close"}
        What the timestamps of bars are.
    duration : int, optional
        In ns. Unless it is given it is the commonest distance of neighbours so far, the least of
        several, among as many bars of each symbol as a build looks at.
    """

    def __init__(self, bar_time: str, duration: int | None) -> None:
        self._time, self._duration = bar_time, duration
        self._named = 0 if bar_time == "close" else duration
        self._symbols: dict[str, _Symbol] = {}
        self._counts: Counter[int] = Counter()
        self._commonest = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What was named, as JSON types."""
        return {"bar_time": self._time, "bar_duration": self._named}

    def anew(self) -> BarDuration:
        """Return one that no bar has come to."""
        return BarDuration(self._time, self._duration)

    def with_bar(self, symbol: str, time: int) -> int:
        """Return the delay in ns once a bar has come. It doesn't count yet."""
        if self._named is not None:
            return self._named
        distance = self._distance(symbol, time)
        return self._commonest if distance is None else self._best(distance, 1)

    def count(self, symbol: str, time: int) -> None:
        """Have a bar count."""
        if self._named is not None:
            return
        distance = self._distance(symbol, time)
        if distance is None:
            self._symbols.setdefault(symbol, _Symbol(time))
            return
        self._symbols[symbol].counts[distance] += 1
        self._symbols[symbol].last_time = time
        self._add(distance, 1)

    def _distance(self, symbol: str, time: int) -> int | None:
        known = self._symbols.get(symbol)
        return None if known is None or known.is_whole else time - known.last_time

    def _add(self, distance: int, number: int) -> None:
        self._commonest = self._best(distance, number)
        self._counts[distance] += number

    def _best(self, distance: int, number: int) -> int:
        """Return the commonest distance once one has come some times more."""
        mine, other = self._counts[distance] + number, self._counts[self._commonest]
        is_better = mine > other or (mine == other and distance < self._commonest)
        return distance if is_better else self._commonest

    def state_of(self, symbol: str) -> dict[str, Any]:
        """Return what a symbol's bars tell; nothing where durations are named."""
        known = self._symbols.get(symbol)
        if known is None:
            return {}
        pairs = np.array(sorted(known.counts.items()), np.int64).reshape(-1, 2)
        return {"last_time": known.last_time, "distances": pairs}

    def load(self, symbol: str, state: Mapping[str, Any]) -> None:
        """Take up what a symbol's bars told; raise TypeError or ValueError for another state."""
        if not state:
            return
        counts = Counter({int(distance): int(n) for distance, n in state["distances"]})
        self._symbols[symbol] = _Symbol(int(state["last_time"]), counts)
        for distance, number in counts.items():
            self._add(distance, number)
