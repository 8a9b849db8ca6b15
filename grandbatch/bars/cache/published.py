"""Caches in object stores: published by their manifest, which says where their files were made.

A build writes everything below a folder of its own, its manifest last. Copied to the name of the
cache, the manifest publishes the files: from then on no sweep takes them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from grandbatch.bars.cache.manifest import MANIFEST, QUARANTINE
from grandbatch.files import digested
from grandbatch.files.verbs import both, names_in, objects_of, remove_below


def built_manifest(built: Path) -> bytes:
    """Read the manifest of a cache where it was built."""
    return objects_of(built).read(MANIFEST)


def publish_objects(manifest: bytes, target: Path) -> None:
    """Give the cache that a manifest tells of its name."""
    objects_of(target).write(MANIFEST, manifest)


def sweep(built: Path) -> None:
    """Remove what a build left in its folder, but for the files of a cache that it published."""
    place = objects_of(built)
    with suppress(OSError):
        kept, there = both(lambda: _published(built), place.list)
        place.delete([found.name for found in there if found.name not in kept])


def sweep_others(cache_dir: Path, beginning: str, own: Path | None = None) -> None:
    """Sweep the folders that begin so, those of builds that are gone, but for one's own."""
    with suppress(OSError):
        for folder in (cache_dir / name.rstrip("/") for name in names_in(cache_dir)):
            if folder.name.startswith(beginning) and folder != own:
                sweep(folder)


def remove_objects(cache: Path) -> bool:
    """Remove a cache, its manifest first; return whether there was one."""
    place = objects_of(cache)
    try:
        folder = digested.parse(place.read(MANIFEST)).get("folder")
    except FileNotFoundError:
        return False
    except ValueError:
        folder = None
    place.delete([MANIFEST])
    if isinstance(folder, str):
        remove_below(cache.parent / folder)
    return True


def _published(built: Path) -> set[str]:
    """Names of the files in a folder that are those of a cache."""
    try:
        manifest = digested.load(built_manifest(built))
        there = digested.load(objects_of(built.parent / manifest["fingerprint"]).read(MANIFEST))
        parts = set(map(str, there["files"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()
    return {MANIFEST, QUARANTINE, *parts} if there.get("folder") == built.name else set()
