"""A coarser store kept whole: each of its chunks is decoded once, when a window first needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from grandbatch.errors import StoreError
from grandbatch.loader.context.table import Placing
from grandbatch.loader.device import Bus
from grandbatch.loader.labels import LabelSource, SlotLabels, WholeLabels, label_dtype
from grandbatch.loader.rows import RowBuffer
from grandbatch.loader.table import SlotShape, Table, start_bytes, table_bytes
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Int32, Int64


def whole_bytes(store: MatrixStore, dtype: torch.dtype) -> int:
    """Bytes of a store that is kept whole."""
    labels: int = store.n_chunks * store.chunk_windows * label_dtype(store).itemsize
    shape, n = SlotShape.of(store), int(store.n_chunks)
    return table_bytes(store, shape, n, dtype) + start_bytes(store, shape, n) + labels


class WholeContexts:
    """Windows of a store that lies in memory, by their numbers. Thread-safe.

    Parameters
    ----------
    store : MatrixStore
    dtype : torch.dtype
    bus : Bus, optional
        The way to the device that windows are cut on.

    Attributes
    ----------
    buffer : RowBuffer
        The rows that windows are cut from.
    """

    def __init__(self, store: MatrixStore, dtype: torch.dtype, bus: Bus | None = None):
        self._store = store
        self._is_asked_for = store.is_near
        self._asking = threading.Lock()
        # by their numbers both are the same
        labels: LabelSource = (
            SlotLabels(store, store.n_chunks) if store.is_near else WholeLabels(store)
        )
        self._table = Table(store, SlotShape.of(store), store.n_chunks, dtype, labels, {}, bus)
        self.buffer: RowBuffer = self._table.buffer
        self._end_time = labels.records["end_time"]
        self._locks = [threading.Lock() for _ in range(store.n_chunks)]
        self._loaded = np.zeros(store.n_chunks, np.bool_)

    def forget(self) -> None:
        """Keep all: it serves other slots as well."""

    def reading(self, files: OpenFiles) -> _WholeReading:
        """Begin to read contexts."""
        return _WholeReading(self, files)

    def end_times(self, first: Int64, stop: Int64, files: OpenFiles) -> Int64:
        """Return the times of windows' last bars, as of `TimesOfWindows`, and read their chunks.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        self._ask_for_all()
        for chunk in (first // self._store.chunk_windows).tolist():
            self._load(chunk, partial(self._table.fill, files=files))
        ranges = zip(first.tolist(), stop.tolist(), strict=True)
        return np.concatenate([self._end_time[begin:end] for begin, end in ranges])

    def _load(self, chunk: int, fill: Callable[[int, int], None]) -> None:
        if not self._loaded[chunk]:
            with self._locks[chunk]:
                if not self._loaded[chunk]:
                    fill(chunk, chunk)
                    self._loaded[chunk] = True

    def _ask_for_all(self) -> None:
        """Read all chunks at once where each is a request; who needs one meets what went wrong."""
        with self._asking:
            if self._is_asked_for:
                return
            self._is_asked_for = True
            chunks = range(self._store.n_chunks)
            self._table.labels.begin(chunks)
            runs = self._store.ahead.runs([(chunk, chunk) for chunk in chunks])
            with ThreadPoolExecutor(self._store.ahead.at_once(runs)) as pool:
                for _ in pool.map(self._load_run, runs):
                    pass

    def _load_run(self, run: list[tuple[int, int]]) -> None:
        with OpenFiles() as files:
            decoded = self._table.read_ahead(run, files)
            fill = self._table.complete if decoded else self._table.fill
            for _, chunk in run:
                with suppress(StoreError, OSError):
                    self._load(chunk, partial(fill, files=files))

    def look_up(self, ids: Int32, index: Int64, end_time: Int64) -> Int64:
        """Find windows: write their numbers and times, return their first rows in the buffer."""
        index[:] = ids
        end_time[:] = self._end_time[ids]
        return self._table.starts(ids)


@dataclass(frozen=True, eq=False)
class _WholeReading:
    """Finds windows among all of them, once their chunks were read."""

    _source: WholeContexts
    _files: OpenFiles

    def end_times(self, first: Int64, stop: Int64) -> Int64:
        return self._source.end_times(first, stop, self._files)

    def find(self, windows: Int64) -> Placing:
        return lambda: windows
