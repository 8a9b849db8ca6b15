"""One builder at a time, and a store that appears in one step.

Everything that a build needs beside a store lies in the folder `.grandbatch` next to it: the locks
and the cache of bars, which stay, and one work folder for each store that is being built, which
goes. In it lie the staging folders, and the journal and the old store of a replacement; it is no
other builder's business, and as long as it is there a build of this store is unfinished.

Where no store stands, publishing is one rename. Replacing a store takes two, under the lock; the
journal, written before the first, lets the next builder finish what a crash cut off. A reader in
between sees no store, never half of one.

In an object store nothing is renamed. Where files of the store that stands there stay, what is new
is written aside, the manifest last: from then on the new store is whole, partly there and partly in
the place of the old one, and whoever builds next carries on. The old manifest goes, the object
store itself copies what is new, the new manifest comes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from grandbatch.errors import StoreBusyError, StoreError
from grandbatch.files.leases import Lease, hold_lease
from grandbatch.files.locations import is_remote, reaching
from grandbatch.files.objects import ListedObject
from grandbatch.files.ordinary import overwrite, read_whole
from grandbatch.files.system import sync_folder
from grandbatch.files.verbs import (
    copy_files,
    exists,
    is_in_objects,
    listed_below,
    names_in,
    not_here,
    objects_of,
    remove,
    remove_objects_but,
    sizes_below,
)
from grandbatch.files.whole import sync_tree, write_whole
from grandbatch.store.format import ARRAY_NAMES, DATA_NAMES, MANIFEST_NAME, StoreSpec
from grandbatch.store.manifest import Manifest
from grandbatch.store.metadata import checked_metadata, read_attributes, spec_of
from grandbatch.values.texts import read_json

BESIDE = ".grandbatch"
WORK_MARK = "mark"
"""In the work folder of a store in an object store: put first and removed last."""

_MAX_NOTE_BYTES = 2**16

_FOLDER_OF_A_STORE = re.compile(
    rf"({'|'.join(ARRAY_NAMES)})(/c)?|({'|'.join(DATA_NAMES)})/c/[0-9]+(/0)?"
)

_log = logging.getLogger("grandbatch")

Listing = Mapping[str, ListedObject]
"""What stands at a URL, by its name from there."""


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


def finish_replacement(store: Path, *, durable: bool = True, lease: Lease | None = None) -> bool:
    """Carry out the replacement that was decided on, from wherever a crash cut it off.

    Returns
    -------
    bool
        Whether a build was cut off, so that another store may stand there now.
    """
    if lease is not None:
        left = has_leftovers(store)
        if left:
            finish_staged(store, _work_folder(store), lease.renew)
        return left
    journal, retired = _journal(store), _retired(store)
    if not journal.exists():
        return False
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
    return True


def finish_staged(store: Path, work: Path, check: Callable[[], None]) -> None:
    """Carry out the replacement that a build decided on below its work folder, if there is one.

    `check` is as in `replace_by_staged`.
    """
    for name in names_in(work):
        staged = work / name.rstrip("/") / "store"
        if name.endswith("/") and exists(staged / MANIFEST_NAME):
            try:
                replace_by_staged(staged, store, check)
            except StoreError as error:
                _log.warning("%s; what replaces it is built again", error)
                remove(staged / MANIFEST_NAME)


def replace_by_staged(staged: Path, store: Path, check: Callable[[], None]) -> Listing:
    """Make what is staged, and all that it leaves in the place of the old store, the store.

    Parameters
    ----------
    staged, store : Path
    check : callable
        Raises where the caller no longer holds the lock.

    Returns
    -------
    dict of str to ListedObject
        What stood in the place when all of the new store did.

    Raises
    ------
    StoreError
        If not all of the new store is there: nothing has changed then.
    """
    place, manifest = objects_of(store), objects_of(staged).read(MANIFEST_NAME)
    if exists(store / MANIFEST_NAME) and place.read(MANIFEST_NAME) == manifest:
        return listed_below(store)
    expected, new = _expected(staged), sizes_below(staged)
    see_all(store, expected, {**sizes_below(store), **new})
    check()
    place.delete([MANIFEST_NAME])
    copy_files((staged / name, store / name) for name in new if name != MANIFEST_NAME)
    there = listed_below(store)
    see_all(store, expected, {name: found.n_bytes for name, found in there.items()})
    check()
    place.create(MANIFEST_NAME, manifest)
    return there


def _expected(staged: Path) -> dict[str, int]:
    """Return the bytes of every file of chunks of a store, by its name."""
    manifest = Manifest.read(staged)
    attributes = read_attributes(staged, checked_metadata(staged, manifest.metadata))
    return {
        array.file(number): array.file_bytes(manifest.arrays[array.name].length, number)
        for array in spec_of(attributes).arrays
        for number in range(array.n_files)
    }


def see_all(store: Path, expected: Mapping[str, int], there: Mapping[str, int]) -> None:
    """See that files are there, with the bytes that they should have.

    Raises
    ------
    StoreError
        Naming the first that isn't.
    """
    for name, n_bytes in expected.items():
        found = there.get(name)
        if found != n_bytes:
            what = "is missing" if found is None else f"has {found:,} bytes instead of {n_bytes:,}"
            raise not_here(store / name, what)


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


def keep_folders(store: Path) -> None:
    """Keep the folders of a store that was replaced just now, without a file in them.

    The store that comes next takes them: to remove hundreds of folders, and to make them, takes
    longer than to link the files in them. The caller holds the lock.
    """
    retired, kept = _retired(store), _kept_folders(store)
    if is_remote(store) or not retired.exists():
        return
    with suppress(OSError):  # what can't be kept goes as all that is left does
        shutil.rmtree(kept, ignore_errors=True)
        below = [""]
        for folder in below:
            with os.scandir(retired / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108 (a path each would take longer)
                    elif _FOLDER_OF_A_STORE.fullmatch(name):
                        below.append(name)
                    else:
                        shutil.rmtree(entry.path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        retired.rename(kept)


def take_folders(store: Path, staged: Path, spec: StoreSpec) -> None:
    """Begin a store with the folders that were kept, if it has no other; else they go.

    Parameters
    ----------
    store, staged : Path
        Where the store is to be, and where it is written first: nothing is there yet.
    spec : StoreSpec
        Of the store: a folder of a file that it has not is not taken.
    """
    kept = _kept_folders(store)
    with suppress(OSError, ValueError):  # there may be what no build left
        numbered = {array.name: range(0) for array in spec.labels}
        numbered[spec.data.name] = range(spec.data.n_files)
        if {found.name for found in kept.iterdir()} <= numbered.keys() and all(
            int(found.name) in numbers
            for name, numbers in numbered.items()
            for found in (kept / name / "c").iterdir()
        ):
            kept.rename(staged)
            return
    shutil.rmtree(kept, ignore_errors=True)


def begin_at_url(store: Path, *, aside: bool) -> None:
    """Mark a place in an object store as being written: what has no manifest there is ours.

    From here on there is no store, old or new, unless the new one is written `aside`. The caller
    holds the lock.
    """
    objects_of(_work_folder(store)).write(WORK_MARK, b"grandbatch builds here\n")
    if not aside:
        objects_of(store).delete([MANIFEST_NAME])


def records_folder(store: Path, fingerprint: str) -> Path:
    """Where the records of a finished store's files are: beside it.

    In an object store, where nothing is moved, they are there from the beginning, by what is built.
    """
    folder = beside(store) / "builds" / f"{store.name}.records"
    return folder / fingerprint[:16] if is_in_objects(store) else folder


def _kept_folders(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.folders"


def _work_folder(store: Path) -> Path:
    return beside(store) / f"{store.name}.building"


def _journal(store: Path) -> Path:
    return _work_folder(store) / "journal"


def _retired(store: Path) -> Path:
    return _work_folder(store) / "retired"
