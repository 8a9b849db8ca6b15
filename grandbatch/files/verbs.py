"""Verbs for files that several hosts share: in a folder of a disk, or in an object store.

| verb | in a folder | in an object store |
|---|---|---|
| `make_folder` | makes it | nothing: names there need none |
| `size_of` | looks at the file | asks for it |
| `sizes_below` | walks the folder | one listing |
| `listed_below` | | one listing |
| `names_in` | lists the folder | one listing, of nothing deeper |
| `copy_file`, `copy_files` | copies | the store copies; no byte comes here |
| `remove`, `remove_below` | removes a file, all of a folder | the same |
| `see` | looks whether a task's file is there | the same |
| `each`, `both`, `one_round` | calls one after the other | several at once |
| `begun` | | begins a call, and goes on |
| `local_copy` | the file itself | a copy, as long as it is needed |

Whole files are written by `grandbatch.files.whole`, and read by `grandbatch.files.locations`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from grandbatch.errors import StoreError
from grandbatch.files.locations import File, Requested, is_remote, objects_at, open_location
from grandbatch.files.objects import REQUEST_BYTES, ListedObject, Objects

_AT_ONCE = 16

T = TypeVar("T")
Made = TypeVar("Made")


def each(function: Callable[[T], Made], values: Iterable[T], *, far: bool) -> list[Made]:
    """Call a function with each of some values; several at once where each call is a request.

    The first that fails, by the order of the values, is raised; no further call begins then.
    """
    if not far:
        return [function(value) for value in values]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(function, values))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def begun(call: Callable[[], T]) -> Callable[[], T]:
    """Begin a call, a request, in a thread; return what waits for its end, and raises its error."""
    with_one = ThreadPoolExecutor(1, "grandbatch-begun")
    answer = with_one.submit(call)
    with_one.shutdown(wait=False)
    return answer.result


def both(first: Callable[[], T], second: Callable[[], Made]) -> tuple[T, Made]:
    """Make two calls, requests both, at once; where both fail the error of the first is raised."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second)
        return first(), other.result()


def one_round(*calls: Callable[[], Any], far: bool) -> list[Any]:
    """Make calls, at once where each is a request; as `each` does."""
    return each(lambda call: call(), calls, far=far)


def is_in_objects(location: Path | str) -> bool:
    """Whether a location is a URL of an object store."""
    return objects_at(location) is not None


def objects_of(location: Path | str) -> Objects:
    """Return the objects at and below a URL of an object store; the empty name is the URL's own."""
    objects = objects_at(location)
    assert objects is not None, location
    return objects


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where there is none."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def size_of(location: Path) -> int:
    """Return the bytes of a file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    OSError
    """
    objects = objects_at(location)
    return location.stat().st_size if objects is None else objects.head("").n_bytes


def exists(location: Path) -> bool:
    """Whether there is a file.

    Raises
    ------
    OSError
        If that can't be found out.
    """
    try:
        size_of(location)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sizes_below(folder: Path) -> dict[str, int]:
    """Return the bytes of each file below a folder, by its name from there; none without one."""
    if is_remote(folder):
        return {name: found.n_bytes for name, found in listed_below(folder).items()}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def listed_below(url: Path) -> dict[str, ListedObject]:
    """Return what an object store tells of each object below a URL, by its name from there."""
    return {found.name: found for found in objects_of(url).list()}


def names_in(folder: Path) -> list[str]:
    """List the names right below a folder, those of folders with ``/`` behind; none without one."""
    objects = objects_at(folder)
    if objects is not None:
        folders, there = objects.children()
        return sorted([*(f"{name}/" for name in folders), *(one.name for one in there)])
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(f"{path.name}/" if path.is_dir() else path.name for path in found)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to another place on the same disk, or in the same object store.

    Raises
    ------
    OSError
    """
    if is_remote(source):
        steps = [str(location).split("/") for location in (source, target)]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*steps)))  # noqa: B905
        place = objects_of("/".join(steps[0][:shared]))
        place.copy(*("/".join(own[shared:]) for own in steps))
    else:
        shutil.copyfile(source, target)


def copy_files(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Copy files, as `copy_file` does, several at once.

    Raises
    ------
    OSError
    """
    each(lambda pair: copy_file(*pair), pairs, far=True)


