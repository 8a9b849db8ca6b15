"""Decoded chunks in slots of one buffer, and the windows cut from it.

Whatever the store's layout, a window is `sequence_length` consecutive rows of the buffer.
Layout `rows` decodes straight into its slot. Of layout `windows`, windows that share more than half
their rows are packed to the rows they were cut from: a slot is then as small as in layout `rows`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from grandbatch.errors import DamagedStoreError, StoreError
from grandbatch.loader.device import Bus
from grandbatch.loader.labels import Found, LabelSource, Records, SlotLabels
from grandbatch.loader.rows import RowBuffer
from grandbatch.store import MatrixStore, OpenFiles
from grandbatch.values.arrays import Bool, Float32, Int32, Int64

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
    bus : Bus, optional
        The way to the device that windows are cut on.

    Attributes
    ----------
    store : MatrixStore
    buffer : RowBuffer
        The rows that windows are cut from.
    bus : Bus or None
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
        bus: Bus | None = None,
    ):
        self.contexts, self.bus = contexts, bus
        self.n_slots = n_slots
        self.errors: dict[int, Exception] = {}
        self.labels: LabelSource = labels or SlotLabels(store, n_slots)
        self.store = store
        self._shape = shape
        L, F = store.sequence_length, store.n_features
        self.buffer = RowBuffer(n_slots * shape.rows, (L, F), dtype, bus)
        self._slots = self.buffer.rows.view(n_slots, shape.rows, F)
        straight = dtype == torch.float32 and (shape.packed or store.layout == "rows")
        self._rows: Float32 | None = self._slots.numpy() if straight else None
        self._shift = np.empty(n_slots, np.int64)
        self._starts = np.empty((n_slots, store.chunk_windows), start_dtype(n_slots * shape.rows))
        self._scratch = threading.local()
        self._filled = np.zeros(n_slots, np.bool_)
        self._claimed: Bool = self._filled.copy()
        self._prepared = self._filled.copy()
        self._runs: list[tuple[int, ...]] = [()] * n_slots
        self._placing: set[int] = set()

    def reuse(self, *, keep: bool) -> None:
        """Forget the chunks in the slots, or keep those that are there, and what went wrong."""
        if not keep or self._placing:
            self._filled[:] = self._prepared[:] = False
            self._shift = np.empty_like(self._shift)  # labels may be looked up by the old one yet
            self._placing.clear()
            for context in self.contexts.values():
                context.forget()
        self._claimed = self._filled.copy()
        self.errors = {}

    def claimed(self, slots: Int32) -> Bool:
        """Tell which slots somebody has filled, or is filling."""
        return self._claimed[slots]

    def claim(self, slot: int) -> bool:
        """Tell whether the caller is the one to fill a slot. One thread at a time."""
        unclaimed = not self._claimed[slot]
        self._claimed[slot] = True
        return bool(unclaimed)

    @cached_property
    def fills_together(self) -> bool:
        """Whether chunks are small, and cost less where neighbours are decoded by one call."""
        return self._rows is not None and self.store.reads_together

    @cached_property
    def decodes_alone(self) -> bool:
        """Whether chunks are decoded while what belongs to their windows is on its way."""
        waited_for = self.labels.by_index and not self.store.is_near
        return waited_for and not self._shape.packed and not self.contexts

    def read_ahead(self, some: Sequence[tuple[int, int]], files: OpenFiles) -> bool:
        """Read what belongs to the windows of several chunks at once, before slots are filled.

        Of each it takes a fraction of the time. Who fills a slot meets what went wrong. Returns
        whether the chunks are decoded already, and only to be completed.

        Parameters
        ----------
        some : sequence of (int, int)
            Slots that were claimed and their chunks, in the order of the chunks.
        files : OpenFiles
        """
        decoded = False
        if not self.store.is_near:
            first, last = some[0][1], some[-1][1]
            windows = self.store.chunk_range(first)[0], self.store.chunk_range(last)[1]
            by_slot, into = not self.labels.by_index, self._straight(some)
            read = self.store.ahead.read
            decoded = read(first, last, windows, files, labels=by_slot, into=into)
            if decoded:
                self._decoded(some)
        if decoded or not self.decodes_alone:
            with suppress(StoreError, OSError):
                self._prepare([one for one in some if not self._prepared[one[0]]], files)
                decoded = decoded or self._decode_together(some, files)
        return decoded

    def _decode_together(self, some: Sequence[tuple[int, int]], files: OpenFiles) -> bool:
        """Decode chunks by one call, where they are small and lie in slots as they are stored."""
        if self._rows is None:
            return False
        slots, chunks = zip(*some, strict=True)
        runs = [self._runs[slot] for slot in slots] if self._shape.packed else None
        if not self.store.read_chunks(chunks, self._rows, slots, files, runs):
            return False
        self._decoded(some)
        return True

    def _straight(self, some: Sequence[tuple[int, int]]) -> tuple[Float32, list[int]] | None:
        """Where neighbouring chunks go that lie in slots as they are stored."""
        first, last = some[0][1], some[-1][1]
        is_plain = self._slots.dtype == torch.float32 and not self._shape.packed
        if not is_plain or last + 1 - first != len(some):
            return None
        return self._slots.numpy(), [slot for slot, _ in some]

    def _prepare(self, some: Sequence[tuple[int, int]], files: OpenFiles) -> None:
        """Read the labels of chunks' windows, and find their contexts."""
        if not some:
            return
        slots, chunks = zip(*some, strict=True)
        self.labels.load(slots, chunks, files)
        placed = self._shape.packed or self.contexts
        records = [self._records_of(*one) for one in some] if placed else []
        if self._shape.packed:
            self._find_runs(some, records)
        elif self.store.layout == "rows":
            self._put_starts(slots, self._stored_starts(some))
        else:
            self._put_starts(
                slots, np.arange(self.store.chunk_windows) * self.store.sequence_length
            )
        if self.contexts:
            symbol, end_time = (
                np.concatenate([of_chunk[name] for of_chunk in records])
                for name in ("symbol", "end_time")
            )
            # all of them are read before one takes room beside the slots
            placings = [
                partial(context.place, slots, context.find(symbol, end_time, files))
                for context in self.contexts.values()
            ]
            self._placing.add(slots[0])
            for place in placings:
                place()
        self._prepared[list(slots)] = True
        self._placing.discard(slots[0])

    def _stored_starts(self, some: Sequence[tuple[int, int]]) -> Int32:
        """Where the windows of some chunks start inside them, one chunk behind the other."""
        first, last = some[0][1], some[-1][1]
        if self.labels.by_index and last - first == len(some) - 1:
            begin, stop = self.store.chunk_range(first)[0], self.store.chunk_range(last)[1]
            starts: Int32 = self.labels.records["start"][begin:stop]
            return starts
        return np.concatenate([self._records_of(*one)["start"] for one in some])

    def _records_of(self, slot: int, chunk: int) -> Records:
        first, stop = self.store.chunk_range(chunk)
        if not self.labels.by_index:
            first, stop = (end + (slot - chunk) * self.store.chunk_windows for end in (first, stop))
        return self.labels.records[first:stop]

    def fill(self, slot: int, chunk: int, files: OpenFiles) -> None:
        """Decode a chunk, and what belongs to its windows, into a slot that was claimed.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        self._make_prepared(slot, chunk, files)
        self.decode(slot, chunk, files)
        self.complete(slot, chunk, files)

    def decode(self, slot: int, chunk: int, files: OpenFiles) -> None:
        """Do of `fill` what needs nothing else, where the table `decodes_alone`; then `complete`.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        target = self._slots[slot]
        if target.dtype == torch.float32:
            self._decode(slot, chunk, target.numpy(), files)
        else:
            rows = self._scratch_array("rows", tuple(target.shape))
            self._decode(slot, chunk, rows, files)
            target.copy_(torch.from_numpy(rows))
        self._decoded([(slot, chunk)])

    def _decoded(self, some: Sequence[tuple[int, int]]) -> None:
        slots, chunks = np.array(some, np.int64).T
        for slot in slots.tolist() if self.bus is not None else ():
            self.buffer.filled(slot * self._shape.rows, (slot + 1) * self._shape.rows)
        self._shift[slots] = (chunks - slots) * self.store.chunk_windows

    def complete(self, slot: int, chunk: int, files: OpenFiles) -> None:
        """Wait for what belongs to the windows of a chunk that was decoded.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        self._make_prepared(slot, chunk, files)
        self._filled[slot] = True

    def complete_all(self, some: Sequence[tuple[int, int]], files: OpenFiles) -> None:
        """Wait for what belongs to several chunks at once; who completes one meets an error."""
        with suppress(StoreError, OSError):
            self._prepare([one for one in some if not self._prepared[one[0]]], files)

    def _make_prepared(self, slot: int, chunk: int, files: OpenFiles) -> None:
        if not self._prepared[slot]:
            self._prepare([(slot, chunk)], files)

    def _decode(self, slot: int, chunk: int, rows: Float32, files: OpenFiles) -> None:
        """Decode a chunk to rows, and see to it that the records say where windows start."""
        if self._shape.packed:
            self.store.read_chunk(chunk, rows, files, self._runs[slot])
            return
        self.store.read_chunk(chunk, rows.reshape(self.store.chunk_shape), files)

    def _put_starts(self, slots: Sequence[int], within: npt.NDArray[np.integer[Any]]) -> None:
        """Take note of where windows start inside their slots.

        Parameters
        ----------
        slots : sequence of int
        within : (n,) int
            For all windows of their chunks, one chunk behind the other; or for those of one, where
            it is the same for each. The last chunk may have fewer.
        """
        n = self.store.chunk_windows
        if len(within) < n * len(slots) and len(within) != n:
            within = np.append(within, np.zeros(n * len(slots) - len(within), np.int64))
        first_rows = np.multiply(slots, self._shape.rows)
        self._starts[list(slots)] = within.reshape(-1, n) + first_rows[:, None]

    def _find_runs(self, some: Sequence[tuple[int, int]], records: Sequence[Records]) -> None:
        """Find how windows are packed to the rows they were cut from, each once.

        A window that follows the one before by `stride` rows shares the others with it; any other,
        and a chunk's first, starts anew.
        """
        store, (L, stride) = self.store, (self.store.sequence_length, self.store.stride)
        first_row = np.concatenate([one["first_row"] for one in records])
        bounds = [0, *accumulate(map(len, records))]
        new = np.empty(len(first_row), np.bool_)
        np.not_equal(first_row[1:] - first_row[:-1], stride, out=new[1:])
        new[bounds[:-1]] = True
        first = np.flatnonzero(new)
        if len(first) == len(some):  # nothing is broken
            for (slot, _), one in zip(some, records, strict=True):
                self._runs[slot] = (len(one),)
            slots = [slot for slot, _ in some]
            self._put_starts(slots, np.arange(store.chunk_windows) * stride)
            return
        counts = np.diff(first, append=len(new))
        stops = np.where(new, L, stride).cumsum()
        cuts = np.searchsorted(first, bounds).tolist()
        for number, (slot, chunk) in enumerate(some):
            begin, end = bounds[number], bounds[number + 1]
            runs = counts[cuts[number] : cuts[number + 1]]
            broken = len(runs) - 1
            needed = (end - begin) * stride + broken * store.overlap
            if needed > self._shape.rows - max(store.overlap, 0):
                raise DamagedStoreError(
                    f"{store.path}: chunk {chunk} of first_row is damaged: it breaks "
                    f"{broken} times, in a store of {store.attrs['n_segments']} segments; "
                    "build the store again with --overwrite"
                )
            self._runs[slot] = tuple(runs.tolist())
            before = int(stops[begin - 1]) if begin else 0
            self._put_starts([slot], stops[begin:end] - (before + L))

    def _scratch_array(self, name: str, shape: tuple[int, ...]) -> Float32:
        array: Float32 | None = getattr(self._scratch, name, None)
        if array is None:
            array = np.empty(shape, np.float32)
            setattr(self._scratch, name, array)
        return array

    def starts(self, entries: Int32) -> Int64:
        """Return the first rows of windows in the buffer, (n,) int64.

        Parameters
        ----------
        entries : (n,) int32
            `slot * chunk_windows + w` for window w of the chunk in that slot.
        """
        return self._starts.reshape(-1).take(entries).astype(np.int64, copy=False)

    def find(self, entries: Int32) -> Found:
        """Find windows, named as those of `starts`, to look up their labels."""
        labels = self.labels
        size = int(self.store.chunk_windows)
        return Found(entries, self._shift, size, labels.records, labels.by_index)


def start_dtype(n_rows: int) -> type[np.int32 | np.int64]:
    """Return the type that places of windows among so many rows are kept in."""
    return np.int32 if n_rows <= np.iinfo(np.int32).max else np.int64


def table_bytes(store: MatrixStore, shape: SlotShape, n_slots: int, dtype: torch.dtype) -> int:
    """Bytes of the feature rows in a table of `n_slots`."""
    return n_slots * shape.rows * int(store.n_features) * dtype.itemsize


def start_bytes(store: MatrixStore, shape: SlotShape, n_slots: int) -> int:
    """Bytes of where their windows start."""
    itemsize: int = np.dtype(start_dtype(n_slots * shape.rows)).itemsize
    return n_slots * int(store.chunk_windows) * itemsize
