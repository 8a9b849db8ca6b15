"""Watch a cluster while its tasks run: who died of what, and whether anything moves.

Covers what the scheduler knows: the workers' heartbeats, and the nannies' reports of workers they
ended for memory. A worker without a nanny that the system kills leaves no reason behind.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from grandbatch.errors import GrandbatchError, MemoryLimitError

logger = logging.getLogger(__name__)

_TOPIC = "worker-restart-memory"
_LOOK_SECONDS = 2.0
_REPORT_SECONDS = 2.0
_REMEDY = (
    "give each worker more memory, start fewer, or make tasks smaller (fewer bars a partition); "
    "what a build has finished is kept"
)


@dataclass(frozen=True)
class MemoryDeath:
    """A worker process that its nanny ended for memory."""

    worker: str
    rss_bytes: int
    limit_bytes: int | None

    def __str__(self) -> str:
        limit = "its limit" if self.limit_bytes is None else f"its limit of {self.limit_bytes:,}"
        return (
            f"worker {self.worker} was ended for memory: its process held {self.rss_bytes:,} "
            f"bytes of {limit}"
        )


class Watch:
    """What happens to the workers of a client's cluster from now on."""

    def __init__(self, client: Any, patience_seconds: float) -> None:
        self.address: str = client.scheduler.address
        self._client = client
        self._patience_seconds = patience_seconds
        self._limits: dict[str, int] = {}
        self._deaths: list[MemoryDeath] = []
        self._n_old = len(client.get_events(_TOPIC) or ())
        self._stands_since: float | None = None
        self._looked = 0.0
        self._workers()

    def progress(self) -> None:
        """Tell that a task has ended."""
        self._stands_since = None

    def look(self) -> None:
        """Look at the cluster, at most every other second.

        Raises
        ------
        MemoryLimitError
            If nothing has moved for `patience_seconds` because workers are paused for memory, or
            none is left and the last ones were ended for it.
        GrandbatchError
            If there has been no worker for so long.
        """
        now = time.monotonic()
        if now - self._looked < min(_LOOK_SECONDS, self._patience_seconds / 2):
            return
        self._looked = now
        try:
            self._hear_of_deaths()
            workers = self._workers()
        except OSError:
            # a scheduler that is gone cancels the futures, and that is told; a busy one answers
            # the next time
            return
        paused = {address: info for address, info in workers.items() if info["status"] == "paused"}
        if any(map(_is_busy, workers.values())) or (workers and not paused):
            self._stands_since = None
        elif self._stands_since is None:
            self._stands_since = now
        elif now - self._stands_since >= self._patience_seconds:
            raise self._standstill(paused)

    def explain_lost_task(self, error: Any) -> GrandbatchError:
        """Say why a task was lost with one worker after the other.

        Parameters
        ----------
        error : distributed.KilledWorker
        """
        return self._ended_for_memory() or GrandbatchError(
            f"a task was lost with {error.allowed_failures + 1} workers in turn, the last of them "
            f"{error.last_worker.address}, and none was reported out of memory: that worker's log "
            "says why (a crash, or the system's own memory killer); run the same command again to "
            "go on, what a build has finished is kept"
        )

    def explain_lost_worker(self, error: OSError) -> GrandbatchError:
        """Say why a worker went away while it was asked for something."""
        return self._ended_for_memory() or GrandbatchError(
            f"a worker was lost while it got ready ({error}), and none was reported out of "
            "memory: its log says why; run the same command again, what a build has finished "
            "is kept"
        )

    def _ended_for_memory(self) -> MemoryLimitError | None:
        # a nanny's report travels apart from the news that its worker is gone
        deadline = time.monotonic() + _REPORT_SECONDS
        self._hear_of_deaths()
        while not self._deaths and time.monotonic() < deadline:
            time.sleep(0.05)
            self._hear_of_deaths()
        return MemoryLimitError(f"{self._deaths[-1]}; {_REMEDY}") if self._deaths else None

    def _standstill(self, paused: dict[str, Any]) -> GrandbatchError:
        seconds = f"for {self._patience_seconds:g} seconds"
        if paused:
            used = ", ".join(
                f"{address} ({info['metrics'].get('memory', 0):,} bytes of its limit of "
                f"{info['memory_limit']:,})"
                for address, info in sorted(paused.items())[:3]
            )
            return MemoryLimitError(
                f"nothing has moved {seconds}: {len(paused)} workers are paused for memory, such "
                f"as {used}; {_REMEDY}"
            )
        if self._deaths:
            return MemoryLimitError(
                f"{self._deaths[-1]}, and no worker has come back {seconds}; {_REMEDY}"
            )
        return GrandbatchError(
            f"the scheduler at {self.address} has had no worker {seconds}; start one with "
            "dask worker and run the same command again: what a build has finished is kept"
        )

    def _workers(self) -> dict[str, Any]:
        """Ask for all workers, and keep their limits: a dead one's can't be asked for."""
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        self._limits.update({address: info["memory_limit"] for address, info in workers.items()})
        return workers

    def _hear_of_deaths(self) -> None:
        events = (self._client.get_events(_TOPIC) or ())[self._n_old :]
        for _, told in events[len(self._deaths) :]:
            limit = self._limits.get(told["worker"])
            death = MemoryDeath(told["worker"], told["rss"], limit)
            self._deaths.append(death)
            logger.warning("%s; its tasks run again elsewhere", death)


def _is_busy(worker: dict[str, Any]) -> bool:
    """Whether a worker runs a task, or is going to. A paused one ends what it has begun."""
    counts = worker["metrics"].get("task_counts", {})
    due = ("executing", "long-running") if worker["status"] == "paused" else counts
    idle = ("memory", "released", "error", "forgotten")
    return any(counts.get(state, 0) for state in due if state not in idle)
