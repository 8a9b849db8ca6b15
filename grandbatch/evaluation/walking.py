"""Recorded windows in the order in which policies trade them, and the exposures they choose.

A walk goes window by window through a segment. It starts flat, keeps its exposure from bar to bar,
and ends with the last window that has a next return. Policies see the window and what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from grandbatch.errors import StoreMismatchError, UsageError
from grandbatch.splits import span_reader
from grandbatch.splits.making import SpanReader
from grandbatch.splits.split import Split
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Bool, Float32, Float64, Int32, Int64

if TYPE_CHECKING:
    from grandbatch.loader.context.contexts import Contexts

Policy = Callable[..., Any]
"""(B, L, F) float32 windows and (B,) float64 exposures held, to (B,) exposures wanted.

Where there is a context, a third argument has its (B, L, F) float32 windows by name."""

_BLOCK_WINDOWS = 2048
_ASKED_WINDOWS = 128
_REMEMBERED = 32


@dataclass(frozen=True, eq=False)
class Tape:
    """V windows that can be traded, by symbol, then time.

    Parameters
    ----------
    window : (V,) int64
        Number in the store.
    time : (V,) int64
        ns since 1970 UTC of the last bar, when the exposure is chosen.
    symbol : (V,) int32
    next_return : (V,) float64
        Over the bar after that.
    begins : (V,) bool
        Where a walk starts, flat.
    """

    window: Int64
    time: Int64
    symbol: Int32
    next_return: Float64
    begins: Bool

    def __len__(self) -> int:
        return len(self.window)

    @property
    def ends(self) -> Bool:
        """Where a walk ends: what is held is sold after the bar that follows, (V,) bool."""
        return np.append(self.begins[1:], True)

    def taken(self, places: Int64) -> Tape:
        """Take windows by their places, in that order."""
        return Tape(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, tapes: Sequence[Tape]) -> Tape:
        """Put tapes behind each other."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(tape, name) for tape in tapes]) for name in names))


@dataclass(frozen=True, eq=False)
class Sight:
    """What a policy is shown of n windows.

    Parameters
    ----------
    matrices : (n, L, F) float32
    contexts : mapping of str to (n, L, F) float32
        Windows of coarser bars, by name.
    """

    matrices: Float32
    contexts: Mapping[str, Float32]

    def __len__(self) -> int:
        return len(self.matrices)

    def __getitem__(self, some: slice) -> Sight:
        return Sight(self.matrices[some], {n: part[some] for n, part in self.contexts.items()})


def read_tape(store: MatrixStore, subset: Split | None, contexts: Contexts | None = None) -> Tape:
    """Find the windows of a split, or all, that have a next return, and a context in each store.

    Raises
    ------
    StoreMismatchError
        If the store's windows don't end at every bar.
    UsageError
        If there are none.
    """
    if store.stride != 1:
        raise StoreMismatchError(
            f"{store.path} has a window every {store.stride} bars; what is earned over one bar of "
            f"{store.stride} makes no equity curve. Evaluate on a store of the same bars with "
            f"overlap={store.sequence_length - 1} and layout='rows' (grandbatch build … --overlap "
            f"{store.sequence_length - 1} --layout rows); splits serve both"
        )
    spans = None if subset is None else span_reader(store)
    found = [_block_tape(store, subset, spans, *block) for block in _blocks(len(store))]
    tape = Tape.joined(found)
    if contexts:
        kept = np.zeros(len(store), np.bool_)
        kept[tape.window] = True
        contexts.narrow(kept, 0, contexts.limit(None if subset is None else subset.reads))
        tape = tape.taken(np.flatnonzero(kept[tape.window]))
    if not len(tape):
        raise UsageError(
            f"no window of {store.path} in {subset if subset is not None else 'it'} has a next "
            "return, so there is nothing to evaluate; give another subset"
        )
    # A segment ends with a window that has no next return, so that none joins its neighbour.
    number = tape.window
    if store.attrs.get("order", "symbol") != "symbol":
        # by rows, of which windows that follow each other begin one apart
        number = store.first_row[:][tape.window]
        in_rows = np.argsort(number)
        tape, number = tape.taken(in_rows), number[in_rows]
    begins = np.concatenate([[True], np.diff(number) != 1])
    return Tape(tape.window, tape.time, tape.symbol, tape.next_return, begins)


def _block_tape(
    store: MatrixStore, subset: Split | None, spans: SpanReader | None, first: int, stop: int
) -> Tape:
    time, next_return = store.end_time[first:stop], store.next_return[first:stop]
    kept = ~np.isnan(next_return)
    if subset is not None and spans is not None:
        kept &= (time >= subset.start) & (time < subset.stop)
        if kept.any():
            first_read, last_read = spans(first, stop)
            kept &= (first_read >= subset.reads_from) & (last_read < subset.reads_until)
    window = first + np.flatnonzero(kept)
    unknown = np.zeros(len(window), np.bool_)
    return Tape(window, time[kept], store.symbol[first:stop][kept], next_return[kept], unknown)


