"""Contexts of the windows in a table: which window of the coarser store belongs to each."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from grandbatch.loader.context.pairing import Pairing
from grandbatch.loader.labels import Records
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import OpenFiles
from grandbatch.values.arrays import Int32, Int64


class ContextSource(Protocol):
    """Where windows of a coarser store lie: all of them, or those of a table's slots."""

    buffer: RowBuffer

    def forget(self) -> None:
        """Make room for other chunks in the slots."""

    def end_times(self, first: int, stop: int, files: OpenFiles) -> Int64:
        """Return the times of the last bars of windows of one chunk."""

    def place(self, slot: int, windows: Int64, files: OpenFiles) -> Int64:
        """Make the contexts of a slot's windows ready, -1 for none; return ids to find them by."""

    def look_up(self, ids: Int32, index: Int64, end_time: Int64) -> Int64:
        """Write numbers and times of windows, and return their first rows in the buffer."""


class ContextTable:
    """The contexts of the windows in a table's slots.

    Filling different slots from several threads is safe.

    Parameters
    ----------
    pairing : Pairing
    source : ContextSource
    n_slots : int
    """

    def __init__(self, pairing: Pairing, source: ContextSource, n_slots: int):
        self._pairing, self._source = pairing, source
        self._slot_windows = pairing.fast.chunk_windows
        self._ids = np.zeros(n_slots * self._slot_windows, np.int32)

    @property
    def buffer(self) -> RowBuffer:
        """The rows that contexts are cut from."""
        return self._source.buffer

    def forget(self) -> None:
        """Make room for other chunks in the slots."""
        self._source.forget()

    def fill(self, slot: int, labels: Records, files: OpenFiles) -> None:
        """Find the contexts of a chunk's windows.

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

        def times_of(first: int, stop: int) -> Int64:
            return self._source.end_times(first, stop, files)

        windows = self._pairing.look_up(labels["symbol"], labels["end_time"], times_of)
        first = slot * self._slot_windows
        self._ids[first : first + len(labels)] = self._source.place(slot, windows, files)

    def look_up(self, entries: Int32, index: Int64, end_time: Int64) -> Int64:
        """Find the contexts of windows.

        Parameters
        ----------
        entries : (n,) int32
            Named as the table's are.
        index, end_time : (n,) int64
            Overwritten with the contexts' numbers and times.

        Returns
        -------
        (n,) int64
            Their first rows in the buffer.
        """
        return self._source.look_up(self._ids[entries], index, end_time)
