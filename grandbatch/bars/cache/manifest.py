"""What a cache of bars says of itself: its inputs, its rules, and what its files must be."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from grandbatch.bars.cache.digests import PartDigests, damaged
from grandbatch.bars.rules import BarRules
from grandbatch.files import digested
from grandbatch.files.locations import is_remote, read_location
from grandbatch.files.ordinary import NO_ORDINARY_FILE
from grandbatch.files.system import sync_folder
from grandbatch.files.verbs import names_in, sizes_below
from grandbatch.files.whole import Syncer, remove_temporaries, write_whole

FORMAT = 5
MANIFEST = "bars.json"
QUARANTINE = "quarantine.parquet"

_MAX_BYTES = 2**28
_REMEMBERED_BYTES = 2**21
"""The last manifests that have no more together are parsed once, however often they are read."""

_FINGERPRINT = re.compile("[0-9a-f]{64}")
_OF_PART = "symbol", "first_time", "last_time"
_OF_DIGESTS = "rows", "offset", "bytes", "values", "others"
_HEADERS = "header", "last_header"

_IDENTITY_FORMAT = 2
"""Of bars themselves: the same bars have one fingerprint, however a cache is written."""


def bars_fingerprint(source: Sequence[Mapping[str, Any]], rules: BarRules) -> str:
    """Digest everything that determines the bars: contents and names of inputs, and the rules.

    Parameters
    ----------
    source : sequence of mapping
        Name, bytes and digest of each input, in input order.
    rules : BarRules

    Returns
    -------
    str
        sha256 in hexadecimal of canonical JSON.
    """
    identity = {"format": _IDENTITY_FORMAT, "source": list(source), "rules": rules.identity()}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


PartPlace = tuple[str, int]


@dataclass(frozen=True)
class Part:
    """Some consecutive bars of one symbol: row groups of a Parquet file of a cache."""

    symbol: int
    """Index of its symbol."""
    path: str
    """Of the file, relative to the cache; other parts may lie in it, too."""
    first_time: int
    """Of its first bar, in nanoseconds since 1970."""
    last_time: int
    digests: PartDigests

    @property
    def rows(self) -> int:
        """Bars."""
        return self.digests.rows

    @property
    def place(self) -> PartPlace:
        """Its file, and where in it the part begins: no other part has both."""
        return self.path, self.digests.offset


def pack_parts(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what a manifest says of parts, and of the bytes of their files, as JSON types.

    There may be thousands of parts: a list for each fact is read faster than an object for each.
    Extra columns, which all share, are left out.
    """
    files: dict[str, int] = {}
    for part in parts:
        files[part.path] = files.get(part.path, 0) + part.digests.bytes
    number = {path: n for n, path in enumerate(files)}
    digests = [part.digests for part in parts]
    facts = {
        "file": [number[part.path] for part in parts],
        **{name: [getattr(part, name) for part in parts] for name in _OF_PART},
        **{name: [getattr(of, name) for of in digests] for name in _OF_DIGESTS},
        **{name: [of.headers[n] for of in digests] for n, name in enumerate(_HEADERS)},
    }
    return {"files": files, "parts": facts}


def _unpacked(
    value: Mapping[str, Any], files: Sequence[str], extra: tuple[str, ...]
) -> tuple[Part, ...]:
    """Read what `pack_parts` gives, of parts with some extra columns."""
    of_parts = zip(*(value[name] for name in ("file", *_OF_PART)), strict=True)
    headers = zip(*(value[name] for name in _HEADERS), strict=True)
    digests = map(
        partial(PartDigests, extra=extra),
        *(value[name] for name in ("rows", "offset", "bytes")),
        headers,
        *(value[name] for name in ("values", "others")),
    )
    return tuple(
        Part(symbol, files[file], first_time, last_time, of)
        for (file, symbol, first_time, last_time), of in zip(of_parts, digests, strict=True)
    )


