"""What a machine, and a cluster, offer to grandbatch: versions, limits, speed of a disk."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from statistics import median
from typing import Any

from grandbatch.bars.cache.upkeep import cache_problems, list_caches
from grandbatch.errors import GrandbatchError, StoreError, StoreUnreachableError, UsageError
from grandbatch.files.locations import as_location, reaching
from grandbatch.files.refusals import check_conditions, refuse_url
from grandbatch.files.system import available_cores, forget_pages, soft_limit
from grandbatch.files.verbs import is_in_objects, objects_of
from grandbatch.memory.limits import read_ceilings
from grandbatch.store.publish import BESIDE
from grandbatch.version import __version__

_SHOWN_EXTRAS = ("rl", "metrics", "s3")

_PROBE_BYTES = 64 * 2**20
_STEP_BYTES = 4 * 2**20
_OBJECT_BYTES = 8 * 2**20
_REQUESTS = 9


def required(extra: str | None = None) -> list[str]:
    """Return the names of the packages that grandbatch, or an extra of it, asks for."""
    try:
        asked = requires("grandbatch") or []
    except PackageNotFoundError:  # run from its folder, not installed
        return []
    condition = None if extra is None else f"extra == '{extra}'"
    parts = (text.replace('"', "'").partition(";") for text in asked)
    found = [(re.split(r"[^\w.-]", name)[0], rule.strip() or None) for name, _, rule in parts]
    names = [name for name, rule in found if rule == condition]
    # comes by Dask's extra of that name
    return [*names, "distributed"] if "dask" in names else names


def versions() -> dict[str, str | None]:
    """Versions of Python, grandbatch and what it uses; None where it isn't installed."""
    names = (*required(), *(name for extra in _SHOWN_EXTRAS for name in required(extra)))
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "grandbatch": __version__,
    }
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def limits() -> dict[str, Any]:
    """Cores that may be used, open files, and every limit on memory, smallest first."""
    ceilings = sorted(read_ceilings(), key=lambda ceiling: ceiling.limit.limit_bytes)
    return {
        "cores": available_cores(),
        "open_files": soft_limit("RLIMIT_NOFILE"),
        "memory": [
            {**asdict(ceiling.limit), "free_bytes": ceiling.free_bytes} for ceiling in ceilings
        ],
    }


