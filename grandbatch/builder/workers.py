"""Get a cluster's workers ready for a build, and refuse those that can't take part.

Before the first task each worker process imports what tasks need, compiles the kernels or loads
them from numba's cache, and looks at the files that the build shares.
"""

from __future__ import annotations

import hashlib
import pickle
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.bars.inputs.opening import bucket_of, open_raw
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import GrandbatchError, InputError, StoreError
from grandbatch.features import compute_rows
from grandbatch.features.inputs import dtype_of
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import begun, both, each, objects_of, remove_below
from grandbatch.kernels.statistics import row_moments
from grandbatch.scheduling import FIRST_PATIENCE, Access, Schedule, admit, check_version
from grandbatch.store.publish import beside
from grandbatch.targets import target_values


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
        If a worker runs another version, or can't see the store's folder, the cache or the inputs;
        all workers that can't reach a URL are named at once.
    """
    if schedule.is_local:
        yield schedule
        return
    check_version(schedule)
    send_kernels(schedule, request.settings)
    schedule.run_on_workers(warm_worker, request.settings)
    watch_memory(schedule)
    with _signs(request) as (paths, reaches):
        yield admit(schedule, paths, reaches)


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


def warm_worker(settings: StoreSettings) -> None:
    """Import what tasks will import, compile what they will run."""
    from grandbatch.builder import engines  # noqa: F401 (with all that its tasks import)

    feature_set = settings.feature_set
    n_rows = feature_set.lookback + 1
    columns = {name: np.ones(n_rows, dtype_of(name)) for name in feature_set.inputs}
    rows = compute_rows(feature_set, columns, np.empty(0, np.int64), feature_set.lookback)
    one = np.ones(1, np.int64)
    row_moments(rows, one - 1, one, one, one, *np.empty((4, 1, feature_set.n_features)))
    for target in settings.targets:
        target_values(target, {x: np.ones(target.horizon + 1, dtype_of(x)) for x in target.inputs})


@dataclass(frozen=True)
class InputAccess:
    """An input at a URL, which each worker must be able to read."""

    location: str

    def problem(self) -> str:
        """Read a byte of it; say what goes wrong, or nothing."""
        try:
            with open_raw(self.location, 1) as file:
                file.read(1)
        except (InputError, OSError) as error:
            return f"can't read {error}"
        return ""


@dataclass(frozen=True)
class FolderAccess:
    """A folder at a URL, which each worker must be able to read and to write."""

    sign: str
    """URL of an object that this build has put there."""
    says: bytes

    def problem(self) -> str:
        """Read the sign, put one beside it; say what goes wrong, or nothing."""
        sign = replace(objects_of(self.sign), patience=FIRST_PATIENCE)
        try:
            if sign.read("") != self.says:
                return f"{self.sign} is not what this build put there: another server answers"
            sign.at("seen").write(secrets.token_hex(8), self.says)
        except (OSError, GrandbatchError) as error:
            return f"can't reach {self.sign}: {error.args[1] if len(error.args) > 1 else error}"
        return ""


@contextmanager
def _signs(request: Request) -> Iterator[tuple[list[str], list[Access]]]:
    """Put a sign in each folder that is shared; only workers that share it see that.

    They are files that only a worker with the same disks can see, and, of what is at URLs, what
    each worker must reach.
    """
    files = begun(partial(resolve_inputs, request.inputs))
    folder = beside(request.path)
    paths: list[str] = []
    of_inputs: dict[str, InputAccess] = {}
    is_apart = is_remote(request.cache) != is_remote(folder)
    inside = not is_apart and request.cache.is_relative_to(folder)
    places = [folder] if inside else [folder, request.cache]
    with ExitStack() as stack:
        urls = [place for place in places if is_remote(place)]
        signs = stack.enter_context(signs_at_urls(urls, request.path))
        for file in files():
            if file.is_remote:
                # one of each bucket: what opens one opens all
                of_inputs.setdefault(bucket_of(file.location), InputAccess(file.location))
            elif not paths:
                paths.append(str(file.path))
        for place in places:
            if is_remote(place):
                continue
            if place == folder:
                paths.append(str(folder / "locks" / f"{request.path.name}.lock"))
            else:
                paths.append(stack.enter_context(_probe(place)))
        yield paths, [*of_inputs.values(), *signs]


@contextmanager
def _probe(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{secrets.token_hex(8)}"
    try:
        probe.write_text(probe.name)
        yield str(probe)
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def signs_at_urls(folders: Sequence[Path], store: Path) -> Iterator[list[FolderAccess]]:
    """Put objects that tell this build from others; all that workers put beside them goes, too.

    And what an earlier build of the store left that was killed: the caller holds the store's lock.
    """
    of_store = Path("probes") / hashlib.sha256(str(store).encode()).hexdigest()[:16]

    def put(folder: Path) -> FolderAccess:
        place, name = objects_of(folder / of_store), secrets.token_hex(8)
        sign = FolderAccess(f"{place.url}/{name}", secrets.token_bytes(16))
        _, there = both(partial(place.write, name, sign.says), place.list)
        place.delete([one.name for one in there if one.name != name])
        return sign

    try:
        yield each(put, folders, far=True)
    finally:
        each(lambda folder: remove_below(folder / of_store), folders, far=True)
