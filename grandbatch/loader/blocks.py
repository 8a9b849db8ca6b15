"""Blocks of decoded chunks, one ahead of the reader, on threads of their own.

Two tables take turns: while windows are gathered from one, the chunks of the next block are
decoded into the other. A table that holds all chunks is filled once and needs no second. Who wants
a block that is not finished helps to decode it: waiting would cost a core, and waking up time.

An error in a thread is kept with the windows it concerns, and met when their turn comes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter

import numpy as np

from grandbatch.files.system import available_cores
from grandbatch.loader.table import Table
from grandbatch.order import Order, Share
from grandbatch.store import OpenFiles
from grandbatch.values.arrays import Int32

_SMALL_REQUESTS = 64
"""Threads where each waits for the labels of chunks, at most, where they come with the chunks."""
_TOGETHER, _TURNS = 16, 4
"""Chunks whose labels are read together, at most, and how often each thread takes some."""
_AROUND = 64
"""Small chunks on a disk, one behind the other, that whoever needs one of them reads at once."""
_FEW = 4
"""A share with fewer windows than this many times its block's chunks reads only those it needs."""


@dataclass(eq=False)
class ShuffleBlock:
    """Windows of one share, in order, ready to gather up to the first that can't be read.

    Parameters
    ----------
    table : Table
    entries : (n,) int32
        Places of the windows in the table.
    readable : int
        Windows before the first that can't be read.
    error : Exception, optional
        Why it can't.
    """

    table: Table
    entries: Int32
    readable: int
    error: Exception | None

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(eq=False)
class _Loading:
    """A block on its way: filled by the threads that work on it.

    Parameters
    ----------
    table : Table
    todo : deque of lists of (slot, chunk)
        What no thread has taken yet; all of it once the entries are there.
    entries : Future
    workers : list of Future
    """

    table: Table
    todo: deque[list[tuple[int, int]]]
    entries: Future[Int32]
    workers: list[Future[None]] = field(default_factory=list)


