"""Turns: how many tasks are under way in a worker, more than it has threads where they wait.

A task that reads and writes at an object store waits for most of its time. It gives its place in
the worker's pool to the next one then, and goes on beside it: so one computes while another waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

FAR_TURNS = 2
"""Tasks for each thread of a worker where what they read or write is in an object store."""

_WAIT_SECONDS = 2.0
"""How long a task waits where nothing ends: behind that it goes back, perhaps to another worker."""


class Turns:
    """Counts the tasks that are under way, and lets others wait. Safe from several threads."""

    def __init__(self) -> None:
        self._under_way = 0
        self._changed = threading.Condition()

    def take(self, most: int, seconds: float) -> bool:
        """Wait until fewer than `most` are under way, and be one of them; not for longer."""
        with self._changed:
            is_free = self._changed.wait_for(lambda: self._under_way < most, seconds)
            self._under_way += is_free
            return is_free

    def give_back(self) -> None:
        """Be one of them no more."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


_turns: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()
"""Of each worker of this process: a cluster inside one process has several."""

_making = threading.Lock()


@contextmanager
def turn(per_thread: int) -> Iterator[None]:
    """Wait, in a task of a cluster, until fewer are under way than its worker has turns.

    Each of its threads has so many. Where that is more than one the task leaves its place in the
    worker's pool to the next one, which waits here for a turn of its own.

    Raises
    ------
    distributed.Reschedule
        If none ends for a while: another worker may have nothing to do.
    """
    from distributed import Reschedule, get_worker, secede

    try:
        worker = get_worker()
    except ValueError:  # the process of who sends tasks
        yield
        return
    with _making:
        turns = _turns.setdefault(worker, Turns())
    if not turns.take(per_thread * worker.state.nthreads, _WAIT_SECONDS):
        raise Reschedule
    try:
        if per_thread > 1:
            secede()
        yield
    finally:
        turns.give_back()
