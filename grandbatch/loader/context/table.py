"""Windows of coarser bars beside the chunks of a table, each of their rows once.

The windows of a chunk have few contexts, and these share most of their rows. So what lies beside a
chunk is small, and windows are cut from it just as from the chunk. Neighbouring chunks need the
same chunks of the coarser store: those decoded last are kept.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from grandbatch.loader.context.pairing import Pairing, distinct
from grandbatch.loader.labels import Records
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Array, Float32, Int32, Int64

CONTEXT_DTYPE = np.dtype([("index", np.int64), ("end_time", np.int64), ("start", np.int64)])
"""Of a window's context: its number and time, and its first row in the buffer."""

_KEPT_CHUNKS = 4


@dataclass(eq=False)
class _Decoded:
    """A chunk of the coarser store; `lock` is held by who decodes it."""

    lock: threading.Lock
    labels: dict[str, Array] | None = None
    rows: Float32 | None = None


class ChunkCache:
    """The chunks of a store that were decoded last. Thread-safe.

    Parameters
    ----------
    store : MatrixStore
    """

    def __init__(self, store: MatrixStore):
        self.store = store
        self._chunks: OrderedDict[int, _Decoded] = OrderedDict()
        self._lock = threading.Lock()
        self._names = ["end_time", "first_row", *(["start"] if store.layout == "rows" else [])]

    @staticmethod
    def bytes_of(store: MatrixStore) -> int:
        """Bytes of decoded chunks that a cache of a store keeps."""
        kept: int = min(_KEPT_CHUNKS, store.n_chunks)
        return kept * math.prod(store.chunk_shape) * 4

    def read(self, chunk: int, files: OpenFiles) -> tuple[dict[str, Array], Float32]:
        """Return values of a chunk's windows by name, and its rows, (R, F) float32.

        They are not to be changed.
        """
        with self._lock:
            decoded = self._chunks.pop(chunk, None) or _Decoded(threading.Lock())
            self._chunks[chunk] = decoded
            if len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        with decoded.lock:
            if decoded.labels is None or decoded.rows is None:
                decoded.labels = self.store.read_values(chunk, self._names, files)
                rows = self.store.read_chunk(chunk, files=files)
                decoded.rows = rows.reshape(-1, self.store.n_features)
            return decoded.labels, decoded.rows


@dataclass(frozen=True, eq=False)
class ContextRoom:
    """What the contexts of a loader's windows need in memory.

    Parameters
    ----------
    pairing : Pairing
    rows : (n,) int64
        Distinct rows of the contexts of each chunk that takes part.
    """

    pairing: Pairing
    rows: Int64

    def n_rows(self, n_slots: int) -> int:
        """Rows that suffice for any `n_slots` of the chunks."""
        most = np.sort(self.rows)[max(0, len(self.rows) - n_slots) :]
        window: int = self.pairing.slow.sequence_length
        return max(int(most.sum()), window)

    def table_bytes(self, n_slots: int, dtype: torch.dtype) -> int:
        """Bytes of the rows beside `n_slots` chunks."""
        n_features: int = self.pairing.slow.n_features
        return self.n_rows(n_slots) * n_features * dtype.itemsize

    def label_bytes(self, n_slots: int) -> int:
        """Bytes of the per-window values beside them."""
        windows: int = n_slots * self.pairing.fast.chunk_windows
        return windows * CONTEXT_DTYPE.itemsize

    @property
    def cache_bytes(self) -> int:
        """Bytes of decoded chunks that are kept besides."""
        return ChunkCache.bytes_of(self.pairing.slow)


