"""A store's metadata files: written byte for byte as zarr-python does, and read.

Each is read as it was written, before anything is made of them. Zarr takes tens of milliseconds to
write a handful, and half a second to import.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Self

from grandbatch.errors import (
    DamagedStoreError,
    StoreChangedError,
    StoreError,
    StoreMismatchError,
    StoreUnreachableError,
)
from grandbatch.files.locations import is_remote, read_location, told
from grandbatch.files.verbs import is_in_objects
from grandbatch.store.attributes import problem_of
from grandbatch.store.codecs import BLOSC_LEVEL, BLOSC_TYPESIZE, ZSTD_LEVEL
from grandbatch.store.format import (
    ARRAY_NAMES,
    CRC_BYTES,
    FORMAT,
    MAX_CHUNK_BYTES,
    MAX_METADATA_BYTES,
    ArraySpec,
    Codec,
    StoreSpec,
)
from grandbatch.store.identity import Identity, LastLook
from grandbatch.store.manifest import Manifest, sha256_hex
from grandbatch.values.texts import read_json

_OPENINGS = 3
_MAY_BE = ("zarr.json", *(f"{name}/zarr.json" for name in ARRAY_NAMES))
"""Metadata files of a store of any settings."""

_DTYPES = {"<f4": "float32", "<f8": "float64", "<i4": "int32", "<i8": "int64"}
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_COMPRESSORS: dict[Codec, list[dict[str, Any]]] = {
    "none": [],
    "lz4": [
        {
            "name": "blosc",
            "configuration": {
                "typesize": BLOSC_TYPESIZE,
                "cname": "lz4",
                "clevel": BLOSC_LEVEL,
                "shuffle": "noshuffle",
                "blocksize": 0,
            },
        }
    ],
    "zstd": [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}],
}


def metadata_documents(spec: StoreSpec, attributes: dict[str, Any]) -> dict[str, bytes]:
    """Write the metadata of a store.

    Parameters
    ----------
    spec : StoreSpec
    attributes : dict
        Of the group, under the name `grandbatch`.

    Returns
    -------
    dict of str to bytes
        Each document by its path in the store; the group's has those of the arrays in it, too
        (consolidated metadata).
    """
    arrays = {array.name: _of_array(array) for array in spec.arrays}
    group = {
        "attributes": {"grandbatch": attributes},
        "zarr_format": 3,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(sorted(arrays.items())),
        },
        "node_type": "group",
    }
    documents = {"": group, **{f"{name}/": of for name, of in arrays.items()}}
    return {f"{at}zarr.json": json.dumps(of, indent=2).encode() for at, of in documents.items()}


def _of_array(array: ArraySpec) -> dict[str, Any]:
    chunk = array.chunk_shape
    codecs = [_BYTES, *_COMPRESSORS[array.codec], _CRC]
    file_shape = chunk
    if array.shard_chunks > 1:
        file_shape = array.shard_chunks * chunk[0], *chunk[1:]
        sharding = {
            "chunk_shape": chunk,
            "codecs": codecs,
            "index_codecs": [_BYTES, _CRC],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    fill = array.fill_value
    return {
        "shape": array.shape,
        "data_type": _DTYPES[array.dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": file_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if math.isnan(fill) else fill,
        "codecs": codecs,
        "attributes": array.attributes,
        "dimension_names": array.dimension_names,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


class Description(NamedTuple):
    """What a store's manifest and metadata say of it."""

    attrs: dict[str, Any]
    manifest: Manifest
    identity: Identity
    looked: LastLook


def describe(folder: Path) -> Description:
    """Read what describes a finished store; of an object store in one round of requests.

    Raises
    ------
    StoreError
        As `MatrixStore.open`.
    """
    for _ in range(_OPENINGS):
        # of objects the manifest brings it along
        before = None if is_in_objects(folder) else Identity.find(folder)
        seen = before
        looked = LastLook()
        try:
            with _ComingMetadata(folder) if is_in_objects(folder) else nullcontext() as coming:
                manifest, version = Manifest.read_versioned(folder)
                if version is None:
                    seen = Identity.of(folder)
                else:
                    seen = Identity.told(version)
                    looked.was_now()
                attrs = _attributes(folder, manifest, coming)
        except StoreUnreachableError:
            raise
        except (StoreError, OSError):
            # files of two stores, where one took the other's place just now
            if (before or seen) == Identity.find(folder):
                raise
        else:
            if before in (None, seen):
                return Description(attrs, manifest, seen, looked)
    raise StoreChangedError(f"{folder} was replaced while it was opened; open it again")


