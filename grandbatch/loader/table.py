"""Decoded chunks in slots of one buffer, and the gather of windows from it.

Whatever the store's layout, a window is `sequence_length` consecutive rows of the buffer, so one
`index_select` over a strided view cuts windows from any slots at memory speed. Layout `rows`
decodes straight into its slot. Of layout `windows`, windows that share more than half their rows
are packed to the rows they were cut from: a slot is then as small as in layout `rows`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from grandbatch.loader.labels import ChunkLabels, LabelSource, SlotLabels
from grandbatch.store import MatrixStore

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SlotShape:
    """How a store's chunks lie in slots.

    Parameters
    ----------
    rows : int
        Rows in a slot.
    packed : bool
        Whether windows are packed to their distinct rows.
    """

    rows: int
    packed: bool

    @classmethod
    def of(cls, store: MatrixStore) -> SlotShape:
        """Choose for a store."""
        if store.layout == "rows":
            return cls(store.chunk_shape[0], packed=False)
        L, C = store.sequence_length, store.chunk_windows
        # each segment that begins inside a chunk adds the rows its first window doesn't share
        broken = min(int(store.attrs["n_segments"]), C) - 1
        distinct = (C - 1) * store.stride + L + max(broken, 0) * max(store.overlap, 0)
        if 2 * distinct <= C * L:
            return cls(distinct, packed=True)
        return cls(C * L, packed=False)


class Table:
    """Slots for decoded chunks.

    Filling different slots from several threads is safe, and so is gathering from filled ones
    meanwhile.

    Parameters
    ----------
    store : MatrixStore
    shape : SlotShape
    n_slots : int
    dtype : torch.dtype
        What features are converted to while they are decoded.
    labels : LabelSource, optional
        Values kept for the whole store; by default they lie in the slots.

    Attributes
    ----------
    errors : dict
        Slots that could not be filled, and why.
    """

    def __init__(
        self,
        store: MatrixStore,
        shape: SlotShape,
        n_slots: int,
        dtype: torch.dtype,
        labels: LabelSource | None,
    ):
        self.n_slots = n_slots
        self.errors: dict[int, Exception] = {}
        self.labels: LabelSource = labels or SlotLabels(store, n_slots)
        self._store = store
        self._shape = shape
        L, F = store.sequence_length, store.n_features
        n_rows = n_slots * shape.rows
        # numpy asks the kernel for huge pages, PyTorch doesn't
        self._memory = np.empty(n_rows * F * dtype.itemsize, np.uint8)
        rows = torch.from_numpy(self._memory).view(dtype)
        self._slots = rows.view(n_slots, shape.rows, F)
        self._windows = rows.as_strided((n_rows - L + 1, L, F), (F, F, 1))
        self._start = torch.empty(n_slots * store.chunk_windows, dtype=torch.int32)
        self._shift = torch.empty(n_slots, dtype=torch.int64)
        self._scratch = threading.local()
        self._filled = np.zeros(n_slots, np.bool_)
        self._claimed = self._filled.copy()
        self._lock = threading.Lock()

    def reuse(self, *, keep: bool) -> None:
        """Forget the chunks in the slots, or keep those that are there, and what went wrong."""
        if not keep:
            self._filled[:] = False
        self._claimed = self._filled.copy()
        self.errors = {}

    def claim(self, slot: int) -> bool:
        """Tell whether the caller is the one to fill a slot."""
        with self._lock:
            unclaimed = not self._claimed[slot]
            self._claimed[slot] = True
            return unclaimed

    def fill(self, slot: int, chunk: int) -> None:
        """Decode a chunk, and its windows' labels, into a slot that was claimed.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        C = self._store.chunk_windows
        labels = self.labels.load(slot, chunk)
        target = self._slots[slot]
        if target.dtype == torch.float32:
            start = self._decode(chunk, labels, target.numpy())
        else:
            rows = self._scratch_array("rows", tuple(target.shape))
            start = self._decode(chunk, labels, rows)
            target.copy_(torch.from_numpy(rows))
        place = slot * C
        self._start.numpy()[place : place + len(start)] = start + slot * self._shape.rows
        self._shift[slot] = (chunk - slot) * C
        self._filled[slot] = True

    def _decode(self, chunk: int, labels: ChunkLabels, rows: Float32Array) -> npt.NDArray[np.int32]:
        """Decode a chunk to rows; return where each window starts among them."""
        shape, n = self._store.chunk_shape, len(labels.first_row)
        if not self._shape.packed:
            self._store.read_chunk(chunk, rows.reshape(shape))
            if labels.start is not None:
                return labels.start
            return np.arange(n, dtype=np.int32) * np.int32(self._store.sequence_length)
        from grandbatch.kernels.packing import pack_windows

        windows = self._scratch_array("windows", shape)
        start = np.empty(n, np.int32)
        self._store.read_chunk(chunk, windows)
        pack_windows(windows, labels.first_row, rows, start)
        return start

    def _scratch_array(self, name: str, shape: tuple[int, ...]) -> Float32Array:
        array: Float32Array | None = getattr(self._scratch, name, None)
        if array is None:
            array = np.empty(shape, np.float32)
            setattr(self._scratch, name, array)
        return array

    def gather(
        self,
        entries: torch.Tensor,
        matrices: torch.Tensor,
        index: torch.Tensor,
        labels: tuple[torch.Tensor, ...],
    ) -> None:
        """Cut windows out of the slots.

        Parameters
        ----------
        entries : (n,) int32
            `slot * chunk_windows + w` for window w of the chunk in that slot.
        matrices : (n, L, F)
            Overwritten with the windows.
        index : (n,) int64
            Overwritten with their numbers in the store.
        labels : tuple of (n,) tensors
            Overwritten with their labels.
        """
        starts = torch.index_select(self._start, 0, entries)
        torch.index_select(self._windows, 0, starts, out=matrices)
        slots = torch.div(entries, self._store.chunk_windows, rounding_mode="floor")
        torch.add(torch.index_select(self._shift, 0, slots), entries, out=index)
        places = index if self.labels.by_index else entries
        for values, out in zip(self.labels.tensors, labels, strict=True):
            torch.index_select(values, 0, places, out=out)


def table_bytes(store: MatrixStore, shape: SlotShape, n_slots: int, dtype: torch.dtype) -> int:
    """Bytes of the feature rows in a table of `n_slots`."""
    return n_slots * shape.rows * int(store.n_features) * dtype.itemsize
