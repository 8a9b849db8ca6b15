"""The memory that loading takes: planned from sizes, kept from epoch to epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grandbatch.config import is_given
from grandbatch.loader.context.room import ContextRoom
from grandbatch.loader.context.slots import ChunkCache, SlotContexts
from grandbatch.loader.context.table import ContextTable
from grandbatch.loader.context.whole import WholeContexts
from grandbatch.loader.device import STAGED_BYTES, Bus
from grandbatch.loader.labels import WholeLabels, coming_label_bytes, label_dtype
from grandbatch.loader.slabs import Pools, SlabPool
from grandbatch.loader.table import SlotShape, Table, start_bytes, table_bytes
from grandbatch.store import MatrixStore

_FAR = 4
"""So many times `cache_bytes` are kept of the labels of a store whose chunks are requests, and of
both together, unless a person has given what the bound is."""


class Buffers:
    """Tables and slabs of one loader.

    A store whose chunks fit into `cache_bytes`, or into the two tables that shuffling needs in any
    case, gets one table for all of them, so that later epochs decode nothing. Per-window values
    are kept whole where they fit into as much. Tables are lent to one iteration at a time; a second
    one at the same time gets its own. Nothing here is allocated before it is used.

    Parameters
    ----------
    store : MatrixStore
    n_chunks : int
        Chunks that take part.
    shuffle_chunks : int
        Chunks in a block.
    cache_bytes : int
    dtype : torch.dtype
    pinned : bool
    rooms : mapping of str to ContextRoom
        What the contexts of the windows need.
    device : torch.device, optional
        Where windows are cut.
    """

    def __init__(
        self,
        store: MatrixStore,
        n_chunks: int,
        shuffle_chunks: int,
        cache_bytes: int,
        dtype: torch.dtype,
        pinned: bool,
        rooms: Mapping[str, ContextRoom],
        device: torch.device | None,
    ):
        self._arguments = (
            store,
            n_chunks,
            shuffle_chunks,
            cache_bytes,
            dtype,
            pinned,
            rooms,
            device,
        )
        self._device = device
        self._store = store
        self._dtype = dtype
        self._pinned = pinned
        self._shape = SlotShape.of(store)
        block = min(shuffle_chunks, n_chunks)
        self._rooms, self._cache_bytes = rooms, cache_bytes
        self.label_dtype = label_dtype(store)
        n_label_bytes = len(store) * self.label_dtype.itemsize
        # by chunks, each value of a window is a request where they come from a server
        whole = cache_bytes if store.is_near else _FAR * cache_bytes
        self._whole_labels = n_label_bytes <= whole
        # and each chunk is one, unless all are fetched as they lie in their files
        kept = cache_bytes if store.is_near or is_given(cache_bytes) else whole - n_label_bytes
        two, every = self._bytes_of([block, block]), self._bytes_of([n_chunks])
        self.resident = every <= max(two, cache_bytes, kept)
        self._n_slots = [n_chunks] if self.resident else [block, block]
        self._idle: deque[list[Table]] = deque(maxlen=1)
        self._pools: Pools | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, self._arguments

    def without_cache(self) -> Buffers:
        """Return buffers for the same windows that hold no more than shuffling needs."""
        store, n_chunks, shuffle_chunks, _, dtype, pinned, rooms, device = self._arguments
        return Buffers(store, n_chunks, shuffle_chunks, 0, dtype, pinned, rooms, device)

    def _bytes_of(self, n_slots: Sequence[int]) -> int:
        """Bytes of the matrices of some tables, and of all that belongs to their contexts."""
        own = table_bytes(self._store, self._shape, sum(n_slots), self._dtype)
        return own + sum(
            room.n_bytes(n_slots, self._dtype, self._cache_bytes) for room in self._rooms.values()
        )

    @property
    def itemsize(self) -> int:
        """Bytes of a number in matrices."""
        return self._dtype.itemsize

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables' matrices, and of all that belongs to their contexts."""
        return self._bytes_of(self._n_slots)

    @property
    def label_bytes(self) -> int:
        """Bytes of the per-window values beside them, and of where windows start."""
        in_slots = sum(self._n_slots) * int(self._store.chunk_windows)
        starts = sum(start_bytes(self._store, self._shape, n) for n in self._n_slots)
        whole = len(self._store) if self._whole_labels else in_slots
        return starts + self.label_dtype.itemsize * whole

    @property
    def n_bytes(self) -> int:
        """Bytes of both, and of what a device takes of this memory.

        That is where rows are sent from and, if it is the CPU, as much as the tables once more.
        """
        own = self.table_bytes + self.label_bytes
        if self._device is None:
            return own
        return own + STAGED_BYTES + (self.table_bytes if self._device.type == "cpu" else 0)

    @property
    def coming_bytes(self) -> int:
        """Bytes held at most of what is on its way from stores at URLs."""
        own = self._store.coming_bytes(labels=not self._whole_labels)
        if self._whole_labels:
            own += coming_label_bytes(self._store)
        slow = (room.pairing.slow for room in self._rooms.values())
        return own + sum(store.coming_bytes(labels=True) for store in slow)

    # what was made in inference mode could not be written to outside of it, in another epoch
    @torch.inference_mode(False)
    def take_tables(self) -> list[Table]:
        """Lend one table, or two."""
        try:
            return self._idle.popleft()
        except IndexError:
            labels = WholeLabels(self._store) if self._whole_labels else None
            bus = None if self._device is None else Bus(self._device)
            contexts = {name: self._context_tables(room, bus) for name, room in self._rooms.items()}
            return [
                Table(
                    self._store,
                    self._shape,
                    n_slots,
                    self._dtype,
                    labels,
                    {name: tables[number] for name, tables in contexts.items()},
                    bus,
                )
                for number, n_slots in enumerate(self._n_slots)
            ]

    def _context_tables(self, room: ContextRoom, bus: Bus | None) -> list[ContextTable]:
        """Return what belongs to each table of a context."""
        dtype, slow = self._dtype, room.pairing.slow
        if room.is_whole(self._n_slots, dtype, self._cache_bytes):
            whole = WholeContexts(slow, dtype, bus)
            return [ContextTable(room.pairing, whole, n) for n in self._n_slots]
        cache = ChunkCache(slow)
        return [
            ContextTable(
                room.pairing,
                SlotContexts(cache, room.n_contexts(n), room.n_rows(n), dtype, bus),
                n,
            )
            for n in self._n_slots
        ]

    def give_back(self, tables: list[Table]) -> None:
        """Take tables back that no thread uses any more."""
        self._idle.append(tables)

    def slabs(self, n: int) -> Pools:
        """Return the pools of slabs for `n` windows, and for their contexts."""
        if self._pools is None or self._pools.matrices.n != n:
            contexts = {
                name: self._pool(n, room.pairing.slow) for name, room in self._rooms.items()
            }
            self._pools = Pools(self._pool(n, self._store), contexts)
        return self._pools

    def _pool(self, n: int, store: MatrixStore) -> SlabPool:
        shape = store.sequence_length, store.n_features
        return SlabPool(n, shape, self._dtype, pinned=self._pinned)
