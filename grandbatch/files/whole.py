"""Files that are whole or absent: written aside, synced, renamed; at a URL, put as one object.

Covers single files and folders. Does not cover what is in them.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from grandbatch.errors import DiskFullError
from grandbatch.files.locations import is_remote
from grandbatch.files.system import WRITING, sync_file, sync_folder, write_from
from grandbatch.files.verbs import objects_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY_SUFFIX = ".partial"


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


def write_whole(
    path: Path, *pieces: bytes | memoryview, durable: bool = True, shared: bool = False
) -> None:
    """Write a file so that it is there whole or not at all.

    Parameters
    ----------
    path : Path
        Where; its folder must exist.
    *pieces : bytes
        What: one piece behind the other.
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
    views = [memoryview(piece).cast("B") for piece in pieces]
    if is_remote(path):
        objects_of(path).write("", views[0] if len(views) == 1 else b"".join(views))
        return
    with (
        room_for(path, sum(map(len, views))),
        written_aside(path, shared=shared) as aside,
        os.fdopen(_create(aside), "wb", buffering=0) as file,
    ):
        write_from(file.fileno(), views)
        if durable:
            os.fsync(file.fileno())


@contextmanager
def written_aside(path: Path, *, shared: bool) -> Iterator[Path]:
    """Give a path to write to that becomes `path` at the end, or goes.

    Parameters
    ----------
    path : Path
        Where it is a URL, what is written lies on this host's disk until then.
    shared : bool
        As in `write_whole`.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="grandbatch-") as folder:
            aside = Path(folder) / "aside"
            yield aside
            _put_file(path, aside)
        return
    own = f".{secrets.token_hex(4)}" if shared else ""
    aside = path.with_name(f"{path.name}{own}{TEMPORARY_SUFFIX}")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _put_file(location: Path, file: Path) -> None:
    """Put a file of this host's disk where a URL says."""
    if not file.stat().st_size:
        objects_of(location).write("", b"")
        return
    with file.open("rb") as opened:
        # not closed by name: an error that is told later may still refer to it
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    objects_of(location).write("", memoryview(mapped))


def _create(path: Path) -> int:
    """Make a file anew, whatever stood at its path: it is never one that a link leads to."""
    flags = WRITING | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o666)


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left half-written anywhere below a folder."""
    remove_files(folder, lambda name: name.endswith(TEMPORARY_SUFFIX))


def remove_files(folder: Path, is_left: Callable[[str], bool]) -> None:
    """Remove the files anywhere below a folder that a function chooses by their names."""
    for where, _, names in os.walk(folder):
        for name in filter(is_left, names):
            Path(where, name).unlink(missing_ok=True)


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: by a hard link, or a copy where the disk knows none.

    Raises
    ------
    OSError
        If the source is not there, the target is, or there is no room.
    """
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with written_aside(target, shared=False) as aside:
            shutil.copyfile(source, aside)


def sync_tree(folder: Path) -> None:
    """Put every file and folder below a folder, and the folder itself, on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(parent) / name)
        sync_folder(Path(parent))


class Syncer:
    """Makes files durable in a thread of its own, while others are still being written."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Syncer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)

    def add(self, path: Path) -> None:
        """Make a file durable soon; an object is as soon as it is put."""
        if is_remote(path):
            return
        self._pending.append(self._pool.submit(sync_file, path))

    def wait(self) -> None:
        """Wait until all files are durable, or raise what went wrong."""
        for future in self._pending:
            future.result()
        self._pending.clear()