class ContextTable:
    """The contexts of the windows in a table's slots.

    Filling different slots from several threads is safe.

    Parameters
    ----------
    room : ContextRoom
    cache : ChunkCache
        Of the coarser store; tables may share one.
    n_slots : int
    dtype : torch.dtype

    Attributes
    ----------
    buffer : RowBuffer
        The rows that contexts are cut from.
    """

    def __init__(self, room: ContextRoom, cache: ChunkCache, n_slots: int, dtype: torch.dtype):
        slow = room.pairing.slow
        self._pairing, self._cache = room.pairing, cache
        self._slot_windows = room.pairing.fast.chunk_windows
        window = slow.sequence_length, slow.n_features
        self.buffer = RowBuffer(room.n_rows(n_slots), window, dtype)
        self._records: Records = np.zeros(n_slots * self._slot_windows, CONTEXT_DTYPE)
        self._place = np.full(n_slots, -1, np.int64)
        self._next = 0
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Make room for other chunks in the slots."""
        self._place[:] = -1
        self._next = 0

    def fill(self, slot: int, labels: Records, files: OpenFiles) -> None:
        """Put the contexts of a chunk's windows beside its slot.

        Parameters
        ----------
        slot : int
        labels : (n,) `label_dtype`
            Of the chunk's windows.
        files : OpenFiles

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        first = slot * self._slot_windows
        records = self._records[first : first + len(labels)]

        def times_of(windows: Int64) -> Int64:
            return self._values(windows, "end_time", files)

        window, end_time = self._pairing.look_up(labels["symbol"], labels["end_time"], times_of)
        records["index"], records["end_time"] = window, end_time
        has = np.flatnonzero(window >= 0)
        if not len(has):
            return
        needed, which = distinct(window[has])
        row = self._values(needed, "first_row", files)
        order = np.argsort(row)
        rows, begin = self._rows_of(needed[order], row[order], files)
        at = self._allocate(slot, len(rows))
        self.buffer.rows[at : at + len(rows)].copy_(torch.from_numpy(rows))
        begin[order] = begin.copy()
        records["start"][has] = at + begin[which]

    def _values(self, windows: Int64, name: str, files: OpenFiles) -> Int64:
        """Return a per-window value of windows of the coarser store."""
        values = np.empty(len(windows), np.int64)
        for chunk, mine in _by_chunk(windows // self._cache.store.chunk_windows):
            labels, _ = self._cache.read(chunk, files)
            values[mine] = labels[name][windows[mine] % self._cache.store.chunk_windows]
        return values

    def _rows_of(self, windows: Int64, row: Int64, files: OpenFiles) -> tuple[Float32, Int64]:
        """Gather the rows of windows, each once.

        Parameters
        ----------
        windows : (m,) int64
            Of the coarser store.
        row : (m,) int64
            Their first rows' numbers, rising.
        files : OpenFiles

        Returns
        -------
        rows : (r, F) float32
        begin : (m,) int64
            Each window's first row among them.
        """
        store = self._cache.store
        L, size = store.sequence_length, store.chunk_windows
        new = np.minimum(np.diff(row, prepend=row[0] - L), L)
        begin = np.cumsum(new) - L
        rows = np.empty((begin[-1] + L, store.n_features), np.float32)
        owner = np.repeat(windows // size, new)
        for chunk, mine in _by_chunk(owner):
            labels, decoded = self._cache.read(chunk, files)
            here = windows // size == chunk
            inside = windows[here] % size
            shift = np.zeros(len(windows), np.int64)
            start = labels["start"][inside] if store.layout == "rows" else inside * L
            shift[here] = start - begin[here]
            rows[mine] = decoded[(np.arange(len(rows)) + np.repeat(shift, new))[mine]]
        return rows, begin

    def _allocate(self, slot: int, n_rows: int) -> int:
        """Return where a slot's rows begin; what a failed attempt was given serves the next."""
        with self._lock:
            if self._place[slot] < 0:
                self._place[slot] = self._next
                self._next += n_rows
            return int(self._place[slot])

    def look_up(self, entries: Int32) -> Records:
        """Return the contexts of windows, named as the table's are: `CONTEXT_DTYPE`."""
        return self._records[entries]


def _by_chunk(chunk: Int64) -> list[tuple[int, slice | Int64]]:
    """Group places by chunk: each chunk, and the places that are its."""
    if chunk[0] == chunk[-1] and (chunk == chunk[0]).all():
        return [(int(chunk[0]), slice(None))]
    return [(int(one), np.flatnonzero(chunk == one)) for one in np.unique(chunk)]
