"""Read chunks of a store, each checked against the manifest before a byte of it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedStoreError, StoreChangedError
from grandbatch.store.codecs import CRC_BYTES, checksum, decode_into
from grandbatch.store.format import MANIFEST_NAME, ArraySpec
from grandbatch.store.manifest import ChunkDigests, sha256_hex

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Identity:
    """Which published store a folder held when it was opened, told by its manifest file."""

    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, store: Path) -> Identity:
        """Take the identity of the store now at a path."""
        status = (store / MANIFEST_NAME).stat()
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads one array's chunks. Thread-safe: it holds no state and no open file.

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

    def read(self, chunk: int, out: Array) -> None:
        """Decode a chunk into a C-contiguous array of the chunk's shape and dtype."""
        if self.spec.codec == "none":
            self._read_plain(chunk, out)
            return
        encoded = self.read_encoded(chunk)
        payload = memoryview(encoded)[:-CRC_BYTES]
        try:
            decode_into(payload, self.spec.codec, out)
        except (ValueError, RuntimeError) as error:
            raise self._damaged(chunk, f"it does not decode ({error})") from None

    def _read_plain(self, chunk: int, out: Array) -> None:
        """Read a chunk that is not compressed straight to where it belongs."""
        values = out.reshape(-1).view(np.uint8)
        trailer = bytearray(CRC_BYTES)
        handle = self._open(chunk)
        try:
            n_read = os.preadv(handle, [values.data, trailer], self._offset(chunk))
        finally:
            os.close(handle)
        self.check_unchanged()
        expected = int(self.digests.crc32c[chunk])
        if n_read != int(self.digests.length[chunk]) or n_read != values.nbytes + CRC_BYTES:
            raise self._damaged(chunk, f"{values.nbytes + CRC_BYTES} bytes wanted, {n_read} there")
        values.flags.writeable = False
        if int.from_bytes(trailer, "little") != expected or checksum(values) != expected:
            raise self._damaged(chunk, "its bytes do not give its crc32c")

    def read_encoded(self, chunk: int) -> bytes:
        """Read the encoded bytes of a chunk, and check their length and crc32c."""
        length = int(self.digests.length[chunk])
        data = self._read_range(chunk, self._offset(chunk), length)
        expected = int(self.digests.crc32c[chunk])
        if int.from_bytes(data[-CRC_BYTES:], "little") != expected:
            raise self._damaged(chunk, "its crc32c is not the manifest's")
        if checksum(np.frombuffer(data, np.uint8)[:-CRC_BYTES]) != expected:
            raise self._damaged(chunk, "its bytes do not give its crc32c")
        return data

    def read_part(self, part: int, start: int, stop: int) -> Array:
        """Read the values `[start, stop)` of an uncompressed per-window array.

        They are the windows of chunk `part` of the matrices, checked by the part's own crc32c.
        """
        itemsize = np.dtype(self.spec.dtype).itemsize
        chunk, first = divmod(start, self.spec.chunk_shape[0])
        data = self._read_range(chunk, first * itemsize, (stop - start) * itemsize)
        if checksum(data) != int(self.digests.part_crc32c[part]):
            raise self._damaged(chunk, f"values {start} to {stop} do not give their crc32c")
        return np.frombuffer(data, self.spec.dtype)

    def check(self, chunk: int) -> None:
        """Read a chunk and check its sha256 too, and that it decodes."""
        data = self.read_encoded(chunk)
        if sha256_hex(data) != bytes(self.digests.sha256[chunk]).hex():
            raise self._damaged(chunk, "its sha256 is not the manifest's")
        self.read(chunk, np.empty(self.spec.chunk_shape, self.spec.dtype))

    def file_bytes(self, number: int) -> int:
        """Bytes that a file of chunks must have."""
        first = number * self.spec.shard_chunks
        stop = min(first + self.spec.shard_chunks, self.spec.n_chunks)
        size = int(self.digests.length[first:stop].sum(dtype=np.int64))
        if self.spec.shard_chunks > 1:
            size += self.spec.shard_chunks * 16 + CRC_BYTES
        return size

    def _offset(self, chunk: int) -> int:
        """Where a chunk starts in its file: chunks lie in order, without gaps."""
        first = chunk // self.spec.shard_chunks * self.spec.shard_chunks
        return int(self.digests.length[first:chunk].sum(dtype=np.int64))

    def _read_range(self, chunk: int, offset: int, length: int) -> bytes:
        handle = self._open(chunk)
        try:
            data = os.pread(handle, length, offset)
        finally:
            os.close(handle)
        self.check_unchanged()
        if len(data) != length:
            raise self._damaged(chunk, f"{length} bytes wanted, {len(data)} there")
        return data

    def _open(self, chunk: int) -> int:
        path = self.store / self.spec.file(chunk // self.spec.shard_chunks)
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._damaged(chunk, f"its file can't be opened ({error.strerror})") from None

    def check_unchanged(self) -> None:
        """Raise StoreChangedError where the store is no longer the one that was opened."""
        try:
            if Identity.of(self.store) == self.identity:
                return
        except OSError:
            raise StoreChangedError(
                f"{self.store} was deleted or moved while it was being read; "
                "build it again and start again"
            ) from None
        raise StoreChangedError(f"{self.store} was replaced while it was being read; open it again")

    def _damaged(self, chunk: int, what: str) -> DamagedStoreError:
        self.check_unchanged()
        return DamagedStoreError(
            f"{self.store}: chunk {chunk} of {self.spec.name} is damaged: {what} "
            f"(file {self.spec.file(chunk // self.spec.shard_chunks)}); grandbatch verify lists "
            "all bad chunks, grandbatch build --overwrite makes the store again"
        )
