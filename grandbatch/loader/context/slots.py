"""Windows of a coarser store beside the slots of a table, each of their rows once.

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

from grandbatch.loader.context.pairing import distinct
from grandbatch.loader.labels import Records
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Array, Float32, Int32, Int64

CONTEXT_DTYPE = np.dtype([("index", np.int64), ("end_time", np.int64), ("start", np.int64)])
"""Of a context: its number and time, and its first row in the buffer."""

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


def shared_rows(row: Int64, window: int) -> Int64:
    """Return how many rows each window adds to those of the one before.

    Parameters
    ----------
    row : (n,) int64
        The windows' first rows, as numbered in their store.
    window : int
        Rows of one.
    """
    new = np.full(len(row), window)
    steps = np.diff(row)
    np.copyto(new[1:], steps, where=(steps > 0) & (steps < window))
    return new


@dataclass(frozen=True, eq=False)
class _Part:
    """Windows of one chunk of the coarser store, each of their rows once."""

    windows: Int64
    end_time: Int64
    begin: Int64
    """Each window's first row among the rows."""
    _source: Int64
    """Where in the chunk they are."""
    _decoded: Float32

    @classmethod
    def of(
        cls, windows: Int64, chunk: tuple[dict[str, Array], Float32], first: int, length: int
    ) -> _Part:
        labels, decoded = chunk
        inside = windows - first
        new = shared_rows(labels["first_row"][inside], length)
        begin = np.cumsum(new) - length
        start = labels["start"][inside] if "start" in labels else inside * length
        source = np.arange(begin[-1] + length) + np.repeat(start - begin, new)
        return cls(windows, labels["end_time"][inside], begin, source, decoded)

    @property
    def n_rows(self) -> int:
        return len(self._source)

    def rows(self) -> Float32:
        rows: Float32 = self._decoded[self._source]
        return rows


class SlotContexts:
    """Windows that belong to those in a table's slots.

    Placing for different slots from several threads is safe.

    Parameters
    ----------
    cache : ChunkCache
        Of the coarser store; tables may share one.
    n_contexts, n_rows : int
        Contexts and rows that any chunks in the slots need.
    dtype : torch.dtype

    Attributes
    ----------
    buffer : RowBuffer
        The rows that windows are cut from.
    """

    def __init__(self, cache: ChunkCache, n_contexts: int, n_rows: int, dtype: torch.dtype):
        self._cache = cache
        self._size, self._window = cache.store.chunk_windows, cache.store.sequence_length
        self.buffer = RowBuffer(n_rows, (self._window, cache.store.n_features), dtype)
        self._records: Records = np.zeros(n_contexts, CONTEXT_DTYPE)
        self._places: dict[int, tuple[int, int]] = {}
        self._next = 0, 0
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Make room for other chunks in the slots."""
        self._places = {}
        self._next = 0, 0

    def end_times(self, first: int, stop: int, files: OpenFiles) -> Int64:
        """Return the times of the last bars of a chunk's windows `[first, stop)`, (n,) int64.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        chunk, begin = divmod(first, self._size)
        labels, _ = self._cache.read(chunk, files)
        times: Int64 = labels["end_time"][begin : begin + stop - first]
        return times

    def place(self, slot: int, windows: Int64, files: OpenFiles) -> Int64:
        """Put windows beside a slot, each once; return what `look_up` knows them by, (n,) int64.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        has = np.flatnonzero(windows >= 0)
        if not len(has):
            return windows
        needed, which = distinct(windows[has])
        chunk = needed // self._size
        cuts = np.flatnonzero(chunk[1:] != chunk[:-1]) + 1
        parts = [
            _Part.of(some, self._cache.read(number, files), number * self._size, self._window)
            for some, number in zip(
                np.split(needed, cuts), chunk[np.append(0, cuts)].tolist(), strict=True
            )
        ]
        first, at = self._allocate(slot, len(needed), sum(part.n_rows for part in parts))
        ids = np.full(len(windows), -1, np.int64)
        ids[has] = first + which
        for part in parts:
            target = self.buffer.rows[at : at + part.n_rows]
            target.copy_(torch.from_numpy(part.rows()))
            stop = first + len(part.windows)
            records = self._records[first:stop]
            records["index"], records["end_time"] = part.windows, part.end_time
            records["start"] = at + part.begin
            first, at = stop, at + part.n_rows
        return ids

    def _allocate(self, slot: int, n_contexts: int, n_rows: int) -> tuple[int, int]:
        """Return where a slot's contexts and rows begin; a failed attempt's serve the next."""
        with self._lock:
            if slot not in self._places:
                self._places[slot] = self._next
                self._next = self._next[0] + n_contexts, self._next[1] + n_rows
            return self._places[slot]

    def look_up(self, ids: Int32, index: Int64, end_time: Int64) -> Int64:
        """Find windows: write their numbers and times, return their first rows in the buffer."""
        found = self._records[ids]
        index[:], end_time[:] = found["index"], found["end_time"]
        starts: Int64 = found["start"]
        return starts
