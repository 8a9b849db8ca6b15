"""Write a store's files into a staging folder: chunk files, per-window arrays, metadata, manifest.

One file of chunks is written by one task, whole, and followed by its record. A record makes a file
finished: it holds the digests and the statistics of the file's chunks. A staging folder holds the
coming `store` and, apart from it, the `records`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedStoreError, StoreError
from grandbatch.files.ordinary import read_whole
from grandbatch.files.whole import TEMPORARY_SUFFIX, remove_temporaries, write_whole
from grandbatch.store.codecs import (
    BLOSC_LEVEL,
    BLOSC_TYPESIZE,
    ZSTD_LEVEL,
    checksum,
    encode,
    shard_index,
)
from grandbatch.store.format import MANIFEST_NAME, ArraySpec, Codec, StoreSpec
from grandbatch.store.manifest import SHA256_BYTES, ChunkDigests, Manifest, sha256_hex

_STORE, _RECORDS = "store", "records"
_MAX_RECORD_BYTES = 2**30
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


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


def staged_store(staging: Path) -> Path:
    """Return the folder, inside the staging folder, that becomes the store."""
    return staging / _STORE


def record_path(staging: Path, number: int) -> Path:
    """Where the record of a file lies."""
    return staging / _RECORDS / f"{number:08d}.record"


def write_file(
    staging: Path, spec: ArraySpec, number: int, encoded: Sequence[bytes], *, durable: bool
) -> None:
    """Write one file of chunks, given in order: one chunk, or a whole shard with its index."""
    path = staged_store(staging) / spec.file(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a cluster may run a task twice at once: it takes a worker for lost that still writes
    write_whole(path, file_bytes(spec, encoded), durable=durable, shared=True)


def file_bytes(spec: ArraySpec, encoded: Sequence[bytes]) -> bytes:
    """Join encoded chunks into the bytes of a file (Zarr v3 sharding, index at the end)."""
    if spec.shard_chunks == 1:
        return encoded[0]
    lengths = np.array([len(chunk) for chunk in encoded], np.uint64)
    return b"".join([*encoded, shard_index(lengths, spec.shard_chunks)])


def digests_of(encoded: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Length, crc32c and sha256 of encoded chunks."""
    hashes = b"".join(hashlib.sha256(chunk).digest() for chunk in encoded)
    return {
        "length": np.array([len(chunk) for chunk in encoded], np.uint32),
        "crc32c": np.array([int.from_bytes(chunk[-4:], "little") for chunk in encoded], np.uint32),
        "sha256": np.frombuffer(hashes, np.uint8).reshape(-1, SHA256_BYTES),
    }


def write_record(staging: Path, record: FileRecord, *, durable: bool) -> None:
    """Write a file's record: from here on the file is finished."""
    arrays = {f.name: np.ascontiguousarray(getattr(record, f.name)) for f in fields(record)}
    header = {name: [values.dtype.str, values.shape] for name, values in arrays.items()}
    # not np.savez: zip and its headers took a tenth of a build's time
    content = b"".join(
        [json.dumps(header).encode(), b"\n", *(v.tobytes() for v in arrays.values())]
    )
    path = record_path(staging, int(record.number))
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(content).digest()
    write_whole(path, content + digest, durable=durable, shared=True)


def read_record(path: Path) -> FileRecord:
    """Read a record back.

    Raises
    ------
    DamagedStoreError
        If it is not what was written.
    """
    data = read_whole(path, _MAX_RECORD_BYTES)
    content = memoryview(data)[:-SHA256_BYTES]
    if hashlib.sha256(content).digest() != data[-SHA256_BYTES:]:
        raise DamagedStoreError(
            f"{path} is damaged; run the same command again, it writes the file's chunks anew"
        )
    at = data.index(b"\n") + 1
    arrays = {}
    header = json.loads(data[:at])
    if set(header) != {f.name for f in fields(FileRecord)}:
        raise DamagedStoreError(f"{path} was written by another version; run the build again")
    for name, (dtype, shape) in header.items():
        arrays[name] = np.frombuffer(content, dtype, math.prod(shape), at).reshape(shape)
        at += arrays[name].nbytes
    return FileRecord(**arrays)


def finished_files(staging: Path, spec: ArraySpec) -> dict[int, int]:
    """Files of an interrupted build that are whole: number → chunks in it.

    A file counts when its record reads and the file's bytes give every digest in it.
    """
    finished = {}
    for number in range(spec.n_files):
        path = record_path(staging, number)
        if not path.exists():
            continue
        try:
            record = read_record(path)
            path = staged_store(staging) / spec.file(number)
            whole = is_whole(path, spec, number, record.length, record.sha256)
        except (OSError, DamagedStoreError):
            continue
        # a version before this one let through what is not finite
        if whole and np.isfinite(record.mean).all() and np.isfinite(record.high).all():
            finished[number] = len(record.length)
    return finished


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
    expected_bytes = int(length.sum(dtype=np.int64)) + spec.index_bytes
    try:
        data = read_whole(path, expected_bytes)
    except OSError as error:
        if error.errno == errno.EOVERFLOW:
            return False
        raise
    ends = np.cumsum(length.astype(np.int64))
    chunks = [data[end - n : end] for end, n in zip(ends, length, strict=True)]
    expected = min(spec.shard_chunks, spec.n_chunks - number * spec.shard_chunks)
    if len(chunks) != expected or data != file_bytes(spec, chunks):
        return False
    return np.array_equal(digests_of(chunks)["sha256"], sha256)


