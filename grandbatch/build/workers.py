"""Get a cluster's workers ready for a build, and refuse those that can't take part.

Before the first task each worker process imports what tasks need, compiles the kernels or loads
them from numba's cache, and looks at the files that the build shares.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from grandbatch.bars.inputs import resolve_inputs
from grandbatch.build.reuse import Target
from grandbatch.errors import StoreError
from grandbatch.features import FeatureSet, compute_rows
from grandbatch.kernels.statistics import row_moments
from grandbatch.scheduling import Schedule
from grandbatch.store.publish import beside
from grandbatch.version import __version__

_BEGINNING_BYTES = 128

Sight = tuple[int, bytes] | None
"""Size and beginning of a file; None where it can't be read."""


def prepare_workers(schedule: Schedule, target: Target) -> None:
    """Warm a cluster's workers, and check that each can do its part. Nothing to do on threads.

    The caller holds the store's lock: its file is what workers must see beside the store.

    Raises
    ------
    StoreError
        If a worker runs another version, or can't see the store's folder, the cache or the inputs.
    """
    if schedule.is_local:
        return
    send_kernels(schedule, target.settings.feature_set)
    versions = schedule.run_on_workers(warm_worker, target.settings.feature_set)
    for address, version in sorted(versions.items()):
        if version != __version__:
            raise StoreError(
                f"worker {address} runs grandbatch {version}, and this is {__version__}: stores "
                "of two versions may differ; install the same one on every worker"
            )
    watch_memory(schedule)
    with _signs(target) as paths:
        expected = look_at(paths)
        sights = schedule.run_on_workers(look_at, paths)
    for address, seen in sorted(sights.items()):
        for path, sight, wanted in zip(paths, seen, expected, strict=True):
            if sight != wanted:
                raise StoreError(
                    f"worker {address} can't see {path} as this process does; every worker must "
                    "reach the inputs, the bars cache and the store's folder under the same "
                    "paths: use a shared disk, or --scheduler threads"
                )


def send_kernels(schedule: Schedule, feature_set: FeatureSet) -> None:
    """See that a set's kernels reach every worker; those of modules go by the module's name.

    Raises
    ------
    StoreError
        If a kernel can't travel, or a worker lacks the module that it is in.
    """
    from distributed.protocol.pickle import dumps

    try:
        pickled = dumps(feature_set)
    except Exception as error:
        raise StoreError(
            f"the kernels of {feature_set.name} can't be sent to workers ({error}); make them "
            "functions at the top level of a module, or build with --scheduler threads"
        ) from error
    for address, problem in sorted(schedule.run_on_workers(lacking, pickled).items()):
        if problem:
            raise StoreError(
                f"worker {address} can't take the kernels of {feature_set.name} ({problem}); give "
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


def warm_worker(feature_set: FeatureSet) -> str:
    """Import what tasks will import, compile what they will run; return the version."""
    from grandbatch.build import engines  # noqa: F401 (with all that its tasks import)

    n_rows = feature_set.lookback + 1
    columns = {name: np.ones(n_rows) for name in feature_set.inputs}
    rows = compute_rows(feature_set, columns, np.empty(0, np.int64), feature_set.lookback)
    row_moments(rows, *np.empty((4, feature_set.n_features)))
    return __version__


def look_at(paths: Sequence[str]) -> list[Sight]:
    """Return what is seen of files."""
    return [_sight(path) for path in paths]


@contextmanager
def _signs(target: Target) -> Iterator[list[str]]:
    """Files that only a worker with the same disks can see: one for each folder that is shared."""
    folder = beside(target.path)
    paths = [folder / "locks" / f"{target.path.name}.lock"]
    paths += [file.path for file in resolve_inputs(target.inputs)[:1] if not file.is_remote]
    if target.cache.is_relative_to(folder):
        yield [str(path) for path in paths]
        return
    target.cache.mkdir(parents=True, exist_ok=True)
    probe = target.cache / f".probe-{secrets.token_hex(8)}"
    try:
        probe.write_text(probe.name)
        yield [str(path) for path in (*paths, probe)]
    finally:
        probe.unlink(missing_ok=True)


def _sight(path: str) -> Sight:
    try:
        with Path(path).open("rb") as file:
            return Path(path).stat().st_size, file.read(_BEGINNING_BYTES)
    except OSError:
        return None
