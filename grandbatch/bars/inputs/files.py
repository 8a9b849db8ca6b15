"""Which files are meant, and what is in them: paths, content digests, and what is known of both.

A digest is sha256 over the sha256 of each 4 MiB of the file, so that its leaves can be taken in any
order, in parallel, while the file is parsed. What was once digested is remembered beside the cache
by path, size and modification time.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from grandbatch.bars.inputs.hive import hive_columns, hive_folders, is_hive_folder
from grandbatch.bars.inputs.opening import expand_url, is_url, local_path, look_at_url, open_raw
from grandbatch.bars.inputs.packing import PACKINGS, SUFFIXES, has_known_form, members_of, stem_of
from grandbatch.bars.rules import BarRules
from grandbatch.errors import InputError
from grandbatch.files import digested
from grandbatch.files.locations import location_of, read_location

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

LEAF_BYTES = 4 * 1024 * 1024

_MAX_RECORD_BYTES = 2**16

_PACKED = 8  # about as much text as bytes

log = logging.getLogger("grandbatch")


@dataclass(frozen=True)
class InputFile:
    """One file of bars, as it was when it was looked at."""

    location: str
    """Absolute path, or fsspec URL."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last changed; of a remote file a number that stands for its version."""
    member: str = ""
    """Which of the files in a .zip it is."""

    @property
    def path(self) -> Path:
        """The location of a local file."""
        return Path(self.location)

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched by its URL."""
        return is_url(self.location)

    @property
    def path_columns(self) -> Mapping[str, str]:
        """Columns that hive folders right above it stand for: ``symbol=NQ/part-0.parquet``."""
        return hive_columns(self.location)

    @property
    def base(self) -> str:
        """Base name, of a file within a .zip its own."""
        return Path(self.member or self.location).name

    @property
    def name(self) -> str:
        """What tells files apart: base name with hive folders above it, and the place in a .zip."""
        inside = [self.member] if self.member else []
        return "/".join([*hive_folders(self.location), self.path.name, *inside])

    @property
    def full_name(self) -> str:
        """What errors call it: its location, and the place in a .zip."""
        return f"{self.location}/{self.member}" if self.member else self.location

    @property
    def stem(self) -> str:
        """Base name without the suffixes that say how the file is written."""
        return stem_of(self.base)

    @property
    def kind(self) -> str:
        """How it is written: "csv", "parquet", or how text is packed."""
        suffix = self.path.suffix.lower()
        if suffix in PACKINGS:
            return PACKINGS[suffix]
        return "parquet" if suffix in (".parquet", ".pq") else "csv"

    @property
    def text_bytes(self) -> int:
        """Bytes of its text, about."""
        return self.size * (_PACKED if self.kind in PACKINGS.values() else 1)

    def symbol_by(self, rules: BarRules) -> str | None:
        """Return the symbol that a pattern of the rules finds in its name, or else in its path.

        Raises
        ------
        InputError
            If it finds nothing.
        """
        return rules.symbol_of(self.base, self.full_name, self.location)

    def is_unchanged(self) -> bool:
        """Whether size and modification time are still those that were seen."""
        try:
            return _look_at(self.location) == (self.size, self.mtime_ns)
        except InputError:
            return False


def resolve_inputs(inputs: Inputs, *, tell: bool = False) -> tuple[InputFile, ...]:
    """Find the files that paths, patterns and folders stand for.

    Order is that given; what a pattern or a folder stands for comes sorted by path, the texts in a
    .zip by name. A file that is named twice is read once, at its first place. Folders in a folder
    are looked into where they are hive folders (``symbol=NQ``).

    Parameters
    ----------
    inputs : path, or sequence of paths
    tell : bool
        Whether to name in the log what lies in a folder or a .zip and isn't read.

    Raises
    ------
    InputError
        If a path or URL is wrong, a file is empty or can't be reached, or nothing is named.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    locations: dict[str, None] = {}
    for entry in (local_path(os.fspath(entry)) for entry in given):
        found, left = _expand(entry)
        if left and tell:
            log.warning("%s: not read, of no known form or in folders: %s", entry, _listed(left))
        for location in found:
            # as named, with links
            locations[location if is_url(location) else os.path.abspath(location)] = None  # noqa: PTH100
    if not locations:
        raise InputError("no input given; name at least one file of bars")
    return tuple(file for location in locations for file in _files_at(location, tell=tell))


