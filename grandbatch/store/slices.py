"""A store's matrices and per-window values as lazy arrays, read where they are sliced."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grandbatch.store.reading import Array, ArrayReader

if TYPE_CHECKING:
    from grandbatch.store.reader import MatrixStore

Index = int | slice | EllipsisType


class Matrices:
    """The matrices of a store as a lazy array (N, L, F) float32, sliced along its first axis."""

    def __init__(self, store: MatrixStore):
        self._store = store

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, L, F)."""
        spec = self._store.spec
        return spec.n_windows, spec.sequence_length, spec.n_features

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Always float32."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: Index) -> npt.NDArray[np.float32]:
        start, stop, step, single = _bounds(index, len(self))
        out = np.empty((stop - start, *self.shape[1:]), np.float32)
        size = self._store.spec.chunk_windows
        buffer = np.empty(self._store.chunk_shape, np.float32)
        for chunk in range(start // size, -(-stop // size) if stop > start else 0):
            first, last = self._store.chunk_range(chunk)
            lo, hi = max(first, start), min(last, stop)
            windows = self._windows(chunk, lo - first, hi - first, buffer)
            out[lo - start : hi - start] = windows
        return out[0] if single else out[::step]

    def _windows(
        self, chunk: int, lo: int, hi: int, buffer: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        self._store.read_chunk(chunk, buffer)
        starts = self._store.read_labels(chunk).start
        if starts is None:
            return buffer[lo:hi]
        L = self._store.spec.sequence_length
        return np.stack([buffer[s : s + L] for s in starts[lo:hi]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("the matrices are on disk: reading them makes a copy")
        return self[:].astype(dtype or np.float32, copy=False)


class WindowValues:
    """One per-window array of a store as a lazy array (N,), to be sliced."""

    def __init__(self, reader: ArrayReader):
        self._reader = reader

    @property
    def shape(self) -> tuple[int]:
        """(N,)."""
        return (self._reader.spec.shape[0],)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As in the store's format."""
        return np.dtype(self._reader.spec.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> Any:
        start, stop, step, single = _bounds(index, len(self))
        spec = self._reader.spec
        size = spec.chunk_shape[0]
        out = np.empty(stop - start, spec.dtype)
        buffer = np.empty(size, spec.dtype)
        for chunk in range(start // size, -(-stop // size) if stop > start else 0):
            self._reader.read(chunk, buffer)
            first = chunk * size
            lo, hi = max(first, start), min(first + size, stop)
            out[lo - start : hi - start] = buffer[lo - first : hi - first]
        return out[0] if single else out[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("the values are on disk: reading them makes a copy")
        values: Array = self[:]
        return values.astype(dtype or self.dtype, copy=False)


def _bounds(index: Index, n: int) -> tuple[int, int, int, bool]:
    """Range, step and whether one element is meant. Negative steps read the range forward."""
    if index is Ellipsis:
        return 0, n, 1, False
    if isinstance(index, slice):
        start, stop, step = index.indices(n)
        if step < 1:
            raise IndexError(f"windows are read forward: a step must be at least 1, got {step}")
        return start, max(start, stop), step, False
    number = operator.index(index)
    if not -n <= number < n:
        raise IndexError(f"window {number} of a store of {n}")
    number %= n
    return number, number + 1, 1, True
