"""The manifest: what every chunk of a store must be, byte for byte.

One JSON file beside the arrays. For each array it holds, packed little-endian and base64, the
encoded length, crc32c and sha256 of every chunk (of every inner chunk where sharded). Per-window
arrays also have the crc32c of each part that belongs to one chunk of matrices, so that a part can
be read and checked alone. The sha256 of every `zarr.json` is in it too, and that of all the rest.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import (
    DamagedStoreError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreUnreachableError,
)
from grandbatch.files.digested import content_sha256
from grandbatch.files.locations import is_remote, read_versioned, told
from grandbatch.store.format import FORMAT, MANIFEST_NAME, MAX_MANIFEST_BYTES
from grandbatch.values.texts import read_json

SHA256_BYTES = 32

_NO_MANIFEST = (errno.EINVAL, errno.EOVERFLOW, errno.EISDIR)


@dataclass(frozen=True, eq=False)
class ChunkDigests:
    """What the chunks of one array must be.

    Parameters
    ----------
    length : (n,) uint32
        Encoded bytes of each chunk, its crc32c included.
    crc32c : (n,) uint32
        Of the encoded bytes before their trailing crc32c.
    sha256 : (n, 32) uint8
        Of all encoded bytes.
    part_crc32c : (m,) uint32
        Per-window arrays: of the part that belongs to each chunk of matrices. Else empty.
    """

    length: npt.NDArray[np.uint32]
    crc32c: npt.NDArray[np.uint32]
    sha256: npt.NDArray[np.uint8]
    part_crc32c: npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Manifest:
    """All digests of a store, by array name, and of its metadata files, by path."""

    arrays: dict[str, ChunkDigests]
    metadata: dict[str, str]

    def to_bytes(self) -> bytes:
        """Write the manifest as JSON."""
        value = {
            "format": FORMAT,
            "metadata": dict(sorted(self.metadata.items())),
            "arrays": {
                name: {
                    "n_chunks": len(digests.length),
                    "length": _pack(digests.length, "<u4"),
                    "crc32c": _pack(digests.crc32c, "<u4"),
                    "sha256": _pack(digests.sha256, "u1"),
                    "part_crc32c": _pack(digests.part_crc32c, "<u4"),
                }
                for name, digests in sorted(self.arrays.items())
            },
        }
        return json.dumps({**value, "sha256": content_sha256(value)}, indent=1).encode()

    def digest(self) -> str:
        """Return a digest of what all chunks are."""
        found = hashlib.sha256()
        for name, digests in sorted(self.arrays.items()):
            found.update(name.encode() + digests.sha256.tobytes())
        return found.hexdigest()[:32]

    @classmethod
    def read(cls, store: Path) -> Manifest:
        """Read a store's manifest, as `read_versioned` does."""
        return cls.read_versioned(store)[0]

    @classmethod
    def read_versioned(cls, store: Path) -> tuple[Manifest, str | None]:
        """Read a store's manifest, with the version of its file where that came with it.

        Raises
        ------
        StoreNotFoundError
            If the folder has none: it is no store, or was never finished.
        DamagedStoreError, StoreMismatchError
            If it can't be read, or is of another format.
        """
        path = store / MANIFEST_NAME
        try:
            raw, version = read_versioned(path, MAX_MANIFEST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNotFoundError(_not_a_store(store)) from None
        except OSError as error:
            kind: type[StoreError] = StoreNotFoundError
            if error.errno in _NO_MANIFEST:
                kind = DamagedStoreError
            elif is_remote(store):
                kind = StoreUnreachableError
            raise kind(f"{path} can't be read: {told(error)}") from None
        try:
            value = read_json(raw)
            if value["format"] != FORMAT:
                raise StoreMismatchError(
                    f"{store} is written in format {value['format']!r}, this version reads "
                    f"{FORMAT}; build it again, or use the version that wrote it"
                )
            if value.pop("sha256") != content_sha256(value):
                raise ValueError("its sha256 is not that of its content")
            arrays = {name: _digests(array) for name, array in value["arrays"].items()}
            metadata = {str(k): str(v) for k, v in value["metadata"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedStoreError(
                f"{path} is damaged ({type(error).__name__}: {error}); "
                "build the store again with --overwrite"
            ) from None
        return cls(arrays, metadata), version


def _not_a_store(store: Path) -> str:
    if not store.exists():
        return f"there is no store at {store}; check the path, or build it with grandbatch build"
    return (
        f"{store} is no finished grandbatch store: it has no {MANIFEST_NAME}; "
        "choose another path, or build it with grandbatch build"
    )


def sha256_hex(data: bytes) -> str:
    """Return the sha256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _pack(values: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()


def _digests(value: dict[str, Any]) -> ChunkDigests:
    def unpack(name: str, dtype: str) -> npt.NDArray[Any]:
        return np.frombuffer(base64.b64decode(value[name], validate=True), dtype=dtype)

    digests = ChunkDigests(
        unpack("length", "<u4"),
        unpack("crc32c", "<u4"),
        unpack("sha256", "u1").reshape(-1, SHA256_BYTES),
        unpack("part_crc32c", "<u4"),
    )
    n = value["n_chunks"]
    if not len(digests.length) == len(digests.crc32c) == len(digests.sha256) == n:
        raise ValueError(f"{n} chunks announced, {len(digests.length)} described")
    return digests
