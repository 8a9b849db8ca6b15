"""`Schedule`: where tasks run, as a value."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from grandbatch.errors import UsageError
from grandbatch.files.system import available_cores
from grandbatch.scheduling.cluster import Wave, cut_into_waves, run_on_cluster, run_on_workers
from grandbatch.scheduling.origin import Origin

T = TypeVar("T")

MOST_CALLS_PER_TASK = 8
"""Made by one task of a cluster, where each task costs several milliseconds."""


def in_tasks(calls: Sequence[T], workers: int) -> list[Sequence[T]]:
    """Gather what a cluster does into tasks: the fewer left, the smaller, so that all end together.

    No task has more than half of a worker's share of what is left.
    """
    tasks = []
    at = 0
    while at < len(calls):
        share = (len(calls) - at) // (2 * workers)
        size = max(1, min(MOST_CALLS_PER_TASK, share))
        tasks.append(calls[at : at + size])
        at += size
    return tasks


def call_each(calls: Sequence[partial[Any]]) -> list[Any]:
    """Make calls one after the other."""
    return [call() for call in calls]


def _graph_of(calls: Sequence[partial[Any]], names: Sequence[str]) -> dict[str, Any]:
    # Dask takes independent tasks by their keys, the last first; a cluster runs equal keys once
    run = secrets.token_hex(8)
    return {
        f"{name}-{number:012d}-{run}": (call,)
        for number, name, call in zip(range(10**12 - 1, 0, -1), names, calls, strict=False)
    }


@dataclass(frozen=True)
class Schedule:
    """Where tasks run: `threads`, `sync` (this thread), or a distributed `client`.

    `workers` is the number of tasks in flight; on a cluster `turns` times as many are under way.
    """

    workers: int = 1
    client: Any = None
    patience_seconds: float = 55.0
    """How long a cluster may stand still, all its workers paused or gone, before it is an error."""

    origin: Origin | None = None
    """What a cluster's tasks must find where they run; None for the versions here."""

    turns: int = 1
    """Tasks that are under way at once for each thread of a cluster's workers."""

    @classmethod
    def local(cls, scheduler: str = "threads", workers: int | None = None) -> Schedule:
        """Tasks in this process: scheduler "threads" or "sync"."""
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}")
        if scheduler == "sync":
            return cls(workers=1)
        if scheduler != "threads":
            raise UsageError(
                f"unknown scheduler {scheduler!r}; "
                "choose threads, sync, or an address such as tcp://127.0.0.1:8786"
            )
        return cls(workers=workers or available_cores())

    @classmethod
    def on_cluster(cls, client: Any) -> Schedule:
        """Tasks on the cluster of a distributed client, as many in flight as it has threads."""
        return cls(workers=max(1, sum(client.nthreads().values())), client=client)

    @property
    def is_local(self) -> bool:
        """Whether tasks run in this process."""
        return self.client is None

    @property
    def tasks_at_once(self) -> int:
        """Tasks under way."""
        return self.workers * self.turns

    def limited_to(self, tasks: int) -> Schedule:
        """Return the same with at most so many tasks in flight; a cluster as it is."""
        return Schedule(workers=max(1, min(tasks, self.workers))) if self.is_local else self

    def in_turns(self, turns: int) -> Schedule:
        """Return the same with so many tasks under way for each thread of a cluster's workers."""
        return self if self.is_local else replace(self, turns=turns)

    def run(
        self, calls: Sequence[partial[Any]], on_result: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Make independent calls, about in their order, and return what they give, in order.

        What their arguments hold is never walked through. `on_result` is called with each result
        as soon as it is there, one at a time. The first call that raises ends the run with its
        error.
        """
        if self.is_local:
            graph = _graph_of(calls, [call.func.__name__ for call in calls])
            return self.run_graph(graph, list(graph), on_result)
        heard = on_result or (lambda result: None)

        def heard_of_all(results: list[Any]) -> None:
            for result in results:
                heard(result)

        tasks = in_tasks(calls, self.tasks_at_once)
        names = [task[0].func.__name__ for task in tasks]
        graph = _graph_of([partial(call_each, task) for task in tasks], names)
        found = self.run_graph(graph, list(graph), heard_of_all)
        return [result for results in found for result in results]

    def run_graph(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        on_result: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Compute the keys of a Dask graph, as `run` does.

        A graph of nothing but its keys reaches a cluster's scheduler in waves: neither it nor this
        process holds more than one wave of tasks that wait.

        Raises
        ------
        MemoryLimitError
            If a cluster's workers were ended, or stand still, for lack of memory.
        GrandbatchError
            If a cluster lost its scheduler, or all of its workers for good.
        """
        # Dask takes a third of a second to import, and plans are made without it
        from dask import threaded
        from dask.callbacks import Callback
        from dask.local import get_sync

        if not keys:
            return []
        heard = on_result or (lambda result: None)
        if self.client is not None:
            return self._run_on_cluster(cut_into_waves(graph, keys, self.workers), heard)
        wanted = set(keys)

        def posttask(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
            if key in wanted:
                heard(result)

        with Callback(posttask=posttask):
            if self.workers == 1 or len(graph) == 1:
                return list(get_sync(graph, list(keys)))
            # a pool of its own: an error goes up only after the tasks in flight have ended, so
            # none still writes when the caller lets go of its lock
            with ThreadPoolExecutor(self.workers) as pool:
                return list(threaded.get(graph, list(keys), pool=pool))

    def run_waves(
        self, waves: Iterable[Wave], on_result: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Compute the keys of graphs that are made one after the other, as `run_graph` does.

        On a cluster the next one is asked for when half of the tasks before are done, in this
        process when all are: so of tasks that wait there are never more than those of two.
        """
        if self.client is None:
            results = []
            for graph, keys in waves:
                results += self.run_graph(graph, keys, on_result)
                del graph, keys  # before the next one is made
            return results
        cut = (wave for graph, keys in waves for wave in cut_into_waves(graph, keys, self.workers))
        return self._run_on_cluster(cut, on_result or (lambda result: None))

    def _run_on_cluster(self, waves: Iterable[Wave], heard: Callable[[Any], None]) -> list[Any]:
        origin = self.origin or Origin.here()
        return run_on_cluster(self.client, waves, heard, self.patience_seconds, origin, self.turns)

    def run_on_workers(self, function: Callable[..., Any], *values: Any) -> dict[str, Any]:
        """Call a function once in each worker process of a cluster; its answers by address.

        Here and on threads there is no worker process, and no answer.

        Raises
        ------
        StoreError
            If a worker lacks this package, or something it needs.
        """
        if self.client is None:
            return {}
        return run_on_workers(self.client, function, *values)
