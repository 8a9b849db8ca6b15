"""Memory of a Dask cluster's workers: told with their heartbeats, trimmed where they run."""

from __future__ import annotations

import os
import platform
from typing import Any

from distributed import WorkerPlugin

from grandbatch.memory.monitor import MemoryMonitor
from grandbatch.memory.processes import ProcessMemory

_STARTS = "grandbatch-worker-start"
_DEATHS = "worker-restart-memory"
_FIGURES = "grandbatch"


class MemoryPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Samples a worker's process, gives back what is free, and adds figures to its heartbeats.

    Pausing and ending a worker stays with Dask, at the shares of its own limit.
    """

    name = "grandbatch-memory"

    def setup(self, worker: Any) -> None:
        """Start watching a worker: what Dask calls in each."""
        self._monitor = MemoryMonitor(limit_bytes=worker.memory_manager.memory_limit)
        self._monitor.start()
        self._paused = False
        self._pauses = 0
        self._reason: str | None = None
        worker.metrics[_FIGURES] = self._figures
        # a worker that its nanny starts again has the same name and another process
        worker.log_event(_STARTS, {"name": str(worker.name), "pid": os.getpid()})

    def teardown(self, worker: Any) -> None:
        """Stop watching."""
        worker.metrics.pop(_FIGURES, None)
        self._monitor.stop()

    def _figures(self, worker: Any) -> dict[str, Any]:
        # not the latest: a pause told with figures from before it would look groundless
        sample = self._monitor.sample()
        usage = sample.usage
        paused = worker.status.name == "paused"
        if paused and not self._paused:
            self._pauses += 1
            self._reason = (
                f"paused at {usage.rss_bytes:,} bytes of its limit of {usage.limit_bytes:,}"
            )
        self._paused = paused
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "rss_bytes": usage.rss_bytes,
            "limit_bytes": usage.limit_bytes,
            "level": sample.level.name.lower(),
            "pauses": self._pauses,
            "reason": self._reason,
        }


def cluster_processes(client: Any) -> list[ProcessMemory]:
    """Return the memory of a cluster's workers, by its latest heartbeats.

    Workers have all figures once a build was run on them; before, those that Dask itself has. One
    that was ended for memory and has not come back is told as gone.

    Parameters
    ----------
    client : distributed.Client
    """
    lives: dict[str, list[int]] = {}
    for _, told in client.get_events(_STARTS) or ():
        pids = lives.setdefault(told["name"], [])
        if told["pid"] not in pids:
            pids.append(told["pid"])
    deaths = {told["pid"]: told["rss"] for _, told in client.get_events(_DEATHS) or ()}
    found = []
    for info in client.scheduler_info(n_workers=-1)["workers"].values():
        name = str(info["name"])
        pids = lives.pop(name, [])
        found.append(_of_worker(name, info, pids, deaths))
    for name, pids in lives.items():
        if pids[-1] in deaths:
            gone = ProcessMemory("worker", name, pid=pids[-1], status="gone")
            found.append(gone.after(len(pids) - 1, _told(deaths[pids[-1]])))
    return sorted(found, key=lambda process: process.name)


def _of_worker(
    name: str, info: dict[str, Any], pids: list[int], deaths: dict[int, int]
) -> ProcessMemory:
    metrics = info["metrics"]
    plain = {"rss_bytes": metrics.get("memory", 0), "limit_bytes": info["memory_limit"]}
    figures = {"host": info["host"], **plain, **metrics.get(_FIGURES, {})}
    process = ProcessMemory("worker", name, status=info["status"], **figures)
    died = [deaths[pid] for pid in pids if pid in deaths]
    return process.after(max(0, len(pids) - 1), _told(died[-1]) if died else None)


def _told(rss_bytes: int) -> str:
    return f"ended for memory at {rss_bytes:,} bytes"