def _files_at(location: str, *, tell: bool) -> Iterator[InputFile]:
    """Describe a file, or those that a .zip holds."""
    size, mtime_ns = _look_at(location)
    file = InputFile(location, size, mtime_ns)
    if file.kind != "zip":
        yield file
        return
    members, left = members_of(location)
    if left and tell:
        log.warning("%s: not read, of no known form: %s", location, _listed(left))
    for member in members:
        yield replace(file, member=member)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _expand(entry: str) -> tuple[Sequence[str], Sequence[str]]:
    """Files that an entry stands for, and those that lie beside them in its folder."""
    if is_url(entry):
        names, is_folder = expand_url(entry)
    elif Path(entry).is_dir():
        names, is_folder = sorted(_walk(Path(entry)), key=Path), True
    elif not Path(entry).exists() and glob.has_magic(entry):
        matches = glob.glob(entry, recursive=True)  # noqa: PTH207 (absolute patterns)
        names, is_folder = sorted(filter(os.path.isfile, matches), key=Path), False
    else:
        return [entry], ()
    if not is_folder:
        if not names:
            raise InputError(f"{entry}: no file matches the pattern")
        return names, ()
    found = [name for name in names if has_known_form(Path(name).name)]
    passed = [] if is_url(entry) else _passed_folders(Path(entry))
    if not found:
        instead = f"; name folders in it that hold some: {_listed(passed)}" if passed else ""
        raise InputError(
            f"{entry}: the folder has no file that ends in {', '.join(SUFFIXES)}{instead}"
        )
    others = sorted({Path(name).name for name in names} - {Path(name).name for name in found})
    others += passed
    return found, [name for name in others if not name.startswith((".", "_"))]


def _passed_folders(folder: Path) -> list[str]:
    """Folders in a folder with files that would be read, were they named."""
    folders = (child for child in folder.iterdir() if child.is_dir())
    return sorted(
        f"{child.name}/"
        for child in folders
        if not is_hive_folder(child.name) and _holds_known_form(child)
    )


def _holds_known_form(folder: Path) -> bool:
    with suppress(OSError):  # it may not be ours to look into
        return any(child.is_file() and has_known_form(child.name) for child in folder.iterdir())
    return False


def _walk(folder: Path) -> Iterator[str]:
    """Files of a folder, and of hive folders in it."""
    for child in folder.iterdir():
        if child.is_file():
            yield str(child)
        elif is_hive_folder(child.name) and child.is_dir():
            yield from _walk(child)


def standing_of_folder(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time (ns) of the files of a folder that would be read, by path.

    Sorted as `resolve_inputs` sorts them. A file that goes while it is looked at isn't among them;
    one without a byte is.

    Raises
    ------
    OSError
        If the folder can't be read.
    """
    found = {}
    names = (name for name in _walk(folder) if has_known_form(Path(name).name))
    for name in sorted(names, key=Path):
        with suppress(FileNotFoundError):
            status = Path(name).stat()
            found[name] = status.st_size, status.st_mtime_ns
    return found


def _look_at(location: str) -> tuple[int, int]:
    size, mtime_ns = look_at_url(location) if is_url(location) else _look_at_path(Path(location))
    if size == 0:
        raise InputError(f"{location}: the file is empty; it needs a header and bars")
    return size, mtime_ns


def _look_at_path(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a file; name a file, a folder of files or a pattern")
    return status.st_size, status.st_mtime_ns


def hash_leaves(location: str, start: int, stop: int) -> list[bytes]:
    """Digest each leaf of the bytes from `start`, a leaf's border, up to `stop`."""
    digests = []
    with open_raw(location, min(LEAF_BYTES, stop - start)) as file:
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
    """Put a digest on record, unless the file has changed since it was looked at.

    The record only saves reading the file again: where it can't be written, there is none.
    """
    if not file.is_unchanged():
        return
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
        remember_digest(file, digest, cache_dir)
    return digest


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
    folder, rules = location_of(cache_dir), rules or BarRules()
    return [
        describe_source(file, digest_of(file, folder), rules) for file in resolve_inputs(inputs)
    ]
