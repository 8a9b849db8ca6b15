"""Which windows make a split: those that read no bar that another split reads.

Splits follow each other in time. Each is given the windows that end in its period, and keeps
those that read bars of its own stretch of time only. The stretches of a chain of splits don't
touch, and lie more than the embargo apart::

    first  ─────────── reads ──────────┤ embargo │ warm-up │ next period
                                                 ├──────── reads ───────────
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.values.arrays import Int64
from grandbatch.values.times import shown

_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Split:
    """Windows that end in [start, stop) and read bars in [reads_from, reads_until) only.

    A window reads from `lookback` bars before its first row to the bar behind its last, or to the
    longest horizon of its targets. All times
    are ns since 1970 UTC. As a mere value of times, a split serves every store of the same bars.

    Raises
    ------
    UsageError
        If the times are not in order.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> train, test = gb.split_store(store, {"train": 0.8, "test": 0.2}).values()
    >>> len(gb.SlidingWindowDataLoader(store, subset=test)) > 0
    True
    >>> train.stop <= test.start
    True
    """

    start: int
    stop: int
    reads_from: int
    reads_until: int
    n_windows: int
    """Windows of the store that it was made for."""
    n_purged: int
    """Windows that end in [start, stop) and read, or may read, what a neighbour reads."""
    n_embargoed: int
    """Windows that end in [start, stop) and read bars of the embargo."""

    def __post_init__(self) -> None:
        if not (self.start < self.stop and self.reads_from < self.reads_until):
            raise UsageError(
                f"a split must end after it starts, got windows from {self.start} to {self.stop} "
                f"that read bars from {self.reads_from} to {self.reads_until} (ns since 1970 UTC)"
            )

    @property
    def reads(self) -> tuple[int, int]:
        """Bars from the first of these times to before the second may be read."""
        return self.reads_from, self.reads_until

    def to_json(self) -> dict[str, int]:
        """Return the split as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """Read what `to_json` gave.

        Raises
        ------
        UsageError
            If the value is not a split.
        """
        try:
            return cls(**{f.name: int(value[f.name]) for f in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"not a split: {value!r} ({type(error).__name__}: {error}); make it again"
            ) from None

    def __str__(self) -> str:
        return (
            f"{self.n_windows:,} windows ending from {shown(self.start)} to before "
            f"{shown(self.stop)} ({self.n_purged:,} purged, {self.n_embargoed:,} embargoed)"
        )


@dataclass(frozen=True)
class Period:
    """What a split was asked to be: the windows that end in [start, stop), before purging."""

    name: str
    start: int
    stop: int


@dataclass
class _Link:
    """One split of a chain, while the windows go by."""

    period: Period
    hold_until: int
    """Where the embargo before the next split begins: nothing from then on is read."""
    yield_until: int
    """Where the time that the next split is left begins."""
    last_read: int | None = None
    """The last time that a window of the split reads."""
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])


class Chain:
    """Splits that follow each other, made from all windows in one pass for each split.

    Pass by pass, every block of windows goes to `take_in`; then `splits` are there. More than one
    pass is needed because what a split may read depends on what the one before does read.

    Parameters
    ----------
    periods : sequence of Period
        In the order of time, not overlapping.
    warmup, embargo : int
        ns.
    first_time : int
        Of all bars.
    """

    def __init__(self, periods: Sequence[Period], warmup: int, embargo: int, first_time: int):
        self._embargo, self._first_time = embargo, first_time
        following = [period.start - warmup for period in periods[1:]]
        self._links = [
            _Link(period, until - embargo, until)
            for period, until in zip(periods[:-1], following, strict=True)
        ]
        self._links.append(_Link(periods[-1], _FOREVER, _FOREVER))

    def take_in(self, turn: int, end_time: Int64, first_read: Int64, last_read: Int64) -> None:
        """Look at some windows in pass `turn`: at those of the split of that number."""
        link = self._links[turn]
        mine = (end_time >= link.period.start) & (end_time < link.period.stop)
        first, last = first_read[mine], last_read[mine]
        purged, held = last >= link.yield_until, last >= link.hold_until
        clear = self._links[turn - 1].last_read if turn else None
        if clear is not None:
            purged |= first <= clear
            held |= first <= clear + self._embargo
        kept = last[~(purged | held)]
        if len(kept):
            latest = int(kept.max())
            link.last_read = latest if link.last_read is None else max(latest, link.last_read)
        counts = (len(kept), int(purged.sum()), int((held & ~purged).sum()))
        link.counts = [a + b for a, b in zip(link.counts, counts, strict=True)]

    def splits(self) -> dict[str, Split]:
        """Return the splits by name.

        Raises
        ------
        UsageError
            If one has no windows left.
        """
        found = {}
        reads_from = self._first_time
        for link in self._links:
            kept, purged, embargoed = link.counts
            if link.last_read is None:
                raise _empty(link.period, purged, embargoed)
            reads_until = link.last_read + 1
            if link is self._links[-1]:
                reads_until = max(reads_until, link.period.stop)
            start, stop = link.period.start, link.period.stop
            found[link.period.name] = Split(
                start, stop, reads_from, reads_until, kept, purged, embargoed
            )
            reads_from = link.last_read + self._embargo + 1
        return found


def _empty(period: Period, purged: int, embargoed: int) -> UsageError:
    ended = (
        f"split {period.name!r} has no window left: {purged + embargoed:,} end from "
        f"{shown(period.start)} to before {shown(period.stop)}"
    )
    if not purged + embargoed:
        return UsageError(f"{ended}; make it longer, or move it to where there are bars")
    return UsageError(
        f"{ended}, {purged:,} of them read, or may read, what a neighbouring split reads or "
        f"looks back to, and {embargoed:,} more read bars of the embargo; make the split longer, "
        "or embargo and warm-up shorter, or build the store with more overlap or shorter windows"
    )
