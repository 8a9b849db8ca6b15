"""A store's matrices and per-window values as lazy arrays: what is indexed is read, by chunks.

They take any index of numpy's, its operators and its functions. What isn't indexing reads the whole
array; so does an index whose first axis isn't simply chosen from (a mask over several axes).
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.lib.stride_tricks import sliding_window_view

from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import each
from grandbatch.store.format import StoreSpec
from grandbatch.store.reading import Array, ArrayReader

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labels:
    """The per-window values of one chunk's n windows.

    Parameters
    ----------
    end_time : (n,) int64
        ns since 1970 UTC of each window's last bar.
    symbol : (n,) int32
        Index into the store's symbols.
    close_price : (n,) float64
        Close of the last bar.
    next_return : (n,) float64
        c[t+1]/c[t] - 1 after the last bar; NaN at a segment's end.
    first_row : (n,) int64
        Row number, in bars order, of the first bar.
    start : (n,) int32, optional
        Layout `rows`: the window's first row inside the chunk's block.
    targets : (n, K) float32, optional
        Of stores with targets.
    """

    end_time: npt.NDArray[np.int64]
    symbol: npt.NDArray[np.int32]
    close_price: npt.NDArray[np.float64]
    next_return: npt.NDArray[np.float64]
    first_row: npt.NDArray[np.int64]
    start: npt.NDArray[np.int32] | None = None
    targets: npt.NDArray[np.float32] | None = None


class LazyArray(NDArrayOperatorsMixin, ABC):
    """An array on disk, in chunks along its first axis.

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes
        As of a numpy array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, chunk_size: int, store: Path):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._chunk_size = chunk_size
        self._far = is_remote(store)

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    nbytes = property(lambda self: self.size * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}, on disk: index it to read>"

    @abstractmethod
    def _read_chunk(self, chunk: int, wanted: slice | Positions) -> Array:
        """Read some of a chunk's elements."""

    def _read_range(self, start: int, stop: int, rest: tuple[Any, ...]) -> Array:
        """Read consecutive elements of the first axis, and of each what `rest` indexes."""
        n, size = max(0, stop - start), self._chunk_size
        if n and n == min(size, len(self) - start) and not start % size and not rest:
            # no copy: this is all there is of it
            return self._read_chunk(start // size, slice(n))
        out = np.empty((n, *self._shape_of(rest)), self.dtype)

        def read_from(first: int) -> None:
            lo, hi = max(first, start), min(first + size, stop)
            read = self._read_chunk(first // size, slice(lo - first, hi - first))
            out[lo - start : hi - start] = read[(slice(None), *rest)]

        chunks = range(start // size * size, stop, size) if n else ()
        each(read_from, chunks, far=self._far and len(chunks) > 1)
        return out

    def _read(self, positions: Positions, rest: tuple[Any, ...]) -> Array:
        """Read given elements of the first axis, each chunk once."""
        out = np.empty((len(positions), *self._shape_of(rest)), self.dtype)
        chunks = positions // self._chunk_size
        order = np.argsort(chunks, kind="stable")
        wanted, first = np.unique(chunks[order], return_index=True)

        def read_from(one: tuple[int, Positions]) -> None:
            chunk, places = one
            read = self._read_chunk(chunk, positions[places] - chunk * self._chunk_size)
            out[places] = read[(slice(None), *rest)]

        parts = zip(wanted.tolist(), np.split(order, first[1:]), strict=False)
        each(read_from, parts, far=self._far and len(wanted) > 1)
        return out

    def _shape_of(self, rest: tuple[Any, ...]) -> tuple[int, ...]:
        """Shape of what basic indices leave of one element; IndexError where they don't fit."""
        one: Array = np.broadcast_to(np.empty((), self.dtype), self.shape[1:])[rest]
        return one.shape

    def __getitem__(self, index: Any) -> Any:
        """Read a part, indexed in any way that numpy has."""
        first, *rest = self._spelled_out(index if isinstance(index, tuple) else (index,))
        basic = _are_basic(rest)
        now, later = (tuple(rest), ()) if basic else ((), tuple(rest))
        if isinstance(first, slice):
            start, stop, step = first.indices(len(self))
            if step == 1:
                read = self._read_range(start, stop, now)
            else:
                read = self._read(np.arange(start, stop, step, dtype=np.int64), now)
            return read[(slice(None), *later)] if later else read
        if first is None or first is Ellipsis or isinstance(first, bool | np.bool):
            return np.asarray(self)[index]
        chosen = np.asarray(first)
        if chosen.dtype == np.bool:
            if chosen.shape != self.shape[: chosen.ndim]:
                raise IndexError(f"a mask of shape {chosen.shape} for an array of {self.shape}")
            if chosen.ndim > 1:
                return np.asarray(self)[index]
            chosen = np.flatnonzero(chosen)
        elif not chosen.size and isinstance(first, list | tuple):
            chosen = chosen.astype(np.int64)
        if chosen.ndim == 0:
            read = self._read(self._counted(np.array([operator.index(first)])), now)
            return read[(0, *later)]
        read = self._read(self._counted(chosen.ravel()), now)
        if basic:
            return read.reshape(*chosen.shape, *read.shape[1:])
        return read[(np.arange(chosen.size).reshape(chosen.shape), *later)]

    def _spelled_out(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        """Write out an ellipsis that stands first, before basic indices; and nothing as all."""
        if index and index[0] is Ellipsis and _are_basic(index[1:]):
            missing = self.ndim - sum(one is not None for one in index[1:])
            index = (slice(None),) * missing + index[1:]
        return index or (slice(None),)

    def _counted(self, positions: Array) -> Positions:
        """Count negative positions from the end."""
        n = len(self)
        if not np.issubdtype(positions.dtype, np.integer):
            raise IndexError(
                f"windows are chosen by whole numbers or a mask, got {positions.dtype}"
            )
        wrong = positions[(positions < -n) | (positions >= n)]
        if len(wrong):
            raise IndexError(f"window {wrong[0]} of a store of {n}")
        return positions.astype(np.int64) % n

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), self._chunk_size):
            yield from self[first : first + self._chunk_size]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"{self!r}: reading it makes a copy")
        whole: Array = self[:]
        return whole.astype(self.dtype if dtype is None else dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        """Hand over the whole array: without it, PyTorch would read element by element."""
        return np.asarray(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return np.empty(0).__dlpack_device__()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        written = inputs[:1] if method == "at" else options.get("out", ())
        if any(isinstance(target, LazyArray) for target in written):
            raise TypeError(f"{self!r} can't be written to")
        options = {name: _read_whole(value) for name, value in options.items()}
        return getattr(ufunc, method)(*map(_read_whole, inputs), **options)


def _read_whole(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, LazyArray) else value


def _are_basic(indices: Sequence[Any]) -> bool:
    """Whether indices are whole numbers, slices, None and at most one ellipsis."""
    kinds = (int, np.integer, slice, EllipsisType, type(None))
    return sum(one is Ellipsis for one in indices) < 2 and all(
        isinstance(one, kinds) and not isinstance(one, bool) for one in indices
    )


class Matrices(LazyArray):
    """The matrices of a store, (N, L, F) float32.

    Parameters
    ----------
    store : Path
    spec : StoreSpec
    read_chunk : callable
        Gives a chunk's decoded rows, or its windows.
    starts : callable
        Gives the first row of each of a chunk's windows, where rows were given, else None.
    """

    def __init__(
        self,
        store: Path,
        spec: StoreSpec,
        read_chunk: Callable[[int], Array],
        starts: Callable[[int], Array | None],
    ):
        shape = (spec.n_windows, spec.sequence_length, spec.n_features)
        super().__init__(shape, np.float32, spec.chunk_windows, store)
        self._rows = read_chunk
        self._starts = starts

    def _read_chunk(self, chunk: int, wanted: slice | Positions) -> Array:
        rows = self._rows(chunk)
        start = self._starts(chunk)
        if start is None:
            return rows[wanted]
        windows = sliding_window_view(rows, self.shape[1], axis=0).swapaxes(1, 2)
        return windows[start[wanted]]


class WindowValues(LazyArray):
    """One per-window array of a store, (N,), or (N, K) of several values a window."""

    def __init__(self, reader: ArrayReader):
        spec = reader.spec
        super().__init__(spec.shape, spec.dtype, spec.chunk_shape[0], reader.store)
        self._reader = reader

    def _read_chunk(self, chunk: int, wanted: slice | Positions) -> Array:
        values = np.empty((self._chunk_size, *self.shape[1:]), self.dtype)
        self._reader.read(chunk, values)
        return values[wanted]
