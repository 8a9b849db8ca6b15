"""A coarser store kept whole: each of its chunks is decoded once, when a window first needs it."""

from __future__ import annotations

import threading

import numpy as np
import torch

from grandbatch.loader.labels import SlotLabels, label_dtype
from grandbatch.loader.rows import RowBuffer
from grandbatch.loader.table import SlotShape, Table, table_bytes
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Int32, Int64


def whole_bytes(store: MatrixStore, dtype: torch.dtype) -> int:
    """Bytes of a store that is kept whole."""
    labels: int = store.n_chunks * store.chunk_windows * label_dtype(store).itemsize
    return table_bytes(store, SlotShape.of(store), store.n_chunks, dtype) + labels


class WholeContexts:
    """Windows of a store that lies in memory, by their numbers. Thread-safe.

    Parameters
    ----------
    store : MatrixStore
    dtype : torch.dtype

    Attributes
    ----------
    buffer : RowBuffer
        The rows that windows are cut from.
    """

    def __init__(self, store: MatrixStore, dtype: torch.dtype):
        self._store = store
        labels = SlotLabels(store, store.n_chunks)
        self._table = Table(store, SlotShape.of(store), store.n_chunks, dtype, labels, {})
        self.buffer: RowBuffer = self._table.buffer
        self._end_time = labels.records["end_time"]
        self._locks = [threading.Lock() for _ in range(store.n_chunks)]
        self._loaded = np.zeros(store.n_chunks, np.bool_)

    def forget(self) -> None:
        """Keep all: it serves other slots as well."""

    def end_times(self, first: int, stop: int, files: OpenFiles) -> Int64:
        """Return the times of the last bars of a chunk's windows `[first, stop)`, (n,) int64.

        The chunk is there from then on.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        chunk = first // self._store.chunk_windows
        if not self._loaded[chunk]:
            with self._locks[chunk]:
                if not self._loaded[chunk]:
                    self._table.fill(chunk, chunk, files)
                    self._loaded[chunk] = True
        return self._end_time[first:stop]

    def place(self, slot: int, windows: Int64, files: OpenFiles) -> Int64:
        """Return the ids of windows that `end_times` was asked about: their numbers."""
        return windows

    def look_up(self, ids: Int32, index: Int64, end_time: Int64) -> Int64:
        """Find windows: write their numbers and times, return their first rows in the buffer."""
        records = np.empty(len(ids), self._table.labels.records.dtype)
        starts = self._table.look_up(ids, index, records)
        end_time[:] = records["end_time"]
        return starts
