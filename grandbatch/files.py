"""Files that are whole or absent: written aside, synced, renamed.

Covers single files and folders on a local disk. Does not cover what is in them.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grandbatch.errors import DiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY_SUFFIX = ".partial"


@contextmanager
def room_for(path: Path, n_bytes: int) -> Iterator[None]:
    """Turn "no space left" into an error that names the file and its size.

    Raises
    ------
    DiskFullError
        If the disk fills up inside the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFullError(
            f"no room for {path}: it takes {n_bytes:,} bytes and {free:,} are free; "
            "make room and run the same command again, what was finished is kept"
        ) from None


def write_whole(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all.

    Parameters
    ----------
    path : Path
        Where; its folder must exist.
    data : bytes
        What.
    durable : bool
        Whether the bytes are on the disk, not only in the page cache, before the name appears.

    Raises
    ------
    DiskFullError
        If there is no room; the half-written file is removed.
    """
    aside = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with room_for(path, len(data)), aside.open("wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.rename(path)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Put every file and folder below a folder, and the folder itself, on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            handle = os.open(Path(parent) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(parent))
