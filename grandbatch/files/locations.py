"""A path, or a URL that fsspec opens: found, looked at, and read in ranges.

A remote location behaves like a `Path` (universal-pathlib makes it so). What a path can't do alike
is here: reading ranges of bytes, and telling what lies there now from what comes there later.
"""

from __future__ import annotations

import errno
import os
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast

from grandbatch.errors import GrandbatchError, StoreUnreachableError, UsageError
from grandbatch.files.object_clients import SCHEMES
from grandbatch.files.objects import Objects
from grandbatch.files.ordinary import open_regular, read_whole
from grandbatch.files.system import read_into

URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)
"""What a URL begins with. A `Path` of one has one slash left of two."""

LOCAL_STEP_BYTES = 256 * 1024
"""Small enough that a checksum finds what was read in the cache."""

TAKEN_BYTES = 2**20
"""Of a remote file, so many at most are held at once where they are taken as they come."""

_WHOLE = 2**62


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL, not a local path."""
    return URL.match(str(location)) is not None


def location_of(given: str | os.PathLike[str]) -> Path:
    """Return the location that a path or a URL means: absolute if it is local.

    Raises
    ------
    UsageError
        If it is a URL that nothing installed opens.
    """
    text = str(given)
    if text.startswith("file:/"):
        return Path("/" + text.removeprefix("file:").lstrip("/"))
    found = URL.match(text)
    if found is None:
        return Path(given).absolute()
    scheme, rest = found[1].lower(), text[found.end() :]
    try:
        from upath import UPath

        with as_os_errors():
            return cast(Path, UPath(f"{scheme}://{rest.rstrip('/')}"))
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(
            f"{scheme}://{rest} can't be opened ({error}); stores at URLs need "
            "pip install 'grandbatch[s3]', or the package of that kind of place"
        ) from None


def as_location(given: str | os.PathLike[str]) -> Path:
    """Return a path as it is given, a URL as its location; a `Path` of a URL has lost a slash."""
    return location_of(given) if is_remote(given) else Path(given)


Take = Callable[[int, memoryview], object]
"""Is given how many bytes came before, and a piece, of at most `TAKEN_BYTES` or so."""


class File(Protocol):
    """An open file of chunks."""

    step_bytes: int
    """How much to read at once."""

    n_bytes: int | None
    """How long it was when it was opened, where that takes no request."""

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        """Fill buffers of bytes one after the other; return how many bytes there were."""
        ...

    def view(self, start: int, stop: int) -> memoryview | None:
        """Return bytes as they came, fewer where the file ends before; None where it is on a disk.

        From there they are best read into memory that is used again.
        """
        ...

    def receive(self, start: int, stop: int, take: Take) -> int:
        """Hand over bytes ``[start, stop)`` piece by piece; return how many came.

        After a request that failed some come again.
        """
        ...

    def discard(self) -> bool:
        """Forget a copy that is not what it should be; tell whether this was one."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def open_location(location: Path, name: str = "") -> File:
    """Open a file for reading ranges of it: the one at a location, or one below it.

    To join the location of an object store with a name takes longer than to open an object there.

    Raises
    ------
    OSError
    """
    objects = objects_at(location)
    if objects is not None:
        return _ObjectFile(objects, name)
    path = location / name if name else location
    return _RemoteFile(path) if is_remote(path) else _LocalFile(path)


def objects_at(location: str | os.PathLike[str]) -> Objects | None:
    """Return what reads and writes a location in an object store; None for any other location."""
    found = URL.match(str(location))
    if found is None or found[1].lower() not in SCHEMES:
        return None
    return Objects(f"{found[1].lower()}://{str(location)[found.end() :]}")


class _LocalFile:
    step_bytes = LOCAL_STEP_BYTES

    def __init__(self, path: Path) -> None:
        self._handle = open_regular(path)
        self.n_bytes: int | None = os.fstat(self._handle).st_size

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        return read_into(self._handle, buffers, offset)

    def view(self, start: int, stop: int) -> memoryview | None:
        return None

    def receive(self, start: int, stop: int, take: Take) -> int:
        piece, at = memoryview(bytearray(min(self.step_bytes, stop - start))), start
        while n_bytes := read_into(self._handle, [piece[: stop - at]], at):
            take(at - start, piece[:n_bytes])
            at += n_bytes
        return at - start

    def discard(self) -> bool:
        return False

    def close(self) -> None:
        os.close(self._handle)


