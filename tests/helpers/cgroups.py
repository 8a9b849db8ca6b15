"""Memory cgroups of the operating system, for tests of what it would kill."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """Make a memory cgroup (v1 or v2) with a hard limit; None where none can be made."""
    places = [
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ]
    for root, file in places:
        group = root / f"grandbatch-test-{os.getpid()}-{secrets.token_hex(4)}"
        if not (root / "cgroup.procs").exists():
            continue
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
            _remove(group)
        return
    yield None


def _remove(group: Path) -> None:
    """Remove a group once its processes are gone: some outlive the one that was waited for."""
    for _ in range(200):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
    group.rmdir()


def inside(group: Path | None, call: list[str]) -> list[str]:
    """Return a command that joins a cgroup before it becomes another."""
    if group is None:
        return call
    return ["sh", "-c", f'echo $$ > "{group}/cgroup.procs"; exec "$@"', "sh", *call]


@dataclass(frozen=True)
class Ended:
    """What became of a process, and the most that it and those below it held at once."""

    returncode: int
    out: str
    errors: str
    peak_bytes: int


def run_within(limit_bytes: int, call: list[str]) -> Ended:
    """Run a command inside a cgroup of a hard limit, where one can be made; watch its memory."""
    with (
        memory_cgroup(limit_bytes) as group,
        subprocess.Popen(
            inside(group, call), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child,
    ):
        process, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            peak = max(peak, _tree_bytes(process))
            time.sleep(0.02)
        out, errors = child.communicate()
    return Ended(child.returncode, out, errors, peak)


def _tree_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total
