"""Who builds or uses the caches of a folder, and removing what nobody needs.

A lock dies with its process; its file goes when the lock is let go, or when the next process looks.
One lock, the gate, is held for each of these steps, so that no two processes ever hold locks of one
name by different files, and nobody begins to use a cache that is just being removed. Removing
starts by a rename: what a killed process leaves is never taken for a cache.
"""

from __future__ import annotations

import secrets
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

from grandbatch.bars.cache.published import remove_objects, sweep, sweep_others
from grandbatch.files.leases import held_by_others, hold_lease
from grandbatch.files.locations import is_remote

STAGING = ".staging-"
"""What is being built: ``.staging-<key>.<random>``, under the lock of its key."""

REMOVED = ".removed-"
"""What is being removed."""

_GATE = "bars.lock"
_BUILD, _USE = "bars-build-", "bars-use-"
_LOOK_SECONDS = (0.01, 0.5)
BESIDE = ".grandbatch"


def locks_folder(cache_dir: Path) -> Path:
    """Where the locks of a folder of caches are: in ``.grandbatch/locks``, if it lies there."""
    if is_remote(cache_dir):
        return cache_dir / "locks"
    return cache_dir.parent / "locks" if cache_dir.parent.name == BESIDE else cache_dir


def leases_of(cache_dir: Path) -> list[Path]:
    """Where the leases are of who builds in a folder of an object store, and beside it."""
    beside = [cache_dir.parent / "locks"] if cache_dir.parent.name == BESIDE else []
    return [locks_folder(cache_dir), *beside]


@contextmanager
def build_lock(cache_dir: Path, key: str) -> Iterator[None]:
    """Hold the lock of whoever builds the cache of a key; wait for it."""
    if is_remote(cache_dir):
        with hold_lease(locks_folder(cache_dir) / f"{_BUILD}{key}.lease", f"bars in {cache_dir}"):
            yield
        return
    pause, longest = _LOOK_SECONDS
    while True:
        with _gate(cache_dir):
            lock = _try(locks_folder(cache_dir) / f"{_BUILD}{key}.lock")
        if lock is not None:
            break
        time.sleep(pause)
        pause = min(2 * pause, longest)
    try:
        yield
    finally:
        with _gate(cache_dir):
            _let_go(lock)


def fresh_staging(cache_dir: Path, key: str) -> Path:
    """Name a folder to build the cache of a key in; those of builds that were killed go.

    The caller holds the lock of the key.
    """
    staging = cache_dir / f"{STAGING}{key}.{secrets.token_hex(4)}"
    if is_remote(cache_dir):
        sweep_others(cache_dir, f"{STAGING}{key}.", staging)
    else:
        for left in cache_dir.glob(f"{STAGING}{key}.*/"):
            shutil.rmtree(left, ignore_errors=True)
    return staging


def remove_staging(staging: Path) -> None:
    """Remove what a build leaves; in an object store, but for the files of what it published."""
    if is_remote(staging):
        sweep(staging)
    else:
        shutil.rmtree(staging, ignore_errors=True)


class Use:
    """A claim on a cache: as long as it lasts nobody clears it.

    It ends with `end`, when nobody has it any more, or with its process. Where no lock can be
    written, and in an object store, there is none: such a cache can't be cleared from here either.
    """

    def __init__(self, cache: Path) -> None:
        self.end: Callable[[], object] = lambda: None
        cache_dir = cache.parent
        if is_remote(cache_dir):
            return
        path = locks_folder(cache_dir) / f"{_USE}{cache.name[:32]}-{secrets.token_hex(6)}.lock"
        if not cache_dir.is_dir():
            return
        with suppress(OSError), _gate(cache_dir):
            lock = _try(path)
            if lock is not None:
                # without the gate: it may be this thread that holds it when garbage is collected
                self.end = weakref.finalize(self, _let_go, lock)


def put_aside(cache: Path) -> bool:
    """Remove a cache, used or not; return whether there was one."""
    if is_remote(cache):
        return remove_objects(cache)
    aside = cache.with_name(f"{REMOVED}{secrets.token_hex(6)}")
    try:
        cache.rename(aside)
    except FileNotFoundError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def put_aside_unused(cache: Path) -> bool:
    """Remove a cache that no process uses; return whether it went.

    In an object store nobody can tell who uses it: it goes where no other builds beside it.
    """
    if is_remote(cache):
        with suppress(OSError):
            return not held_by_others(leases_of(cache.parent)) and remove_objects(cache)
        return False
    aside = cache.with_name(f"{REMOVED}{secrets.token_hex(6)}")
    with _gate(cache.parent):
        if not _is_free(cache.parent, f"{_USE}{cache.name[:32]}-*"):
            return False
        with suppress(FileNotFoundError):
            cache.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def remove_abandoned(cache_dir: Path) -> None:
    """Remove what processes that were killed left: half-built and half-removed caches, locks.

    In an object store each build does so itself, of those before it of the same bars.
    """
    if is_remote(cache_dir) or not cache_dir.is_dir():
        return
    with suppress(OSError), _gate(cache_dir):  # on a read-only disk nothing is abandoned
        _is_free(cache_dir, "bars-*")
        for left in cache_dir.glob(f"{STAGING}*.*/"):
            key = left.name.removeprefix(STAGING).partition(".")[0]
            if _is_free(cache_dir, f"{_BUILD}{key}.lock"):
                left.rename(left.with_name(f"{REMOVED}{secrets.token_hex(6)}"))
    for left in cache_dir.glob(f"{REMOVED}*/"):
        shutil.rmtree(left, ignore_errors=True)


def _gate(cache_dir: Path) -> FileLock:
    from filelock import FileLock

    folder = locks_folder(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / _GATE)


def _is_free(cache_dir: Path, pattern: str) -> bool:
    """Whether nobody holds any lock of a pattern; files of dead ones go. Behind the gate."""
    is_free = True
    for path in locks_folder(cache_dir).glob(pattern):
        lock = _try(path)
        if lock is None:
            is_free = False
        else:
            _let_go(lock)
    return is_free


def _try(path: Path) -> FileLock | None:
    """Take a lock if nobody holds it. Behind the gate."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _let_go(lock: FileLock) -> None:
    """Release a lock, and remove its file. Behind the gate, but where no other has its name."""
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()
