"""Read chunks of a store, each checked against the manifest before a byte of it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

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
from grandbatch.store.reading.opened import OpenFiles
from grandbatch.store.repeats import pack_windows, rows_of_repeats
from grandbatch.values.checksums import crc32c, crc32c_of_each

Array = npt.NDArray[Any]
T = TypeVar("T")

_GAP = 8 * 1024
"""Bytes between two reads from one file that cost less than a read of their own."""

WindowRange = tuple[int, int, int]
"""A chunk of the matrices, its first window, and the one after its last."""


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
        self._again(lambda opened: self._read(chunk, out, opened), files)

    def _again(self, read: Callable[[OpenFiles], T], files: OpenFiles | None) -> T:
        """Read, and once more from the store where a local copy was damaged."""
        if files is None:
            with OpenFiles() as own:
                return self._again(read, own)
        try:
            return read(files)
        except DamagedStoreError:
            if not files.discard_copy(self):
                raise
            return read(files)

    def _read(self, chunk: int, out: Array, files: OpenFiles) -> None:
        if self.spec.codec != "none":
            self._decode(chunk, self._payload(chunk, files), out)
            return
        raw, there = out.reshape(-1).view(np.uint8), self._view(chunk, files)
        if there is None:
            self._read_payload(chunk, raw, files)
        else:
            self._check_length(chunk, len(raw))
            raw[:] = there
        self._check_values(chunk, out)

    def values(self, chunk: int) -> Array:
        """Read a chunk of an uncompressed array; not to be written to, for it may be what came."""
        return self._again(lambda opened: self._values(chunk, opened), None)

    def _values(self, chunk: int, files: OpenFiles) -> Array:
        payload = self._payload(chunk, files)
        self._check_length(chunk, math.prod(self.spec.chunk_shape) * self.itemsize)
        values = payload.view(self.spec.dtype).reshape(self.spec.chunk_shape)
        self._check_values(chunk, values)
        return values

    def read_rows(
        self, chunk: int, runs: tuple[int, ...], stride: int, out: Array, files: OpenFiles | None
    ) -> None:
        """Read the rows that a chunk's overlapping windows were cut from, each once.

        Parameters
        ----------
        chunk : int
        runs : tuple of int
            Numbers of windows that follow each other by `stride` rows.
        stride : int
        out : (R, F) float32
            Overwritten from its first row on with the rows of all runs; must have room.
        files : OpenFiles, optional
        """
        self._again(lambda opened: self._read_rows(chunk, runs, stride, out, opened), files)

    def _read_rows(
        self, chunk: int, runs: tuple[int, ...], stride: int, out: Array, files: OpenFiles
    ) -> None:
        shape, payload = self.spec.chunk_shape, None
        if self.spec.codec == "zstd":
            payload = self._payload(chunk, files)
            if rows_of_repeats(payload, runs, shape[1], stride, out):
                return
        windows = files.scratch(math.prod(shape) * 4, "decoded").view(np.float32).reshape(shape)
        if payload is None:
            self._read(chunk, windows, files)
        else:
            self._decode(chunk, payload, windows)
        pack_windows(windows, runs, stride, out)

    def _payload(self, chunk: int, files: OpenFiles) -> npt.NDArray[np.uint8]:
        """Read the encoded bytes of a chunk, to be used before the next call, not written to."""
        there = self._view(chunk, files)
        if there is not None:
            return there
        payload = files.scratch(self._payload_bytes(chunk, files))
        self._read_payload(chunk, payload, files)
        return payload

    def _view(self, chunk: int, files: OpenFiles) -> npt.NDArray[np.uint8] | None:
        """Return the encoded bytes of a chunk as they came, checked; None where on a disk."""
        if not self._is_far:
            return None
        length, start = int(self.digests.length[chunk]), self.offset(chunk)
        try:
            data = files.view(self, chunk, start, start + length)
        except OSError as error:
            raise self._unreadable(chunk, error) from None
        if data is None:
            return None
        payload, trailer = data[:-CRC_BYTES], data[-CRC_BYTES:]
        self._check_bytes(chunk, len(data), trailer, crc32c(payload))
        return np.frombuffer(payload, np.uint8)

    def _decode(self, chunk: int, payload: npt.NDArray[np.uint8], out: Array) -> None:
        try:
            decode_into(payload, self.spec.codec, out)
        except (ValueError, RuntimeError) as error:
            raise self._damaged(chunk, f"it does not decode ({error})") from None

    def _payload_bytes(self, chunk: int, files: OpenFiles) -> int:
        """Return the encoded bytes without the crc32c, if the file is long enough for them."""
        length, n_bytes = int(self.digests.length[chunk]), files.get(self, chunk).n_bytes
        if n_bytes is not None and self.offset(chunk) + length > n_bytes:
            there = max(0, n_bytes - self.offset(chunk))
            raise self._damaged(chunk, f"{length} bytes wanted, {there} there")
        return length - CRC_BYTES

    def _read_payload(self, chunk: int, out: npt.NDArray[np.uint8], files: OpenFiles) -> None:
        """Read the encoded bytes of a chunk without its crc32c, and check that and the length.

        Piece by piece, so that the checksum finds them in the cache.
        """
        self._check_length(chunk, len(out))
        file, offset = files.get(self, chunk), self.offset(chunk)
        trailer = bytearray(CRC_BYTES)
        n_read = crc = 0
        for first in range(0, len(out), file.step_bytes):
            piece = out[first : first + file.step_bytes]
            last = [trailer] if first + len(piece) == len(out) else []
            try:
                n_read += file.read_into([piece.data, *last], offset + first)
            except OSError as error:
                raise self._unreadable(chunk, error) from None
            crc = crc32c(piece, crc)
        self._check_bytes(chunk, n_read, trailer, crc)

    def _check_length(self, chunk: int, n_bytes: int) -> None:
        length = int(self.digests.length[chunk])
        if length != n_bytes + CRC_BYTES:
            raise self._damaged(chunk, f"{n_bytes + CRC_BYTES} bytes wanted, {length} announced")

    def _check_bytes(
        self, chunk: int, n_read: int, trailer: bytearray | memoryview, crc: int
    ) -> None:
        """Refuse bytes that are not those of the manifest."""
        length, expected = int(self.digests.length[chunk]), int(self.digests.crc32c[chunk])
        if n_read != length:
            raise self._damaged(chunk, f"{length} bytes wanted, {n_read} there")
        if int.from_bytes(trailer, "little") != expected:
            raise self._damaged(chunk, "its crc32c is not the manifest's")
        if crc != expected:
            raise self._damaged(chunk, "its bytes do not give its crc32c")

    def read_parts(self, parts: Sequence[WindowRange], files: OpenFiles | None = None) -> Array:
        """Read the values of the windows of some chunks, of an uncompressed per-window array.

        Each chunk's are checked by their own crc32c; those that lie close are read at once.

        Parameters
        ----------
        parts : sequence of (int, int, int)
        files : OpenFiles, optional

        Returns
        -------
        (n, m, ...) array
            m for each of the n parts, as many as the longest has; the others' end in zeros.
        """
        return self._again(lambda opened: self._read_parts(parts, opened), files)

    def _read_parts(self, parts: Sequence[WindowRange], files: OpenFiles) -> Array:
        size, *rest = self.spec.chunk_shape
        values = np.zeros((len(parts), max(b - a for _, a, b in parts), *rest), self.spec.dtype)
        itemsize, width = values[:1, :1].nbytes, values[:1].nbytes
        raw = values.reshape(-1).view(np.uint8).data
        data = [raw[n * width :][: (b - a) * itemsize] for n, (_, a, b) in enumerate(parts)]
        begin = 0
        for at in range(1, len(parts) + 1):
            if at < len(parts):
                end, start = parts[at - 1][2], parts[at][1]
                if 0 <= (start - end) * itemsize <= _GAP and start // size == (end - 1) // size:
                    continue
            self._read_near(parts[begin:at], data[begin:at], itemsize, files)
            begin = at
        expected = self.digests.part_crc32c[[part for part, _, _ in parts]].tolist()
        found = crc32c_of_each(data)
        for (_, start, stop), crc, wanted in zip(parts, found, expected, strict=True):
            if crc != wanted:
                raise self._damaged(
                    start // size, f"values {start} to {stop} do not give their crc32c"
                )
        if not self._is_inside(values):
            for (_, start, stop), some in zip(parts, values, strict=True):
                self._check_values(start // size, some[: stop - start])
        return values

    def _read_near(
        self,
        parts: Sequence[WindowRange],
        data: Sequence[memoryview],
        itemsize: int,
        files: OpenFiles,
    ) -> None:
        """Read parts that follow each other in one file, and pass over what is between."""
        begin = end = parts[0][1]
        buffers = []
        for (_, start, stop), target in zip(parts, data, strict=True):
            if start > end:
                buffers.append(files.scratch((start - end) * itemsize).data)
            buffers.append(target)
            end = stop
        chunk, first = divmod(begin, self.spec.chunk_shape[0])
        length = (end - begin) * itemsize
        try:
            n_read = files.read_into(self, chunk, buffers, first * itemsize)
        except OSError as error:
            raise self._unreadable(chunk, error) from None
        if n_read != length:
            raise self._damaged(chunk, f"{length} bytes wanted, {n_read} there")

    def _check_values(self, chunk: int, values: Array) -> None:
        """Refuse what would be looked for outside of what it counts."""
        if not self._is_inside(values):
            wrong = values[(values < 0) | (values > self.most)][0]
            raise self._damaged(chunk, f"it holds {wrong}, outside of 0 to {self.most}")

    def _is_inside(self, values: Array) -> bool:
        if self.most is None or not values.size:
            return True
        # one look for both ends: what is below 0 is very large
        return bool(values.view(f"u{values.itemsize}").max() <= self.most)

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

    @cached_property
    def _is_far(self) -> bool:
        return is_remote(self.store)

    @property
    def name(self) -> str:
        """The array's name."""
        return self.spec.name

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.spec.dtype).itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes of all chunks, encoded."""
        return int(self.digests.length.sum(dtype=np.int64))

    def file_bytes(self, number: int) -> int:
        """Bytes that a file of chunks must have."""
        return self.spec.file_bytes(self.digests.length, number)

    def offset(self, chunk: int) -> int:
        """Where a chunk starts in its file: chunks lie in order, without gaps."""
        return int(self.offsets(chunk))

    def offsets(self, chunks: Any) -> Any:
        """Where chunks start in their files, (n,) int64 of as many."""
        return (
            self.begins[chunks]
            - self.begins[chunks // self.spec.shard_chunks * self.spec.shard_chunks]
        )

    @cached_property
    def begins(self) -> npt.NDArray[np.int64]:
        """Where each chunk would start, were all of them in one file."""
        lengths = self.digests.length.astype(np.int64)
        return np.cumsum(lengths) - lengths

    def open_file(self, chunk: int) -> File:
        """Open the file that a chunk is in."""
        if self.kept is not None:
            return self.kept.keeper().open(self.original(self.file_number(chunk)))
        try:
            return open_location(self.store, self.spec.file(self.file_number(chunk)))
        except OSError as error:
            raise self._damaged(chunk, f"its file can't be opened ({told(error)})") from None

    def original(self, number: int) -> Original:
        """Return what is kept of a file; only where files are kept."""
        assert self.kept is not None
        path = self.spec.file(number)
        return Original(self.store, path, self.kept.name(path), self.file_bytes(number))

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
