"""One builder at a time, and a store that appears in one step.

Everything that a build needs beside a store lies in the folder `.grandbatch` next to it: the locks
and the cache of bars, which stay, and one work folder for each store that is being built, which
goes. In it lie the staging folders, and the journal and the old store of a replacement; it is no
other builder's business, and as long as it is there a build of this store is unfinished.

Where no store stands, publishing is one rename. Replacing a store takes two, under the lock; the
journal, written before the first, lets the next builder finish what a crash cut off. A reader in
between sees no store, never half of one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grandbatch.errors import StoreBusyError, StoreError
from grandbatch.files.leases import Lease, hold_lease
from grandbatch.files.locations import is_remote, reaching
from grandbatch.files.ordinary import overwrite, read_whole
from grandbatch.files.system import sync_folder
from grandbatch.files.verbs import exists, is_in_objects, objects_of, remove_objects_but
from grandbatch.files.whole import sync_tree, write_whole
from grandbatch.store.format import MANIFEST_NAME
from grandbatch.values.texts import read_json

BESIDE = ".grandbatch"
WORK_MARK = "mark"
"""In the work folder of a store in an object store: put first and removed last."""

_MAX_NOTE_BYTES = 2**16


def beside(store: Path) -> Path:
    """Return the folder next to a store that holds what builds need.

    For a store at a URL of no object store that is the one in the current folder.
    """
    is_elsewhere = is_remote(store) and not is_in_objects(store)
    return Path(BESIDE).absolute() if is_elsewhere else store.parent / BESIDE


def staging_folder(store: Path, fingerprint: str) -> Path:
    """Where a store of this fingerprint is built."""
    return _work_folder(store) / fingerprint[:16]


@contextmanager
def builder_lock(
    store: Path, *, wait: bool = True, on_wait: Callable[[str], None] | None = None
) -> Iterator[Lease | None]:
    """Hold a store's lock: it dies with its holder. In an object store it is a lease.

    Raises
    ------
    StoreBusyError
        If another process holds it and `wait` is false; says which.
    """
    from filelock import FileLock, Timeout

    path = beside(store) / "locks" / f"{store.name}.lock"
    if is_remote(path):
        with hold_lease(path, str(store), wait=wait, on_wait=on_wait) as lease:
            yield lease
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    seconds, told = 0, ""
    while True:
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            who = _holder(path)
            if not wait:
                raise StoreBusyError(f"{store} is being built by {who}; wait for it") from None
            seconds = 1
            if on_wait and who != told:
                told = who
                on_wait(f"waiting for {who}, which builds {store}")
    try:
        since = time.strftime("%H:%M:%S")
        # the second line is of this build alone: workers tell by it whether they see this very file
        overwrite(path, f"process {os.getpid()} since {since}\n{secrets.token_hex(8)}\n".encode())
        yield None
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Say who holds a lock, as its file has it."""
    try:
        lines = read_whole(path, _MAX_NOTE_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return lines[0] if lines and lines[0].strip() else "an unknown process"


def publish(staged: Path, store: Path, *, durable: bool) -> None:
    """Make a finished folder the store. The caller holds the lock."""
    if durable:
        sync_tree(staged)
    if not store.exists():
        staged.rename(store)
        if durable:
            sync_folder(store.parent)
    else:
        journal = json.dumps({"staged": str(staged.relative_to(store.parent))}).encode()
        write_whole(_journal(store), journal, durable=durable)
        if durable:
            sync_folder(_work_folder(store))
            sync_folder(beside(store))
        finish_replacement(store, durable=durable)


def finish_replacement(store: Path, *, durable: bool = True) -> None:
    """Carry out the replacement that the journal tells of, from wherever a crash cut it off."""
    journal, retired = _journal(store), _retired(store)
    if is_remote(store) or not journal.exists():
        return
    try:
        staged = store.parent / read_json(read_whole(journal, _MAX_NOTE_BYTES))["staged"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{journal} is damaged ({error}): it says which folder was to replace {store}; remove "
            "it and run again"
        ) from None
    if (staged / MANIFEST_NAME).exists():
        if store.exists():
            # a crash between the two renames leaves no store; one before them, the old store
            shutil.rmtree(retired, ignore_errors=True)
            store.rename(retired)
        staged.rename(store)
        if durable:
            sync_folder(store.parent)
    journal.unlink()


def has_leftovers(store: Path) -> bool:
    """Whether a build of this store was cut off, and left something behind."""
    with reaching(store):
        if is_in_objects(store):
            return exists(_work_folder(store) / WORK_MARK)
        return _work_folder(store).exists()


def clean_staging(store: Path, *, keep: Path | None = None) -> None:
    """Remove what builds of this store left, but for the folder to go on with.

    The caller holds the lock, and has finished what the journal tells of.
    """
    work = _work_folder(store)
    if is_in_objects(store):
        remove_objects_but(work, f"{keep.name}/" if keep else None, last=WORK_MARK)
        return
    if not work.exists():
        return
    for left in work.iterdir():
        if left.is_dir() and left != keep:
            shutil.rmtree(left)
        elif left != keep:
            left.unlink()
    if not any(work.iterdir()):
        work.rmdir()


def begin_at_url(store: Path) -> None:
    """Mark a place in an object store as being written: what has no manifest there is ours.

    From here on there is no store, old or new. The caller holds the lock.
    """
    objects_of(_work_folder(store)).write(WORK_MARK, b"grandbatch builds here\n")
    objects_of(store).delete([MANIFEST_NAME])


def _work_folder(store: Path) -> Path:
    return beside(store) / f"{store.name}.building"


def _journal(store: Path) -> Path:
    return _work_folder(store) / "journal"


def _retired(store: Path) -> Path:
    return _work_folder(store) / "retired"
