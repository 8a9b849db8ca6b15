"""Open the schedule that a person asks for, and close what was started for it."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from grandbatch.errors import UsageError
from grandbatch.memory.allocator import KEEPING_ENVIRON
from grandbatch.scheduling.schedule import Schedule

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5

_QUIETER = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.system-monitor.disk": False,
}
"""What Dask's processes watch of themselves for its dashboard takes three times what all else that
they do does while no task ends. Memory is watched as ever."""


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
    elif scheduler is None:
        with _local_cluster(workers or 1, memory_limit_bytes) as schedule:
            yield schedule
    else:
        if "://" not in scheduler:
            Schedule.local(scheduler)
        with _running_cluster(scheduler) as schedule:
            yield schedule


@contextmanager
def _running_cluster(address: str) -> Iterator[Schedule]:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise UsageError(
            f"no scheduler answers at {address} ({error}); "
            "start one with dask scheduler, or build without"
        ) from None
    with client:
        info = client.scheduler_info(n_workers=0)
        link = f"; dashboard: {client.dashboard_link}" if "dashboard" in info["services"] else ""
        logger.info("%d workers at %s%s", len(client.nthreads()), address, link)
        yield Schedule.on_cluster(client)


@contextmanager
def _ends_are_not_told() -> Iterator[None]:
    """Keep Dask from warning that it kills a worker whose end takes seconds.

    That is so on a busy machine; what a worker had to do is done by then.
    """
    nannies = logging.getLogger("distributed.nanny")
    nannies.addFilter(_is_no_end)
    try:
        yield
    finally:
        nannies.removeFilter(_is_no_end)


def _is_no_end(record: logging.LogRecord) -> bool:
    return "still alive after" not in record.getMessage()


@contextmanager
def _local_cluster(workers: int, memory_limit_bytes: int | None) -> Iterator[Schedule]:
    import dask
    from distributed import Client, LocalCluster

    began = time.monotonic()
    keeping = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in KEEPING_ENVIRON.items()}
    with (
        dask.config.set({**keeping, **_QUIETER}),
        _ends_are_not_told(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            # everything else binds to loopback by itself; the dashboard would bind to all
            dashboard_address="127.0.0.1:0",
            memory_limit="auto"
            if memory_limit_bytes is None
            else memory_limit_bytes // (workers + 1),
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        # without bokeh the link leads to a page that says to install it
        has_dashboard = importlib.util.find_spec("bokeh") is not None
        link = f"; dashboard: {cluster.dashboard_link}" if has_dashboard else ""
        logger.info("%d local workers started in %.1f s%s", workers, time.monotonic() - began, link)
        yield Schedule.on_cluster(client)
