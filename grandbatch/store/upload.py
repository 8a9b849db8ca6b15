"""Put a finished store where a URL says.

A remote place has no rename, so the manifest makes the store: what has none is no store. A mark
beside the files is put first, only if there is none yet, and removed last: it is the lock, and it
tells files of an upload that was cut off from somebody else's.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from grandbatch.errors import StoreBusyError, StoreError
from grandbatch.files.locations import as_os_errors, told
from grandbatch.files.system import is_alive
from grandbatch.store.format import MANIFEST_NAME
from grandbatch.values.texts import read_json

LOCK_MARK = "uploading.json"
_FILES_AT_ONCE = 64

StageProgress = Callable[[str, int, int], None]
"""Told of (stage, done, total): bytes for "bars", chunks for "chunks", files for "upload"."""


def has_mark(place: Path) -> bool:
    """Whether an upload to a place is going on, or was cut off."""
    return (place / LOCK_MARK).exists()


def upload_store(local: Path, place: Any, progress: StageProgress | None = None) -> None:
    """Copy a finished store to a remote place, in place of any store there.

    Parameters
    ----------
    local : Path
        The finished store.
    place : Path
        Where to; behaves like a path.
    progress : callable, optional
        Called with ("upload", files done, files in all).

    Raises
    ------
    StoreBusyError
        If another process uploads there.
    StoreError
        If the place can't be written; the same call starts the upload again.
    """
    try:
        with as_os_errors():
            _take_mark(place)
            _replace(local, place, progress)
            place.fs.rm_file((place / LOCK_MARK).path)
    except OSError as error:
        raise StoreError(
            f"{place} can't be written ({told(error)}); run again: the store is finished at "
            f"{local}, and only its upload starts anew"
        ) from error


def _replace(local: Path, place: Any, progress: StageProgress | None) -> None:
    files = place.fs
    root = place.path.rstrip("/")
    names = sorted(
        path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()
    )
    names.remove(MANIFEST_NAME)
    files.invalidate_cache()
    there = {
        str(name).removeprefix(root.lstrip("/")).lstrip("/"): name for name in _listed(files, root)
    }
    # first the manifest: from here on there is no store, old or new
    for name in (MANIFEST_NAME, *sorted(set(there) - {*names, MANIFEST_NAME, LOCK_MARK})):
        if name in there:
            files.rm_file(there[name])
    for at in range(0, len(names), _FILES_AT_ONCE):
        some = names[at : at + _FILES_AT_ONCE]
        files.put([str(local / name) for name in some], [f"{root}/{name}" for name in some])
        if progress is not None:
            progress("upload", at + len(some), len(names) + 1)
    files.put_file(str(local / MANIFEST_NAME), f"{root}/{MANIFEST_NAME}")
    files.invalidate_cache()
    if progress is not None:
        progress("upload", len(names) + 1, len(names) + 1)


def _listed(files: Any, root: str) -> list[str]:
    """Names of all files below a place, as its file system writes them."""
    try:
        return [str(name).lstrip("/") for name in files.find(root)]
    except FileNotFoundError:
        return []


def _take_mark(place: Any) -> None:
    """Put the mark if there is none, or if its process was one of this machine and is gone."""
    mark = place / LOCK_MARK
    mine = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")}
    data = json.dumps(mine).encode()
    with suppress(FileExistsError):
        place.fs.pipe_file(mark.path, data, mode="create")
        return
    place.fs.invalidate_cache()
    try:
        theirs = read_json(mark.read_bytes())
        whose = f"process {theirs['process']} on {theirs['host']} since {theirs['since']}"
        process = int(theirs["process"])
        # one of this very process is an earlier upload, which ended with an error
        is_gone = theirs["host"] == mine["host"] and (
            process == os.getpid() or not is_alive(process)
        )
    except (ValueError, KeyError, TypeError):
        whose, is_gone = "an unknown process", False
    if not is_gone:
        raise StoreBusyError(
            f"{place} is being written by {whose}; wait for it. If that process is gone, remove "
            f"{mark} and run again"
        )
    place.fs.pipe_file(mark.path, data)