def _attributes(folder: Path, manifest: Manifest, coming: _ComingMetadata | None) -> dict[str, Any]:
    attrs = read_attributes(folder, checked_metadata(folder, manifest.metadata, coming))
    problem = problem_of(attrs) or misshapen(spec_of(attrs), manifest)
    if problem is not None:
        raise DamagedStoreError(
            f"{folder} is damaged: {problem}; build the store again with --overwrite"
        )
    return attrs


class _ComingMetadata:
    """Metadata files of a remote store, asked for before the manifest says which there are.

    So they come in the same round of requests. One that isn't among a store's may be missing.
    """

    def __init__(self, folder: Path) -> None:
        self._pool = ThreadPoolExecutor(len(_MAY_BE))
        self._coming = {name: self._pool.submit(_read_metadata, folder, name) for name in _MAY_BE}

    def read(self, folder: Path, name: str) -> bytes:
        """Give one when it has come."""
        coming = self._coming.get(name)
        return _read_metadata(folder, name) if coming is None else coming.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def checked_metadata(
    folder: Path, digests: Mapping[str, str], coming: _ComingMetadata | None = None
) -> dict[str, bytes]:
    """Read the metadata files, each what was written, or take them from those that come."""
    read = _read_metadata if coming is None else coming.read
    return {name: _check_metadata(folder, name, digest, read) for name, digest in digests.items()}


def _check_metadata(
    folder: Path, name: str, digest: str, read: Callable[[Path, str], bytes]
) -> bytes:
    if not _is_inside(folder, name):
        problem = "leads out of the store"
    elif not is_remote(folder) and (folder / name).exists() and not (folder / name).is_file():
        problem = f"is {'a folder' if (folder / name).is_dir() else 'no ordinary file'}"
    else:
        try:
            data = read(folder, name)
        except FileNotFoundError:
            problem = "is missing"
        else:
            if sha256_hex(data) == digest:
                return data
            problem = "is not what was written"
    raise DamagedStoreError(f"{folder / name} {problem}; build the store again with --overwrite")


def _is_inside(folder: Path, name: str) -> bool:
    if is_remote(folder):  # nothing there leads anywhere else, if its name doesn't
        return not {"", ".", ".."} & set(name.split("/"))
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _read_metadata(folder: Path, name: str) -> bytes:
    try:
        return read_location(folder, MAX_METADATA_BYTES, name)
    except OSError as error:
        kind: type[StoreError] = DamagedStoreError
        if error.errno != errno.EOVERFLOW:
            if not is_remote(folder) or isinstance(error, FileNotFoundError):
                raise
            kind = StoreUnreachableError
        raise kind(f"{folder / name} can't be read: {told(error)}") from None


def read_attributes(folder: Path, metadata: Mapping[str, bytes]) -> dict[str, Any]:
    """Return a store's attributes; StoreMismatchError where they are of no known format."""
    try:
        group = read_json(metadata["zarr.json"])
        attrs = group["attributes"]["grandbatch"]
        known = attrs["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise StoreMismatchError(
            f"{folder} is no grandbatch store of format {FORMAT}; build it again"
        )
    return dict(attrs)


def misshapen(spec: StoreSpec, manifest: Manifest) -> str | None:
    """Say which array can't be read as manifest and attributes describe it; None if all can."""
    for array in spec.arrays:
        if not {"zarr.json", f"{array.name}/zarr.json"} <= manifest.metadata.keys():
            return f"the manifest doesn't describe {array.name}/zarr.json or zarr.json"
        digests = manifest.arrays.get(array.name)
        described = -1 if digests is None else len(digests.length)
        if described != array.n_chunks or array.chunk_bytes > MAX_CHUNK_BYTES:
            return (
                f"{array.name} should have {array.n_chunks:,} chunks of {array.chunk_bytes:,} "
                f"bytes, its manifest describes {max(described, 0):,}"
            )
        assert digests is not None
        if array is not spec.data and len(digests.part_crc32c) != spec.n_chunks:
            return f"the manifest describes {len(digests.part_crc32c):,} parts of {array.name}"
        if (digests.length < CRC_BYTES).any():
            return f"the manifest describes a chunk of {array.name} shorter than its checksum"
    return None


def spec_of(attrs: dict[str, Any]) -> StoreSpec:
    """Make the sizes that attributes tell."""
    sizes: dict[str, Any] = {name: attrs.get(name) for name in StoreSpec.__dataclass_fields__}
    counts = {
        "n_features": len(attrs["feature_names"]),
        "n_targets": len(attrs.get("target_names", ())),
    }
    return StoreSpec(**sizes | counts)