def take_file(staging: Path, spec: ArraySpec, number: int, store: Path, *, durable: bool) -> None:
    """Stage a file of a finished store: by a hard link, or a copy where the disk knows no links.

    A staged file is only ever replaced by its name, so that the store's own stays as it is.

    Raises
    ------
    FileNotFoundError
        If the store does not have it.
    DiskFullError
        If there is no room for a copy.
    """
    source, path = store / spec.file(number), staged_store(staging) / spec.file(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        aside.hardlink_to(source)
        aside.rename(path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_whole(path, source.read_bytes(), durable=durable, shared=True)
    finally:
        # it is still there, too, where both names were links to the same file: rename does nothing
        aside.unlink(missing_ok=True)


def write_labels(
    staging: Path,
    spec: StoreSpec,
    chunk: int,
    labels: Mapping[str, npt.NDArray[Any]],
    *,
    durable: bool,
) -> dict[str, ChunkDigests]:
    """Write one chunk of every per-window array, from the values of its windows."""
    digests = {}
    for array in spec.labels:
        found = labels[array.name]
        values = np.full(spec.label_chunk_windows, array.fill_value, array.dtype)
        values[: len(found)] = found
        encoded = encode(values, array.codec)
        write_file(staging, array, chunk, [encoded], durable=durable)
        parts = [
            checksum(values[at : min(at + spec.chunk_windows, len(found))].tobytes())
            for at in range(0, len(found), spec.chunk_windows)
        ]
        digests[array.name] = ChunkDigests(
            **digests_of([encoded]), part_crc32c=np.array(parts, np.uint32)
        )
    return digests


def check_files(staging: Path, spec: StoreSpec, arrays: Mapping[str, ChunkDigests]) -> None:
    """See every file of chunks, with the length that its digests give it.

    A task tells what it has written, and may have written it elsewhere: on a worker's own disk.

    Raises
    ------
    StoreError
        If one isn't here, or not all of it.
    """
    folder = staged_store(staging)
    for array in spec.arrays:
        for number in range(array.n_files):
            path = folder / array.file(number)
            try:
                n_bytes = path.stat().st_size
            except OSError as error:
                raise _not_here(path, f"can't be seen ({error.strerror})") from None
            expected = array.file_bytes(arrays[array.name].length, number)
            if n_bytes != expected:
                raise _not_here(path, f"has {n_bytes:,} bytes instead of {expected:,}")


def _not_here(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} {what}, though the task that wrote it has ended: its worker may write to a disk "
        "of its own. Nothing is published; see to it that all workers share the disk, and run the "
        "same command again: what is whole is kept"
    )


def write_metadata(staging: Path, spec: StoreSpec, attributes: dict[str, Any]) -> dict[str, str]:
    """Write every `zarr.json` with zarr itself; return the sha256 of each by its path."""
    import zarr

    folder = staged_store(staging)
    remove_temporaries(folder)
    for left in (*folder.rglob("zarr.json"), *folder.glob(MANIFEST_NAME)):
        left.unlink()
    group = zarr.create_group(folder, zarr_format=3, attributes={"grandbatch": attributes})
    for array in spec.arrays:
        chunk = array.chunk_shape
        shard = (array.shard_chunks * chunk[0], *chunk[1:]) if array.shard_chunks > 1 else None
        group.create_array(
            array.name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunk,
            shards=shard,
            filters=None,
            compressors=_zarr_codecs(array.codec),
            fill_value=array.fill_value,
            dimension_names=array.dimension_names,
            attributes=array.attributes,
            config={"write_empty_chunks": True},
        )
    with warnings.catch_warnings():
        # that other implementations of Zarr v3 may not read it: they don't need it
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(folder)
    names = ["zarr.json", *(f"{array.name}/zarr.json" for array in spec.arrays)]
    return {name: sha256_hex((folder / name).read_bytes()) for name in names}


def _zarr_codecs(codec: Codec) -> list[Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    compressors: dict[Codec, list[Any]] = {
        "none": [],
        "lz4": [
            BloscCodec(
                cname="lz4", clevel=BLOSC_LEVEL, shuffle="noshuffle", typesize=BLOSC_TYPESIZE
            )
        ],
        "zstd": [ZstdCodec(level=ZSTD_LEVEL)],
    }
    return [*compressors[codec], Crc32cCodec()]


def join_digests(parts: Sequence[ChunkDigests]) -> ChunkDigests:
    """Join the digests of consecutive chunks of one array."""
    return ChunkDigests(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(ChunkDigests))
    )


def write_manifest(staging: Path, manifest: Manifest, *, durable: bool) -> None:
    """Write the manifest, the last file of a store."""
    write_whole(staged_store(staging) / MANIFEST_NAME, manifest.to_bytes(), durable=durable)
