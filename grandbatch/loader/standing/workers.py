"""Which epoch the worker processes of a `DataLoader` go through next.

`torch.utils.data.DataLoader` gives each worker a copy of the loader, by default new ones for every
iteration; nothing that happens to the loader in one reaches another, or the process they serve. So
they tell each other by memory that all of them share. Each worker has a slot of its own, and only
it writes there: how many iterations began, the epoch behind the last one that it finished, and what
that was when it began an iteration.

All workers of an iteration wait until the last of them has begun it, and then take the earliest
epoch that one of them stood before: where some had prepared the last batches of an epoch that was
left, and others had not, they agree to begin it again. A worker may still be preparing what was
asked of it before the iteration was left, so nothing is decided from what may change yet. Waiting
costs nothing: a `DataLoader` asks for no batch before all of its workers are there.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data._utils.worker import WorkerInfo

from grandbatch.errors import UsageError
from grandbatch.files.system import is_alive

MAX_WORKERS = 256
WAIT_SECONDS = 120.0
"""How long a worker waits for the others of its iteration."""

_VERSION, _CHOSEN, _N_WORKERS, _WIDTH, _HEADER = range(5)
_BEGUN, _PID, _SEEN, _BEHIND, _BEFORE, _BEFORE_TOO, _SLOT = range(7)
_LEFT = -1
"""Where a worker began since an epoch was chosen, and finished none."""
_FRESH = -2
"""Where it did not even begin."""
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
        self._take(torch.zeros(_HEADER + MAX_WORKERS * _SLOT, dtype=torch.int64))
        self._clear(_LEFT)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_head", "_slots")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._take(self._shared)

    def _take(self, values: torch.Tensor) -> None:
        # a copy made by pickle or deepcopy has memory of its own, which is not shared yet
        # where there is no room in shared memory only workers suffer, and they say so
        with suppress(RuntimeError):
            values.share_memory_()  # type: ignore[no-untyped-call]
        self._shared = values
        self._head = values[:_HEADER].numpy()
        self._slots = values[_HEADER:].view(MAX_WORKERS, _SLOT).numpy()

    def _clear(self, chosen: int) -> None:
        # workers that begin just now go on counting
        self._slots[self._head[_WIDTH] :, _BEGUN] = self._slots[:, _BEGUN].max()
        self._slots[:, _BEHIND] = _FRESH
        self._head[_CHOSEN], self._head[_N_WORKERS] = chosen, 0
        self._head[_VERSION] = self._version  # last: what it stands for is there

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
        return None if behind < 0 else behind

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
            If workers can't know what was chosen, or have no memory to share.
        """
        if not self._shared.is_shared():  # type: ignore[no-untyped-call]
            raise UsageError(
                "no shared memory could be had for worker processes (/dev/shm is full, missing or "
                "read-only, or ulimit -f is too low); give it room (docker run --shm-size 1g), or "
                "use num_workers=0"
            )
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid != self._owner:
            raise UsageError(
                "this loader came from another process, whose epochs its workers can't follow; "
                "call loader.set_epoch(epoch) in the process that makes the DataLoader"
            )
        if self._first is None and self._version != self._head[_VERSION]:
            # its iteration was left by then, and the workers of the next may begin just now
            raise UsageError(
                "the loader was told another epoch or state while workers began; iterate over the "
                "DataLoader anew behind set_epoch or load_state_dict"
            )
        if worker.num_workers > MAX_WORKERS:
            raise UsageError(f"at most {MAX_WORKERS} worker processes, got {worker.num_workers:,}")
        if self._head[_N_WORKERS] not in (0, worker.num_workers):
            raise UsageError(
                f"after {self._head[_N_WORKERS]} workers now {worker.num_workers}: "
                "call loader.set_epoch(epoch) where their number changes"
            )
        self._head[_N_WORKERS] = self._head[_WIDTH] = worker.num_workers
        before, version = self._meet(worker)
        chosen = None
        if self._version < version:
            chosen = self._first = int(self._head[_CHOSEN])
            if chosen == _LOADED:
                raise UsageError(
                    "a state was loaded behind the back of a DataLoader's persistent workers; "
                    "make a new DataLoader after load_state_dict"
                )
            self._version = version
        if self._first is None:
            self._first = epoch
        if chosen is not None or max(before) == _FRESH:
            return chosen
        return self._first if min(before) < 0 else min(before)

    def _meet(self, worker: WorkerInfo) -> tuple[list[int], int]:
        """Begin an iteration, and wait for the others.

        Returns the epochs all of them stood before, and the newest version one of them saw.
        """
        slots = self._slots[: worker.num_workers]
        own = slots[worker.id]
        # others are in this iteration or, where one was ended before it began, ended in an earlier
        number = int(own[_BEGUN]) + 1
        for begun, pid in slots[:, [_BEGUN, _PID]].tolist():
            if begun >= number:
                number = begun if is_alive(pid) else begun + 1
        # another may begin the next iteration before this one looked, but none the one after it
        column = _BEFORE + number % 2
        own[_SEEN], own[_PID], own[column] = self._head[_VERSION], os.getpid(), own[_BEHIND]
        own[_BEHIND] = max(own[_BEHIND], _LEFT)
        own[_BEGUN] = number  # last: from here on others look at the rest
        parent, began = multiprocessing.parent_process(), time.monotonic()
        while (slots[:, _BEGUN] < number).any():
            waited = time.monotonic() - began
            if waited > WAIT_SECONDS or parent is None or not parent.is_alive():
                absent = int((slots[:, _BEGUN] < number).argmax())
                raise UsageError(
                    f"worker {absent} of {worker.num_workers} did not begin this iteration with "
                    f"the others for {waited:.0f} s; see whether it failed, and make a new "
                    "DataLoader"
                )
            time.sleep(min(0.02, 0.001 + waited / 10))
        return slots[:, column].tolist(), int(slots[:, _SEEN].max())

    def finish(self, worker: WorkerInfo, behind: int) -> None:
        """Take note that a worker went through an epoch; `behind` is the next."""
        if self._version == self._head[_VERSION]:
            self._slots[worker.id, _BEHIND] = behind