def write_manifest(folder: Path, manifest: Mapping[str, Any], syncer: Syncer) -> None:
    """Write the manifest of a cache where it is built, and see that all of it is on the disk.

    In an object store it says where that is.
    """
    path = folder / MANIFEST
    if is_remote(folder):
        write_whole(path, digested.dump({**manifest, "folder": folder.name}))
        return
    path.write_bytes(digested.dump(manifest))
    syncer.add(path)
    syncer.wait()
    remove_temporaries(folder)  # of tasks that a cluster ran twice
    sync_folder(folder)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a cache, its parts as such, and see that its files are there.

    Raises
    ------
    FileNotFoundError
        If there is no cache, or one of another format.
    DamagedBarsError
        If it is not what was written.
    """
    try:
        raw = read_location(path / MANIFEST, _MAX_BYTES)
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        if error.errno not in NO_ORDINARY_FILE or is_remote(path):
            raise
        raise damaged(path, f"{MANIFEST}: {error.strerror}") from None
    return parse_manifest(raw, path)


def parse_manifest(raw: bytes, path: Path) -> dict[str, Any]:
    """Parse the manifest of the cache that is, or is to be, at a path, as `read_manifest` does.

    Raises
    ------
    FileNotFoundError, DamagedBarsError
        As `read_manifest`.
    """
    try:
        manifest = _of(raw)
        if manifest["format"] != FORMAT:
            raise FileNotFoundError(f"{path}: of format {manifest['format']}")
        if manifest["fingerprint"] != path.name:
            raise ValueError("it is that of other bars")
        files = {QUARANTINE: manifest["quarantine"]["bytes"], **manifest["files"]}
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(path, f"{MANIFEST}: {error}") from None
    find = _sizes(files_folder(path, manifest))
    for name, size in files.items():
        try:
            found = find(name)
        except (FileNotFoundError, NotADirectoryError, KeyError):
            raise damaged(path, f"{name} is missing") from None
        if found != size:
            raise damaged(path, f"{name} has {found:,} bytes, not {size:,}")
    return manifest


def _of(raw: bytes) -> dict[str, Any]:
    """Read a manifest, its parts as such; not to be changed: it may be that of others, too.

    Raises
    ------
    ValueError, LookupError, TypeError
        If it is none, or not what was written.
    """
    with _remembering:
        manifest = _remembered.pop(raw, None)
    if manifest is None:
        manifest = _parsed(raw)
    with _remembering:
        _remembered[raw] = manifest
        while sum(map(len, _remembered)) > _REMEMBERED_BYTES:
            _remembered.pop(next(iter(_remembered)))
    return manifest


_remembered: dict[bytes, dict[str, Any]] = {}
"""Manifests by their bytes, the last that was asked for at the end."""
_remembering = Lock()


def _parsed(raw: bytes) -> dict[str, Any]:
    manifest = digested.parse(raw)
    if manifest["format"] == FORMAT:  # those of others may be digested otherwise
        digested.check(manifest)
        manifest["parts"] = _unpacked(
            manifest["parts"], list(manifest["files"]), tuple(manifest.get("extra", ()))
        )
    return manifest


def files_folder(path: Path, manifest: Mapping[str, Any]) -> Path:
    """Return where the files of a cache lie: in it, or, in an object store, where they were made.

    There nothing is renamed: the manifest is put last, and says where the files are.
    """
    made = manifest.get("folder")
    return path if made is None else path.parent / made


def _sizes(folder: Path) -> Callable[[str], int]:
    """Return what tells the bytes of a file of a cache: one listing, where each is a request."""
    if is_remote(folder):
        return sizes_below(folder).__getitem__
    return lambda name: os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118


def cache_folders(cache_dir: Path) -> list[Path]:
    """List the folders that may be caches, by name; none where there is no such folder."""
    if is_remote(cache_dir):
        names = (name.rstrip("/") for name in names_in(cache_dir) if name.endswith("/"))
        return [cache_dir / name for name in names if _FINGERPRINT.fullmatch(name)]
    return [manifest.parent for manifest in sorted(cache_dir.glob(f"*/{MANIFEST}"))]


def cached_sources(cache_dir: Path) -> set[tuple[str, int]]:
    """Name and bytes of every input of every cache in a folder."""
    found: set[tuple[str, int]] = set()
    for cache in cache_folders(cache_dir):
        try:
            source = _of(read_location(cache / MANIFEST, _MAX_BYTES))["source"]
            found.update((str(entry["name"]), int(entry["bytes"])) for entry in source)
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