class _Room:
    """Buffers of bytes to be filled, one behind the other."""

    def __init__(self, buffers: Sequence[Any]):
        self._buffers = [memoryview(buffer) for buffer in buffers]
        self._ends = list(accumulate(map(len, self._buffers)))
        self.n_bytes = self._ends[-1] if self._ends else 0

    def put(self, at: int, piece: memoryview) -> None:
        """Write a piece behind so many bytes; what finds no room is left out."""
        number = bisect_right(self._ends, at)
        while piece and number < len(self._buffers):
            target = self._buffers[number]
            free = target[at - self._ends[number] + len(target) :]
            n_bytes = min(len(free), len(piece))
            free[:n_bytes] = piece[:n_bytes]
            piece, at, number = piece[n_bytes:], at + n_bytes, number + 1


class Requested(ABC):
    """A file of which each read is a request."""

    step_bytes = _WHOLE
    n_bytes: int | None = None

    @abstractmethod
    def view(self, start: int, stop: int) -> memoryview:
        """Ask for bytes; fewer where the file ends before."""

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        """Fill buffers of bytes one after the other; return how many bytes there were."""
        room = _Room(buffers)
        data = self.view(offset, offset + room.n_bytes)
        room.put(0, data)
        return len(data)

    def receive(self, start: int, stop: int, take: Take) -> int:
        """Hand over bytes piece by piece; return how many came."""
        n_bytes = 0
        for first in range(start, stop, TAKEN_BYTES):
            piece = self.view(first, min(first + TAKEN_BYTES, stop))
            take(n_bytes, piece)
            n_bytes += len(piece)
        return n_bytes

    def discard(self) -> bool:
        """Tell that this is no copy that could be forgotten."""
        return False

    def close(self) -> None:  # noqa: B027 (nothing is open)
        """Do nothing: nothing is open."""


class _ObjectFile(Requested):
    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name

    def view(self, start: int, stop: int) -> memoryview:
        return self._objects.read_range(self._name, start, stop)

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        room = _Room(buffers)
        return self.receive(offset, offset + room.n_bytes, room.put)

    def receive(self, start: int, stop: int, take: Take) -> int:
        return self._objects.receive(self._name, start, stop, take)


class _RemoteFile(Requested):
    def __init__(self, location: Any) -> None:
        self._files, self._path = location.fs, location.path

    def view(self, start: int, stop: int) -> memoryview:
        with as_os_errors():
            return memoryview(self._files.cat_file(self._path, start=start, end=stop))


def read_location(location: Path, max_bytes: int, name: str = "") -> bytes:
    """Read a file whole, at a location or below it, unless it is larger than such a file can be.

    Raises
    ------
    OSError
    """
    objects = objects_at(location)
    if objects is not None:
        return objects.read(name, max_bytes)
    return read_versioned(location / name if name else location, max_bytes)[0]


def read_versioned(location: Path, max_bytes: int) -> tuple[bytes, str | None]:
    """Read a file as `read_location` does, with its version, as `version_of` tells it.

    None where that isn't known for certain: a file on a disk, or of a place that tells it by
    another request.
    """
    objects = objects_at(location)
    if objects is not None:
        return objects.read_version("", max_bytes)
    if not is_remote(location):
        return read_whole(location, max_bytes), None
    with as_os_errors():
        n_bytes = location.stat().st_size
        if n_bytes > max_bytes:
            raise OSError(
                errno.EOVERFLOW, f"it has {n_bytes:,} bytes, at most {max_bytes:,} are read"
            )
        return location.read_bytes(), None


def is_occupied(location: Path) -> bool:
    """Whether anything stands at a location but an empty folder.

    Raises
    ------
    StoreUnreachableError
        If a remote location can't be reached.
    """
    with reaching(location):
        return location.exists() and not (location.is_dir() and not any(location.iterdir()))


def file_sizes(location: Path) -> dict[str, int] | None:
    """Return the bytes of all files below a location in an object store; None for any other.

    Raises
    ------
    StoreUnreachableError
    """
    objects = objects_at(location)
    if objects is None:
        return None
    with reaching(location):
        return {one.name: one.n_bytes for one in objects.list()}


@contextmanager
def reaching(location: Path) -> Iterator[None]:
    """Turn errors of a location that can't be reached into one that names it.

    Raises
    ------
    StoreUnreachableError
    """
    try:
        with as_os_errors():
            yield
    except OSError as error:
        raise StoreUnreachableError(f"{location} can't be reached: {told(error)}") from error


def version_of(location: Any) -> str:
    """Return what changes when another file comes to a remote location.

    Raises
    ------
    OSError
        If none is there, or the location can't be reached.
    """
    objects = objects_at(location)
    if objects is not None:
        return objects.head("").version
    with as_os_errors():
        location.fs.invalidate_cache()
        return str(location.fs.ukey(location.path))


def told(error: OSError) -> str:
    """Return what an error says, without its number."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Let kinds of places that have errors of their own speak the system's."""
    try:
        yield
    except (OSError, ImportError, ValueError, GrandbatchError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, str(error) or type(error).__name__) from error
