"""Per-window values, where a gather finds them: one record a window, one look into memory.

Small stores' values are read once, in large pieces, and kept whole: reading them chunk by chunk
would cost more than the matrices of overlapping windows do. Those of larger stores are read with
their chunk and lie beside it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from grandbatch.batch import LABELS
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Int32, Int64

STORED_LABELS = LABELS[1:-1]
"""What a batch carries beside index and weight: the per-window arrays of a store."""

LABEL_DTYPE = np.dtype(
    [
        ("end_time", np.int64),
        ("close_price", np.float64),
        ("next_return", np.float64),
        ("first_row", np.int64),
        ("symbol", np.int32),
        ("start", np.int32),
    ]
)
"""The values of a window; `start` is its first row among those of its chunk."""


def label_dtype(store: MatrixStore) -> np.dtype[np.void]:
    """Return the type of a store's records: LABEL_DTYPE, and the targets where it has any."""
    if not store.target_names:
        return LABEL_DTYPE
    targets = ("targets", np.float32, (len(store.target_names),))
    # aligned, so that each column of many records is one that PyTorch can take
    return np.dtype(
        [*((name, LABEL_DTYPE[name]) for name in LABEL_DTYPE.names or ()), targets], align=True
    )


_REQUESTS = 32
"""Reads under way at once, where each is a request."""

Records = npt.NDArray[np.void]


