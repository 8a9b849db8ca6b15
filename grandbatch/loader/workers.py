"""Which epoch the worker processes of a `DataLoader` go through next.

`torch.utils.data.DataLoader` gives each worker a copy of the loader, by default new ones for every
iteration; nothing that happens to the loader in one reaches another, or the process they serve. So
they tell each other by memory that all of them share. Each worker has a slot of its own, and only
it writes there: how often it began an iteration, the epoch it stood before when it began the last
one, and the epoch behind the last one that it finished. All workers of an iteration take the
earliest epoch that one of them stood before: where some had prepared the last batches of an epoch
that was left, and others had not, they agree to begin it again.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.worker import WorkerInfo

from grandbatch.errors import UsageError

MAX_WORKERS = 256

_VERSION, _CHOSEN, _N_WORKERS, _HEADER = range(4)
_BEGUN, _BEFORE, _BEHIND, _SLOT = range(4)
_NONE = -1
_LOADED = -2


class WorkerEpochs:
    """Epochs of worker processes, in memory shared between a loader and its copies in workers.

    What the loader is told in its own process (an epoch, a state) makes a new version of it, and
    ends what was known of workers.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._version = 0
        self._first: int | None = None
        self._take(torch.full((_HEADER + MAX_WORKERS * _SLOT,), _NONE, dtype=torch.int64))
        self._clear(_NONE)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_head", "_slots")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._take(self._shared)

    def _take(self, values: torch.Tensor) -> None:
        # a copy made by pickle or deepcopy has memory of its own, which is not shared yet
        self._shared: torch.Tensor = values.share_memory_()  # type: ignore[no-untyped-call]
        self._head = values[:_HEADER].numpy()
        self._slots = values[_HEADER:].view(MAX_WORKERS, _SLOT).numpy()

    def _clear(self, chosen: int) -> None:
        self._slots[:] = (0, _NONE, _NONE)
        self._head[:] = (self._version, chosen, 0)

    # in the loader's own process

    def choose(self, epoch: int | None) -> None:
        """Let workers begin with an epoch, or with the state that was loaded where it is None."""
        if self._owner != os.getpid():  # the loader came here from another process
            self.__init__()  # type: ignore[misc]
        self._version += 1
        self._clear(_LOADED if epoch is None else epoch)

    @property
    def began(self) -> bool:
        """Whether a worker began with what was chosen last."""
        return self._owner == os.getpid() and bool(self._head[_N_WORKERS])

    @property
    def reached(self) -> int | None:
        """The epoch behind the last one that all workers finished; None where there is none."""
        if not self.began:
            return None
        behind = int(self._slots[: self._head[_N_WORKERS], _BEHIND].min())
        return None if behind == _NONE else behind

    # in a worker

    def begin(self, worker: WorkerInfo, epoch: int) -> int | None:
        """Begin an iteration in a worker whose copy of the loader stands in `epoch`.

        Returns
        -------
        int or None
            The epoch to go through from its start; None to go on where the copy stands.

        Raises
        ------
        UsageError
            If workers can't know what was chosen.
        """
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid != self._owner:
            raise UsageError(
                "this loader came from another process, whose epochs its workers can't follow; "
                "call loader.set_epoch(epoch) in the process that makes the DataLoader"
            )
        if worker.num_workers > MAX_WORKERS:
            raise UsageError(f"at most {MAX_WORKERS} worker processes, got {worker.num_workers:,}")
        chosen = None
        if self._version != self._head[_VERSION]:
            chosen = self._first = int(self._head[_CHOSEN])
            if chosen == _LOADED:
                raise UsageError(
                    "a state was loaded behind the back of a DataLoader's persistent workers; "
                    "make a new DataLoader after load_state_dict"
                )
            self._version = int(self._head[_VERSION])
        if self._first is None:
            self._first = epoch
        if self._head[_N_WORKERS] not in (0, worker.num_workers):
            raise UsageError(
                f"after {self._head[_N_WORKERS]} workers now {worker.num_workers}: "
                "call loader.set_epoch(epoch) where their number changes"
            )
        self._head[_N_WORKERS] = worker.num_workers
        slot = self._slots[worker.id]
        number = int(slot[_BEGUN]) + 1
        slot[_BEFORE] = slot[_BEHIND]
        slot[_BEGUN] = number  # last: from here on others look at what it stood before
        if number == 1:
            return chosen
        slots = self._slots[: worker.num_workers]
        before = np.where(slots[:, _BEGUN] >= number, slots[:, _BEFORE], slots[:, _BEHIND])
        earliest = int(before.min())
        return self._first if earliest == _NONE else earliest

    def finish(self, worker: WorkerInfo, behind: int) -> None:
        """Take note that a worker went through an epoch; `behind` is the next."""
        if self._version == self._head[_VERSION]:
            self._slots[worker.id, _BEHIND] = behind
