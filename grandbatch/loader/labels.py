"""Per-window values, where a gather finds them.

Small stores' values are read once, in large pieces, and kept whole: reading them chunk by chunk
would cost more than the matrices of overlapping windows do. Those of larger stores are read with
their chunk and lie beside it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grandbatch.store import MatrixStore

FIELDS = {
    "end_time": np.int64,
    "symbol": np.int32,
    "close_price": np.float64,
    "next_return": np.float64,
    "first_row": np.int64,
}
"""What a batch carries beside index and weight."""

_FIRST_ROW = list(FIELDS).index("first_row")
BYTES_PER_WINDOW = sum(np.dtype(dtype).itemsize for dtype in FIELDS.values())

Arrays = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class ChunkLabels:
    """What decoding a chunk needs to know of its n windows.

    Parameters
    ----------
    first_row : (n,) int64
    start : (n,) int32, optional
        Layout `rows`: first row inside the chunk's block.
    """

    first_row: npt.NDArray[np.int64]
    start: npt.NDArray[np.int32] | None


class LabelSource(Protocol):
    """Per-window values as arrays, filled chunk by chunk."""

    by_index: bool
    """Whether they are found by a window's number in the store, or by its place in a table."""

    arrays: Arrays
    """In the order of `FIELDS`."""

    def load(self, slot: int, chunk: int) -> ChunkLabels:
        """Make the values of a chunk's windows available. Thread-safe."""
        ...


def _empty(n: int) -> Arrays:
    return tuple(np.empty(n, dtype) for dtype in FIELDS.values())


class SlotLabels:
    """Values that lie beside the chunks of a table, slot by slot."""

    by_index = False

    def __init__(self, store: MatrixStore, n_slots: int):
        self._store = store
        self.arrays = _empty(n_slots * store.chunk_windows)

    def load(self, slot: int, chunk: int) -> ChunkLabels:
        """Read the values of a chunk's windows into a slot."""
        labels = self._store.read_labels(chunk)
        first = slot * self._store.chunk_windows
        for name, array in zip(FIELDS, self.arrays, strict=True):
            array[first : first + len(labels.first_row)] = getattr(labels, name)
        return ChunkLabels(labels.first_row, labels.start)


class WholeLabels:
    """Values of all windows, read in the store's own large chunks when first needed."""

    by_index = True

    def __init__(self, store: MatrixStore):
        self._store = store
        self.arrays = _empty(len(store))
        self._start = np.empty(len(store), np.int32) if store.layout == "rows" else None
        self._piece = store.spec.label_chunk_windows
        self._loaded: set[int] = set()
        self._lock = threading.Lock()

    def load(self, slot: int, chunk: int) -> ChunkLabels:
        """Read the values around a chunk, unless they are there already."""
        first, stop = self._store.chunk_range(chunk)
        piece = first // self._piece
        with self._lock:
            if piece not in self._loaded:
                self._read(piece * self._piece, min((piece + 1) * self._piece, len(self._store)))
                self._loaded.add(piece)
        start = None if self._start is None else self._start[first:stop]
        return ChunkLabels(self.arrays[_FIRST_ROW][first:stop], start)

    def _read(self, first: int, stop: int) -> None:
        for name, array in zip(FIELDS, self.arrays, strict=True):
            array[first:stop] = getattr(self._store, name)[first:stop]
        if self._start is not None:
            self._start[first:stop] = self._store.start[first:stop]
