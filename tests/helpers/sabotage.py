"""Strike a process at one of its changes of files: kill it, fill its disk, or raise.

A change is an opening for writing, a rename or link, a new or removed folder or file, as Python's
audit events tell of them. What Arrow writes by itself is not among them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_NEEDS_ROOM = ("open", "os.mkdir", "os.link")
_CHANGES = (*_NEEDS_ROOM, "os.rename", "os.remove", "os.rmdir")
_current: Saboteur | None = None
_is_hooked = False


class Killed(BaseException):
    """Stands for a kill inside a process that lives on; no `except Exception` survives it."""


@dataclass
class Saboteur:
    """Counts changes below a folder, and strikes right before the one numbered `at`.

    `act` is "kill" (SIGKILL), "full" (from then on nothing has room), or "raise" (from then on
    every change raises `Killed`, as the dead change nothing). `event` and `ends` narrow down what
    counts.
    """

    below: str = "/"
    at: int | None = None
    act: str = "kill"
    event: str | None = None
    ends: str = ""
    count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, event: str, args: tuple[object, ...]) -> None:
        if event not in _CHANGES or not self._counts(event, args):
            return
        with self._lock:
            self.count += 1
            is_early = self.at is None or self.count < self.at
        if is_early:
            return
        if self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "raise":
            raise Killed
        elif event in _NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    def _counts(self, event: str, args: tuple[object, ...]) -> bool:
        path = args[1] if event in ("os.rename", "os.link") else args[0]
        if isinstance(path, int):
            return False
        if event == "open" and not int(args[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        text = os.fsdecode(path)
        # what goes by a folder's handle (shutil.rmtree) has a bare name
        is_below = text.startswith(self.below) or not text.startswith("/")
        return is_below and self.event in (None, event) and text.endswith(self.ends)


@contextmanager
def sabotaged(saboteur: Saboteur) -> Iterator[Saboteur]:
    """Let a saboteur hear of this process's changes. One at a time."""
    global _current, _is_hooked  # noqa: PLW0603 (an audit hook can't be taken away again)
    if not _is_hooked:
        sys.addaudithook(_relay)
        _is_hooked = True
    _current = saboteur
    told = sys.unraisablehook

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        # a kill that comes while Python ends an object can't be raised: the next change is
        if not isinstance(unraisable.exc_value, Killed):
            told(unraisable)

    sys.unraisablehook = tell
    try:
        yield saboteur
    finally:
        sys.unraisablehook = told
        _current = None


def _relay(event: str, args: tuple[object, ...]) -> None:
    if _current is not None:
        _current.hear(event, args)
