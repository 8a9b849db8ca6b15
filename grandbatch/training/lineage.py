"""`Lineage`: which stores a training went through one after the other, and which windows it had.

A store that grows is another store for a training; one that goes on with what is new must know what
it had before. So every checkpoint says which windows its training had: from which to which time of
each symbol. A window is known by its symbol and the time of its last bar.

What was corrected since is told by the builds of the store (`grandbatch.builder.growth`): windows
that read a bar which differs now are new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grandbatch.errors import CheckpointError
from grandbatch.order import Selection, WeightedSelection
from grandbatch.splits import span_reader
from grandbatch.values.arrays import Bool, Int64

if TYPE_CHECKING:
    from grandbatch.checkpoint import Checkpoint
    from grandbatch.store import MatrixStore

_KEY = "lineage"
_SCANNED_WINDOWS = 2**20

Ranges = Mapping[str, Sequence[Sequence[int]]]
"""Times of each symbol, from the first to the last of a pair, ns since 1970 UTC."""


@dataclass(frozen=True)
class Stage:
    """A store that a training went through."""

    content_id: str
    """Identity of its windows."""
    fingerprint: str
    step: int
    """Steps of the training before it."""
    epoch: int
    """Its first epoch."""

    def __post_init__(self) -> None:
        for text in (self.content_id, self.fingerprint):
            if type(text) is not str:
                raise TypeError(f"{text!r} is no identity of a store")
        for count in (self.step, self.epoch):
            if type(count) is not int or count < 0:
                raise ValueError(f"{count!r} is no count")


@dataclass(frozen=True)
class Lineage:
    """The stores of a training in their order, and the windows that it had."""

    stages: tuple[Stage, ...]
    before: Ranges | None = None
    """Windows had before the last stage; None where all there are take part in it."""
    changed: Ranges = field(default_factory=dict)
    """Bars that were corrected since those windows were had."""
    had: Ranges | None = None
    """Windows had once an epoch of the last stage is over; None until they are looked up."""

    @classmethod
    def first(cls, store: MatrixStore, step: int = 0, epoch: int = 0) -> Lineage:
        """Begin on a store, with all of its windows."""
        return cls((Stage(store.content_id, store.fingerprint, step, epoch),))

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> Lineage | None:
        """Read what a checkpoint says; None where it was written before it said anything.

        Raises
        ------
        CheckpointError
            If what it says makes no sense.
        """

        def read(value: Any) -> Lineage:
            stages = tuple(Stage(**stage) for stage in value["stages"])
            if stages[-1].content_id != checkpoint.loader_state["loader"]["content_id"]:
                raise ValueError("it ends with another store")
            before, had = (
                None if value[name] is None else _read(value[name]) for name in ("before", "had")
            )
            return cls(stages, before, _read(value["changed"]), had)

        return checkpoint.said(_KEY, read, "which windows were learnt from")

    def to_state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint's state, as JSON types."""
        return {_KEY: {**asdict(self), "stages": [asdict(stage) for stage in self.stages]}}

    @property
    def last(self) -> Stage:
        """The store that is trained on."""
        return self.stages[-1]

    def next(self, store: MatrixStore, step: int, epoch: int, changed: Ranges) -> Lineage:
        """Go on to a store that grew, after so many steps.

        Parameters
        ----------
        store : MatrixStore
        step : int
        epoch : int
            Epochs that are over. Where none of the last stage is, its windows were not had.
        changed : mapping
            Bars that were corrected since the last stage's store, by symbol.
        """
        ended = epoch > self.last.epoch
        known = self.had if ended else self.before
        earlier = {} if ended else self.changed
        more = {
            name: [*earlier.get(name, ()), *changed.get(name, ())]
            for name in {**earlier, **changed}
        }
        stage = Lineage.first(store, step, epoch).last
        return Lineage((*self.stages, stage), known, more)

    def new_windows(self, store: MatrixStore) -> Bool | None:
        """Tell which windows of a store are new, (N,) bool; None where all of them are."""
        if self.before is None:
            return None
        new = ~_inside(store, self.before)
        if self.changed:
            spans = span_reader(store)
            for first, stop in _blocks(store):
                read = spans(first, stop)
                symbol = store.symbol[first:stop]
                for begin, end in _tables(store, self.changed):
                    new[first:stop] |= (read[0] <= end[symbol]) & (read[1] >= begin[symbol])
        return new

    def with_had(self, store: MatrixStore, selection: Selection | WeightedSelection) -> Lineage:
        """Look up which windows are had once an epoch over some of a store is over."""
        if isinstance(selection, WeightedSelection):
            selection = selection.selection
        known = np.zeros(len(store) + 1, np.int8)
        np.add.at(known, selection.begin, 1)
        np.add.at(known, selection.end, -1)
        part = known[:-1].cumsum(dtype=np.int8).astype(np.bool_)
        first, last = _extent(store, part)
        if self.before is not None:
            part |= _inside(store, self.before)
        every, missing = _extent(store, np.ones_like(part)), _extent(store, ~part)
        had = {name: list(ranges) for name, ranges in (self.before or {}).items()}
        for code, name in enumerate(store.symbols):
            if every[0][code] <= every[1][code] and missing[0][code] > missing[1][code]:
                had[name] = [[int(every[0][code]), int(every[1][code])]]
            elif first[code] <= last[code]:
                had[name] = [*had.get(name, []), [int(first[code]), int(last[code])]]
        return replace(self, had=had)

    def check_resumes(self, saved: Lineage | None, path: object) -> None:
        """Refuse to go on with all windows where only new ones took part.

        Raises
        ------
        CheckpointError
        """
        if saved is not None and saved.before is not None and self.before is None:
            raise CheckpointError(
                f"{path} is of a training on what was new when its store had grown; go on with it "
                "by --since-last (since_last=True), save into another folder, or start again with "
                "--no-resume"
            )