class BlockFeed:
    """The blocks of some shares, in order.

    Parameters
    ----------
    order : Order
    shares : sequence of Share
    tables : sequence of Table
        One that has a slot for every chunk that takes part, or two with a slot for every chunk
        of a block.
    threads : int
        Threads that decode, at most; one core is left to who gathers. Where each chunk is waited
        for, as from a server, there are more of them.
    stopped : Event
        Set by whoever wants no more of it.
    """

    def __init__(
        self,
        order: Order,
        shares: Sequence[Share],
        tables: Sequence[Table],
        threads: int,
        stopped: threading.Event,
    ):
        self._order = order
        self._every_share = shares
        self._shares = deque(shares)
        self._resident = len(tables) == 1
        self._free = deque(tables)
        if self._resident:
            tables[0].reuse(keep=True)
        self._ahead: deque[_Loading] = deque()
        self._stopped = stopped
        self._closed = False
        self._taking = threading.Lock()
        store = self._store = tables[0].store
        self._far = not store.is_near
        # block by block, and as they are taken from each
        chunks = [
            chunk for share in shares for chunk in np.sort(order.block_chunks(share.block)).tolist()
        ]
        store.fetch(chunks)
        tables[0].labels.begin(chunks)
        self._reads_around = self._resident and (self._far or tables[0].fills_together)
        self._threads = max(1, min(threads, available_cores() - 1))
        if self._far:
            runs = self._around.values() or self._runs_of_first(shares)
            self._threads = max(self._threads, store.ahead.at_once(runs))
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="grandbatch-decode")
        self._asking = ThreadPoolExecutor(_SMALL_REQUESTS, "grandbatch-ask") if self._far else None

    def __iter__(self) -> Iterator[ShuffleBlock]:
        """Give blocks; asking for the next gives the last one's table back."""
        while self._fetch():
            loading = self._ahead.popleft()
            block = self._finished(loading)
            self._fetch()
            yield block
            self._free.append(loading.table)

    def close(self) -> None:
        """Stop the threads; each ends its chunk first."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._asking is not None:
            self._asking.shutdown()

    def _fetch(self) -> bool:
        """Start on the next blocks, as far as tables are free; tell whether any is on its way."""
        while self._shares and len(self._ahead) < 2 and self._free:
            table = self._free[0] if self._resident else self._free.popleft()
            self._ahead.append(self._start(self._shares.popleft(), table))
        return bool(self._ahead)

    def _reads_whole(self, share: Share) -> bool:
        """Whether all chunks of a share's block are read for it."""
        return share.size >= _FEW * len(self._order.block_chunks(share.block))

    @cached_property
    def _around(self) -> dict[int, list[tuple[int, int]]]:
        """All (slot, chunk) that will be read, parted into what is read at once; by chunk."""
        if not self._reads_around:
            return {}
        places: dict[int, int] = {}
        for share in filter(self._reads_whole, self._every_share):
            chunks = self._order.block_chunks(share.block).tolist()
            places.update(zip(chunks, self._order.block_places(share.block).tolist(), strict=True))
        runs = self._store.ahead.runs([(places[chunk], chunk) for chunk in sorted(places)])
        if not self._far:
            runs = [run[at : at + _AROUND] for run in runs for at in range(0, len(run), _AROUND)]
        return {chunk: run for run in runs for _, chunk in run}

    def _runs_of_first(self, shares: Sequence[Share]) -> list[list[tuple[int, int]]]:
        """Part the chunks of the first share's block as those of the others are."""
        chunks = [self._order.block_chunks(share.block) for share in shares[:1]]
        return self._store.ahead.runs([(0, chunk) for some in chunks for chunk in np.sort(some)])

    def _start(self, share: Share, table: Table) -> _Loading:
        chunks = self._order.block_chunks(share.block)
        if self._resident:
            slots = self._order.block_places(share.block)
        else:
            slots = np.empty(len(chunks), np.int32)
            slots[np.argsort(chunks)] = np.arange(len(chunks))
            table.reuse(keep=False)
        whole = self._reads_whole(share)
        # as they lie on the disk
        left = ~table.claimed(slots)
        pairs = zip(slots[left].tolist(), chunks[left].tolist(), strict=True)
        every = sorted(pairs, key=itemgetter(1))
        if whole and every and self._around:
            # whoever asks for a chunk gets those around it by the same request, or call
            todo = deque(
                {id(run): run for _, chunk in every for run in [self._around[chunk]]}.values()
            )
        else:
            todo = deque(self._parted(every) if whole else ())
        ready = threading.Event()

        def order_windows() -> Int32:
            try:
                entries = self._order.block_entries(share.block, slots)[share.offset : share.stop]
                if not whole:
                    needed = set(np.unique(entries // self._order.chunk_windows))
                    todo.extend(self._parted([one for one in every if one[0] in needed]))
            finally:
                ready.set()
            return entries

        loading = _Loading(table, todo, self._executor.submit(order_windows))

        def decode() -> None:
            if not whole:
                ready.wait()
            self._decode(table, todo)

        workers = min(self._threads, len(todo)) if whole else self._threads
        loading.workers = [self._executor.submit(decode) for _ in range(workers)]
        return loading

    def _parted(self, every: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """Part slots and chunks, in the order of the chunks, into what a thread takes at once."""
        if not self._store.is_near:
            return self._store.ahead.runs(every)
        turns = _TURNS * (self._threads + 1)
        size = max(1, min(_TOGETHER, len(every) // turns))
        return [every[at : at + size] for at in range(0, len(every), size)]

    def _decode(self, table: Table, todo: deque[list[tuple[int, int]]]) -> None:
        with OpenFiles(self._asking) as files:
            decoded: list[tuple[int, int]] = []
            while not (self._closed or self._stopped.is_set()):
                # at once: whoever finds nothing to do goes on to the next block, and must not
                # find there what another has taken from this one and not claimed yet
                with self._taking:
                    if not todo:
                        break
                    mine = [one for one in todo.popleft() if table.claim(one[0])]
                if mine and (self._far or len(mine) > 1) and table.read_ahead(mine, files):
                    decoded += mine
                elif table.decodes_alone:
                    self._each(table.decode, table, mine, files)
                    decoded += mine
                else:
                    self._each(table.fill, table, mine, files)
            # last: what belongs to the windows may still be on its way
            table.complete_all([one for one in decoded if one[0] not in table.errors], files)
            self._each(table.complete, table, decoded, files)

    def _each(
        self,
        step: Callable[[int, int, OpenFiles], None],
        table: Table,
        some: Sequence[tuple[int, int]],
        files: OpenFiles,
    ) -> None:
        """Take a step with each chunk; where one fails, why is kept with its slot."""
        for slot, chunk in some:
            if self._closed or self._stopped.is_set():
                return
            if slot in table.errors:
                continue
            try:
                step(slot, chunk, files)
            except Exception as error:  # noqa: BLE001 - raised again at its first window
                table.errors[slot] = error

    def _finished(self, loading: _Loading) -> ShuffleBlock:
        entries = loading.entries.result()
        # rather than wait, take a share of what is left
        self._decode(loading.table, loading.todo)
        for worker in loading.workers:
            worker.result()
        if self._stopped.is_set():
            return ShuffleBlock(loading.table, entries, 0, CancelledError())
        readable, error = len(entries), None
        failed = dict(loading.table.errors)
        if failed:
            slots = entries // self._order.chunk_windows
            bad = np.flatnonzero(np.isin(slots, list(failed)))
            if len(bad):
                readable, error = int(bad[0]), failed[int(slots[bad[0]])]
        return ShuffleBlock(loading.table, entries, readable, error)
