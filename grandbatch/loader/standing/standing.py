"""Where a loader stands: its epoch, the batch last handed over, and a state that was loaded.

In a worker process of a `DataLoader` it is a copy's: the others hand over batches of the same
epoch in turn, so it also knows in how many turns this one's comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import get_worker_info

from grandbatch.loader.batches import Handover
from grandbatch.loader.standing.state import read_skip
from grandbatch.loader.standing.workers import WorkerEpochs
from grandbatch.position import Position

_ALL = -1
"""Batches to skip where none is left of a worker process's epoch."""


class Standing:
    """Where a loader stands.

    Attributes
    ----------
    delivered : Handover or None
        The epoch up to the batch last handed over; None before the first.
    skip : int or None
        In a worker process, batches of others that come before its own.
    """

    def __init__(self) -> None:
        self.delivered: Handover | None = None
        self.skip: int | None = None
        self.workers = WorkerEpochs()
        self._epoch = 0
        self._loaded: Position | None = None
        self._has_own_state = False

    def now(self) -> tuple[int, Position | None]:
        """Return the epoch, and a loaded state; or what worker processes got to."""
        reached = None if get_worker_info() is not None else self.workers.reached
        return (self._epoch, self._loaded) if reached is None else (reached, None)

    def position(self) -> Position | None:
        """Where the epoch stands; None at its start."""
        epoch, loaded = self.now()
        if loaded is not None or self.delivered is None or epoch != self._epoch:
            return loaded
        return self.delivered.position()

    def choose(self, epoch: int) -> None:
        """Stand before an epoch, unless a state of it was loaded and not used yet."""
        if self._loaded is None or self._loaded.epoch != epoch or self.workers.began:
            self._epoch, self._loaded, self.delivered = epoch, None, None
            if get_worker_info() is None:
                self.workers.choose(epoch)

    def load(self, position: Position, state: Mapping[str, Any]) -> None:
        """Stand at the position of a state."""
        self._loaded, self._epoch, self.delivered = position, position.epoch, None
        # a worker process that loads its own state; states taken outside hold for all workers
        self._has_own_state = get_worker_info() is not None
        self.skip = read_skip(state) if self._has_own_state else None
        if not self._has_own_state:
            self.workers.choose(None)

    def join(self) -> None:
        """In a worker process, find out which epoch it goes through together with the others.

        Raises
        ------
        UsageError
            If workers can't know what was chosen.
        """
        worker = get_worker_info()
        if worker is None:
            return
        epoch = self.workers.begin(worker, self._epoch)
        if epoch is not None and not self._has_own_state:
            self._epoch, self._loaded, self.delivered, self.skip = epoch, None, None, None
        self._has_own_state = False

    def begin(self) -> tuple[int, Position | None, bool]:
        """Start an iteration.

        Returns
        -------
        epoch : int
        start : Position or None
            Where a loaded state says to begin; None for the start of the epoch.
        is_over : bool
            Whether nothing of the epoch is left: its last batches were handed over by others.
        """
        if get_worker_info() is None and self.workers.began:
            self._epoch, self._loaded = self.now()[0], None
            self.workers.choose(self._epoch)
        start, self._loaded = self._loaded, None
        if start is None:
            self.skip = None
        else:
            self._epoch = start.epoch
        if self.skip != _ALL:
            return self._epoch, start, False
        self.skip = None
        return self._epoch - 1, None, True

    def deliver(self, handover: Handover) -> None:
        """Take note of what is handed over with a batch."""
        self.delivered = handover
        worker = get_worker_info()
        self.skip = None if worker is None else worker.num_workers - 1
        if handover.consumed == handover.deal.windows_per_rank:
            self._epoch = handover.deal.order.epoch + 1
            # the last batch is one worker's: the others' were handed over before
            self.skip = None if worker is None else _ALL

    def finish(self, handover: Handover) -> None:
        """Take note that an epoch is over, with all of it handed over."""
        self.delivered = handover
        self._epoch = handover.deal.order.epoch + 1
        self.skip = None
        worker = get_worker_info()
        if worker is None:
            self.workers.choose(self._epoch)
        else:
            self.workers.finish(worker, self._epoch)
