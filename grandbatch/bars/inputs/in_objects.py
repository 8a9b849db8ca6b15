"""Find the objects that a URL of an object store stands for: one, a folder's, or a pattern's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from grandbatch.bars.inputs.hive import is_hive_folder
from grandbatch.files.objects import ListedObject, Objects

_MAGIC = re.compile(r"[*?[]")


def expand_objects(url: str) -> tuple[dict[str, ListedObject | None], bool]:
    """Return the URLs that one stands for, sorted, and whether it is a folder.

    Of each what was listed of it; None where it was named itself.

    Hive folders in a folder are looked into; only what a pattern may lead to is listed.

    Raises
    ------
    OSError
    """
    if _MAGIC.search(url):
        fixed, segments = _parted(url)
        objects = Objects(fixed)
        if "**" in segments:
            # brings asyncio and ssl along: a quarter of a start that needs neither
            from fsspec.utils import glob_translate

            matches = re.compile(glob_translate("/".join(segments))).match
            listed = [found for found in objects.list() if matches(found.name)]
        else:
            listed = list(_matching(objects, "", segments))
        return {f"{fixed}/{one.name}": one for one in sorted(listed)}, False
    folder = url.rstrip("/")
    objects = Objects(folder)
    folders, found = objects.children()
    if not folders and not found:
        return {url: None}, False
    return {f"{folder}/{one.name}": one for one in sorted(_files(objects, folders, found))}, True


def _parted(url: str) -> tuple[str, list[str]]:
    """Part a pattern into the folder before it, and the rest, each name by itself."""
    parts = url.split("/")
    first = next(at for at, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:first]), parts[first:]


def _matching(objects: Objects, folder: str, segments: Sequence[str]) -> Iterator[ListedObject]:
    """Give the objects below a folder whose names match segment by segment."""
    segment, *rest = segments
    if rest and not _MAGIC.search(segment):
        yield from _matching(objects, f"{folder}/{segment}".lstrip("/"), rest)
        return
    folders, found = objects.children(folder)
    if rest:
        for name in folders:
            if fnmatchcase(name.rpartition("/")[2], segment):
                yield from _matching(objects, name, rest)
    else:
        yield from (one for one in found if fnmatchcase(one.name.rpartition("/")[2], segment))


def _files(
    objects: Objects, folders: Sequence[str], found: Sequence[ListedObject]
) -> Iterator[ListedObject]:
    yield from (one for one in found if one.n_bytes)
    for name in folders:
        if is_hive_folder(name.rpartition("/")[2]):
            yield from _files(objects, *objects.children(name))
