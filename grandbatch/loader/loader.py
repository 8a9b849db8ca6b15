"""`SlidingWindowDataLoader`: batches of a store at memory speed, resumable at any of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from grandbatch.batch import MatrixBatch
from grandbatch.config import MOST, BatchConfig
from grandbatch.errors import UsageError
from grandbatch.loader.batches import Handover, Turn, every_batch, some_batches
from grandbatch.loader.blocks import BlockFeed, ShuffleBlock
from grandbatch.loader.buffers import Buffers
from grandbatch.loader.checks import (
    check_config,
    check_process,
    check_settings,
    check_store,
    device_of,
    first_batch_size,
    mixed,
)
from grandbatch.loader.context.contexts import Contexts
from grandbatch.loader.standing.standing import Standing
from grandbatch.loader.standing.state import make_state, read_state
from grandbatch.loader.subset import Symbols, select, symbol_names, within
from grandbatch.loader.weighing import Weights, weigh
from grandbatch.loader.windows import WindowStream
from grandbatch.order import Order, OrderSettings, deal, epoch_order, epoch_start, shuffle_vif
from grandbatch.order.settings import Remainder
from grandbatch.position import Position
from grandbatch.splits import Split
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Bool
from grandbatch.values.checks import whole
from grandbatch.values.times import to_nanoseconds

if TYPE_CHECKING:
    from grandbatch.values.times import Duration, Time


class SlidingWindowDataLoader(IterableDataset[MatrixBatch]):
    """Batches of a store's windows: each exactly once an epoch, or drawn by weights.

    Iterating goes through one epoch. After a complete epoch, iterating again goes through the
    next; after an epoch that was left early, through the same one again. After `load_state_dict`
    it goes on right behind the batch the state was taken at.

    Also an `IterableDataset`: `torch.utils.data.DataLoader(loader, batch_size=None,
    num_workers=k)` hands over the same batches in the same order for any k, and goes from epoch to
    epoch as iterating the loader does. But worker processes have copies of the loader: save the
    position of the batch last received.

    Parameters
    ----------
    store : MatrixStore
    config : BatchConfig, optional
        By default one of the store's length and overlap.
    shuffle : bool
        False gives the order of the store.
    seed : int, optional
        Of the order; by default the config's.
    rank, world_size : int
        Which share of each epoch to hand over. All ranks see equally many batches of equal size.
    start, stop : str, datetime, Timestamp or int, optional
        Only windows whose last bar's time is in [start, stop); whole numbers are ns since 1970,
        times without a zone UTC.
    symbols : str, iterable of str, or callable, optional
        Only these symbols' windows: names, patterns such as ``"SYM9*"``, or what tells of a name
        whether it is meant. A state holds the names that were found.
    subset : Split or (N,) bool array, optional
        Only the windows of a split, as made by `split_store` or `walk_forward`; or those for which
        an array of one bool for each window of the store is true.
    weights : "symbol", mapping, (N,) array or str, optional
        Draw the windows that take part with replacement instead, as many as there are: every
        symbol equally often, or each as often as a mapping says; or each window as often as its
        value in an array of one for each window of the store, or in the per-window array named.
    shuffle_chunks : int, optional
        Chunks whose windows are mixed. More cost memory and make `shuffle_vif` smaller; the
        default gives 2 for batches of 1,024, as far as 64 MB allow.
    run_length : int
        Windows of one segment that stay together, in order.
    remainder : "pad" or "drop"
        What happens where windows and ranks don't come out even: ranks that are one short repeat
        one with weight 0, or the others drop theirs.
    dtype : torch.dtype
        Of the matrices: float32, or bfloat16 or float16, rounded while they are read.
    pin_memory : bool
        Hand over matrices in page-locked memory; needs a GPU.
    context : mapping of str to MatrixStore, optional
        Stores of coarser bars by name. With each window comes the last one of the same symbol in
        each of them that was known when the window was, as `batch.context[name]`. Windows that
        have none are left out.
    max_age : str or timedelta, optional
        How long a context may have been known by then: windows with an older one are left out.
    device : str or torch.device, optional
        Where batches are to be, such as ``"cuda"``: decoded rows are sent there, each once, and
        windows are cut from them there. The same windows in the same order, with the same bits.
        Not in worker processes of a `DataLoader`.

    Attributes
    ----------
    store, config, rank, world_size
    device : torch.device or None
    settings : OrderSettings
        What decides the order.
    selection : Selection or WeightedSelection
        The windows that take part.

    Raises
    ------
    UsageError
        If the settings contradict the store or each other, or leave no window.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=256), seed=1)
    >>> batch = next(iter(loader))
    >>> again = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=256), seed=1)
    >>> again.load_state_dict(loader.state_dict())  # JSON; goes on behind this batch
    >>> len(batch) + sum(len(rest) for rest in again) == len(store)
    True
    """

    def __init__(
        self,
        store: MatrixStore,
        config: BatchConfig | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        start: Time | None = None,
        stop: Time | None = None,
        symbols: Symbols | None = None,
        shuffle_chunks: int | None = None,
        run_length: int = 1,
        remainder: Remainder = "pad",
        dtype: torch.dtype = torch.float32,
        pin_memory: bool = False,
        subset: Split | Bool | None = None,
        context: Mapping[str, MatrixStore] | None = None,
        max_age: Duration | None = None,
        weights: Weights | None = None,
        device: str | torch.device | None = None,
    ):
        check_store(store)
        self.store = store
        self.config = (config or BatchConfig()).with_window(store.sequence_length, store.overlap)
        self.rank, self.world_size = rank, world_size
        check_config(store, self.config)
        check_settings(rank, world_size, dtype, pinned=pin_memory)
        self.device = device_of(device, pinned=pin_memory)
        chosen = OrderSettings(
            seed=self.config.seed if seed is None else seed,
            shuffle=shuffle,
            shuffle_chunks=1 if shuffle_chunks is None else shuffle_chunks,
            run_length=run_length,
            start=None if start is None else to_nanoseconds(start, "start"),
            stop=None if stop is None else to_nanoseconds(stop, "stop"),
            symbols=None if symbols is None else symbol_names(store, symbols),
            remainder=remainder,
        )
        chosen = within(chosen, subset)
        self._contexts = Contexts(store, context, max_age)
        kept = select(store, chosen, self._contexts, subset)
        self.selection, chosen = weigh(store, kept, weights, chosen)
        if shuffle_chunks is None:
            chosen = mixed(chosen, store, self.selection, self._contexts.mean_bytes)
        self.settings = chosen
        self._batch_size = first_batch_size(self.config, store)
        self._buffers = Buffers(
            store,
            len(self.selection.chunks),
            chosen.shuffle_chunks,
            self.config.cache_bytes,
            dtype,
            pin_memory,
            self._contexts.rooms(self.selection.chunks),
            self.device,
        )
        self._standing = Standing()

    def __len__(self) -> int:
        """Batches that each rank sees in an epoch."""
        share, rest = divmod(len(self.selection), self.world_size)
        if rest and self.settings.remainder == "pad":
            share += 1
        return (share + self._batch_size - 1) // self._batch_size

    @property
    def n_windows(self) -> int:
        """Windows in an epoch, over all ranks; one that is drawn twice is two."""
        return len(self.selection)

    @property
    def n_without_context(self) -> int:
        """Windows that would be in an epoch, had they a context that is not too old."""
        return self._contexts.n_without

    @property
    def window_bytes(self) -> int:
        """Bytes of a window's matrix in a batch, and of those of its contexts."""
        stores = [self.store, *(pairing.slow for pairing in self._contexts.pairings.values())]
        numbers: int = sum(store.sequence_length * store.n_features for store in stores)
        return numbers * self._buffers.itemsize

    @property
    def batch_size(self) -> int:
        """Windows in a batch. Setting it while iterating cuts what was already gathered.

        Neither windows nor their order depend on it. All ranks must set it at the same step.
        """
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = whole("batch_size", value, 1, MOST)

    @property
    def shuffle_vif(self) -> float:
        """Variance of a batch's mean store position relative to a perfect shuffle; 1 is perfect."""
        return shuffle_vif(
            self._batch_size,
            self.settings.shuffle_chunks,
            len(self.selection.chunks),
            run_length=self.settings.run_length,
            shuffle=self.settings.shuffle,
        )

    @property
    def buffer_bytes(self) -> int:
        """Bytes of decoded chunks that the loader holds, with their labels, and of weights.

        Not of those that a GPU holds: as much again as here, without labels.
        """
        return self._buffers.n_bytes + self.selection.weight_bytes

    @property
    def coming_bytes(self) -> int:
        """Bytes that are held beside `buffer_bytes`, at most, while a store at a URL is read."""
        return self._buffers.coming_bytes

    @property
    def spare_bytes(self) -> int:
        """Those of `buffer_bytes` that only save decoding again: what `release_cache` gives up."""
        return max(0, self._buffers.n_bytes - self._buffers.without_cache().n_bytes)

    def release_cache(self) -> None:
        """Keep decoded chunks no longer than needed from here on; not while iterating."""
        self._buffers = self._buffers.without_cache()

    @property
    def epoch(self) -> int:
        """The epoch that iterating goes through now or, before and after, the next one."""
        return self._standing.now()[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate through next, from its start.

        Where a state of that very epoch was loaded and not used yet, it stays in force.
        """
        self._standing.choose(whole("an epoch", epoch, 0))

    @property
    def position(self) -> Position:
        """Where the epoch stands after the batch last handed over."""
        position = self._standing.position()
        if position is not None:
            return position
        start = epoch_start(self._order(self.epoch), self.world_size)
        return replace(start, batch_size=self._batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands after the batch last handed over, as JSON types."""
        skip = {} if self._standing.skip is None else {"skip": self._standing.skip}
        return {**self.state_at(self.position), **skip}

    def state_at(self, position: Position) -> dict[str, Any]:
        """Return the state that goes on at a batch's position."""
        return make_state(position, self.store, self.settings, self._contexts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, also under another world size or batch size.

        Raises
        ------
        CheckpointError
            If the state is damaged, or of other windows, another context or another order.
        """
        position = read_state(state, self.store, self.settings, self._contexts)
        deal(self._order(position.epoch), self.world_size, position)
        self._standing.load(position, state)

    def _order(self, epoch: int) -> Order:
        return epoch_order(self.settings, self.selection, epoch)

    def __iter__(self) -> Iterator[MatrixBatch]:
        """Hand over the batches of an epoch, or what is left of it."""
        refused = None
        try:
            check_process(self.device)
            self._standing.join()
        except UsageError as error:  # raised by the first batch: here it would end the worker
            refused = error
        return self._iterate(refused)

    def _iterate(self, refused: UsageError | None) -> Iterator[MatrixBatch]:
        if refused is not None:
            raise refused
        handover = self.begin()
        for batch in self.batches(handover):
            self.deliver(batch)
            yield batch
        self.finish(handover)

    def begin(self) -> Handover:
        """Start an iteration: where a loaded state says, or at the start of the epoch."""
        epoch, start, is_over = self._standing.begin()
        handover = self._stand_at(epoch, start)
        if is_over:
            return handover.after(handover.deal.windows_per_rank, 0, self._batch_size)
        self._standing.delivered = handover
        return handover

    def _stand_at(self, epoch: int, start: Position | None) -> Handover:
        """Deal an epoch, from its start or from where some of it was handed over."""
        dealt = deal(self._order(epoch), self.world_size, start)
        return Handover(dealt, 0, 0 if start is None else start.step, self.rank, self._batch_size)

    def whole_epoch(self) -> Iterator[MatrixBatch]:
        """Go through the epoch from its start; where the loader stands is left as it is."""
        for batch in self.batches(self._stand_at(self.epoch, None)):
            batch.arrive()
            yield batch

    def deliver(self, batch: MatrixBatch) -> None:
        """Take note that a batch is handed over: from here on the state is the one behind it."""
        handover = batch.behind
        assert isinstance(handover, Handover)
        batch.arrive()
        self._standing.deliver(handover)

    def finish(self, handover: Handover) -> None:
        """Take note that the epoch is over. The last batch may have gone to another worker."""
        whole_epoch = handover.deal.windows_per_rank
        self._standing.finish(handover.after(whole_epoch, 0, self._batch_size))

    def batches(self, handover: Handover, stopped: Event | None = None) -> Generator[MatrixBatch]:
        """Prepare the batches behind what was handed over, without handing them over.

        Another thread may set `stopped`, so that reading ends at once, with an error.
        """
        dealt = handover.deal
        shares, n_real = list(dealt.shares(self.rank)), dealt.hands[self.rank].total
        if n_real < dealt.windows_per_rank:
            shares.append(dealt.padding)
        buffers = self._buffers
        # nothing may be left to read, but a store that was replaced must not go unnoticed
        checks = [self.store.begin_check()] if buffers.resident else []
        checks += self._contexts.begin_checks()
        tables = buffers.take_tables()
        feed = BlockFeed(dealt.order, shares, tables, self.config.num_workers, stopped or Event())
        try:
            stream = WindowStream(_behind(checks, feed), n_real, tables[0].bus)
            worker = get_worker_info()
            if worker is None:
                yield from every_batch(handover, stream, buffers.slabs, lambda: self._batch_size)
            else:
                skip = self._standing.skip
                own = worker.id if skip is None else skip
                turn = Turn(own, worker.num_workers)
                yield from some_batches(handover, stream, buffers.slabs, self._batch_size, turn)
        finally:
            feed.close()
            buffers.give_back(tables)


def _behind(
    checks: list[Callable[[], None]], blocks: Iterable[ShuffleBlock]
) -> Iterator[ShuffleBlock]:
    """Give blocks once checks have passed, which take their time beside the first one."""
    for block in blocks:
        while checks:
            checks.pop()()
        yield block
