"""Files by path or URL: finding them, looking at them, opening them.

A URL has ``://``; everything else is a local path. What is in object stores is found and read by
`grandbatch.files.objects`, which waits for a wire that fails, and goes on where an answer was cut;
what is elsewhere by fsspec, with the credentials and endpoints that it takes from the environment.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from grandbatch.bars.inputs.hive import is_hive_folder
from grandbatch.bars.inputs.in_objects import expand_objects
from grandbatch.errors import InputError
from grandbatch.files.locations import objects_at, told
from grandbatch.files.objects import ObjectChangedError, WireError

FileStamp = tuple[int, int]
"""Bytes of a file, and a number that another version of it has not."""

_MARK = "://"
_AHEAD_BYTES = 1024 * 1024


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a local path."""
    return _MARK in location


def local_path(entry: str) -> str:
    """Return an entry as it is, or the path that a ``file://`` URL stands for."""
    return entry.removeprefix(f"file{_MARK}") if entry.startswith(f"file{_MARK}") else entry


def bucket_of(location: str) -> str:
    """Return the part of a URL that credentials are for."""
    scheme, _, rest = location.partition(_MARK)
    return f"{scheme}{_MARK}{rest.partition('/')[0]}"


def open_raw(location: str, n_bytes: int = _AHEAD_BYTES, size: int | None = None) -> BinaryIO:
    """Open a file for reading, unbuffered where it is local.

    Parameters
    ----------
    location : str
        Path or URL.
    n_bytes : int
        Of a remote file at least so many come with each request: a reader who knows how many it
        wants makes only one.
    size : int, optional
        Bytes of the file, if known: it need not be asked for.
    """
    if not is_url(location):
        return cast(BinaryIO, Path(location).open("rb", buffering=0))
    if size is None:
        size, _ = look_at_url(location)
    return cast(BinaryIO, _RangedFile(location, n_bytes, size))


class _RangedFile(io.RawIOBase):
    """A remote file, read by ranges of bytes.

    Files as fsspec opens them may share their place between threads (those in memory do).
    """

    def __init__(self, location: str, n_bytes: int, size: int) -> None:
        self._location = location
        self._n_bytes = n_bytes
        self._size = size
        self._at = 0
        self._start = 0
        self._fetched = memoryview(b"")
        self._version = ""
        self._objects = objects_at(location)
        if self._objects is None:
            with _plain_errors(location):
                self._system, self._path = _system_of(location)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        wanted = min(len(room), self._size - self._at)
        if wanted <= 0:
            return 0
        if not self._start <= self._at < self._start + len(self._fetched):
            self._fetch(max(wanted, self._n_bytes))
        some = self._fetched[self._at - self._start :][:wanted]
        room[: len(some)] = some
        self._at += len(some)
        return len(some)

    def _fetch(self, n_bytes: int) -> None:
        stop = min(self._at + n_bytes, self._size)
        with _plain_errors(self._location):
            data = self._read(stop)
        if len(data) != stop - self._at:
            raise InputError(
                f"{self._location}: the file became shorter while it was read; run again"
            )
        self._start, self._fetched = self._at, memoryview(data)

    def _read(self, stop: int) -> memoryview:
        if self._objects is None:
            return memoryview(self._system.cat_file(self._path, start=self._at, end=stop))
        data, self._version = self._objects.read_on("", self._at, stop, self._version)
        return data


def look_at_url(location: str) -> FileStamp:
    """Return the bytes of a remote file, and a number that stands for its version.

    That is its ETag; where it has none, the time at which it was last changed.
    """
    objects = objects_at(location)
    if objects is not None:
        with _plain_errors(location):
            found = objects.head("")
        return found.n_bytes, _number_of(found.version)
    with _plain_errors(location):
        system, path = _system_of(location)
        system.invalidate_cache()  # of listings, which would tell what was there before
        info = system.info(path)
    size = info.get("size")
    if info.get("type") == "directory" or not isinstance(size, int):
        raise InputError(f"{location}: not a file of known size; name a file, folder or pattern")
    known = (info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "created"))
    version = str(next((value for value in known if value is not None), ""))
    return size, _number_of(version)


def _number_of(version: str) -> int:
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:7])


def expand_url(entry: str) -> tuple[dict[str, FileStamp | None], bool]:
    """Return the files that a URL stands for, sorted, and whether it is a folder.

    Hive folders in a folder are looked into. What the listing of an object store says of each comes
    along: nobody need ask for one after the other.

    Raises
    ------
    InputError
        If the place can't be reached.
    """
    with _plain_errors(entry):
        if objects_at(entry) is not None:
            listed, is_folder = expand_objects(entry)
            return {
                location: one and (one.n_bytes, _number_of(one.version))
                for location, one in listed.items()
            }, is_folder
        system, path = _system_of(entry)
        is_folder = False
        if any(mark in path for mark in "*?["):
            found = sorted(system.glob(path))
        elif system.isdir(path):
            is_folder = True
            found = sorted(_walk(system, path))
        else:
            return {entry: None}, False
        return {str(system.unstrip_protocol(name)): None for name in found}, is_folder


def _walk(system: Any, folder: str) -> Iterator[str]:
    for info in system.ls(folder, detail=True):
        if info["type"] == "file" and info["size"]:
            yield info["name"]
        elif info["type"] == "directory" and is_hive_folder(info["name"].rpartition("/")[2]):
            yield from _walk(system, info["name"])


def _system_of(location: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(location)
    return system, str(path)


@contextmanager
def _plain_errors(location: str) -> Iterator[None]:
    """Say what is wrong with a remote file as what is wrong with an input."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = "bucket" if "bucket" in told(error) else "file"
        raise InputError(f"{location}: there is no such {missing}; check the URL") from None
    except ObjectChangedError:
        raise InputError(
            f"{location}: the file was replaced while it was read; run again"
        ) from None
    except WireError as error:
        raise InputError(f"{error}") from None
    except ImportError as error:
        raise InputError(f"{location}: {error}; for S3, install grandbatch[s3]") from None
    except Exception as error:  # noqa: BLE001 (each kind of place has errors of its own)
        what = told(error) if isinstance(error, OSError) else error
        raise InputError(
            f"{location}: can't be reached ({what}); check the URL, the credentials and the "
            "endpoint in the environment"
        ) from None
