"""Files that are whole or absent: written aside, synced, renamed.

Covers single files and folders on a local disk. Does not cover what is in them.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from grandbatch.errors import DiskFullError, StoreError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY_SUFFIX = ".partial"

NO_ORDINARY_FILE = (errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.EOVERFLOW, errno.EIO)
"""What `open_regular` and `read_whole` give where something else stands in a file's place, or what
is there can't be all of it."""

_OF_A_STORE = ("manifest.json", "zarr.json")

URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)
"""What a URL begins with. A `Path` of one has one slash left of two."""


@contextmanager
def room_for(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn "no space left" into an error that names the file and its size.

    Parameters
    ----------
    path : Path
        What is written; where the system's own error names a file, that one is told.
    n_bytes : int, optional
        Its size, where it is known.

    Raises
    ------
    DiskFullError
        If the disk fills up inside the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DiskFullError(
                f"{error.filename or path} can't grow: files may not be larger here; raise ulimit "
                "-f and run the same command again, what was finished is kept"
            ) from None
        if not is_full(error):
            raise
        free = free_bytes(path)
        if n_bytes is None:
            needs = f"no room for {error.filename or path}: {free:,} bytes are free"
        else:
            needs = f"no room for {path}: it takes {n_bytes:,} bytes and {free:,} are free"
        raise DiskFullError(
            f"{needs}; make room and run the same command again, what was finished is kept"
        ) from None


def is_full(error: OSError) -> bool:
    """Whether the system says that a disk, or a quota, is full."""
    return error.errno in _FULL


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that a path is on, or would be."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(there).free


def refuse_url(place: str | os.PathLike[str] | None, what: str) -> None:
    """Refuse a URL where only a local path is taken: it would become a folder of that name here.

    Raises
    ------
    UsageError
        Naming it.
    """
    if URL.match(str(place)):
        raise UsageError(
            f"{what} can't be at a URL, got {place}; give a folder on a disk (on a cluster, one "
            "that all workers share)"
        )


def refuse_planted(folder: Path) -> None:
    """Refuse a folder of this library that others may have prepared, with what lies in it.

    Raises
    ------
    StoreError
        If it, or a folder or link in it, belongs to someone else who lets everybody write there.
    """
    for place in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        try:
            status = place.lstat()
        except OSError:
            continue
        is_link = stat.S_ISLNK(status.st_mode)
        if not (is_link or stat.S_ISDIR(status.st_mode)) or _is_trusted(status.st_uid):
            continue
        if is_link or status.st_mode & stat.S_IWOTH:
            raise StoreError(
                f"{place} belongs to user {status.st_uid}, not to {os.geteuid()}, and everybody "
                "may write to it or it is a link: what is in it may be anybody's. Remove it, or "
                "choose another folder"
            )


def _is_trusted(user: int) -> bool:
    return user in (os.geteuid(), 0)


def append_to(path: Path) -> TextIO:
    """Open a file to write at its end; never one that a link leads to.

    Raises
    ------
    OSError
        Also if a link, or what is no ordinary file, stands at the path.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(_regular(os.open(path, flags, 0o666), path), "a", encoding="utf-8")


def refuse_inside_store(path: Path, what: str) -> None:
    """Refuse a place inside a store: what is there goes when the store grows or is built anew.

    Raises
    ------
    UsageError
        Naming the store; also where only a link leads there, or lies there.
    """
    for place in (Path(os.path.normpath(path.absolute())), path.resolve()):
        for folder in (place, *place.parents):
            if all((folder / name).is_file() for name in _OF_A_STORE):
                raise UsageError(
                    f"{what} can't be at {path}: that is inside the store {folder}, which is "
                    "replaced with all that is in it when it grows; choose a place beside it"
                )


def open_regular(path: str | Path) -> int:
    """Open an ordinary file for reading; return its descriptor.

    Raises
    ------
    OSError
        If there is none, or a pipe, a socket or a device in its place: reading those may never end.
    """
    return _regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK), path)


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


def write_whole(
    path: Path, data: bytes | memoryview, *, durable: bool = True, shared: bool = False
) -> None:
    """Write a file so that it is there whole or not at all.

    Parameters
    ----------
    path : Path
        Where; its folder must exist.
    data : bytes
        What.
    durable : bool
        Whether the bytes are on the disk, not only in the page cache, before the name appears.
    shared : bool
        Whether several may write the file at once. Each then writes aside under a name of its
        own, which stays behind when it is killed.

    Raises
    ------
    DiskFullError
        If there is no room; the half-written file is removed.
    """
    view = memoryview(data).cast("B")
    with (
        room_for(path, len(view)),
        written_aside(path, shared=shared) as aside,
        os.fdopen(_create(aside), "wb", buffering=0) as file,
    ):
        while view:
            view = view[file.write(view) :]
        if durable:
            os.fsync(file.fileno())


@contextmanager
def written_aside(path: Path, *, shared: bool) -> Iterator[Path]:
    """Give a path to write to that becomes `path` at the end, or goes.

    Parameters
    ----------
    path : Path
    shared : bool
        As in `write_whole`.
    """
    own = f".{secrets.token_hex(4)}" if shared else ""
    aside = path.with_name(f"{path.name}{own}{TEMPORARY_SUFFIX}")
    try:
        yield aside
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def overwrite(path: Path, data: bytes) -> None:
    """Write a file in place, one that is held open elsewhere; never one that a link leads to.

    Raises
    ------
    OSError
        Also if a link, or what is no ordinary file, stands at the path.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(_regular(os.open(path, flags, 0o666), path), "wb") as file:
        file.truncate()
        file.write(data)


def _create(path: Path) -> int:
    """Make a file anew, whatever stood at its path: it is never one that a link leads to."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o666)


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left half-written anywhere below a folder."""
    for left in folder.rglob(f"*{TEMPORARY_SUFFIX}"):
        left.unlink(missing_ok=True)


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