def gpus() -> list[dict[str, Any]]:
    """Name and memory of each GPU that torch can use; none where it can use none."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def disk_speed(folder: Path, n_bytes: int = _PROBE_BYTES) -> dict[str, int]:
    """Measure a folder's disk by a file that is written, synced, read back and removed.

    Returns
    -------
    dict
        free_bytes; written and read bytes per second. What was read need not come from the disk
        itself where the system can't be made to forget a file.

    Raises
    ------
    UsageError
        If the folder isn't there or can't be written.
    """
    path = folder / f".grandbatch-doctor-{secrets.token_hex(4)}"
    piece = secrets.token_bytes(_STEP_BYTES)
    try:
        began = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(n_bytes // _STEP_BYTES):
                file.write(piece)
            os.fsync(file.fileno())
        written = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            forget_pages(file.fileno())
            reading = time.perf_counter()
            while file.read(_STEP_BYTES):
                pass
        ended = time.perf_counter()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written ({error.strerror}); choose another folder"
        ) from None
    finally:
        with suppress(OSError):
            path.unlink()
    return {
        "free_bytes": free,
        "write_bytes_per_second": round(n_bytes / (written - began)),
        "read_bytes_per_second": round(n_bytes / (ended - reading)),
    }


def object_speed(folder: Path, n_bytes: int = _OBJECT_BYTES) -> dict[str, float]:
    """Measure an object store by objects that are written, read back and removed.

    Returns
    -------
    dict
        Seconds of a small request, written and read bytes per second.

    Raises
    ------
    StoreError
        If it lacks what builds need.
    OSError
        If it can't be reached, or refuses.
    """
    place = objects_of(folder)
    check_conditions(place)
    name, data = f".grandbatch-doctor-{secrets.token_hex(4)}", secrets.token_bytes(n_bytes)
    try:
        written = _seconds_of(lambda: place.write(name, data))
        read = _seconds_of(lambda: place.read(name))
        asked = [_seconds_of(lambda: place.head(name)) for _ in range(_REQUESTS)]
    finally:
        place.delete([name])
    return {
        "request_seconds": round(median(asked), 6),
        "write_bytes_per_second": round(n_bytes / written),
        "read_bytes_per_second": round(n_bytes / read),
    }


def _seconds_of(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cluster(address: str, folder: Path) -> dict[str, Any]:
    """Ask a running Dask scheduler for its workers.

    Parameters
    ----------
    address : str
    folder : Path
        Where stores are to lie: where that is a URL of an object store, each worker is asked
        whether it reads and writes there.

    Returns
    -------
    dict
        workers, threads, memory_bytes (limits of all workers, 0 for none), different (package →
        versions, where this process, scheduler and workers differ), unreachable (worker → why it
        can't reach the folder).

    Raises
    ------
    UsageError
        If no scheduler answers.
    """
    from grandbatch.scheduling import open_schedule

    with open_schedule(address, None) as schedule:
        client = schedule.client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        asked = client.get_versions()
        unreachable = _unreachable(schedule, folder) if is_in_objects(folder) else {}
    sides = [asked["client"], asked["scheduler"], *asked["workers"].values()]
    packages = [{"python": side["host"]["python"].split(".final")[0], **side["packages"]}
                for side in sides if side]  # fmt: skip
    different = {
        name: sorted({str(side.get(name)) for side in packages})
        for name in packages[0]
        if len({str(side.get(name)) for side in packages}) > 1
    }
    return {
        "workers": len(workers),
        "threads": sum(worker["nthreads"] for worker in workers),
        "memory_bytes": sum(worker["memory_limit"] or 0 for worker in workers),
        "different": different,
        "unreachable": unreachable,
    }


def _unreachable(schedule: Any, folder: Path) -> dict[str, str]:
    from grandbatch.builder.workers import signs_at_urls
    from grandbatch.scheduling import problems_of

    own = folder / f".grandbatch-doctor-{secrets.token_hex(4)}"
    try:
        with signs_at_urls([own], folder) as reaches:
            found = schedule.run_on_workers(problems_of, reaches)
    except OSError:
        return {}  # from here nobody reaches it, which is told
    return {address: ", ".join(told) for address, told in sorted(found.items()) if told}


def examine(folder: Path, scheduler: str | None = None) -> dict[str, Any]:
    """Look at everything, caches of bars included; `problems` says in words what is wrong."""
    folder = as_location(folder)
    refuse_url(folder, "the folder of stores (--folder)", but=is_in_objects)
    found: dict[str, Any] = {
        "versions": versions(),
        "limits": limits(),
        "gpus": gpus(),
        "disk": {},
    }
    problems = [
        f"{name} is not installed: pip install grandbatch"
        for name in required()
        if found["versions"][name] is None
    ]
    problems += _look_at_folder(folder, found)
    if scheduler is not None:
        try:
            found["cluster"] = cluster(scheduler, folder)
        except GrandbatchError as error:
            problems.append(str(error))
        else:
            if not found["cluster"]["workers"]:
                problems.append(f"the scheduler at {scheduler} has no workers")
            problems += [
                f"worker {worker}: {why}" for worker, why in found["cluster"]["unreachable"].items()
            ]
            problems += [
                f"{name} differs over the cluster: {', '.join(values)}"
                for name, values in found["cluster"]["different"].items()
            ]
    return {**found, "problems": problems, "ok": not problems}


def _look_at_folder(folder: Path, found: dict[str, Any]) -> list[str]:
    """Measure a folder's disk, or object store; say what is wrong with it, and with caches there.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    problems = []
    try:
        if is_in_objects(folder):
            with reaching(folder):
                found["objects"] = object_speed(folder)
        else:
            found["disk"] = disk_speed(folder)
    except StoreUnreachableError as error:
        return [str(error)]  # whoever asks again waits again
    except (StoreError, UsageError) as error:
        if not (is_in_objects(folder) or folder.is_dir()):
            raise
        problems.append(str(error))
    for entry in list_caches(folder / BESIDE / "bars"):
        problems += cache_problems(entry.path)[1]
    return problems
