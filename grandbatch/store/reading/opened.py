"""Files that chunks are read from, kept open from one chunk to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from grandbatch.files.locations import File, Take, is_remote

_NOTHING = (-1, 0, memoryview(b""))


class ChunkFiles(Protocol):
    """An array of a store, whose chunks are in files."""

    @property
    def store(self) -> Path:
        """The folder or URL of the store."""

    @property
    def name(self) -> str:
        """The array's name."""

    def file_number(self, chunk: int) -> int:
        """Return the number of the file that a chunk is in."""

    def open_file(self, chunk: int) -> File:
        """Open it."""

    def check_index(self, chunk: int, file: File | None = None) -> None:
        """Check the index of it, which other readers find chunks by."""

    def look(self) -> None:
        """Raise StoreChangedError where the store is another."""


class OpenFiles:
    """The file that each array was last read from, kept open: for one thread, to be closed.

    Opening a file, and making sure that the store is still the same, takes as long as reading a
    small chunk does. Chunks that come as they lie on the disk share that. (Their bytes are checked
    one by one all the same: those of another store never pass for this one's.)

    Parameters
    ----------
    pool : Executor, optional
        Threads for what is asked for at once, where each read is a request.
    """

    def __init__(self, pool: Executor | None = None) -> None:
        self._pool = pool
        self._files: dict[ChunkFiles, tuple[int, File]] = {}
        self._ahead: dict[ChunkFiles, tuple[int, int, memoryview]] = {}
        self._scratch: dict[str, npt.NDArray[np.uint8]] = {}

    def scratch(self, n_bytes: int, use: str = "encoded") -> npt.NDArray[np.uint8]:
        """Return room for bytes, until the next call for the same use."""
        room = self._scratch.get(use)
        if room is None or len(room) < n_bytes:
            room = self._scratch[use] = np.empty(n_bytes, np.uint8)
        return room[:n_bytes]

    def get(self, reader: ChunkFiles, chunk: int) -> File:
        """Return the file that a chunk is in."""
        number = reader.file_number(chunk)
        held = self._files.get(reader)
        if held is not None:
            if held[0] == number:
                return held[1]
            self._files.pop(reader)[1].close()
        file = reader.open_file(chunk)
        try:
            if not is_remote(reader.store):
                # of a remote file that would be another request; `verify` makes it
                reader.check_index(chunk, file)
            if held is None:
                # only now: another store may have come to the path before the file was opened
                reader.look()
        except BaseException:
            file.close()
            raise
        self._files[reader] = (number, file)
        return file

    def read_ahead(self, reader: ChunkFiles, chunk: int, start: int, stop: int) -> None:
        """Read bytes `[start, stop)` of the file that a chunk is in, for reads of parts of them."""
        self._ahead.pop(reader, None)
        room = self.scratch(stop - start, f"ahead of {reader.name}").data
        n_bytes = self.get(reader, chunk).read_into([room], start)
        self._ahead[reader] = reader.file_number(chunk), start, room[:n_bytes]

    def receive(self, reader: ChunkFiles, chunk: int, start: int, stop: int, take: Take) -> int:
        """Hand over bytes `[start, stop)` of the file that a chunk is in, as `File.receive`."""
        return self.get(reader, chunk).receive(start, stop, take)

    def at_once(self, reads: Sequence[Callable[[], None]]) -> None:
        """Read from several arrays, all at once where there are threads for it."""
        first, *others = reads
        coming = [] if self._pool is None else [self._pool.submit(read) for read in others]
        first()
        if self._pool is None:
            for read in others:
                read()
        for one in coming:
            one.result()

    def read_into(self, reader: ChunkFiles, chunk: int, buffers: Sequence[Any], offset: int) -> int:
        """Fill buffers from the file that a chunk is in, or from what was read of it ahead."""
        stop = offset + sum(map(len, buffers))
        data = self.held(reader, chunk, offset, stop)
        if data is None:
            return self.get(reader, chunk).read_into(buffers, offset)
        at = 0
        for buffer in buffers:
            memoryview(buffer)[:] = data[at : at + len(buffer)]
            at += len(buffer)
        return at

    def view(self, reader: ChunkFiles, chunk: int, start: int, stop: int) -> memoryview | None:
        """Return bytes of the file that a chunk is in, as they came; None where it is on a disk.

        Fewer where the file ends before. Not to be written to.
        """
        held = self.held(reader, chunk, start, stop)
        return self.get(reader, chunk).view(start, stop) if held is None else held

    def held(self, reader: ChunkFiles, chunk: int, start: int, stop: int) -> memoryview | None:
        """Return bytes that were read ahead."""
        number, first, data = self._ahead.get(reader, _NOTHING)
        if number != reader.file_number(chunk) or not first <= start <= stop <= first + len(data):
            return None
        return data[start - first : stop - first]

    def discard_copy(self, reader: ChunkFiles) -> bool:
        """Forget a local copy that an array was last read from; tell whether it was one."""
        held = self._files.get(reader)
        return held is not None and held[1].discard()

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.popitem()[1][1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