def _read(value: Any) -> dict[str, list[list[int]]]:
    for first, last in (pair for ranges in value.values() for pair in ranges):
        if type(first) is not int or type(last) is not int or not -(2**63) <= first <= last < 2**63:
            raise ValueError(f"{first!r} to {last!r} is no range of times")
    return dict(value)


def _blocks(store: MatrixStore) -> Iterator[tuple[int, int]]:
    for first in range(0, len(store), _SCANNED_WINDOWS):
        yield first, min(first + _SCANNED_WINDOWS, len(store))


def _tables(store: MatrixStore, ranges: Ranges) -> Iterator[tuple[Int64, Int64]]:
    """Begin and end of one range of every symbol of a store, (S,) each, until all had their turn.

    A symbol that has none any more has an end before its begin.
    """
    most = max((len(ranges.get(name, ())) for name in store.symbols), default=0)
    for turn in range(most):
        begin, end = _nothing(len(store.symbols))
        for code, name in enumerate(store.symbols):
            if turn < len(ranges.get(name, ())):
                begin[code], end[code] = ranges[name][turn]
        yield begin, end


def _nothing(n: int) -> tuple[Int64, Int64]:
    limits = np.iinfo(np.int64)
    return np.full(n, limits.max), np.full(n, limits.min)


def _inside(store: MatrixStore, ranges: Ranges) -> Bool:
    """Tell which windows of a store end within ranges of their symbol, (N,) bool."""
    found = np.zeros(len(store), np.bool_)
    tables = list(_tables(store, ranges))
    for first, stop in _blocks(store):
        times, symbol = store.end_time[first:stop], store.symbol[first:stop]
        for begin, end in tables:
            found[first:stop] |= (times >= begin[symbol]) & (times <= end[symbol])
    return found


def _extent(store: MatrixStore, part: Bool) -> tuple[Int64, Int64]:
    """First and last time of each symbol's windows that take part, (S,) int64 each."""
    low, high = _nothing(len(store.symbols))
    for first, stop in _blocks(store):
        taken = part[first:stop]
        times, symbol = store.end_time[first:stop][taken], store.symbol[first:stop][taken]
        np.minimum.at(low, symbol, times)
        np.maximum.at(high, symbol, times)
    return low, high
