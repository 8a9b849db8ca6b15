"""How much memory is used, as typed records read from the system and the GPU's driver.

``/proc`` is read where it is there: at each look at a training's memory psutil would take longer.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from grandbatch.memory.limits import read_ceilings, smallest

_STATUS = Path("/proc/self/status")
_HAS_PROC = _STATUS.exists()

_highest = [0]
"""The highest peak that was forgotten."""


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of one GPU that this process uses.

    Parameters
    ----------
    device : str
        Such as ``cuda:0``.
    used_bytes : int
        Held by this process's PyTorch, its cache included.
    free_bytes : int
        Free for anybody.
    total_bytes : int
    """

    device: str
    used_bytes: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class MemoryUsage:
    """One reading of the process tree's memory.

    Parameters
    ----------
    rss_bytes : int
        Resident memory of this process and all below it.
    limit_bytes : int
        The smallest limit in force.
    available_bytes : int
        What may still be taken before any limit is reached, other processes' use included.
    source : str
        Who sets the limit.
    devices : tuple of DeviceMemory
        GPUs in use.
    """

    rss_bytes: int
    limit_bytes: int
    available_bytes: int
    source: str
    devices: tuple[DeviceMemory, ...] = ()

    @property
    def percent(self) -> float:
        """Share of the limit in use, in percent."""
        return 100.0 * self.rss_bytes / self.limit_bytes

    @property
    def usable_bytes(self) -> int:
        """The most that this tree can hold now: the limit, less what others hold of it."""
        return min(self.limit_bytes, self.rss_bytes + self.available_bytes)


def read_usage(setting_bytes: int | None = None) -> MemoryUsage:
    """Read usage and limits now.

    Parameters
    ----------
    setting_bytes : int, optional
        A limit below those of the system.
    """
    ceilings = read_ceilings(setting_bytes)
    rss = process_tree_bytes()
    limit = smallest(ceilings)
    free = [
        ceiling.limit.limit_bytes - rss if ceiling.free_bytes is None else ceiling.free_bytes
        for ceiling in ceilings
    ]
    return MemoryUsage(rss, limit.limit_bytes, max(0, min(free)), limit.source, device_memory())


def process_tree_bytes() -> int:
    """Resident memory of this process and all its children, in bytes."""
    if not _HAS_PROC:
        own = psutil.Process()
        return sum(map(_told_bytes, (own, *own.children(recursive=True))))
    return sum(map(_resident_bytes, _tree(os.getpid())))


def _told_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def own_bytes() -> tuple[int, int]:
    """Resident memory of this process alone, now and at its highest so far, in bytes.

    Where the system keeps no mark of the highest (macOS), it is that of now: samples must do.
    """
    if not _HAS_PROC:
        told = psutil.Process().memory_info()
        return told.rss, getattr(told, "peak_wset", told.rss)
    found = {}
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmHWM", "VmRSS"):
            found[key] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def peak_bytes() -> int:
    """Largest resident memory this process had so far, in bytes.

    (`ru_maxrss` would be at least that of the program that started this one.)
    """
    # the system's own mark is an estimate, and may be told lower a moment later
    _highest[0] = max(own_bytes()[1], _highest[0])
    return _highest[0]


def forget_peak() -> None:
    """Have the system's mark of this process's peak start again from what is used now.

    `peak_bytes` still knows the former one; other programs that ask the system for it do not.
    """
    peak_bytes()
    # proc(5): 5 resets VmHWM; where it can't be written the mark stays, and samples must do
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _tree(pid: int) -> Iterator[int]:
    """Process numbers of a process and all below it."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # a process that has ended meanwhile has no children left
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree_or_nothing(int(child))


def _tree_or_nothing(pid: int) -> list[int]:
    try:
        return list(_tree(pid))
    except OSError:
        return []


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def device_memory() -> tuple[DeviceMemory, ...]:
    """Memory of the GPUs that this process uses; none where PyTorch has not started any."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ()
    found = []
    for number in range(torch.cuda.device_count()):
        used = torch.cuda.memory_reserved(number)
        # asking a GPU that is not in use would start it, which takes half a gigabyte
        if used:
            free, total = torch.cuda.mem_get_info(number)
            found.append(DeviceMemory(f"cuda:{number}", used, free, total))
    return tuple(found)
