"""Contexts of the windows in a table: which window of the coarser store belongs to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from grandbatch.loader.context.pairing import Pairing
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import OpenFiles
from grandbatch.values.arrays import Int32, Int64

Placing = Callable[[], Int64]
"""Makes contexts that were read ready, and returns ids to find them by; reads nothing more."""


class ContextReading(Protocol):
    """Reads what the contexts of some chunks' windows need from their store."""

    def end_times(self, first: Int64, stop: Int64) -> Int64:
        """As of `TimesOfWindows`."""

    def find(self, windows: Int64) -> Placing:
        """Read windows whose times were asked for; -1 stands for none."""


class ContextSource(Protocol):
    """Where windows of a coarser store lie: all of them, or those of a table's slots."""

    buffer: RowBuffer

    def forget(self) -> None:
        """Make room for other chunks in the slots."""

    def reading(self, files: OpenFiles) -> ContextReading:
        """Begin to read contexts."""

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

    def find(self, symbol: Int32, end_time: Int64, files: OpenFiles) -> Placing:
        """Read the contexts of windows, as `place` takes them.

        Parameters
        ----------
        symbol : (n,) int32
        end_time : (n,) int64
            Of the windows of some chunks, one chunk behind the other.
        files : OpenFiles

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        reading = self._source.reading(files)
        return reading.find(self._pairing.look_up(symbol, end_time, reading.end_times))

    def place(self, slots: Sequence[int], found: Placing) -> None:
        """Put contexts beside the slots of the chunks that they were found for."""
        ids, size = found(), self._slot_windows
        for slot, first in zip(slots, range(0, len(ids), size), strict=True):
            some = ids[first : first + size]
            self._ids[slot * size : slot * size + len(some)] = some

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
