"""Get a cluster's workers ready for a build, and refuse those that can't take part.

Before the first task each worker process imports what tasks need, compiles the kernels or loads
them from numba's cache, and looks at the files that the build shares.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import StoreError
from grandbatch.features import compute_rows
from grandbatch.features.inputs import dtype_of
from grandbatch.kernels.statistics import row_moments
from grandbatch.scheduling import Origin, Schedule, bit_versions, look_at
from grandbatch.store.publish import beside
from grandbatch.targets import target_values
from grandbatch.version import __version__


@contextmanager
def prepare_workers(schedule: Schedule, request: Request) -> Iterator[Schedule]:
    """Warm a cluster's workers, and check that each can do its part. Nothing to do on threads.

    The caller holds the store's lock: its file is what workers must see beside the store.

    Returns
    -------
    context manager of Schedule
        Whose tasks check the same again, wherever they run: workers may join later.

    Raises
    ------
    StoreError
        If a worker runs another version, or can't see the store's folder, the cache or the inputs.
    """
    if schedule.is_local:
        yield schedule
        return
    here = Origin.here()
    for address, version in sorted(schedule.run_on_workers(own_version).items()):
        here.compare(address, [("grandbatch", version)], ())
    versions = schedule.run_on_workers(bit_versions)
    send_kernels(schedule, request.settings)
    schedule.run_on_workers(warm_worker, request.settings)
    watch_memory(schedule)
    with _signs(request) as paths:
        origin = Origin.here(paths)
        for address, seen in sorted(schedule.run_on_workers(look_at, paths).items()):
            origin.compare(address, versions.get(address, ()), seen)
        yield replace(schedule, origin=origin)


def send_kernels(schedule: Schedule, settings: StoreSettings) -> None:
    """See that a store's kernels reach every worker; those of modules go by the module's name.

    Raises
    ------
    StoreError
        If a kernel can't travel, or a worker lacks the module that it is in.
    """
    from distributed.protocol.pickle import dumps

    kernels = ", ".join([settings.feature_set.name, *(target.name for target in settings.targets)])
    try:
        pickled = dumps((settings.feature_set, settings.targets))
    except Exception as error:
        raise StoreError(
            f"the kernels of {kernels} can't be sent to workers ({error}); make them "
            "functions at the top level of a module, or build with --scheduler threads"
        ) from error
    for address, problem in sorted(schedule.run_on_workers(lacking, pickled).items()):
        if problem:
            raise StoreError(
                f"worker {address} can't take the kernels of {kernels} ({problem}); give "
                "it the module that they are in: install it there, start the worker where "
                "PYTHONPATH names its folder, or send each of its files, what it imports first, "
                f"with distributed.Client({schedule.client.scheduler.address!r}).upload_file(file)"
            )


def lacking(pickled: bytes) -> str:
    """Say what keeps a worker from unpickling a value; nothing where it can."""
    try:
        pickle.loads(pickled)  # noqa: S301 (from the process that sends the tasks themselves)
    except (ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def watch_memory(schedule: Schedule) -> None:
    """Have a cluster's workers tell their memory with each heartbeat, and give back what is free.

    It stays with the cluster: `grandbatch monitor` shows it also between builds.
    """
    from grandbatch.memory.cluster import MemoryPlugin

    schedule.client.register_plugin(MemoryPlugin())


def own_version() -> str:
    """Return the version of grandbatch here."""
    return __version__


def warm_worker(settings: StoreSettings) -> None:
    """Import what tasks will import, compile what they will run."""
    from grandbatch.builder import engines  # noqa: F401 (with all that its tasks import)

    feature_set = settings.feature_set
    n_rows = feature_set.lookback + 1
    columns = {name: np.ones(n_rows, dtype_of(name)) for name in feature_set.inputs}
    rows = compute_rows(feature_set, columns, np.empty(0, np.int64), feature_set.lookback)
    row_moments(rows, *np.empty((4, feature_set.n_features)))
    for target in settings.targets:
        target_values(target, {x: np.ones(target.horizon + 1, dtype_of(x)) for x in target.inputs})


@contextmanager
def _signs(request: Request) -> Iterator[list[str]]:
    """Files that only a worker with the same disks can see: one for each folder that is shared."""
    folder = beside(request.path)
    paths = [folder / "locks" / f"{request.path.name}.lock"]
    paths += [file.path for file in resolve_inputs(request.inputs)[:1] if not file.is_remote]
    if request.cache.is_relative_to(folder):
        yield [str(path) for path in paths]
        return
    request.cache.mkdir(parents=True, exist_ok=True)
    probe = request.cache / f".probe-{secrets.token_hex(8)}"
    try:
        probe.write_text(probe.name)
        yield [str(path) for path in (*paths, probe)]
    finally:
        probe.unlink(missing_ok=True)
