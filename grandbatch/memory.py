"""How much memory there is, how much is used, and what a run will need.

Limits are read anew each time, never kept. Usage is that of the whole process tree.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

from grandbatch.errors import MemoryLimitError, UsageError

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60


@dataclass(frozen=True)
class MemoryLimit:
    """The memory that a run may use, and who says so."""

    limit_bytes: int
    source: str


def memory_limit(setting_bytes: int | None = None) -> MemoryLimit:
    """Return the smallest limit in force.

    RAM, every cgroup above this process (v1 and v2), the process's own resource limits, and the
    setting, if there is one.
    """
    limits = [MemoryLimit(psutil.virtual_memory().total, "RAM")]
    limits += [MemoryLimit(n, f"cgroup {name}") for name, n in _cgroup_limits()]
    for kind, name in ((resource.RLIMIT_AS, "RLIMIT_AS"), (resource.RLIMIT_DATA, "RLIMIT_DATA")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(MemoryLimit(soft, name))
    if setting_bytes is not None:
        limits.append(MemoryLimit(setting_bytes, "--memory-limit"))
    return min(limits, key=lambda limit: limit.limit_bytes)


def _cgroup_limits() -> list[tuple[str, int]]:
    """Limits of the cgroups from this process's own up to the root, v1 and v2."""
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        roots: tuple[Path, ...]
        if controllers == "":
            roots, file = (_CGROUPS, _CGROUPS / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            roots, file = (_CGROUPS / "memory",), "memory.limit_in_bytes"
        else:
            continue
        own = Path(name.lstrip("/"))
        for root in roots:
            for group in (own, *own.parents):
                try:
                    text = (root / group / file).read_text().strip()
                except OSError:
                    continue
                if text != "max" and int(text) < _UNLIMITED:
                    found.append((f"/{group}", int(text)))
    return found


def process_tree_bytes() -> int:
    """Resident memory of this process and all its children, in bytes."""
    process = psutil.Process()
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def peak_bytes() -> int:
    """Largest resident memory this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class MemoryUsage:
    """One reading of the monitor."""

    rss_bytes: int
    limit_bytes: int

    @property
    def percent(self) -> float:
        """Share of the limit in use, in percent."""
        return 100.0 * self.rss_bytes / self.limit_bytes


class MemoryMonitor:
    """Compares the process tree's memory with its limit.

    Parameters
    ----------
    max_memory_percent : float
        Share of the limit, in percent, that may be used.
    limit_bytes : int, optional
        A limit below that of the system.
    """

    def __init__(self, max_memory_percent: float = 80.0, limit_bytes: int | None = None):
        if not 0 < max_memory_percent <= 100:
            raise UsageError(
                f"max_memory_percent must be above 0 and at most 100, got {max_memory_percent}"
            )
        self.max_memory_percent = max_memory_percent
        self._setting_bytes = limit_bytes

    def usage(self) -> MemoryUsage:
        """Read usage and limit now."""
        return MemoryUsage(process_tree_bytes(), memory_limit(self._setting_bytes).limit_bytes)

    def is_over(self) -> bool:
        """Whether more than the allowed share is in use."""
        return self.usage().percent > self.max_memory_percent

    def check(self) -> MemoryUsage:
        """Read usage, and raise where it is over the allowed share.

        Raises
        ------
        MemoryLimitError
            With the figures.
        """
        usage = self.usage()
        if usage.percent > self.max_memory_percent:
            raise MemoryLimitError(
                f"{usage.rss_bytes:,} bytes are in use, {usage.percent:.1f} % of the limit of "
                f"{usage.limit_bytes:,}; {self.max_memory_percent:g} % are allowed: use smaller "
                "batches, less prefetch or cache, or raise max_memory_percent"
            )
        return usage


def calculate_optimal_batch_size(
    data_size: int, memory_limit_gb: float = 4.0, sequence_length: int = 48
) -> int:
    """Choose a batch size by the size of the dataset and the memory there is for batches.

    Parameters
    ----------
    data_size : int
        Bars.
    memory_limit_gb : float
        Memory for the whole run, in GiB.
    sequence_length : int
        Rows in a window.

    Returns
    -------
    int
        8 to 16 below 10,000 bars, 16 to 32 below 100,000, else 32 to 64: the upper figure where
        a thousandth of the memory holds such a batch of 16 float64 features, else the lower.

    Raises
    ------
    UsageError
        If an argument is not positive.
    """
    if data_size <= 0 or memory_limit_gb <= 0 or sequence_length <= 0:
        raise UsageError(
            "data_size, memory_limit_gb and sequence_length must be positive, got "
            f"{data_size}, {memory_limit_gb}, {sequence_length}"
        )
    if data_size < 10_000:
        upper = 16
    elif data_size < 100_000:
        upper = 32
    else:
        upper = 64
    batch_bytes = upper * sequence_length * 16 * 8
    return upper if batch_bytes * 1000 <= memory_limit_gb * 2**30 else upper // 2
