"""How much memory there is: every limit in force, and what is left below each.

All is read anew each time, never kept: limits change while a run lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from grandbatch.errors import MemoryLimitError
from grandbatch.files.system import available_cores, soft_limit
from grandbatch.memory.costs import BASE_BYTES, MAPPED_BYTES, MAPPED_CORE_BYTES

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60


@dataclass(frozen=True)
class MemoryLimit:
    """The memory that a run may use, and who says so."""

    limit_bytes: int
    source: str
    setting_bytes: int | None = None
    """What a setting allows all processes together, on whatever machines they run."""

    def remedy(self, needed: int) -> str:
        """Say how to give a run the memory it needs, in bytes."""
        if self.source == "RLIMIT_AS":
            return f"ulimit -v {-(-(needed + mapped_bytes()) // 2**10)} would fit"
        return f"--memory-limit {-(-needed // 2**20)}MiB would fit"


@dataclass(frozen=True)
class Ceiling:
    """One limit, and what is left below it for anybody.

    Parameters
    ----------
    limit : MemoryLimit
    free_bytes : int or None
        None where only this run counts against the limit.
    """

    limit: MemoryLimit
    free_bytes: int | None


def memory_limit(setting_bytes: int | None = None) -> MemoryLimit:
    """Return the smallest limit in force.

    RAM, every cgroup above this process (v1 and v2), the process's own resource limits, and the
    setting, if there is one.
    """
    return replace(smallest(read_ceilings(setting_bytes)), setting_bytes=setting_bytes)


def smallest(ceilings: list[Ceiling]) -> MemoryLimit:
    """Return the smallest of some limits."""
    return min((ceiling.limit for ceiling in ceilings), key=lambda limit: limit.limit_bytes)


def read_ceilings(setting_bytes: int | None = None) -> list[Ceiling]:
    """Read every limit in force, and what others left of it."""
    ram = psutil.virtual_memory()
    ceilings = [Ceiling(MemoryLimit(ram.total, "RAM"), ram.available)]
    ceilings += _cgroup_ceilings()
    ceilings += _resource_ceilings()
    if setting_bytes is not None:
        ceilings.append(Ceiling(MemoryLimit(setting_bytes, "--memory-limit"), None))
    return ceilings


def mapped_bytes() -> int:
    """Address space on this machine that a process takes and no memory stands behind."""
    return MAPPED_BYTES + MAPPED_CORE_BYTES * min(64, available_cores())


def check_address_space() -> None:
    """Raise MemoryLimitError where the address space is too small for the libraries alone.

    Past that limit some of them can't raise: they end the process in the middle of its work.
    """
    soft = soft_limit("RLIMIT_AS")
    needed = BASE_BYTES + mapped_bytes()
    if soft is not None and soft < needed:
        raise MemoryLimitError(
            f"the address space is limited to {soft:,} bytes (ulimit -v), and the interpreter and "
            f"libraries alone take {needed:,}; ulimit -v {needed // 2**10} would do for a small run"
        )


def _resource_ceilings() -> list[Ceiling]:
    """Limits on this process's address space and data; past them malloc fails."""
    found = []
    for name, field, mapped in (("RLIMIT_AS", "vms", mapped_bytes()), ("RLIMIT_DATA", "data", 0)):
        soft = soft_limit(name)
        if soft is not None:
            # what counts as data only Linux tells
            used = getattr(psutil.Process().memory_info(), field, 0)
            limit = MemoryLimit(max(0, soft - mapped), name)
            found.append(Ceiling(limit, max(0, soft - used)))
    return found


def _cgroup_ceilings() -> list[Ceiling]:
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
            roots = (_CGROUPS, _CGROUPS / "unified")
            files = ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            roots = (_CGROUPS / "memory",)
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        own = Path(name.lstrip("/"))
        for root in roots:
            for group in (own, *own.parents):
                found += _cgroup_ceiling(root / group, f"cgroup /{group}", *files)
    return found


def _cgroup_ceiling(folder: Path, source: str, limit_file: str, usage_file: str) -> list[Ceiling]:
    """Return a cgroup's limit; nothing where it has none or is not there."""
    try:
        text = (folder / limit_file).read_text().strip()
        if text == "max" or int(text) >= _UNLIMITED:
            return []
        limit = MemoryLimit(int(text), source)
        used = int((folder / usage_file).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return []
    # the kernel drops clean file pages before it kills; v1 counts those of groups below as total_
    prefix = "total_" if "total_inactive_file" in stat else ""
    pages = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return [Ceiling(limit, max(0, limit.limit_bytes - max(0, used - pages)))]
