"""Run a graph on a distributed cluster: in waves, results as they come, no hang.

A future is released once its result is here, so a run holds one wave of futures, however many
tasks it has. Results are gathered in batches: a round trip for each costs more than the task's own
share of the scheduler.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from grandbatch.errors import GrandbatchError, StoreError
from grandbatch.scheduling.origin import Origin, PackedError, guard
from grandbatch.scheduling.watch import Watch

Wave = tuple[Mapping[Any, Any], Sequence[Any]]
"""A graph, and the keys of it that are wanted."""

WAVE_TASKS = 8_192
WAVE_TASKS_PER_WORKER = 64

_LOOK_SECONDS = 1.0
_GATHER_SECONDS = 0.05
"""How long what ends is left to pile up, but for the last: nothing waits for it, and to fetch a
result by itself costs more than all else of its task."""


def cut_into_waves(
    graph: Mapping[Any, Any], keys: Sequence[Any], workers: int
) -> Sequence[Wave] | Iterator[Wave]:
    """Cut a graph of independent tasks into waves; leave any other as it is.

    A wave is long enough that no worker waits for the next one: that is sent when half of the
    tasks are done.
    """
    size = max(WAVE_TASKS, WAVE_TASKS_PER_WORKER * workers)
    if len(keys) <= size or len(graph) != len(keys) or _has_dependencies(graph):
        return [(graph, keys)]
    return (
        ({key: graph[key] for key in keys[at : at + size]}, keys[at : at + size])
        for at in range(0, len(keys), size)
    )


def _has_dependencies(graph: Mapping[Any, Any]) -> bool:
    from dask.core import get_deps

    dependencies, _ = get_deps(graph)
    return any(dependencies.values())


def run_on_cluster(
    client: Any,
    waves: Iterable[Wave],
    heard: Callable[[Any], None],
    patience_seconds: float,
    origin: Origin,
    turns: int,
) -> list[Any]:
    """Compute the keys of all waves; results in order.

    Parameters
    ----------
    client : distributed.Client
    waves : iterable of Wave
        Their keys are of this run alone.
    heard : callable
        Called with each result, in this thread, as soon as it is there.
    patience_seconds : float
        How long the cluster may stand still.
    origin : Origin
        What each task checks before it runs.
    turns : int
        Tasks that are under way at once for each thread of a worker.

    Raises
    ------
    MemoryLimitError
        If a task's workers were ended for memory, or all workers are paused for it.
    GrandbatchError
        If the scheduler is gone, or no worker is left.
    """
    watch = Watch(client, patience_seconds)
    run = _Run(client, iter(waves), heard, origin, turns, watch)
    try:
        while run.submit():
            if run.collect(_LOOK_SECONDS):
                watch.progress()
            watch.look()
    except BaseException as error:
        run.cancel()
        explained = _explain(error, client, watch)
        if explained is None:
            raise
        raise explained from error
    return run.results


def _explain(error: BaseException, client: Any, watch: Watch) -> BaseException | None:
    """Return a task's own error, or say what one of the cluster itself means; None for others."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, PackedError):
        return error.unpack()
    if isinstance(error, KilledWorker):
        return watch.explain_lost_task(error)
    lost = isinstance(error, (CancelledError, CommClosedError))
    if lost or (isinstance(error, OSError) and client.status != "running"):
        return GrandbatchError(
            f"the scheduler at {watch.address} is gone, or dropped our tasks "
            f"({' '.join(str(error).split())}); start it again and run the same "
            "command: what a build has finished is kept"
        )
    return None


class _Run:
    """The futures of one run, and the results so far."""

    def __init__(
        self,
        client: Any,
        waves: Iterator[Wave],
        heard: Callable[[Any], None],
        origin: Origin,
        turns: int,
        watch: Watch,
    ) -> None:
        self.results: list[Any] = []
        self._client = client
        self._waves = waves
        self._heard = heard
        self._origin = origin
        self._turns = turns
        self._watch = watch
        self._places: dict[Any, int] = {}
        self._wave_tasks = 0
        # filled from the client's own thread
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def submit(self) -> bool:
        """Send the next wave if the last is half done; whether anything is left to wait for."""
        if len(self._places) <= self._wave_tasks // 2:
            wave = next(self._waves, None)
            if wave is not None:
                self._send(*wave)
        return bool(self._places)

    def _send(self, graph: Mapping[Any, Any], keys: Sequence[Any]) -> None:
        guarded = guard(graph, self._origin, self._turns)
        futures = self._client.get(guarded, list(keys), sync=False)
        self._wave_tasks = len(futures)
        for future in futures:
            self._places[future] = len(self.results)
            self.results.append(None)
            future.add_done_callback(self._ended.put)

    def collect(self, seconds: float) -> int:
        """Wait for tasks to end, take what ended, and return how many did."""
        try:
            ended = [self._ended.get(timeout=seconds)]
        except queue.Empty:
            return 0
        until = time.monotonic() + _GATHER_SECONDS
        with suppress(queue.Empty):
            while len(ended) < len(self._places):
                left = until - time.monotonic()
                ended.append(self._ended.get(left > 0, timeout=max(0.0, left)))
        for future, result in zip(ended, self._gather(ended), strict=True):
            self.results[self._places.pop(future)] = result
            self._heard(result)
        return len(ended)

    def _gather(self, ended: list[Any]) -> list[Any]:
        """Fetch results, and watch meanwhile: the workers that hold them may all be gone."""
        fetched: Future[list[Any]] = Future()

        def fetch() -> None:
            try:
                fetched.set_result(list(self._client.gather(ended)))
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                fetched.set_exception(error)

        # of its own and a daemon: where nothing ever answers, nobody waits for it
        threading.Thread(target=fetch, daemon=True, name="gather").start()
        while not wait([fetched], timeout=_LOOK_SECONDS).done:
            self._watch.look()
        return fetched.result()

    def cancel(self) -> None:
        """Drop what is still to come.

        What is still told of these keys is for nobody: those of another run are others.
        """
        if self._places and self._client.status == "running":
            with suppress(OSError):
                self._client.cancel(list(self._places))


def run_on_workers(client: Any, function: Callable[..., Any], *values: Any) -> dict[str, Any]:
    """Call a function once in each worker process; its answers by address."""
    from distributed.comm import CommClosedError

    watch = Watch(client, 0)
    try:
        answers: dict[str, Any] = client.run(function, *values)
    except (ImportError, AttributeError) as error:
        raise StoreError(
            f"a worker of {client.scheduler.address} can't import what a build needs ({error}); "
            "install the same version of grandbatch, with its dependencies, on every worker"
        ) from error
    except CommClosedError as error:
        raise watch.explain_lost_worker(error) from error
    return answers
