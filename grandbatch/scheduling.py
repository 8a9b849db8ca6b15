"""Run Dask tasks on threads, in this thread, or on a cluster, and hear of each as it ends.

Covers where tasks run and in what number. Does not cover what they do, or what they need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grandbatch.errors import UsageError

if TYPE_CHECKING:
    from dask.delayed import Delayed


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Schedule:
    """Where tasks run: `threads`, `sync` (this thread), or a distributed `client`.

    `workers` is the number of tasks in flight on threads.
    """

    workers: int = 1
    client: Any = None

    @classmethod
    def local(cls, scheduler: str = "threads", workers: int | None = None) -> Schedule:
        """Tasks in this process: scheduler "threads" or "sync"."""
        if scheduler == "sync":
            return cls(workers=1)
        if scheduler != "threads":
            raise UsageError(
                f"unknown scheduler {scheduler!r}; "
                "choose threads, sync, or an address such as tcp://127.0.0.1:8786"
            )
        return cls(workers=workers or available_cores())

    @property
    def is_local(self) -> bool:
        """Whether tasks run in this process."""
        return self.client is None

    def run(
        self, tasks: Sequence[Delayed], on_result: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Compute independent tasks and return their results in order.

        `on_result` is called with each task's result as soon as it is there, one at a time.
        The first task that raises ends the run with its error.
        """
        graph: dict[Any, Any] = {}
        for task in tasks:
            graph.update(task.__dask_graph__())
        return self.run_graph(graph, [task.key for task in tasks], on_result)

    def run_graph(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        on_result: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Compute the keys of a Dask graph, as `run` does."""
        # Dask takes a third of a second to import, and plans are made without it
        from dask import threaded
        from dask.callbacks import Callback
        from dask.local import get_sync

        if not keys:
            return []
        heard = on_result or (lambda result: None)
        if self.client is not None:
            return self._run_on_cluster(graph, keys, heard)
        wanted = set(keys)

        def posttask(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
            if key in wanted:
                heard(result)

        with Callback(posttask=posttask):
            if self.workers == 1:
                return list(get_sync(graph, list(keys)))
            return list(threaded.get(graph, list(keys), num_workers=self.workers))

    def _run_on_cluster(
        self, graph: Mapping[Any, Any], keys: Sequence[Any], heard: Callable[[Any], None]
    ) -> list[Any]:
        from distributed import as_completed

        futures = self.client.get(graph, list(keys), sync=False)
        places = {future.key: place for place, future in enumerate(futures)}
        results: list[Any] = [None] * len(futures)
        try:
            for future, result in as_completed(futures, with_results=True):
                results[places[future.key]] = result
                heard(result)
        except BaseException:
            self.client.cancel(futures)
            raise
        return results


@contextmanager
def open_schedule(
    scheduler: str | None, workers: int | None, memory_limit_bytes: int | None = None
) -> Iterator[Schedule]:
    """Open the schedule that a person asks for, and close what was started for it.

    Parameters
    ----------
    scheduler : str or None
        "threads", "sync", or the address of a running cluster's scheduler. None is threads, or
        a cluster of local processes where `workers` is given.
    workers : int or None
        Threads, or local processes.
    memory_limit_bytes : int, optional
        Of all processes together; local worker processes get their share.

    Raises
    ------
    UsageError
        If the scheduler is unknown or can't be reached.
    """
    if scheduler in ("threads", "sync") or (scheduler is None and workers is None):
        yield Schedule.local(scheduler or "threads", workers)
        return
    if scheduler is not None and "://" not in scheduler:
        Schedule.local(scheduler)
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=5)
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"no scheduler answers at {scheduler} ({error}); "
                "start one with dask scheduler, or leave out --scheduler"
            ) from None
        with client:
            yield Schedule(client=client)
        return
    share = "auto" if memory_limit_bytes is None else memory_limit_bytes // ((workers or 1) + 1)
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            memory_limit=share,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Schedule(client=client)
