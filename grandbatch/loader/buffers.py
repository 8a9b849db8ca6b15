"""The memory that loading takes: planned from sizes, kept from epoch to epoch."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from grandbatch.loader.labels import WholeLabels, label_dtype
from grandbatch.loader.slabs import SlabPool
from grandbatch.loader.table import SlotShape, Table, table_bytes
from grandbatch.store import MatrixStore


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
    """

    def __init__(
        self,
        store: MatrixStore,
        n_chunks: int,
        shuffle_chunks: int,
        cache_bytes: int,
        dtype: torch.dtype,
        pinned: bool,
    ):
        self._arguments = (store, n_chunks, shuffle_chunks, cache_bytes, dtype, pinned)
        self._store = store
        self._dtype = dtype
        self._pinned = pinned
        self._shape = SlotShape.of(store)
        block = min(shuffle_chunks, n_chunks)
        two = table_bytes(store, self._shape, 2 * block, dtype)
        every = table_bytes(store, self._shape, n_chunks, dtype)
        self.resident = every <= max(two, cache_bytes)
        self._n_slots = [n_chunks] if self.resident else [block, block]
        self.label_dtype = label_dtype(store)
        self._whole_labels = len(store) * self.label_dtype.itemsize <= cache_bytes
        self._idle: deque[list[Table]] = deque(maxlen=1)
        self._pool: SlabPool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, self._arguments

    def without_cache(self) -> Buffers:
        """Return buffers for the same windows that hold no more than shuffling needs."""
        store, n_chunks, shuffle_chunks, _, dtype, pinned = self._arguments
        return Buffers(store, n_chunks, shuffle_chunks, 0, dtype, pinned)

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables' matrices."""
        return table_bytes(self._store, self._shape, sum(self._n_slots), self._dtype)

    @property
    def label_bytes(self) -> int:
        """Bytes of the per-window values beside them."""
        in_slots = sum(self._n_slots) * int(self._store.chunk_windows)
        return self.label_dtype.itemsize * (len(self._store) if self._whole_labels else in_slots)

    def take_tables(self) -> list[Table]:
        """Lend one table, or two."""
        try:
            return self._idle.popleft()
        except IndexError:
            labels = WholeLabels(self._store) if self._whole_labels else None
            return [
                Table(self._store, self._shape, n_slots, self._dtype, labels)
                for n_slots in self._n_slots
            ]

    def give_back(self, tables: list[Table]) -> None:
        """Take tables back that no thread uses any more."""
        self._idle.append(tables)

    def slabs(self, n: int) -> SlabPool:
        """Return the pool of slabs for `n` windows."""
        if self._pool is None or self._pool.n != n:
            shape = self._store.sequence_length, self._store.n_features
            self._pool = SlabPool(n, shape, self._dtype, pinned=self._pinned)
        return self._pool
