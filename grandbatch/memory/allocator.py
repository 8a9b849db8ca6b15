"""glibc's allocator: when memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from grandbatch.memory.limits import MemoryLimit
from grandbatch.memory.usage import own_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The highest that glibc accepts for, and would by itself raise, these two to.
_MMAP_BYTES = 2**25
_TRIM_BYTES = 2**26
_KEPT_BYTES = 2**30

KEEPING_ENVIRON = {
    "MALLOC_MMAP_THRESHOLD_": _MMAP_BYTES,
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
}
"""Environment of a process that keeps what it frees."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the allocations that follow, and give it back at the end.

    Tasks that allocate and free a few megabytes each would otherwise get them from the system
    every time, page by page: a quarter of a build's time. Nothing happens where libc isn't glibc.
    """
    _set_thresholds(_KEPT_BYTES)
    try:
        yield
    finally:
        raise_thresholds()
        give_back()


def raise_thresholds() -> None:
    """Let freed blocks of some megabytes be used again, as far as glibc would come to by itself.

    It raises its thresholds as larger blocks are freed, but may settle just where a block that
    comes and goes is given back, and got page by page, each time.
    """
    _set_thresholds(_TRIM_BYTES)


def give_back() -> None:
    """Give free memory back to the system; other C libraries than glibc do so by themselves."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def give_back_where_tight(limit: MemoryLimit) -> None:
    """Give back what tasks have freed and kept: threads can't use what others have kept."""
    if own_bytes()[0] > limit.limit_bytes // 2:
        give_back()


def _set_thresholds(trim_bytes: int) -> None:
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, trim_bytes)


def _of_glibc(name: str) -> Callable[..., Any] | None:
    """Return a function of this process's C library; None where it has none of that name."""
    # Windows has no library that stands for the process itself
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
