"""Which store a place holds, when that was last looked at, and where copies of its files are."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from grandbatch.files.kept_files import FileKeeper, KeptFolder, keeper_of
from grandbatch.files.locations import is_remote, version_of
from grandbatch.store.format import MANIFEST_NAME

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Identity:
    """Which published store a place held when it was opened, told by its manifest file."""

    inode: int
    mtime_ns: int
    size: int
    version: str = ""
    """Of a remote place, what there is instead."""

    @classmethod
    def of(cls, store: Path) -> Identity:
        """Take the identity of the store now at a path."""
        if is_remote(store):
            return cls.told(version_of(store / MANIFEST_NAME))
        status = (store / MANIFEST_NAME).stat()
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)

    @classmethod
    def told(cls, version: str) -> Identity:
        """Make the identity of a remote store from the version of its manifest."""
        return cls(0, 0, 0, version)

    @classmethod
    def find(cls, store: Path) -> Identity | None:
        """Take the identity of what is now at a path, None where there is no store."""
        try:
            return cls.of(store)
        except OSError:
            return None


class LastLook:
    """When it was last seen that a remote store is the one that was opened.

    To look is a request, and chunks are checked one by one: those of another store never pass for
    this one's. So it is looked once in a while, and whenever bytes are not what they should be.
    """

    def __init__(self) -> None:
        self._at = -math.inf
        self._turn = threading.Lock()

    def is_due(self) -> bool:
        """Whether it was a second ago or more: then the caller is to look, and nobody else."""
        now = time.monotonic()
        with self._turn:
            is_due = now - self._at >= _LOOK_SECONDS
            if is_due:
                self._at = now
        return is_due

    def was_now(self) -> None:
        """Take note of one."""
        self._at = time.monotonic()


@dataclass(frozen=True)
class KeptStore:
    """Where files of a store are kept, and under which name.

    Parameters
    ----------
    folder : KeptFolder
    digest : str
        Of what all chunks of the store are: another store's files have other names.
    """

    folder: KeptFolder
    digest: str

    def keeper(self) -> FileKeeper:
        """Return this process's keeper."""
        return keeper_of(self.folder, os.getpid())

    def name(self, path: str) -> str:
        """Return the name under which a file of the store is kept."""
        return f"{self.digest}-{path.replace('/', '.')}"
