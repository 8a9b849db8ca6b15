"""Files of an object store, kept on a local disk for who reads them again.

Covers fetching, bounds and cleaning; any number of processes share a folder. Does not cover what is
in the files: whoever reads checks it, and says so where a copy is bad.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from grandbatch.errors import StoreError
from grandbatch.files.locations import TAKEN_BYTES, File, Take, open_location, told
from grandbatch.files.refusals import refuse_planted
from grandbatch.files.whole import TEMPORARY_SUFFIX, is_full

STEP_BYTES = 8 * 2**20
"""Bytes of one request."""
FETCHERS = 32
"""Files on their way at once, at most."""
HELD_BYTES = FETCHERS * 2 * TAKEN_BYTES
"""Memory of them together, at most: a piece of each, and what it is put together in."""
_IN_USE_SECONDS = 600.0
"""What was opened since is not removed to make room."""
_GIVEN_UP_SECONDS = 300.0
"""A file that has not grown since is no longer being fetched by anyone."""
_WAIT_SECONDS = 0.3
"""How long a reader waits for a whole file, before it asks for the part that it wants."""

_log = logging.getLogger("grandbatch")


class KeptFolder(NamedTuple):
    """Where files are kept, and how many bytes of them."""

    path: Path
    max_bytes: int


class Original(NamedTuple):
    """A file that may be kept."""

    folder: Path
    """Or URL, below which it is."""
    path: str
    name: str
    """Under which it is kept: tells it from any other file, and from another with its path."""
    n_bytes: int


class FileKeeper:
    """Keeps files in a folder. Thread-safe; other processes may keep theirs in the same one.

    Parameters
    ----------
    folder : KeptFolder

    Raises
    ------
    StoreError
        If the folder can't be made, or others may have put something there.
    """

    def __init__(self, folder: KeptFolder):
        self.folder, self._max_bytes = folder.path, folder.max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            refuse_planted(self.folder)
        except OSError as error:
            raise StoreError(
                f"chunks can't be kept in {self.folder} ({told(error)}); give another folder"
            ) from None
        self._changing = threading.Condition()
        self._waiting: deque[Original] = deque()
        self._claiming = threading.Lock()
        self._unclaimed: dict[str, Original] = {}
        self._claimed: dict[str, Path | None] = {}
        self._known: set[str] = set()
        self._refused: set[str] = set()
        self._fetchers = 0

    def open(self, source: Original) -> File:
        """Open a file: the copy where it is kept, else the original; it is kept from then on."""
        return _KeptFile(self, source)

    def path(self, source: Original) -> Path:
        """Return where a file is, if it is kept."""
        return self.folder / source.name

    def has(self, source: Original) -> bool:
        """Whether a file is kept whole."""
        try:
            return self.path(source).stat().st_size == source.n_bytes
        except OSError:
            return False

    def fetch(self, sources: Sequence[Original]) -> None:
        """Begin to fetch files, in this order, unless they are there or on their way."""
        with self._changing:
            for source in sources:
                if source.name not in self._known and not self.has(source):
                    self._known.add(source.name)
                    self._waiting.append(source)
                    self._unclaimed[source.name] = source
            for _ in range(min(FETCHERS - self._fetchers, len(self._waiting))):
                self._fetchers += 1
                threading.Thread(target=self._fetch_all, name="grandbatch-fetch").start()

    def wait(self, source: Original) -> bool:
        """Wait a little for a file; tell whether it is kept now."""
        until = time.monotonic() + _WAIT_SECONDS
        with self._changing:
            while source.name in self._known and (left := until - time.monotonic()) > 0:
                self._changing.wait(left)
        return self.has(source)

    def discard(self, source: Original) -> None:
        """Forget a copy that is not what it should be."""
        with suppress(OSError):
            self.path(source).unlink(missing_ok=True)

    def is_refused(self, source: Original) -> bool:
        """Whether there was no room for a file."""
        return source.name in self._refused

    def _fetch_all(self) -> None:
        # a process that ends waits for its threads: none begins another file then
        while threading.main_thread().is_alive():
            with self._changing:
                if not self._waiting:
                    break
                source = self._waiting.popleft()
            try:
                kept = self._fetch(source)
            except OSError as error:  # who reads it meets the same, and tells
                kept = not is_full(error)
                if not kept:
                    _log.warning("%s is full: chunks are read from the store", self.folder)
            with self._changing:
                if not kept:
                    self._refused.add(source.name)
                self._known.discard(source.name)
                self._changing.notify_all()
        with self._changing:
            self._fetchers -= 1
            if not self._fetchers:
                self._give_up_claims()
            self._changing.notify_all()

    def _fetch(self, source: Original) -> bool:
        """Fetch a file, or let another process that has begun; False where there is no room."""
        aside = self._claim(source)
        if aside is None:
            return not self._is_wanting(source)
        try:
            original = open_location(source.folder, source.path)
            with aside.open("r+b", buffering=0) as file:
                for first in range(0, source.n_bytes, STEP_BYTES):
                    if not threading.main_thread().is_alive():
                        return True
                    stop = min(first + STEP_BYTES, source.n_bytes)
                    put = partial(_put, file, first)
                    if original.receive(first, stop, put) < stop - first:
                        return True  # it is shorter than it must be: who reads it tells
            aside.replace(self.path(source))
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _is_wanting(self, source: Original) -> bool:
        return not self.has(source) and source.name not in self._look_around().coming

    def _claim(self, source: Original) -> Path | None:
        """Take room for a file, all its bytes at once; None where there is none, or it comes.

        And for those that wait behind it: to take it means to look at the whole folder while no
        other process does.
        """
        from filelock import FileLock

        with self._claiming:
            if source.name not in self._claimed:
                with self._changing:
                    self._unclaimed.pop(source.name, None)
                    some = [source, *islice(self._unclaimed.values(), FETCHERS - 1)]
                    for one in some[1:]:
                        del self._unclaimed[one.name]
                with FileLock(self.folder / "room.lock"):
                    self._claim_all(some)
            return self._claimed.pop(source.name)

    def _claim_all(self, sources: Sequence[Original]) -> None:
        found = self._look_around()
        self._claimed |= dict.fromkeys(one.name for one in sources)
        for source in sources:
            if self.has(source) or source.name in found.coming:
                continue
            if found.make_room(source.n_bytes, self._max_bytes):
                aside = self.folder / f"{source.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
                with aside.open("xb") as file:
                    file.truncate(source.n_bytes)
                self._claimed[source.name] = aside

    def _give_up_claims(self) -> None:
        for aside in self._claimed.values():
            if aside is not None:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
        self._claimed.clear()

    def _look_around(self) -> _Folder:
        """Look at what is kept, and what comes; of what was given up nothing stays."""
        used, old, coming, now = 0, [], set(), time.time()
        for entry in os.scandir(self.folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                age = now - status.st_mtime
                if entry.name.endswith(TEMPORARY_SUFFIX):
                    if age >= _GIVEN_UP_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
                        continue
                    coming.add(entry.name.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[0])
                elif age > _IN_USE_SECONDS:
                    old.append((status.st_mtime, status.st_size, entry.path))
                used += status.st_size
        return _Folder(used, sorted(old, reverse=True), coming)


@dataclass
class _Folder:
    """What is in the folder.

    Parameters
    ----------
    used : int
        Bytes of all files, also of what isn't there yet of those that come.
    old : list of (float, int, str)
        Time, bytes and path of those that may go, the oldest last.
    coming : set of str
        Names of those that somebody fetches.
    """

    used: int
    old: list[tuple[float, int, str]]
    coming: set[str]

    def make_room(self, n_bytes: int, max_bytes: int) -> bool:
        """Take so many bytes more, for which old files go; False where they wouldn't be within."""
        while self.old and self.used + n_bytes > max_bytes:
            _, size, path = self.old.pop()
            with suppress(OSError):
                Path(path).unlink()
                self.used -= size
        has_room = self.used + n_bytes <= max_bytes
        if has_room:
            self.used += n_bytes
        return has_room