def decide(
    policies: Sequence[object], store: MatrixStore, tape: Tape, contexts: Contexts | None = None
) -> Float64:
    """Let policies walk a tape.

    Parameters
    ----------
    policies : sequence
        Trainers, or anything else with their `act`; or functions as of `Policy`. What one wants
        must depend on its arguments alone.
    store : MatrixStore
        Where the tape was read from.
    tape : Tape
    contexts : Contexts, optional
        Shown beside the windows.

    Returns
    -------
    (P, V) float64
        Exposure that each policy holds over the bar after each window, -1 to 1.

    Raises
    ------
    UsageError
        If a policy wants something else than that.
    """
    asked = [_as_function(policy) for policy in policies]
    exposure = np.empty((len(asked), len(tape)))
    held = [0.0] * len(asked)
    for low, high in _blocks(len(tape)):
        window = tape.window[low:high]
        sight = Sight(_read_windows(store, window), _read_contexts(contexts, tape, low, high))
        for number, policy in enumerate(asked):
            for first, stop in _blocks(len(window), _ASKED_WINDOWS):
                begins = tape.begins[low + first : low + stop]
                taken = _walk(policy, sight[first:stop], begins, held[number])
                exposure[number, low + first : low + stop] = taken
                held[number] = float(taken[-1])
    return exposure


def _read_windows(store: MatrixStore, windows: Int64) -> Float32:
    """Read windows, chunk by chunk as long as they rise: one symbol's lie far from the next's."""
    parts = []
    turns = (np.diff(windows // store.chunk_windows) != 0) | (np.diff(windows) < 0)
    for some in np.split(windows, np.flatnonzero(turns) + 1):
        first, last = int(some[0]), int(some[-1])
        parts.append(store.matrices[first : last + 1][some - first])
    return np.concatenate(parts)


def _read_contexts(
    contexts: Contexts | None, tape: Tape, low: int, high: int
) -> dict[str, Float32]:
    found = {}
    for name, pairing in (contexts.pairings if contexts else {}).items():
        slow = pairing.slow
        time, symbol = tape.time[low:high], tape.symbol[low:high]
        window = pairing.look_up(symbol, time, pairing.stored_times)
        some, which = np.unique(window, return_inverse=True)
        found[name] = _read_windows(slow, some)[which]
    return found


def _walk(policy: Policy, sight: Sight, begins: Bool, held: float) -> Float64:
    """Walk some windows, coming with the exposure `held`.

    Teams have few exposures: for each that is met, all windows still ahead are asked about at
    once. Where a policy has many, the rest is asked one by one.
    """
    n = len(sight)
    taken = np.empty(n)
    answers: dict[float, tuple[int, Float64]] = {}
    for row in range(n):
        met = 0.0 if begins[row] else held
        if met in answers:
            first, wanted = answers[met]
        else:
            few = len(answers) < _REMEMBERED
            first, wanted = row, _ask(policy, sight[row : n if few else row + 1], met)
            if few:
                answers[met] = first, wanted
        held = float(wanted[row - first])
        taken[row] = held
    return taken


def _ask(policy: Policy, sight: Sight, held: float) -> Float64:
    beside = [sight.contexts] if sight.contexts else []
    answer = policy(sight.matrices, np.full(len(sight), held), *beside)
    wanted = np.asarray(answer, np.float64)
    if wanted.shape != (len(sight),) or not (np.abs(wanted) <= 1).all():
        raise UsageError(
            f"a policy must give an exposure from -1 to 1 for each of {len(sight)} windows, "
            f"got {wanted!r}"
        )
    return wanted


def _as_function(policy: Any) -> Policy:
    act = getattr(policy, "act", None)
    if act is None:
        if not callable(policy):
            raise UsageError(
                f"a policy must be a trainer or a function of (matrices, exposure), got {policy!r}"
            )
        function: Policy = policy
        return function
    import torch

    def wanted(
        matrices: Float32, exposure: Float64, contexts: Mapping[str, Float32] | None = None
    ) -> Any:
        told = torch.from_numpy(matrices), torch.from_numpy(exposure)
        if contexts:
            there = {name: torch.from_numpy(part) for name, part in contexts.items()}
            return act(*told, there).exposure.numpy()
        return act(*told).exposure.numpy()

    return wanted


def _blocks(n: int, size: int = _BLOCK_WINDOWS) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(first + size, n)
