"""Windows of a coarser store beside the slots of a table, each of their rows once.

The windows of a chunk have few contexts, and these share most of their rows. So what lies beside a
chunk is small, and windows are cut from it just as from the chunk. Neighbouring chunks need the
same chunks of the coarser store: those decoded last are kept.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from grandbatch.loader.context.pairing import distinct
from grandbatch.loader.context.table import Placing
from grandbatch.loader.device import Bus
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

    @staticmethod
    def bytes_of(store: MatrixStore) -> int:
        """Bytes of decoded chunks that a cache of a store keeps."""
        kept: int = min(_KEPT_CHUNKS, store.n_chunks)
        return kept * math.prod(store.chunk_shape) * 4

    def read(self, chunk: int, files: OpenFiles) -> Float32:
        """Return the rows of a chunk's windows, (R, F) float32, not to be changed."""
        with self._lock:
            decoded = self._chunks.pop(chunk, None) or _Decoded(threading.Lock())
            self._chunks[chunk] = decoded
            if len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        with decoded.lock:
            if decoded.rows is None:
                rows = self.store.read_chunk(chunk, files=files)
                decoded.rows = rows.reshape(-1, self.store.n_features)
            return decoded.rows


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
    bus : Bus, optional
        The way to the device that windows are cut on.

    Attributes
    ----------
    buffer : RowBuffer
        The rows that windows are cut from.
    """

    def __init__(
        self,
        cache: ChunkCache,
        n_contexts: int,
        n_rows: int,
        dtype: torch.dtype,
        bus: Bus | None = None,
    ):
        self._cache = cache
        window = cache.store.sequence_length, cache.store.n_features
        self.buffer = RowBuffer(n_rows, window, dtype, bus)
        self._records: Records = np.zeros(n_contexts, CONTEXT_DTYPE)
        self._next = 0, 0
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Make room for other chunks in the slots."""
        self._next = 0, 0

    def reading(self, files: OpenFiles) -> _SlotReading:
        """Begin to read contexts."""
        return _SlotReading(self._cache, files, self.place)

    def place(self, records: Records, rows: Float32) -> int:
        """Put contexts and their rows beside the slots; return the first one's place.

        Parameters
        ----------
        records : (n,) CONTEXT_DTYPE
            Each with its first row among the rows given; changed in place.
        rows : (R, F) float32
        """
        with self._lock:
            first, at = self._next
            self._next = first + len(records), at + len(rows)
        records["start"] += at
        self._records[first : first + len(records)] = records
        self.buffer.rows[at : at + len(rows)].copy_(torch.from_numpy(rows))
        self.buffer.filled(at, at + len(rows))
        return first

    def look_up(self, ids: Int32, index: Int64, end_time: Int64) -> Int64:
        """Find windows: write their numbers and times, return their first rows in the buffer."""
        found = self._records[ids]
        index[:], end_time[:] = found["index"], found["end_time"]
        starts: Int64 = found["start"]
        return starts


class _SlotReading:
    """Reads windows of a coarser store, each of their rows once.

    Parameters
    ----------
    cache : ChunkCache
    files : OpenFiles
    place : callable
        As `SlotContexts.place`.
    """

    def __init__(
        self, cache: ChunkCache, files: OpenFiles, place: Callable[[Records, Float32], int]
    ):
        self._cache, self._files, self._place = cache, files, place
        self._store = store = cache.store
        self._names = ["end_time", "first_row", *(["start"] if store.layout == "rows" else [])]
        self._labels: dict[int, dict[str, Array]] = {}

    def end_times(self, first: Int64, stop: Int64) -> Int64:
        """As of `TimesOfWindows`."""
        size = self._store.chunk_windows
        chunks = (first // size).tolist()
        wanted = sorted(set(chunks) - set(self._labels))
        if wanted:
            values = self._store.read_values(wanted, self._names, self._files)
            for place, chunk in enumerate(wanted):
                self._labels[chunk] = {name: some[place] for name, some in values.items()}
        begin, end = (first % size).tolist(), (stop - first // size * size).tolist()
        return np.concatenate(
            [
                self._labels[chunk]["end_time"][a:b]
                for chunk, a, b in zip(chunks, begin, end, strict=True)
            ]
        )

    def find(self, windows: Int64) -> Placing:
        """Read windows whose times were asked for; -1 stands for none."""
        has = np.flatnonzero(windows >= 0)
        if not len(has):
            return lambda: windows
        needed, which = distinct(windows[has])
        records, rows = self._read(needed)

        def place() -> Int64:
            ids = np.full(len(windows), -1, np.int64)
            ids[has] = self._place(records, rows) + which
            return ids

        return place

    def _read(self, windows: Int64) -> tuple[Records, Float32]:
        """Read windows, rising; what comes of another chunk shares no row."""
        size, length = self._store.chunk_windows, self._store.sequence_length
        chunk = windows // size
        cuts = np.append(0, np.flatnonzero(chunk[1:] != chunk[:-1]) + 1)
        chunks, inside = chunk[cuts].tolist(), windows - chunk * size
        parts = [slice(*ends) for ends in pairwise([*cuts.tolist(), len(windows)])]

        def values(name: str) -> Array:
            return np.concatenate(
                [
                    self._labels[number][name][inside[part]]
                    for number, part in zip(chunks, parts, strict=True)
                ]
            )

        new = shared_rows(values("first_row"), length)
        new[cuts] = length
        begin = np.cumsum(new) - length
        start = values("start") if "start" in self._names else inside * length
        source = np.arange(begin[-1] + length) + np.repeat(start - begin, new)
        rows = np.empty((len(source), self._store.n_features), np.float32)
        edges = [*begin[cuts].tolist(), len(source)]
        for number, (a, b) in zip(chunks, pairwise(edges), strict=True):
            decoded = self._cache.read(number, self._files)
            # places were checked as they were read; to check again, numpy would copy all once more
            np.take(decoded, source[a:b], axis=0, out=rows[a:b], mode="clip")
        records = np.empty(len(windows), CONTEXT_DTYPE)
        records["index"], records["end_time"] = windows, values("end_time")
        records["start"] = begin
        return records, rows
