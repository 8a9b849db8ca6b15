"""What operating systems differ in, behind one door: the rest of the library asks here.

Covers reads at a place, how files are opened, users, processes, cores. Does not cover memory
(`grandbatch.memory`). Where a system has the call, it is used; where it has none, the same is done
by what every system has.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_BINARY = getattr(os, "O_BINARY", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)

READING = os.O_RDONLY | _BINARY | _NO_WAITING
"""Flags that open a file for reading, and never wait for who writes to a pipe."""

WRITING = os.O_WRONLY | _BINARY | _NO_WAITING | getattr(os, "O_NOFOLLOW", 0)
"""Flags that open a file for writing, never through a link where a system can refuse one."""

# a file that may only be read can't be synced on Windows
_SYNCING = os.O_RDONLY if os.name == "posix" else os.O_RDWR | _BINARY

_MOST_PIECES = 1024
"""Written by one call, at most: what Linux and macOS take."""

_moving = threading.Lock()


def read_into(file: int, buffers: Sequence[Any], offset: int) -> int:
    """Fill buffers with a file's bytes from a place on; return how many there were.

    Where a system can't read at a place, the descriptor's own place moves, one thread at a time.
    """
    if hasattr(os, "preadv"):
        return os.preadv(file, buffers, offset)
    n_bytes = 0
    with _moving:
        stream = io.FileIO(file, closefd=False)
        stream.seek(offset)
        for buffer in buffers:
            n_bytes += stream.readinto(buffer) or 0
    return n_bytes


def read_at(file: int, n_bytes: int, offset: int) -> bytes:
    """Return a file's bytes from a place on, fewer where it ends."""
    if hasattr(os, "pread"):
        return os.pread(file, n_bytes, offset)
    with _moving:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, n_bytes)


def write_from(file: int, pieces: Iterable[memoryview]) -> None:
    """Write all bytes of some buffers, one behind the other; at once where it can be."""
    left = deque(piece for piece in pieces if len(piece))
    while left:
        if hasattr(os, "writev"):
            n_written = os.writev(file, list(islice(left, _MOST_PIECES)))
        else:
            n_written = os.write(file, left[0])
        while left and n_written >= len(left[0]):
            n_written -= len(left.popleft())
        if n_written:
            left[0] = left[0][n_written:]


def sync_file(path: str | os.PathLike[str]) -> None:
    """Put a file's bytes on the disk."""
    _sync(path, _SYNCING)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Put a folder's names on the disk; Windows does so by itself."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: str | os.PathLike[str], flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget_pages(file: int) -> None:
    """Have the system drop what it keeps of a file in memory, where it can be told."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def user_id() -> int | None:
    """Return the number of the user that this process acts as; None where users have none."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def is_alive(process: int) -> bool:
    """Whether a process of this machine lives, whoever's it is."""
    if os.name != "posix":  # a signal of 0 would end it
        import psutil

        return psutil.pid_exists(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def available_cores() -> int:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def soft_limit(name: str) -> int | None:
    """Return a limit of this process, such as ``RLIMIT_NOFILE``; None where there is none."""
    if not resource:
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft
