"""Which times a store's windows cover, symbol by symbol, and where they leave gaps.

Every window counts; the per-window arrays are read a slab at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Int64

BINS = 180
_SLAB_WINDOWS = 1_048_576
_GAP_STEPS = 2.0
"""A step this many times a symbol's usual one is a gap."""


@dataclass(frozen=True, order=True)
class Gap:
    """A long way, in ns, from one window's last bar to the next window's in the same symbol."""

    length: int
    symbol: str
    begin: int
    end: int


@dataclass(eq=False)
class SymbolCoverage:
    """Where one symbol's windows end. Times in ns since 1970 UTC."""

    name: str
    first: int
    last: int = 0
    n_windows: int = 0
    n_gaps: int = 0
    usual_step: int = 0
    """Median way between neighbouring windows; 0 where there is one window only."""
    density: Int64 = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Windows in each of `BINS` stretches of the store's time, (BINS,) int64."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """What is covered: every symbol that has windows, and the longest gaps, longest first."""

    symbols: list[SymbolCoverage]
    gaps: list[Gap]

    @property
    def n_gaps(self) -> int:
        """Gaps of all symbols."""
        return sum(symbol.n_gaps for symbol in self.symbols)


def read_coverage(store: MatrixStore, most_gaps: int = 12) -> Coverage:
    """Read the times of all windows."""
    low, high = int(store.attrs["first_time"]), int(store.attrs["last_time"])
    found: dict[int, SymbolCoverage] = {}
    gaps: list[Gap] = []
    for code, times, before in _runs(store):
        symbol = found.get(code)
        if symbol is None:
            symbol = found[code] = SymbolCoverage(store.symbols[code], int(times[0]))
        symbol.last = int(times[-1])
        symbol.n_windows += len(times)
        places = ((times - low) * (BINS / (high - low + 1))).astype(np.int64)
        symbol.density += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
        steps = np.diff(times if before is None else np.concatenate([[before], times]))
        if len(steps):
            symbol.usual_step = symbol.usual_step or int(np.median(steps))
            ends = np.flatnonzero(steps > _GAP_STEPS * symbol.usual_step)
            symbol.n_gaps += len(ends)
            longest = ends[np.argsort(-steps[ends], kind="stable")[:most_gaps]]
            shift = 1 if before is None else 0
            for place in longest:
                end, step = int(times[place + shift]), int(steps[place])
                gaps.append(Gap(step, symbol.name, end - step, end))
            gaps = sorted(gaps, reverse=True)[:most_gaps]
    return Coverage(list(found.values()), gaps)


def _runs(store: MatrixStore) -> Iterator[tuple[int, Int64, int | None]]:
    """Symbol, end times of consecutive windows of it, and of the one before, where there is one."""
    last: dict[int, int] = {}
    for start in range(0, len(store), _SLAB_WINDOWS):
        codes = store.symbol[start : start + _SLAB_WINDOWS]
        times = store.end_time[start : start + _SLAB_WINDOWS]
        cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for begin, stop in pairwise(cuts):
            code = int(codes[begin])
            yield code, times[begin:stop], last.get(code)
            last[code] = int(times[stop - 1])
