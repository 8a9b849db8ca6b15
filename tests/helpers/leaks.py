"""What a loop over a loader could leave behind, in a process that runs other tests as well."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from waiting import wait_until


def loader_threads() -> list[threading.Thread]:
    """Threads that a loader or a stream started."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("grandbatch")]


def assert_no_threads() -> None:
    """Wait until no thread of a loader or a stream is left."""
    wait_until(lambda: not loader_threads())


def open_files() -> Counter[str]:
    """Files that this process has open, each by its name and how often.

    Sockets are left out: a local store opens none, and those of other tests' clients come and go.
    """
    opened = (path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists())
    return Counter(str(path) for path in opened if not path.name.startswith("socket:"))


def assert_none_opened(before: Counter[str]) -> None:
    """No file is open that was not open before; others may have been collected since."""
    assert not open_files() - before
