"""Decoded chunks in slots of one buffer, and the windows cut from it.

Whatever the store's layout, a window is `sequence_length` consecutive rows of the buffer.
Layout `rows` decodes straight into its slot. Of layout `windows`, windows that share more than half
their rows are packed to the rows they were cut from: a slot is then as small as in layout `rows`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from grandbatch.errors import DamagedStoreError
from grandbatch.loader.labels import LabelSource, Records, SlotLabels
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Float32, Int32, Int64

if TYPE_CHECKING:
    # it has tables of coarser stores
    from grandbatch.loader.context.table import ContextTable


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
        # each run that begins inside a chunk adds the rows its first window doesn't share; without
        # periods there is one for each segment
        broken = min(int(store.attrs.get("most_runs", store.attrs["n_segments"])), C) - 1
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
    contexts : mapping of str to ContextTable
        With as many slots, for the windows of coarser bars that belong to those in the slots.

    Attributes
    ----------
    store : MatrixStore
    buffer : RowBuffer
        The rows that windows are cut from.
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
        contexts: Mapping[str, ContextTable],
    ):
        self.contexts = contexts
        self.n_slots = n_slots
        self.errors: dict[int, Exception] = {}
        self.labels: LabelSource = labels or SlotLabels(store, n_slots)
        self.store = store
        self._shape = shape
        L, F = store.sequence_length, store.n_features
        self.buffer = RowBuffer(n_slots * shape.rows, (L, F), dtype)
        self._slots = self.buffer.rows.view(n_slots, shape.rows, F)
        self._shift = np.empty(n_slots, np.int64)
        self._scratch = threading.local()
        self._filled = np.zeros(n_slots, np.bool_)
        self._claimed = self._filled.copy()

    def reuse(self, *, keep: bool) -> None:
        """Forget the chunks in the slots, or keep those that are there, and what went wrong."""
        if not keep:
            self._filled[:] = False
            for context in self.contexts.values():
                context.forget()
        self._claimed = self._filled.copy()
        self.errors = {}

    def claim(self, slot: int) -> bool:
        """Tell whether the caller is the one to fill a slot. One thread at a time."""
        unclaimed = not self._claimed[slot]
        self._claimed[slot] = True
        return bool(unclaimed)

    def read_ahead(self, chunks: Sequence[int], files: OpenFiles) -> None:
        """Read the bytes of neighbouring chunks at once, for who fills their slots next."""
        self.store.read_ahead(chunks[0], chunks[-1], files, labels=not self.labels.by_index)

    def fill(self, slot: int, chunk: int, files: OpenFiles) -> None:
        """Decode a chunk, and its windows' labels, into a slot that was claimed.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        records = self.labels.load(slot, chunk, files)
        target = self._slots[slot]
        if target.dtype == torch.float32:
            self._decode(chunk, records, target.numpy(), files)
        else:
            rows = self._scratch_array("rows", tuple(target.shape))
            self._decode(chunk, records, rows, files)
            target.copy_(torch.from_numpy(rows))
        for context in self.contexts.values():
            context.fill(slot, records, files)
        self._shift[slot] = (chunk - slot) * self.store.chunk_windows
        self._filled[slot] = True

    def _decode(self, chunk: int, records: Records, rows: Float32, files: OpenFiles) -> None:
        """Decode a chunk to rows, and see to it that the records say where windows start."""
        shape = self.store.chunk_shape
        if self._shape.packed:
            windows = self._scratch_array("windows", shape)
            self.store.read_chunk(chunk, windows, files)
            broken = int(np.count_nonzero(np.diff(records["first_row"]) != self.store.stride))
            if broken * self.store.overlap + len(records) * self.store.stride > (
                self._shape.rows - max(self.store.overlap, 0)
            ):
                raise DamagedStoreError(
                    f"{self.store.path}: chunk {chunk} of first_row is damaged: it breaks "
                    f"{broken} times, in a store of {self.store.attrs['n_segments']} segments; "
                    "build the store again with --overwrite"
                )
            records["start"] = pack_windows(windows, records["first_row"], rows, self.store.stride)
            return
        self.store.read_chunk(chunk, rows.reshape(shape), files)
        if self.store.layout == "windows":
            records["start"] = np.arange(len(records)) * self.store.sequence_length

    def _scratch_array(self, name: str, shape: tuple[int, ...]) -> Float32:
        array: Float32 | None = getattr(self._scratch, name, None)
        if array is None:
            array = np.empty(shape, np.float32)
            setattr(self._scratch, name, array)
        return array

    def look_up(
        self,
        entries: Int32,
        index: Int64,
        records: Records,
    ) -> Int64:
        """Find windows, and their labels.

        Parameters
        ----------
        entries : (n,) int32
            `slot * chunk_windows + w` for window w of the chunk in that slot.
        index : (n,) int64
            Overwritten with the windows' numbers in the store.
        records : (n,) `label_dtype`
            Overwritten with their labels.

        Returns
        -------
        (n,) int64
            Their first rows in the buffer.
        """
        slots = entries // np.int32(self.store.chunk_windows)
        np.add(self._shift[slots], entries, out=index)
        places = index if self.labels.by_index else entries
        np.take(self.labels.records, places, out=records, mode="clip")
        starts = slots.astype(np.int64)
        starts *= self._shape.rows
        starts += records["start"]
        return starts


def pack_windows(
    windows: Float32,
    first_row: Int64,
    rows: Float32,
    stride: int,
) -> Int32:
    """Copy the rows that overlapping windows were cut from, each once.

    Parameters
    ----------
    windows : (C, L, F) float32
        The first n are the windows, in order.
    first_row : (n,) int64
        Row number of each window's first row. One that follows the window before by `stride` rows
        shares the others with it; any other starts anew.
    rows : (R, F) float32
        Overwritten from its first row on; must have room.
    stride : int

    Returns
    -------
    (n,) int32
        Each window's first row in `rows`.
    """
    L, F = windows.shape[1:]
    start = np.empty(len(first_row), np.int32)
    borders = np.flatnonzero(np.diff(first_row) != stride) + 1
    at = 0
    for first, stop in pairwise([0, *borders.tolist(), len(first_row)]):
        start[first:stop] = at + np.arange(stop - first) * stride
        rows[at : at + L] = windows[first]
        at += L
        new = rows[at : at + (stop - first - 1) * stride].reshape(-1, stride, F)
        new[:] = windows[first + 1 : stop, L - stride :]
        at += new.shape[0] * stride
    return start


def table_bytes(store: MatrixStore, shape: SlotShape, n_slots: int, dtype: torch.dtype) -> int:
    """Bytes of the feature rows in a table of `n_slots`."""
    return n_slots * shape.rows * int(store.n_features) * dtype.itemsize
