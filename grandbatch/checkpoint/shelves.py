"""Where checkpoints lie: in a folder, or in an object store; each whole or absent there."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

from grandbatch.checkpoint.encoding import NAME
from grandbatch.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DamagedCheckpointError,
    DiskFullError,
    UsageError,
)
from grandbatch.files.locations import is_remote, location_of, objects_at, told
from grandbatch.files.objects import REQUEST_BYTES, Objects
from grandbatch.files.ordinary import open_regular
from grandbatch.files.refusals import refuse_inside_store
from grandbatch.files.system import sync_folder
from grandbatch.files.whole import TEMPORARY_SUFFIX, room_for, write_whole

_UNPUBLISHED = ".new"
_PROBE = "can-it-be-written"
_LOGS = Path(".grandbatch") / "trainings"


class Shelf(Protocol):
    """Where the checkpoints of a training lie."""

    path: Path
    """Behaves like a path, also where it is a URL."""
    logs: Path
    """A folder on a disk, for what is written all the time."""

    def prepare(self) -> None:
        """See that checkpoints can be written; OSError where they can't."""

    def paths(self) -> tuple[Path, ...]:
        """Return all checkpoints, by rising step."""

    def write(self, name: str, data: bytes, instead_of: Sequence[Path]) -> Path:
        """Write a checkpoint, whole or not at all, in place of others."""

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove checkpoints, and what writers that were killed left."""


def shelf_at(directory: str | os.PathLike[str]) -> Shelf:
    """Return what keeps checkpoints at a path or a URL.

    Raises
    ------
    UsageError
        If checkpoints can't lie there.
    """
    path = location_of(directory)
    objects = objects_at(path)
    if objects is not None:
        return _ObjectShelf(path, objects)
    if is_remote(path):
        raise UsageError(
            f"checkpoints (--checkpoint-dir) can't be at {path}; give a folder on a disk, or an "
            "object store: s3://, gs:// or az://"
        )
    return _FolderShelf(Path(directory))


class _FolderShelf:
    """Checkpoints in a folder on a disk."""

    def __init__(self, path: Path) -> None:
        refuse_inside_store(path, "checkpoints (--checkpoint-dir)")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; give a directory for checkpoints")
        self.path = self.logs = path

    def prepare(self) -> None:
        with room_for(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=self.path).close()

    def paths(self) -> tuple[Path, ...]:
        if not self.path.is_dir():
            return ()
        found = [path for path in self.path.iterdir() if NAME.fullmatch(path.name)]
        return tuple(sorted(found, key=step_of))

    def write(self, name: str, data: bytes, instead_of: Sequence[Path]) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / name
        unpublished = path.with_name(path.name + _UNPUBLISHED)
        try:
            write_whole(unpublished, data)
            # Before the rename: were they removed after it, a kill in between would leave a given
            # up run's later step, and the next load would take that for this run's latest.
            for later in instead_of:
                later.unlink()
            unpublished.rename(path)
        except BaseException:
            unpublished.unlink(missing_ok=True)
            raise
        sync_folder(self.path)
        return path

    def remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink()
        for stale in self.path.glob("step-*.ckpt" + _UNPUBLISHED + "*"):
            if stale.name.endswith((_UNPUBLISHED, _UNPUBLISHED + TEMPORARY_SUFFIX)):
                stale.unlink()


class _ObjectShelf:
    """Checkpoints in an object store: an object is there whole or not at all by itself."""

    def __init__(self, path: Path, objects: Objects) -> None:
        self.path, self._objects = path, objects
        self.logs = _LOGS / re.sub(r"[^\w.-]+", "-", str(path))

    def prepare(self) -> None:
        self._objects.write(_PROBE, b"")
        self._objects.delete([_PROBE])

    def paths(self) -> tuple[Path, ...]:
        with reaching(self.path):
            names = [one.name for one in self._objects.list()]
        found = [self.path / name for name in names if NAME.fullmatch(name)]
        return tuple(sorted(found, key=step_of))

    def write(self, name: str, data: bytes, instead_of: Sequence[Path]) -> Path:
        with reaching(self.path):
            self._objects.delete([path.name for path in instead_of])
            self._objects.write(name, data)
        return self.path / name

    def remove(self, paths: Sequence[Path]) -> None:
        with reaching(self.path):
            self._objects.delete([path.name for path in paths])


def step_of(path: Path) -> int:
    """Return the step that a checkpoint's name says."""
    return int(path.name.removeprefix("step-").removesuffix(".ckpt"))


def is_shelf(path: Path) -> bool:
    """Whether checkpoints lie there, and it is not one itself."""
    return not NAME.fullmatch(path.name) if is_remote(path) else path.is_dir()


def require(path: Path) -> None:
    """Refuse a place where nothing is, as far as that is known without asking an object store.

    Raises
    ------
    CheckpointNotFoundError
    """
    if not is_remote(path) and not path.exists():
        raise CheckpointNotFoundError(
            f"{path} can't be read: there is no folder, nor a checkpoint; name the folder that a "
            "training saved into"
        )


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a checkpoint, on a disk or in an object store; give it, and its bytes.

    Raises
    ------
    DamagedCheckpointError
        If there is none, or no ordinary file.
    CheckpointError
        If it can't be reached: nothing is said of its bytes.
    """
    objects = objects_at(path)
    try:
        if objects is None:
            with os.fdopen(open_regular(path), "rb") as file:
                yield file, path.stat().st_size
            return
        n_bytes = objects.head("").n_bytes
        with io.BufferedReader(_ObjectReader(objects, n_bytes)) as reader:
            yield reader, n_bytes
    except OSError as error:
        if objects is not None and not isinstance(error, FileNotFoundError):
            raise CheckpointError(f"{path} can't be read: {told(error)}") from error
        raise DamagedCheckpointError(f"{path} can't be read ({error})") from error


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn errors of an object store into one of checkpoints.

    Raises
    ------
    CheckpointError
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"checkpoints at {path} can't be reached: {told(error)}; the same command goes on from "
            "the last one that is there"
        ) from error


class _ObjectReader(io.RawIOBase):
    """Reads an object from its start, by ranges."""

    def __init__(self, objects: Objects, n_bytes: int) -> None:
        self._objects, self._n_bytes, self._at = objects, n_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + min(len(buffer), REQUEST_BYTES), self._n_bytes)
        data = self._objects.read_range("", self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
