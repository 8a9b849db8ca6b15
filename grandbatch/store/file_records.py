"""Files of chunks, byte for byte: what they hold, must hold, and the record of a finished one."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedStoreError
from grandbatch.files.locations import read_location
from grandbatch.store.codecs import Chunk, shard_index
from grandbatch.store.format import CRC_BYTES, ArraySpec
from grandbatch.store.manifest import SHA256_BYTES, ChunkDigests
from grandbatch.values.texts import read_json

_MAX_RECORD_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class FileRecord:
    """What one finished file of chunks adds to the store.

    Parameters
    ----------
    number : int
        The file's number.
    length, crc32c, sha256
        Digests of its n chunks, as in `ChunkDigests`.
    count : (n,) int64
        Feature rows that each chunk counts.
    mean, m2, low, high : (n, F) float64
        Mean, sum of squared deviations, smallest and largest value over those rows.
    """

    number: npt.NDArray[np.int64]
    length: npt.NDArray[np.uint32]
    crc32c: npt.NDArray[np.uint32]
    sha256: npt.NDArray[np.uint8]
    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Write it, as `read_record` reads it."""
        return pack_arrays({f.name: getattr(self, f.name) for f in fields(self)})


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Write arrays by their names, with a sha256, as `read_arrays` reads them."""
    header = {name: [values.dtype.str, values.shape] for name, values in arrays.items()}
    # not np.savez: zip and its headers took a tenth of a build's time
    content = b"".join(
        [json.dumps(header).encode(), b"\n", *(v.tobytes() for v in arrays.values())]
    )
    return content + hashlib.sha256(content).digest()


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read arrays back.

    Raises
    ------
    OSError
    DamagedStoreError
        If they are not what was written.
    """
    data = read_location(path, _MAX_RECORD_BYTES)
    content = memoryview(data)[:-SHA256_BYTES]
    if hashlib.sha256(content).digest() != data[-SHA256_BYTES:]:
        raise DamagedStoreError(
            f"{path} is damaged; run the same command again, it writes the file's chunks anew"
        )
    at = data.index(b"\n") + 1
    arrays = {}
    for name, dtype, shape, count in _described(data[:at]):
        arrays[name] = np.frombuffer(content, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes
    return arrays


@lru_cache(maxsize=16)
def _described(header: bytes) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int]]:
    """Name, dtype, shape and size of arrays; nearly all records of a store have one header."""
    described = read_json(header).items()
    return [
        (name, np.dtype(dtype), tuple(shape), math.prod(shape))
        for name, (dtype, shape) in described
    ]


def file_bytes(spec: ArraySpec, encoded: Sequence[bytes]) -> bytes:
    """Join encoded chunks into the bytes of a file (Zarr v3 sharding, index at the end)."""
    return b"".join(file_buffers(spec, [(chunk, b"") for chunk in encoded]))


def file_buffers(spec: ArraySpec, chunks: Sequence[Chunk]) -> list[bytes | memoryview]:
    """List the bytes of a file, without a copy of them."""
    buffers = [piece for chunk in chunks for piece in chunk]
    if spec.shard_chunks > 1:
        lengths = np.array([len(payload) + len(crc) for payload, crc in chunks], np.uint64)
        buffers.append(shard_index(lengths, spec.shard_chunks))
    return buffers


def digests_of(encoded: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Length, crc32c and sha256 of encoded chunks."""
    return chunk_digests(
        [(memoryview(chunk)[:-CRC_BYTES], chunk[-CRC_BYTES:]) for chunk in encoded]
    )


def chunk_digests(chunks: Sequence[Chunk]) -> dict[str, npt.NDArray[Any]]:
    """Length, crc32c and sha256 of encoded chunks in buffers."""
    hashes = []
    for payload, crc in chunks:
        found = hashlib.sha256(payload)
        found.update(crc)
        hashes.append(found.digest())
    return {
        "length": np.array([len(payload) + len(crc) for payload, crc in chunks], np.uint32),
        "crc32c": np.frombuffer(b"".join(crc for _, crc in chunks), "<u4"),
        "sha256": np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, SHA256_BYTES),
    }


def read_record(path: Path) -> FileRecord:
    """Read a record back.

    Raises
    ------
    DamagedStoreError
        If it is not what was written.
    """
    arrays = read_arrays(path)
    if set(arrays) != {f.name for f in fields(FileRecord)}:
        raise DamagedStoreError(f"{path} was written by another version; run the build again")
    return FileRecord(**arrays)


def is_whole(
    path: Path,
    spec: ArraySpec,
    number: int,
    length: npt.NDArray[np.uint32],
    sha256: npt.NDArray[np.uint8],
) -> bool:
    """Whether a file has all its chunks, and they have these lengths and digests.

    Raises
    ------
    OSError
        If it can't be read.
    """
    return read_file(path, spec, number, length, sha256) is not None


def read_file(
    path: Path,
    spec: ArraySpec,
    number: int,
    length: npt.NDArray[np.uint32],
    sha256: npt.NDArray[np.uint8],
) -> bytes | None:
    """Read a file that is whole, as `is_whole` says; None where it isn't."""
    expected_bytes = int(length.sum(dtype=np.int64)) + spec.index_bytes
    try:
        data = read_location(path, expected_bytes)
    except OSError as error:
        if error.errno == errno.EOVERFLOW:
            return None
        raise
    ends = np.cumsum(length.astype(np.int64))
    chunks = [data[end - n : end] for end, n in zip(ends, length, strict=True)]
    expected = min(spec.shard_chunks, spec.n_chunks - number * spec.shard_chunks)
    if len(chunks) != expected or data != file_bytes(spec, chunks):
        return None
    return data if np.array_equal(digests_of(chunks)["sha256"], sha256) else None


def join_digests(parts: Sequence[ChunkDigests]) -> ChunkDigests:
    """Join the digests of consecutive chunks of one array."""
    return ChunkDigests(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(ChunkDigests))
    )
