"""Which files are meant: by paths, URLs, patterns and folders, and how they stand."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from grandbatch.bars.inputs.hive import hive_columns, hive_folders, is_hive_folder
from grandbatch.bars.inputs.opening import FileStamp, expand_url, is_url, local_path, look_at_url
from grandbatch.bars.inputs.packing import PACKINGS, SUFFIXES, has_known_form, members_of, stem_of
from grandbatch.bars.rules import BarRules
from grandbatch.errors import InputError
from grandbatch.files.verbs import each

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

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

    @cached_property
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
        return _base_of(self.member or self.location)

    @cached_property
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
        suffix = os.path.splitext(self.location)[1].lower()  # noqa: PTH122 (as in `_base_of`)
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
    locations: dict[str, FileStamp | None] = {}
    for entry in (local_path(os.fspath(entry)) for entry in given):
        found, left = _expand(entry)
        if left and tell:
            log.warning("%s: not read, of no known form or in folders: %s", entry, _listed(left))
        for location, look in found.items():
            # as named, with links
            locations[location if is_url(location) else os.path.abspath(location)] = look  # noqa: PTH100
    if not locations:
        raise InputError("no input given; name at least one file of bars")
    unseen = [location for location, look in locations.items() if look is None]
    seen = dict(zip(unseen, each(_look_at, unseen, far=any(map(is_url, unseen))), strict=True))
    return tuple(
        file
        for location, look in locations.items()
        for file in _files_at(location, look or seen[location], tell=tell)
    )


def refuse_changed(files: Sequence[InputFile]) -> None:
    """Look at files again.

    Raises
    ------
    InputError
        If one is no longer as it was.
    """
    same = each(InputFile.is_unchanged, files, far=any(file.is_remote for file in files))
    for file, is_same in zip(files, same, strict=True):
        if not is_same:
            raise InputError(f"{file.location}: the file changed while it was read; run again")


def _files_at(location: str, stamp: FileStamp, *, tell: bool) -> Iterator[InputFile]:
    """Describe a file, or those that a .zip holds."""
    size, mtime_ns = stamp
    if size == 0:
        raise InputError(f"{location}: the file is empty; it needs a header and bars")
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


def _expand(entry: str) -> tuple[Mapping[str, FileStamp | None], Sequence[str]]:
    """Files that an entry stands for, and those that lie beside them in its folder.

    Of each how it stands, where that is known without a look at it.
    """
    names: Mapping[str, FileStamp | None]
    if is_url(entry):
        names, is_folder = expand_url(entry)
    elif Path(entry).is_dir():
        names, is_folder = dict.fromkeys(sorted(_walk(Path(entry)), key=Path)), True
    elif not Path(entry).exists() and glob.has_magic(entry):
        matches = glob.glob(entry, recursive=True)  # noqa: PTH207 (absolute patterns)
        names = dict.fromkeys(sorted(filter(os.path.isfile, matches), key=Path))
        is_folder = False
    else:
        return {entry: None}, ()
    if not is_folder:
        if not names:
            raise InputError(f"{entry}: no file matches the pattern")
        return names, ()
    bases = {name: _base_of(name) for name in names}
    found = {name: look for name, look in names.items() if has_known_form(bases[name])}
    passed = [] if is_url(entry) else _passed_folders(Path(entry))
    if not found:
        instead = f"; name folders in it that hold some: {_listed(passed)}" if passed else ""
        raise InputError(
            f"{entry}: the folder has no file that ends in {', '.join(SUFFIXES)}{instead}"
        )
    others = sorted(set(bases.values()) - {bases[name] for name in found})
    others += passed
    return found, [name for name in others if not name.startswith((".", "_"))]


def _passed_folders(folder: Path) -> list[str]:
    """Folders in a folder with files that would be read, were they named."""
    with os.scandir(folder) as children:
        names = [child.name for child in children if _is_folder(child)]
    return sorted(
        f"{name}/"
        for name in names
        if not is_hive_folder(name) and _holds_known_form(folder / name)
    )


def _holds_known_form(folder: Path) -> bool:
    with suppress(OSError):  # it may not be ours to look into
        return any(child.is_file() and has_known_form(child.name) for child in folder.iterdir())
    return False


def _walk(folder: Path) -> Iterator[str]:
    """Files of a folder, and of hive folders in it."""
    with os.scandir(folder) as children:
        for child in children:
            # a link may lead nowhere, or in a circle: that is none
            if os.path.isfile(child.path) if child.is_symlink() else child.is_file():  # noqa: PTH113
                yield child.path
            elif is_hive_folder(child.name) and _is_folder(child):
                yield from _walk(Path(child.path))


def _is_folder(child: os.DirEntry[str]) -> bool:
    return os.path.isdir(child.path) if child.is_symlink() else child.is_dir()  # noqa: PTH112


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
    names = (name for name in _walk(folder) if has_known_form(_base_of(name)))
    for name in sorted(names, key=Path):
        with suppress(FileNotFoundError):
            status = os.stat(name)  # noqa: PTH116 (as in `_base_of`)
            found[name] = status.st_size, status.st_mtime_ns
    return found


def _look_at(location: str) -> FileStamp:
    return look_at_url(location) if is_url(location) else _look_at_path(location)


def _base_of(location: str) -> str:
    # of thousands of files a `Path` each would take longer than all else
    return os.path.basename(location)  # noqa: PTH119


def _look_at_path(path: str) -> FileStamp:
    try:
        status = os.stat(path)  # noqa: PTH116 (as in `_base_of`)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a file; name a file, a folder of files or a pattern")
    return status.st_size, status.st_mtime_ns