def remove(location: Path) -> None:
    """Remove a file, if it is there."""
    if is_remote(location):
        objects_of(location).delete([""])
    else:
        location.unlink(missing_ok=True)


def remove_below(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    if is_remote(folder):
        with suppress(OSError):
            place = objects_of(folder)
            place.delete([found.name for found in place.list()])
    else:
        shutil.rmtree(folder, ignore_errors=True)


def remove_objects_but(folder: Path, kept: str | None, *, last: str) -> None:
    """Remove the objects below a URL, but for those whose names begin with what is kept.

    `last` goes after all others, and stays where some are kept.
    """
    place = objects_of(folder)
    names = [found.name for found in place.list()]
    place.delete([name for name in names if name != last and not (kept and name.startswith(kept))])
    if kept is None and last in names:
        place.delete([last])


def see(path: Path, n_bytes: int | None = None) -> None:
    """Look at a file that a task has told of.

    Raises
    ------
    StoreError
        If it isn't here, or hasn't the bytes it should have.
    """
    try:
        found = size_of(path)
    except OSError as error:
        raise not_here(path, f"can't be seen ({error.strerror})") from None
    if n_bytes is not None and found != n_bytes:
        raise not_here(path, f"has {found:,} bytes instead of {n_bytes:,}")


def not_here(path: Path, what: str) -> StoreError:
    """Say that a file isn't where a task has written it."""
    return StoreError(
        f"{path} {what}, though the task that wrote it has ended: its worker may write to a disk "
        "of its own. Nothing is published; see to it that all workers share the disk, and run the "
        "same command again: what is whole is kept"
    )


class RangesOfObject(Requested):
    """An object, read by ranges: some are fetched together beforehand, others one by one."""

    step_bytes = REQUEST_BYTES

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._fetched: dict[int, memoryview] = {}

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch ranges of bytes, each ``[start, stop)``, which will be read next."""
        found = self._objects.read_ranges("", ranges) if ranges else []
        self._fetched = {start: data for (start, _), data in zip(ranges, found, strict=True)}

    def read_into(self, buffers: Sequence[Any], offset: int) -> int:
        """Fill buffers one after the other; return how many bytes there were."""
        return super().read_into([memoryview(one).cast("B") for one in buffers], offset)

    def view(self, start: int, stop: int) -> memoryview:
        """Return bytes as they came; fewer where the file ends before."""
        data = self._fetched.get(start)
        if data is None or len(data) < stop - start:
            data = self._objects.read_range("", start, stop)
        return data[: stop - start]

    def close(self) -> None:
        """Let go of what was fetched."""
        self._fetched.clear()


def open_ranges(location: Path) -> File:
    """Open a file for reading ranges of it; an object is asked for only then.

    Raises
    ------
    OSError
    """
    return RangesOfObject(objects_of(location)) if is_remote(location) else open_location(location)


@contextmanager
def local_copy(location: Path) -> Iterator[Path]:
    """Give the path of a file on this host's disk: itself, or a copy that goes at the end.

    Raises
    ------
    OSError
    """
    if not is_remote(location):
        yield location
        return
    place = objects_of(location)
    with tempfile.TemporaryDirectory(prefix="grandbatch-") as folder:
        copy = Path(folder) / "copy"
        n_bytes = place.head("").n_bytes
        with copy.open("wb") as file:
            for start in range(0, n_bytes, REQUEST_BYTES):
                file.write(place.read_range("", start, min(start + REQUEST_BYTES, n_bytes)))
        yield copy
