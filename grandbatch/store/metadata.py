"""A store's metadata files: read, each as it was written, before anything is made of them."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from grandbatch.errors import (
    DamagedStoreError,
    StoreError,
    StoreMismatchError,
    StoreUnreachableError,
)
from grandbatch.files.locations import is_remote, read_location, told
from grandbatch.store.format import (
    CRC_BYTES,
    FORMAT,
    MAX_CHUNK_BYTES,
    MAX_METADATA_BYTES,
    StoreSpec,
)
from grandbatch.store.manifest import Manifest, sha256_hex
from grandbatch.values.texts import read_json

_REQUESTS = 16


def checked_metadata(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Read the metadata files, each what was written; from a URL all at once."""
    if not is_remote(folder):
        return {name: _check_metadata(folder, name, digest) for name, digest in digests.items()}
    with ThreadPoolExecutor(_REQUESTS) as pool:
        found = pool.map(lambda item: _check_metadata(folder, *item), digests.items())
        return dict(zip(digests, found, strict=True))


def _check_metadata(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        problem = "leads out of the store"
    elif not is_remote(folder) and path.exists() and not path.is_file():
        problem = f"is {'a folder' if path.is_dir() else 'no ordinary file'}"
    else:
        try:
            data = _read_metadata(path)
        except FileNotFoundError:
            problem = "is missing"
        else:
            if sha256_hex(data) == digest:
                return data
            problem = "is not what was written"
    raise DamagedStoreError(f"{path} {problem}; build the store again with --overwrite")


def _read_metadata(path: Path) -> bytes:
    try:
        return read_location(path, MAX_METADATA_BYTES)
    except OSError as error:
        kind: type[StoreError] = DamagedStoreError
        if error.errno != errno.EOVERFLOW:
            if not is_remote(path) or isinstance(error, FileNotFoundError):
                raise
            kind = StoreUnreachableError
        raise kind(f"{path} can't be read: {told(error)}") from None


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
