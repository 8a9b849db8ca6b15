"""`DataStreamer`: batches prepared ahead, in one thread.

The thread puts (batch, error) into a short queue; a batch knows its state. So what was only
prepared is in no state, and an error is met after the batches before it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from grandbatch.values.checks import whole

if TYPE_CHECKING:
    from grandbatch.batch import MatrixBatch
    from grandbatch.loader.batches import Handover
    from grandbatch.loader.loader import SlidingWindowDataLoader


class _Element(NamedTuple):
    """What the thread hands over: a batch, an error, or neither at the end."""

    batch: MatrixBatch | None
    error: Exception | None


class _Queue:
    """Elements from one thread to another, at most `size` of them under way.

    The receiver never waits while there is an element, not even for a lock: one that the sender
    holds while it waits for the interpreter would cost 5 ms, a whole batch's time. So there are
    two simple queues, of elements and, the other way, of permissions to prepare one.
    """

    def __init__(self, size: int):
        self.closed = threading.Event()
        self._elements: SimpleQueue[_Element] = SimpleQueue()
        self._permissions: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._permissions.put(None)

    def may_prepare(self) -> bool:
        """Wait until another element is wanted; False where none is any more."""
        self._permissions.get()
        return not self.closed.is_set()

    def put(self, element: _Element) -> None:
        """Add an element."""
        self._elements.put(element)

    def get(self) -> _Element:
        """Take the oldest element."""
        element = self._elements.get()
        self._permissions.put(None)
        return element

    def close(self) -> None:
        """Let the sender wait no longer."""
        self.closed.set()
        self._permissions.put(None)


class DataStreamer:
    """The batches of a loader, prepared ahead in one thread.

    Iterating goes through an epoch, as iterating the loader does, and the loader's state follows
    what the stream hands over. The sequence is the same for any `prefetch_batches`. A loop that is
    left ends its thread as soon as Python drops the iterator; `close`, or leaving a `with` block,
    ends it in any case.

    Parameters
    ----------
    loader : SlidingWindowDataLoader
        Not to be iterated elsewhere at the same time.
    prefetch_batches : int, optional
        Batches prepared ahead; 0 prepares each when asked for. By default the config's.

    Raises
    ------
    UsageError
        If it is negative.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> loader = gb.SlidingWindowDataLoader(store)
    >>> with gb.DataStreamer(loader, prefetch_batches=2) as batches:
    ...     sum(len(batch) for batch in batches) == len(store)
    True
    """

    def __init__(self, loader: SlidingWindowDataLoader, prefetch_batches: int | None = None):
        chosen = loader.config.prefetch_batches if prefetch_batches is None else prefetch_batches
        self.loader = loader
        self.prefetch_batches = whole("prefetch_batches", chosen, 0)
        # weak, so that leaving a loop drops the iteration and so ends its thread
        self._running: weakref.ref[Generator[MatrixBatch]] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[MatrixBatch]:
        """Hand over the batches of an epoch, or what is left of it; ends a former iteration."""
        self.close()
        running = self._ahead() if self.prefetch_batches else self._each()
        self._running = weakref.ref(running)
        return running

    def _each(self) -> Generator[MatrixBatch]:
        yield from self.loader

    def _ahead(self) -> Generator[MatrixBatch]:
        queue = _Queue(self.prefetch_batches)
        handover = self.loader.begin()
        thread = threading.Thread(
            target=_prepare,
            args=(self.loader, handover, queue),
            name="grandbatch-stream",
            daemon=True,
        )
        thread.start()
        try:
            while True:
                batch, error = queue.get()
                if error is not None:
                    raise error
                if batch is None:
                    break
                self.loader.deliver(batch)
                yield batch
                del batch
            self.loader.finish(handover)
        finally:
            queue.close()
            thread.join()

    def state_dict(self) -> dict[str, Any]:
        """Return the state behind the batch last handed over; what is prepared isn't in it."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken; ends an iteration that is under way."""
        self.close()
        self.loader.load_state_dict(state)

    def close(self) -> None:
        """End the thread and drop what it prepared. Iterating again starts another."""
        running = None if self._running is None else self._running()
        self._running = None
        if running is not None:
            running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _prepare(loader: SlidingWindowDataLoader, handover: Handover, queue: _Queue) -> None:
    """Fill the queue until the epoch ends, an error comes up or the queue is closed."""
    error: Exception | None = None
    batches = loader.batches(handover, queue.closed)
    try:
        while queue.may_prepare():
            batch = next(batches, None)
            if batch is None:
                break
            queue.put(_Element(batch, None))
            del batch
    except Exception as caught:  # noqa: BLE001 - raised again at the batch it belongs to
        error = caught
    finally:
        batches.close()
    queue.put(_Element(None, error))