def _put(file: FileIO, first: int, at: int, piece: memoryview) -> None:
    """Write a piece to its place in a file."""
    file.seek(first + at)
    while piece:
        piece = piece[file.write(piece) :]


class _KeptFile:
    """A file whose copy is read as soon as there is one."""

    step_bytes = STEP_BYTES
    n_bytes: int | None = None

    def __init__(self, keeper: FileKeeper, source: Original):
        self._keeper, self._source = keeper, source
        self._copy: File | None = None
        self._original: File | None = None
        self._waited = False

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        if self._copy is None:
            self._look()
        return (self._copy or self._directly()).read_into(buffers, offset)

    def view(self, start: int, stop: int) -> memoryview | None:
        if self._copy is None:
            self._look()
        return (self._copy or self._directly()).view(start, stop)

    def receive(self, start: int, stop: int, take: Take) -> int:
        if self._copy is None:
            self._look()
        return (self._copy or self._directly()).receive(start, stop, take)

    def _look(self) -> None:
        """Open the copy, if there is one, or comes in a moment."""
        keeper, source = self._keeper, self._source
        there = keeper.has(source)
        if not there and not keeper.is_refused(source):
            keeper.fetch([source])
            there = not self._waited and keeper.wait(source)
            self._waited = True
        if there:
            with suppress(OSError):
                path = keeper.path(source)
                self._copy = open_location(path)
                os.utime(path)

    def _directly(self) -> File:
        if self._original is None:
            self._original = open_location(self._source.folder, self._source.path)
        return self._original

    def discard(self) -> bool:
        """Forget the copy, for it is not what it should be; tell whether there was one."""
        if self._copy is None:
            return False
        self._copy.close()
        self._copy = None
        self._waited = True
        self._keeper.discard(self._source)
        return True

    def close(self) -> None:
        for file in (self._copy, self._original):
            if file is not None:
                file.close()


@lru_cache(16)
def keeper_of(folder: KeptFolder, _process: int) -> FileKeeper:
    """Return the keeper of a folder in this process, whose number is given."""
    return FileKeeper(folder)
