"""Stores whose content was changed, with every digest made to fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grandbatch.store import MatrixStore
from grandbatch.store.codecs import encode_chunk, sealed
from grandbatch.store.file_records import digests_of, file_bytes
from grandbatch.store.manifest import Manifest
from grandbatch.values.checksums import crc32c


def edit_attributes(store: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a store's attributes in place."""
    path = store / "zarr.json"
    group = json.loads(path.read_bytes())
    edit(group["attributes"]["grandbatch"])
    path.write_text(json.dumps(group))
    manifest = Manifest.read(store)
    manifest.metadata["zarr.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (store / "manifest.json").write_bytes(manifest.to_bytes())


def edit_manifest(store: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what a manifest says."""
    path = store / "manifest.json"
    value = json.loads(path.read_bytes())
    value.pop("sha256")
    edit(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**value, "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def edit_values(store: Path, name: str, edit: Callable[[np.ndarray], object]) -> None:
    """Change the values of a per-window array."""
    opened = MatrixStore.open(store)
    spec = next(one for one in opened.spec.labels if one.name == name)
    values = np.array(getattr(opened, name)[:])
    edit(values)
    size = spec.chunk_shape[0]
    padded = np.zeros((-(-len(values) // size) * size, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    encoded = [
        b"".join(encode_chunk(padded[at : at + size], spec.codec))
        for at in range(0, len(padded), size)
    ]
    for number, chunk in enumerate(encoded):
        (store / spec.file(number)).write_bytes(chunk)
    step = opened.chunk_windows
    parts = [crc32c(values[at : at + step].tobytes()) for at in range(0, len(values), step)]
    _describe(store, name, encoded, part_crc32c=np.array(parts, np.uint32))


def edit_payloads(store: Path, edit: Callable[[bytes], bytes]) -> None:
    """Change the encoded chunks of the matrices, all in one file, without their crc32c."""
    opened = MatrixStore.open(store)
    spec, digests = opened.spec.data, Manifest.read(store).arrays[opened.spec.data.name]
    path = store / spec.file(0)
    data, at, chunks = path.read_bytes(), 0, []
    for length in digests.length.tolist():
        chunks.append(b"".join(sealed(edit(data[at : at + length - 4]))))
        at += length
    path.write_bytes(file_bytes(spec, chunks))
    _describe(store, spec.name, chunks)


def _describe(store: Path, name: str, chunks: list[bytes], **more: Any) -> None:
    manifest = Manifest.read(store)
    manifest.arrays[name] = replace(manifest.arrays[name], **digests_of(chunks), **more)
    (store / "manifest.json").write_bytes(manifest.to_bytes())
