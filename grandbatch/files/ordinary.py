"""Ordinary files, opened and read: never what waits for ever, nor what a link leads to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TextIO

from grandbatch.files.system import READING, WRITING

NO_ORDINARY_FILE = (errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.EOVERFLOW, errno.EIO)
"""What `open_regular` and `read_whole` give where something else stands in a file's place, or what
is there can't be all of it."""


def open_regular(path: str | Path) -> int:
    """Open an ordinary file for reading; return its descriptor.

    Raises
    ------
    OSError
        If there is none, or a pipe, a socket or a device in its place: reading those may never end.
    """
    return _regular(os.open(path, READING), path)


def _regular(handle: int, path: str | Path) -> int:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return handle


def read_whole(path: Path, max_bytes: int) -> bytes:
    """Read an ordinary file, unless it is larger than such a file can be.

    Raises
    ------
    OSError
        If it can't be read, is none, or is too large: its size is looked at first.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > max_bytes:
            text = f"it has {n_bytes:,} bytes, at most {max_bytes:,} are read"
            raise OSError(errno.EOVERFLOW, text, str(path))
        return file.read()


def append_to(path: Path) -> TextIO:
    """Open a file to write at its end; never one that a link leads to.

    Raises
    ------
    OSError
        Also if a link, or what is no ordinary file, stands at the path.
    """
    handle = os.open(path, WRITING | os.O_CREAT | os.O_APPEND, 0o666)
    return os.fdopen(_regular(handle, path), "a", encoding="utf-8")


def overwrite(path: Path, data: bytes) -> None:
    """Write a file in place, one that is held open elsewhere; never one that a link leads to.

    Raises
    ------
    OSError
        Also if a link, or what is no ordinary file, stands at the path.
    """
    handle = os.open(path, WRITING | os.O_CREAT, 0o666)
    with os.fdopen(_regular(handle, path), "wb") as file:
        file.truncate()
        file.write(data)
