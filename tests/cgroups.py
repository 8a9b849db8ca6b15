"""Memory cgroups of the operating system, for tests of what it would kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """Make a memory cgroup (v1 or v2) with a hard limit; None where none can be made."""
    places = [
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ]
    for root, file in places:
        group = root / f"grandbatch-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / file).write_text(str(limit_bytes))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


def inside(group: Path | None, call: list[str]) -> list[str]:
    """Return a command that joins a cgroup before it becomes another."""
    if group is None:
        return call
    return ["sh", "-c", f'echo $$ > "{group}/cgroup.procs"; exec "$@"', "sh", *call]
