"""Contexts of a loader: stores of coarser bars, and the windows that have one in each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from grandbatch.batch import MatrixBatch
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.loader.context.pairing import Pairing
from grandbatch.loader.context.room import ContextRoom
from grandbatch.loader.context.slots import shared_rows
from grandbatch.splits import span_reader
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Bool, Int64
from grandbatch.values.times import to_duration, written_duration

if TYPE_CHECKING:
    from grandbatch.values.times import Duration

_SCANNED_WINDOWS = 2**17


class Contexts:
    """The contexts of one loader.

    Parameters
    ----------
    fast : MatrixStore
    given : mapping of str to MatrixStore, optional
        As the loader's `context`.
    max_age : str or timedelta, optional

    Attributes
    ----------
    pairings : dict of str to Pairing
    n_without : int
        Windows that were left out for want of a context.

    Raises
    ------
    UsageError
        If the stores don't go together.
    """

    def __init__(
        self,
        fast: MatrixStore,
        given: Mapping[str, MatrixStore] | None,
        max_age: Duration | None,
    ):
        if given is not None and not isinstance(given, Mapping):
            raise UsageError(
                'context must be stores by name, such as {"strategic": store}, '
                f"got {type(given).__name__}"
            )
        if max_age is not None and not given:
            raise UsageError("max_age is that of a context; give context= too, or leave it out")
        self._age = age = None if max_age is None else to_duration(max_age, "max_age")
        for name, store in (given or {}).items():
            _check(name, store)
        self.pairings = {
            name: Pairing(name, fast, store, age) for name, store in (given or {}).items()
        }
        self.n_without = 0
        self._fast = fast
        self._counts = {name: np.zeros((2, fast.n_chunks), np.int32) for name in self.pairings}

    def __bool__(self) -> bool:
        return bool(self.pairings)

    def rooms(self, chunks: Int64) -> dict[str, ContextRoom]:
        """Return what each context of the windows of some chunks needs in memory."""
        return {
            name: ContextRoom(pairing, *self._counts[name][:, chunks].astype(np.int64))
            for name, pairing in self.pairings.items()
        }

    @property
    def mean_bytes(self) -> int:
        """Bytes of float32 that the contexts of a chunk's windows take, on the average."""
        return sum(
            int(self._counts[name][1].mean()) * pairing.slow.n_features * 4
            for name, pairing in self.pairings.items()
        )

    def begin_checks(self) -> list[Callable[[], None]]:
        """Begin to check that the stores are still those that were opened; see the store's own."""
        return [pairing.slow.begin_check() for pairing in self.pairings.values()]

    def limit(self, reads: tuple[int, int] | None) -> ReadLimit | None:
        """Return what keeps contexts inside what a split may read; None where nothing is outside.

        A context was known when its window was, so that it reads nothing behind it. And before the
        first of a store's bars no other split reads.
        """
        if reads is None or reads[0] <= self._fast.attrs["first_time"]:
            return None
        return ReadLimit(self.pairings, reads[0])

    def narrow(self, kept: Bool, first: int, limit: ReadLimit | None) -> None:
        """Leave out windows that have no context, or one that reads what they must not.

        Parameters
        ----------
        kept : (n,) bool
            Windows from `first` on that take part otherwise; changed in place. Both ends are those
            of chunks.
        first : int
        limit : ReadLimit, optional
        """
        size = self._fast.chunk_windows
        step = max(1, _SCANNED_WINDOWS // size) * size
        for begin in range(0, len(kept), step):
            self._narrow(kept[begin : begin + step], first + begin, limit)

    def _narrow(self, kept: Bool, first: int, limit: ReadLimit | None) -> None:
        stop = first + len(kept)
        symbol, end_time = self._fast.symbol[first:stop], self._fast.end_time[first:stop]
        found = {}
        for name, pairing in self.pairings.items():
            found[name] = pairing.look_up(symbol, end_time, pairing.stored_times)
            self._count(name, first, found[name])
        has_all = np.all([window >= 0 for window in found.values()], axis=0)
        self.n_without += int(np.count_nonzero(kept & ~has_all))
        kept &= has_all
        if limit is not None:
            for name, window in found.items():
                kept[kept] = limit.allows(name, window[kept])

    def _count(self, name: str, first: int, window: Int64) -> None:
        """Take note of the contexts of each chunk, and of the rows that lie beside it for them."""
        slow, size = self.pairings[name].slow, self._fast.chunk_windows
        chunk = np.arange(len(window)) // size
        new = window >= 0
        new[1:] &= (np.diff(window) != 0) | (np.diff(chunk) != 0)
        chunk, window = chunk[new], window[new]
        if not len(window):
            return
        order = np.lexsort((window, chunk))
        chunk, window = chunk[order], window[order]
        twice = np.append(False, (np.diff(window) == 0) & (np.diff(chunk) == 0))
        chunk, window = chunk[~twice], window[~twice]
        some, which = np.unique(window, return_inverse=True)
        rows = shared_rows(slow.first_row[some][which], slow.sequence_length)
        # what comes of another chunk shares none
        apart = (np.diff(chunk) != 0) | (np.diff(window // slow.chunk_windows) != 0)
        rows[1:][apart] = slow.sequence_length
        here = self._counts[name][:, first // size : first // size + int(chunk[-1]) + 1]
        here[0], here[1] = np.bincount(chunk), np.bincount(chunk, rows)

    def to_json(self) -> dict[str, Any]:
        """Return what decides which contexts windows come with, as JSON types."""
        return {name: pairing.identity for name, pairing in self.pairings.items()}

    def check_same(self, saved: object) -> None:
        """Compare with what `to_json` gave when a state was saved.

        Raises
        ------
        CheckpointError
            If they differ.
        """
        mine = self.to_json()
        if mine != (saved or {}):
            raise CheckpointError(
                f"the state was taken with the contexts {saved or 'of none'}, here they are "
                f"{mine or 'none'}; give the loader the same context and max_age, or start again "
                "without it (--no-resume)"
            )

    def __str__(self) -> str:
        limit = "" if self._age is None else f" not older than {written_duration(self._age)}"
        return f"a context {' and '.join(map(repr, self.pairings))}{limit}"


class ReadLimit:
    """Tells which contexts read nothing before a time.

    Parameters
    ----------
    pairings : dict of str to Pairing
    reads_from : int
        A time of the finer bars.
    """

    def __init__(self, pairings: Mapping[str, Pairing], reads_from: int):
        self._pairings = pairings
        self._reads_from = reads_from
        self._spans = {name: span_reader(pairing.slow) for name, pairing in pairings.items()}

    def allows(self, name: str, window: Int64) -> Bool:
        """Tell of windows of a context's store, (n,) bool."""
        slow, spans = self._pairings[name].slow, self._spans[name]
        read = np.empty(len(window), np.int64)
        chunks = np.unique(window // slow.chunk_windows)
        for stretch in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):
            if len(stretch):
                low, _ = slow.chunk_range(int(stretch[0]))
                _, high = slow.chunk_range(int(stretch[-1]))
                inside = (window >= low) & (window < high)
                read[inside] = spans(low, high)[0][window[inside] - low]
        return self._pairings[name].first_shared(read) >= self._reads_from


def _check(name: object, store: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or hasattr(MatrixBatch, name):
        raise UsageError(
            f"a context needs a name of letters, digits and _ that no part of a batch has, such as "
            f"strategic, got {name!r}"
        )
    if not isinstance(store, MatrixStore):
        raise UsageError(
            f"context {name!r} must be a MatrixStore, got {str(store)!r:.200}; open one with "
            "grandbatch.MatrixStore.open(path)"
        )