class Found(NamedTuple):
    """Windows of a table, whose labels are to be looked up."""

    entries: Int32
    """Places in the table, `slot * chunk_windows + w`."""

    shift: Int64
    """For each slot what leads from a place to the window's number in the store."""

    chunk_windows: int
    records: Records
    stays: bool
    """Whether records are found by that number, and never change; or lie in the table's places."""

    def copied(self) -> Found:
        """Return the same with entries of its own."""
        return self._replace(entries=self.entries.copy())

    def look_up(self) -> tuple[Int64, Records]:
        """Return the windows' numbers in the store, and their labels."""
        index: Int64 = self.shift[self.entries // np.int32(self.chunk_windows)]
        index += self.entries
        return index, self.records.take(index if self.stays else self.entries)


class LabelSource(Protocol):
    """Per-window values as records, filled chunk by chunk."""

    by_index: bool
    """Whether they are found by a window's number in the store, or by its place in a table."""

    records: Records
    """(n,) `label_dtype`: those of a chunk one behind the other."""

    def begin(self, chunks: Iterable[int]) -> None:
        """Begin to read the values of chunks that will be loaded, where each is waited for."""
        ...

    def load(self, slots: Sequence[int], chunks: Sequence[int], files: OpenFiles) -> None:
        """Make the values of the windows of some chunks available. Thread-safe.

        `start` is set in layout `rows`; in layout `windows` it is for the caller to set.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        ...


class SlotLabels:
    """Values that lie beside the chunks of a table, slot by slot."""

    by_index = False

    def __init__(self, store: MatrixStore, n_slots: int):
        self._store = store
        self.records: Records = np.empty(n_slots * store.chunk_windows, label_dtype(store))
        self._names = [spec.name for spec in store.spec.labels]

    def begin(self, chunks: Iterable[int]) -> None:
        """Do nothing: they come with their chunk."""

    def load(self, slots: Sequence[int], chunks: Sequence[int], files: OpenFiles) -> None:
        """Read the values of chunks' windows into their slots."""
        values = self._store.read_values(chunks, self._names, files)
        by_slot = self.records.reshape(-1, self._store.chunk_windows)
        first, n = slots[0], len(slots)
        consecutive = list(slots) == list(range(first, first + n))
        places = slice(first, first + n) if consecutive else list(slots)
        for name, of_chunks in values.items():
            by_slot[name][places, : of_chunks.shape[1]] = of_chunks


@dataclass(eq=False)
class _Arriving:
    """Values on their way: all there are around some chunks.

    Parameters
    ----------
    number : int
    arrived : dict of str to array
    done : Future
        When they are placed, or what went wrong.
    """

    number: int
    arrived: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    done: Future[None] = field(default_factory=Future)


def coming_label_bytes(store: MatrixStore) -> int:
    """Bytes held at most of whole labels that come: answers, and what each is put together in."""
    if store.is_near:
        return 0
    labels = store.spec.labels
    at_once = _REQUESTS * max(spec.chunk_bytes for spec in labels)
    return 2 * min(at_once, sum(spec.chunk_bytes * spec.n_files for spec in labels))


class WholeLabels:
    """Values of all windows, read in the store's own large chunks when first needed."""

    by_index = True

    def __init__(self, store: MatrixStore):
        self._store = store
        self.records: Records = np.empty(len(store), label_dtype(store))
        self._names = [spec.name for spec in store.spec.labels]
        self._piece = store.spec.label_chunk_windows
        self._chunk_windows = int(store.chunk_windows)
        self._loaded: set[int] = set()
        self._coming: dict[int, _Arriving] = {}
        self._lock = threading.Lock()

    def begin(self, chunks: Iterable[int]) -> None:
        """Begin to read the values around chunks, where each read is a request."""
        if self._store.is_near:
            return
        wanted = dict.fromkeys(map(self._group_of, chunks))
        with self._lock:
            new = [
                _Arriving(one)
                for one in wanted
                if one not in self._loaded and one not in self._coming
            ]
            self._coming |= {piece.number: piece for piece in new}
        reads = deque((piece, name) for piece in new for name in self._names)
        if reads:
            self._start(reads, _REQUESTS)

    def load(self, slots: Sequence[int], chunks: Sequence[int], files: OpenFiles) -> None:
        """Read the values around some chunks, unless they are there already."""
        pieces = {self._group_of(chunk) for chunk in chunks}
        if pieces <= self._loaded:
            return
        self.begin(chunks)
        for piece in sorted(pieces):
            with self._lock:
                coming = self._coming.get(piece)
                if coming is None and piece not in self._loaded:
                    for name in self._names:  # one by one, in memory that is used again
                        self._place(piece, {name: self._read(piece, name)})
                    self._loaded.add(piece)
            if coming is not None:
                coming.done.result()

    def _group_of(self, chunk: int) -> int:
        return chunk * self._chunk_windows // self._piece

    def _start(self, reads: deque[tuple[_Arriving, str]], threads: int) -> None:
        """Start a thread that reads, and starts the next: who begins doesn't wait for all."""
        args = reads, threads - 1
        threading.Thread(target=self._fetch_all, args=args, name="grandbatch-labels").start()

    def _fetch_all(self, reads: deque[tuple[_Arriving, str]], threads: int) -> None:
        if threads and len(reads) > 1:
            self._start(reads, threads)
        with suppress(IndexError):
            while True:
                self._fetch(*reads.popleft())

    def _fetch(self, piece: _Arriving, name: str) -> None:
        """Read some values; those of a piece are placed together, while its records are at hand."""
        if piece.done.done():
            return
        failed = None
        try:
            values = self._read(piece.number, name)
            with self._lock:
                piece.arrived[name] = values
                if len(piece.arrived) < len(self._names):
                    return
            self._place(piece.number, piece.arrived)
        except Exception as error:  # noqa: BLE001 - raised again by who waits for it
            failed = error
        with self._lock:
            if piece.done.done():
                return
            del self._coming[piece.number]
            if failed is None:
                self._loaded.add(piece.number)
                piece.done.set_result(None)
            else:
                piece.done.set_exception(failed)

    def _read(self, piece: int, name: str) -> npt.NDArray[Any]:
        return self._store.label_values(name, piece)

    def _place(self, piece: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        records = self.records[piece * self._piece : (piece + 1) * self._piece]
        for name, some in values.items():
            records[name] = some[: len(records)]
