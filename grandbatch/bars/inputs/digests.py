"""What is in input files: content digests, and the record of them.

A digest is sha256 over the sha256 of each 4 MiB of the file, so that its leaves can be taken in any
order, in parallel, while the file is parsed. What was once digested is remembered beside the cache
by path, size and modification time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from grandbatch.bars.inputs.files import InputFile, Inputs, resolve_inputs
from grandbatch.bars.inputs.opening import open_raw
from grandbatch.bars.rules import BarRules
from grandbatch.files import digested
from grandbatch.files.locations import is_remote, location_of, read_location
from grandbatch.files.verbs import each

LEAF_BYTES = 4 * 1024 * 1024

_MAX_RECORD_BYTES = 2**16


def hash_leaves(location: str, start: int, stop: int) -> list[bytes]:
    """Digest each leaf of the bytes from `start`, a leaf's border, up to `stop`."""
    digests = []
    with open_raw(location, min(LEAF_BYTES, stop - start), stop) as file:
        file.seek(start)
        for at in range(start, stop, LEAF_BYTES):
            leaf = read_exactly(file, min(LEAF_BYTES, stop - at))
            digests.append(hashlib.sha256(leaf).digest())
    return digests


def read_exactly(file: Any, size: int) -> bytes:
    """Read `size` bytes of a raw file, fewer only at its end."""
    data: bytes = file.read(size)
    while 0 < len(data) < size:  # a raw read may stop early
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def join_leaves(leaves: Iterable[bytes]) -> str:
    """Digest a file from its leaves' digests, in hexadecimal."""
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def known_digests(files: Sequence[InputFile], cache_dir: Path) -> list[str | None]:
    """Return the digests on record for files, None for those that have none."""
    return each(partial(known_digest, cache_dir=cache_dir), files, far=is_remote(cache_dir))


def known_digest(file: InputFile, cache_dir: Path) -> str | None:
    """Return the digest on record for a file of this path, size and modification time."""
    try:
        return _digest_on_record(file, cache_dir)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=16_384)
def _digest_on_record(file: InputFile, cache_dir: Path) -> str:
    """Read the digest of a file, once in each process; errors are not remembered."""
    record = digested.load(read_location(_record_path(file, cache_dir), _MAX_RECORD_BYTES))
    if (record["path"], record["size"], record["mtime_ns"]) != (
        file.location,
        file.size,
        file.mtime_ns,
    ):
        raise ValueError("it is that of another state of the file")
    return str(record["digest"])


def remember_digest(file: InputFile, digest: str, cache_dir: Path) -> None:
    """Put the digest of a file on record, which has not changed since it was looked at.

    The record only saves reading the file again: where it can't be written, there is none.
    """
    path = _record_path(file, cache_dir)
    record = {
        "path": file.location,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "digest": digest,
    }
    digested.note(path, record)


def _record_path(file: InputFile, cache_dir: Path) -> Path:
    key = hashlib.sha256(os.fsencode(file.location)).hexdigest()[:32]
    return cache_dir / "inputs" / f"{key}.json"


def digest_of(file: InputFile, cache_dir: Path) -> str:
    """Return a file's digest: from the record, or by reading it, which is then recorded."""
    digest = known_digest(file, cache_dir)
    if digest is None:
        digest = join_leaves(hash_leaves(file.location, 0, file.size))
        if file.is_unchanged():
            remember_digest(file, digest, cache_dir)
    return digest


def digests_of(files: Sequence[InputFile], cache_dir: Path) -> list[str]:
    """Return files' digests: from the record, or by reading, one after the other."""
    known = known_digests(files, cache_dir)
    return [digest or digest_of(file, cache_dir) for file, digest in zip(files, known, strict=True)]


@lru_cache(maxsize=64)
def prefix_digest(file: InputFile, n_bytes: int) -> str:
    """Return the digest of a file's first bytes: the file's own, were it cut off there.

    Remembered for this process, by path, size and modification time.
    """
    return join_leaves(hash_leaves(file.location, 0, n_bytes))


def describe_source(file: InputFile, digest: str, rules: BarRules) -> dict[str, Any]:
    """Describe an input as a fingerprint does: what its bars depend on.

    ``{"name": name, "bytes": size, "digest": sha256 in hexadecimal}``, and its ``symbol`` where a
    pattern finds it in the path.
    """
    entry = {"name": file.name, "bytes": file.size, "digest": digest}
    symbol = file.symbol_by(rules)
    return entry if symbol is None else {**entry, "symbol": symbol}


def input_digests(
    inputs: Inputs, cache_dir: str | os.PathLike[str], rules: BarRules | None = None
) -> list[dict[str, Any]]:
    """Return name, bytes and content digest of each input file.

    Files whose size and modification time are on record are not read.

    Parameters
    ----------
    inputs : path, or sequence of paths
        Files, folders, patterns.
    cache_dir : path
        Where bars caches and the record of digests lie.
    rules : BarRules, optional
        How they are read: `symbol_from` may take symbols from paths.

    Returns
    -------
    list of dict
        As `describe_source` writes them, in input order.

    Raises
    ------
    InputError
        If a path is wrong.
    """
    files, rules = resolve_inputs(inputs), rules or BarRules()
    digests = digests_of(files, location_of(cache_dir))
    return [
        describe_source(file, digest, rules) for file, digest in zip(files, digests, strict=True)
    ]
