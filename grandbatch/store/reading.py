"""Read chunks of a store, each checked against the manifest before a byte of it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from grandbatch.errors import (
    DamagedStoreError,
    StoreChangedError,
    StoreError,
    StoreUnreachableError,
)
from grandbatch.files.kept_files import Original
from grandbatch.files.locations import File, is_remote, open_location, told
from grandbatch.store.codecs import decode_into, shard_index
from grandbatch.store.format import CRC_BYTES, ArraySpec
from grandbatch.store.identity import Identity, KeptStore, LastLook
from grandbatch.store.manifest import ChunkDigests, sha256_hex
from grandbatch.values.checksums import crc32c

Array = npt.NDArray[Any]


_JOINED = 1024 * 1024
"""Bytes of neighbouring chunks that are one request, where each chunk would be one."""
_NOTHING = (-1, 0, memoryview(b""))


class OpenFiles:
    """The file that each array was last read from, kept open: for one thread, to be closed.

    Opening a file, and making sure that the store is still the same, takes as long as reading a
    small chunk does. Chunks that come as they lie on the disk share that. (Their bytes are checked
    one by one all the same: those of another store never pass for this one's.)
    """

    def __init__(self) -> None:
        self._files: dict[ArrayReader, tuple[int, File]] = {}
        self._ahead: dict[ArrayReader, tuple[int, int, memoryview]] = {}
        self._scratch = np.empty(0, np.uint8)

    def scratch(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Return room for encoded bytes, until the next call."""
        if len(self._scratch) < n_bytes:
            self._scratch = np.empty(n_bytes, np.uint8)
        return self._scratch[:n_bytes]

    def get(self, reader: ArrayReader, chunk: int) -> File:
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

    @property
    def reads_ahead(self) -> bool:
        """Whether anything was read ahead."""
        return bool(self._ahead)

    def read_ahead(self, reader: ArrayReader, chunk: int, start: int, stop: int) -> None:
        """Read bytes `[start, stop)` of the file that a chunk is in, for reads of parts of them."""
        data = bytearray(stop - start)
        n_read = self.get(reader, chunk).read_into([data], start)
        self._ahead[reader] = reader.file_number(chunk), start, memoryview(data)[:n_read]

    def read_into(
        self, reader: ArrayReader, chunk: int, buffers: Sequence[Any], offset: int
    ) -> int:
        """Fill buffers from the file that a chunk is in, or from what was read of it ahead."""
        if not self._ahead:
            return self.get(reader, chunk).read_into(buffers, offset)
        number, start, data = self._ahead.get(reader, _NOTHING)
        stop = offset + sum(map(len, buffers))
        if number != reader.file_number(chunk) or not start <= offset <= stop <= start + len(data):
            return self.get(reader, chunk).read_into(buffers, offset)
        at = offset - start
        for buffer in buffers:
            memoryview(buffer)[:] = data[at : at + len(buffer)]
            at += len(buffer)
        return stop - offset

    def discard_copy(self, reader: ArrayReader) -> bool:
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


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads one array's chunks. Thread-safe: it holds no state and no open file.

    Files that the caller keeps open may be given to every read.

    Raises (from every read)
    ------------------------
    DamagedStoreError
        If the bytes are not those that were written; names array and chunk.
    StoreChangedError
        If the store was replaced or deleted since it was opened.
    """

    store: Path
    identity: Identity
    spec: ArraySpec
    digests: ChunkDigests
    most: int | None = None
    """Largest value of an array that counts from 0; None for any other array."""
    kept: KeptStore | None = None
    """Where files of a remote store are kept; None where none are."""
    looked: LastLook = field(default_factory=LastLook)
    """One for all arrays of a store."""

    def read(self, chunk: int, out: Array, files: OpenFiles | None = None) -> None:
        """Decode a chunk into a C-contiguous array of the chunk's shape and dtype."""
        if files is None:
            with OpenFiles() as own:
                self.read(chunk, out, own)
            return
        try:
            self._read(chunk, out, files)
        except DamagedStoreError:
            if not files.discard_copy(self):
                raise
            self._read(chunk, out, files)

    def _read(self, chunk: int, out: Array, files: OpenFiles) -> None:
        if self.spec.codec == "none":
            self._read_payload(chunk, out.reshape(-1).view(np.uint8), files)
            self._check_values(chunk, out)
            return
        payload = files.scratch(self._payload_bytes(chunk, files))
        self._read_payload(chunk, payload, files)
        self._decode(chunk, payload, out)

    def _decode(self, chunk: int, payload: npt.NDArray[np.uint8], out: Array) -> None:
        try:
            decode_into(payload, self.spec.codec, out)
        except (ValueError, RuntimeError) as error:
            raise self._damaged(chunk, f"it does not decode ({error})") from None

    def _payload_bytes(self, chunk: int, files: OpenFiles) -> int:
        """Return the encoded bytes without the crc32c, if the file is long enough for them."""
        length, n_bytes = int(self.digests.length[chunk]), files.get(self, chunk).n_bytes
        if n_bytes is not None and self._offset(chunk) + length > n_bytes:
            there = max(0, n_bytes - self._offset(chunk))
            raise self._damaged(chunk, f"{length} bytes wanted, {there} there")
        return length - CRC_BYTES

    def _read_payload(self, chunk: int, out: npt.NDArray[np.uint8], files: OpenFiles) -> None:
        """Read the encoded bytes of a chunk without its crc32c, and check that and the length.

        Piece by piece, so that the checksum finds them in the cache.
        """
        length, expected = int(self.digests.length[chunk]), int(self.digests.crc32c[chunk])
        if length != len(out) + CRC_BYTES:
            raise self._damaged(chunk, f"{len(out) + CRC_BYTES} bytes wanted, {length} announced")
        file, offset = files.get(self, chunk), self._offset(chunk)
        read = partial(files.read_into, self, chunk) if files.reads_ahead else file.read_into
        trailer = bytearray(CRC_BYTES)
        n_read = crc = 0
        for first in range(0, len(out), file.step_bytes):
            piece = out[first : first + file.step_bytes]
            last = [trailer] if first + len(piece) == len(out) else []
            try:
                n_read += read([piece.data, *last], offset + first)
            except OSError as error:
                raise self._unreadable(chunk, error) from None
            crc = crc32c(piece, crc)
        if n_read != length:
            raise self._damaged(chunk, f"{length} bytes wanted, {n_read} there")
        if int.from_bytes(trailer, "little") != expected:
            raise self._damaged(chunk, "its crc32c is not the manifest's")
        if crc != expected:
            raise self._damaged(chunk, "its bytes do not give its crc32c")

    def read_part(self, part: int, start: int, stop: int, files: OpenFiles | None = None) -> Array:
        """Read the values `[start, stop)` of an uncompressed per-window array.

        They are the windows of chunk `part` of the matrices, checked by the part's own crc32c.
        """
        if files is None:
            with OpenFiles() as own:
                return self.read_part(part, start, stop, own)
        try:
            return self._read_part(part, start, stop, files)
        except DamagedStoreError:
            if not files.discard_copy(self):
                raise
            return self._read_part(part, start, stop, files)

    def _read_part(self, part: int, start: int, stop: int, files: OpenFiles) -> Array:
        size, *rest = self.spec.chunk_shape
        itemsize = math.prod(rest) * np.dtype(self.spec.dtype).itemsize
        chunk, first = divmod(start, size)
        data = self._read_range(chunk, first * itemsize, (stop - start) * itemsize, files)
        if crc32c(data) != int(self.digests.part_crc32c[part]):
            raise self._damaged(chunk, f"values {start} to {stop} do not give their crc32c")
        values = np.frombuffer(data, self.spec.dtype).reshape(-1, *rest)
        self._check_values(chunk, values)
        return values

    def may_join(self, first: int, last: int, chunk: int) -> bool:
        """Whether a chunk follows those from first to last in their file, and all are few bytes."""
        if chunk != last + 1 or self.file_number(chunk) != self.file_number(last):
            return False
        return (
            self._offset(chunk) + int(self.digests.length[chunk]) - self._offset(first) <= _JOINED
        )

    def read_ahead(self, first: int, last: int, files: OpenFiles) -> None:
        """Read the bytes of neighbouring chunks at once; who reads one meets what went wrong."""
        stop = self._offset(last) + int(self.digests.length[last])
        with suppress(OSError):
            files.read_ahead(self, first, self._offset(first), stop)

    def read_part_ahead(self, start: int, stop: int, files: OpenFiles) -> None:
        """Read the values `[start, stop)` at once, for `read_part`, where one file has them."""
        size, *rest = self.spec.chunk_shape
        itemsize = math.prod(rest) * np.dtype(self.spec.dtype).itemsize
        chunk, first = divmod(start, size)
        if first + stop - start <= size:
            with suppress(OSError):
                end = (first + stop - start) * itemsize
                files.read_ahead(self, chunk, first * itemsize, end)

    def _check_values(self, chunk: int, values: Array) -> None:
        """Refuse what would be looked for outside of what it counts."""
        if self.most is None or not len(values):
            return
        # one look for both ends: what is below 0 is very large
        found = values.view(f"u{values.itemsize}").max()
        if found > self.most:
            wrong = values[(values < 0) | (values > self.most)][0]
            raise self._damaged(chunk, f"it holds {wrong}, outside of 0 to {self.most}")

    def check(self, chunk: int) -> None:
        """Read a chunk and check its sha256 too, and that it decodes."""
        with OpenFiles() as files:
            data = np.empty(self._payload_bytes(chunk, files), np.uint8)
            self._read_payload(chunk, data, files)
        trailer = int(self.digests.crc32c[chunk]).to_bytes(CRC_BYTES, "little")
        if sha256_hex(data.tobytes() + trailer) != bytes(self.digests.sha256[chunk]).hex():
            raise self._damaged(chunk, "its sha256 is not the manifest's")
        values = np.empty(self.spec.chunk_shape, self.spec.dtype)
        self._decode(chunk, data, values)
        self._check_values(chunk, values)

    def check_index(self, chunk: int, file: File | None = None) -> None:
        """Check the index of the file that a chunk is in, which other readers find chunks by."""
        if self.spec.shard_chunks == 1:
            return
        lengths = self.spec.lengths_in(self.digests.length, self.file_number(chunk))
        wanted = shard_index(lengths, self.spec.shard_chunks)
        data = bytearray(len(wanted))
        opened = file or self.open_file(chunk)
        try:
            opened.read_into([data], int(lengths.sum(dtype=np.int64)))
        except OSError as error:
            raise self._unreadable(chunk, error) from None
        finally:
            if file is None:
                opened.close()
        if data != wanted:
            raise self._damaged(chunk, "the index of its file is not that of the file's chunks")

    def file_bytes(self, number: int) -> int:
        """Bytes that a file of chunks must have."""
        return self.spec.file_bytes(self.digests.length, number)

    def _offset(self, chunk: int) -> int:
        """Where a chunk starts in its file: chunks lie in order, without gaps."""
        first = chunk // self.spec.shard_chunks * self.spec.shard_chunks
        return int(self.digests.length[first:chunk].sum(dtype=np.int64))

    def _read_range(self, chunk: int, offset: int, length: int, files: OpenFiles) -> bytes:
        data = bytearray(length)
        try:
            n_read = files.read_into(self, chunk, [data], offset)
        except OSError as error:
            raise self._unreadable(chunk, error) from None
        if n_read != length:
            raise self._damaged(chunk, f"{length} bytes wanted, {n_read} there")
        return bytes(data)

    def open_file(self, chunk: int) -> File:
        """Open the file that a chunk is in."""
        if self.kept is not None:
            return self.kept.keeper().open(self.original(self.file_number(chunk)))
        try:
            return open_location(self.store / self.spec.file(self.file_number(chunk)))
        except OSError as error:
            raise self._damaged(chunk, f"its file can't be opened ({told(error)})") from None

    def original(self, number: int) -> Original:
        """Return what is kept of a file; only where files are kept."""
        assert self.kept is not None
        path = self.spec.file(number)
        return Original(self.store / path, self.kept.name(path), self.file_bytes(number))

    def file_number(self, chunk: int) -> int:
        """Return the number of the file that a chunk is in."""
        return chunk // self.spec.shard_chunks

    def look(self) -> None:
        """Raise StoreChangedError where the store is another; of a remote one, once in a while."""
        if not is_remote(self.store) or self.looked.is_due():
            self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise StoreChangedError where the store is no longer the one that was opened."""
        try:
            if Identity.of(self.store) == self.identity:
                self.looked.was_now()
                return
        except (FileNotFoundError, NotADirectoryError):
            raise StoreChangedError(
                f"{self.store} was deleted or moved while it was being read; "
                "build it again and start again"
            ) from None
        except OSError as error:
            raise StoreUnreachableError(
                f"{self.store} can't be reached any more: {told(error)}"
            ) from None
        raise StoreChangedError(f"{self.store} was replaced while it was being read; open it again")

    def _unreadable(self, chunk: int, error: OSError) -> StoreError:
        if is_remote(self.store) and not isinstance(error, FileNotFoundError):
            return StoreUnreachableError(
                f"{self.store}: chunk {chunk} of {self.spec.name} can't be read: {told(error)}"
            )
        return self._damaged(chunk, f"its bytes can't be read ({told(error)})")

    def _damaged(self, chunk: int, what: str) -> DamagedStoreError:
        self.check_unchanged()
        return DamagedStoreError(
            f"{self.store}: chunk {chunk} of {self.spec.name} is damaged: {what} "
            f"(file {self.spec.file(self.file_number(chunk))}); grandbatch verify lists "
            "all bad chunks; build the store again with --overwrite"
        )
