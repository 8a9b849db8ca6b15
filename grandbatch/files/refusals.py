"""Where nothing is written: at URLs, in what others planted, inside stores, on unfit servers."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from grandbatch.errors import StoreError, UsageError
from grandbatch.files.locations import URL, is_remote
from grandbatch.files.objects import ObjectChangedError, Objects, WireError
from grandbatch.files.system import user_id

_OF_A_STORE = ("manifest.json", "zarr.json")


def refuse_url(
    place: str | os.PathLike[str] | None, what: str, but: Callable[[str], bool] | None = None
) -> None:
    """Refuse a URL where only a local path is taken: it would become a folder of that name here.

    Where some are taken, `but` tells which.

    Raises
    ------
    UsageError
        Naming it.
    """
    if not URL.match(str(place)) or (but and but(str(place))):
        return
    if but:
        raise UsageError(
            f"{what} can't be at a URL of that kind, got {place}; give a path on a disk, or the "
            "URL of an object store: s3://, gs:// or az://"
        )
    raise UsageError(
        f"{what} can't be at a URL, got {place}; give a folder on a disk (on a cluster, one "
        "that all workers share)"
    )


def refuse_planted(folder: Path) -> None:
    """Refuse a folder of this library that others may have prepared, with what lies in it.

    Raises
    ------
    StoreError
        If it, or a folder or link in it, belongs to someone else who lets everybody write there.
    """
    if is_remote(folder):
        return
    for place in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        try:
            status = place.lstat()
        except OSError:
            continue
        is_link = stat.S_ISLNK(status.st_mode)
        if not (is_link or stat.S_ISDIR(status.st_mode)) or _is_trusted(status.st_uid):
            continue
        if is_link or status.st_mode & stat.S_IWOTH:
            raise StoreError(
                f"{place} belongs to user {status.st_uid}, not to {user_id()}, and everybody "
                "may write to it or it is a link: what is in it may be anybody's. Remove it, or "
                "choose another folder"
            )


def _is_trusted(user: int) -> bool:
    return user_id() in (user, None) or user == 0


def refuse_inside_store(path: Path, what: str) -> None:
    """Refuse a place inside a store: what is there goes when the store grows or is built anew.

    Raises
    ------
    UsageError
        Naming the store; also where only a link leads there, or lies there.
    """
    for place in (Path(os.path.normpath(path.absolute())), path.resolve()):
        for folder in (place, *place.parents):
            if all((folder / name).is_file() for name in _OF_A_STORE):
                raise UsageError(
                    f"{what} can't be at {path}: that is inside the store {folder}, which is "
                    "replaced with all that is in it when it grows; choose a place beside it"
                )


def check_conditions(objects: Objects) -> None:
    """Try on an object of its own what builds rely on, and take it away again.

    Raises
    ------
    StoreError
        Naming what the server doesn't do.
    """
    name = f".grandbatch-check-{secrets.token_hex(8)}"
    try:
        lacks = [what for what, works in _checks(objects, name).items() if not works]
    finally:
        objects.delete([name])
    if lacks:
        raise StoreError(
            f"{objects.url}: the server there doesn't {', nor does it '.join(lacks)}; "
            "builders rely on that to keep out of each other's way: take another server, or "
            "build in a local folder and copy it there"
        )


def _checks(objects: Objects, name: str) -> dict[str, bool]:
    """Try each of the conditions, in an order in which each leaves what the next needs."""

    def refused(kind: type[OSError], verb: Callable[[], object]) -> bool:
        try:
            verb()
        except kind:
            return True
        except OSError as error:
            if isinstance(error, WireError | PermissionError):
                raise
        return False

    def works(verb: Callable[[], object]) -> bool:
        return not refused(OSError, verb)

    first = objects.create(name, b"first")
    wrong = f'"{"0" * 32}"'
    return {
        "refuse to create what is there (PUT with If-None-Match)": refused(
            FileExistsError, lambda: objects.create(name, b"second")
        ),
        "refuse to replace another version (PUT with If-Match)": refused(
            ObjectChangedError, lambda: objects.replace(name, b"third", wrong)
        ),
        "replace a version that is named": works(lambda: objects.replace(name, b"fourth", first)),
        "list what was just written": name in {one.name for one in objects.list()},
        "give what was just written": objects.read(name) == b"fourth",
        "give ranges of bytes": objects.read_range(name, 1, 3).tobytes() == b"ou",
    }
