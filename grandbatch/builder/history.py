"""What the last build of a store took, and what it knew of its files: kept beside the store.

Nothing depends on either but time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.bars.cache.cutting import Cuts
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import DamagedStoreError
from grandbatch.files import digested
from grandbatch.files.locations import is_remote, read_location
from grandbatch.files.verbs import listed_below, names_in, remove_objects_but
from grandbatch.files.whole import write_whole
from grandbatch.memory import peak_bytes
from grandbatch.store.file_records import pack_arrays, read_arrays, read_record
from grandbatch.store.format import MANIFEST_NAME, MAX_MANIFEST_BYTES
from grandbatch.store.manifest import Manifest, sha256_hex
from grandbatch.store.publish import Listing, beside, records_folder
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging

_MAX_BYTES = 2**20
_FILES = "files.json"
_CUTS = "cuts"
_TIME_STEP_NS = 2_000_000_000
"""The longest step in which a disk counts the times of its files (FAT)."""


class BuildClock:
    """Times the stages of a build that starts now. `tell` hears what `StageProgress` hears."""

    def __init__(self) -> None:
        self._began = time.time()
        self._start = time.perf_counter()
        self._last: dict[str, float] = {}

    def tell(self, stage: str, done: int, total: int) -> None:
        """Take note of when a stage was last heard of."""
        if total:
            self._last[stage] = time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """Return when the build began (seconds since 1970), how long it and its stages took."""
        seconds = {}
        before = self._start
        for stage, last in self._last.items():
            seconds[stage] = round(last - before, 3)
            before = last
        return {
            "began": round(self._began, 3),
            "seconds": round(time.perf_counter() - self._start, 3),
            "stage_seconds": seconds,
            "peak_rss_bytes": peak_bytes(),
        }


def record_build(store: Path, facts: dict[str, Any]) -> None:
    """Keep the facts about a build of the store at a path, where they can be written."""
    digested.note(_path(store), facts)


def read_build(store: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return what building this very store took; None where it was built elsewhere."""
    try:
        facts = digested.load(read_location(_path(store), _MAX_BYTES))
    except (OSError, ValueError):
        return None
    return facts if facts.get("fingerprint") == fingerprint else None


def rates_beside(store: Path) -> list[float]:
    """Bars per second of the builds that were recorded beside a store, lowest first."""
    rates = []
    folder = _path(store).parent
    for name in names_in(folder):
        if not name.endswith(".json"):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            facts = digested.load(read_location(folder / name, _MAX_BYTES))
            rates.append(float(facts["n_rows"]) / float(facts["seconds"]))
    return sorted(rates)


def keep_records(staging: Staging, store: Path) -> None:
    """Keep the records of a store's files beside it, where a later extension finds them.

    At a URL they are there; those of the store before go.
    """
    kept = records_folder(store, staging.folder.name)
    with suppress(OSError):
        if is_remote(store):
            remove_objects_but(kept.parent, f"{kept.name}/", last="")
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        staging.records.rename(kept)


def take_record(
    records: Path, number: int, sha256: npt.NDArray[np.uint8], staging: Staging
) -> bool:
    """Stage the record of a file that is taken over; return whether there is one.

    Where it is missing, or another's, nothing is lost but the time to make it anew: the sha256 of
    the file's chunks tell.
    """
    path = records / Staging.record_name(number)
    try:
        record = read_record(path)
    except (OSError, DamagedStoreError):
        return False
    is_its_own = np.array_equal(record.sha256, sha256)
    if is_its_own:
        staging.take_record(path, number)
    return is_its_own


def remember_files(staging: Staging, manifest: Manifest, there: Listing) -> None:
    """Note how the files of a finished store stand, so that they needn't be read again.

    On a disk a file written in the last moments isn't among them: where its times are counted in
    steps, a change just after would not show. At a URL `there` is what stood in its place when all
    of it did.
    """
    latest = time.time_ns() - _TIME_STEP_NS
    is_far = staging.final is not None
    arrays = staging.spec.arrays
    names = [array.file(number) for array in arrays for number in range(array.n_files)]
    find = _listed_in(there) if is_far else _standing_in(staging.store)
    found = {name: find(name) for name in names}
    facts = {
        "manifest": sha256_hex(manifest.to_bytes()),
        "files": {name: state for name, state in found.items() if is_far or state[1] < latest},
    }
    write_whole(staging.records / _FILES, digested.dump(facts), durable=False)


def remember_cuts(staging: Staging, settings: StoreSettings, bars: Bars, cuts: Cuts) -> None:
    """Note where bars are cut, so that those which grow from them needn't be read for it."""
    identity = np.frombuffer(_identity_of_cuts(settings, bars), np.uint8)
    arrays = {"identity": identity, **vars(cuts)}
    write_whole(staging.records / _CUTS, pack_arrays(arrays), durable=False)


def known_cuts(
    store: MatrixStore, settings: StoreSettings, before: Bars, bars: Bars
) -> tuple[Bars, Cuts] | None:
    """Return the bars of a store, and where they are cut.

    None where that isn't known, or the others did not grow from them.
    """
    if not bars.grew_from(before):
        return None
    try:
        arrays = read_arrays(records_folder(store.path, store.fingerprint) / _CUTS)
        identity = arrays.pop("identity").tobytes()
        cuts = Cuts(**arrays)
    except (OSError, DamagedStoreError, ValueError, KeyError, TypeError):
        return None
    return (before, cuts) if identity == _identity_of_cuts(settings, before) else None


def _identity_of_cuts(settings: StoreSettings, bars: Bars) -> bytes:
    said = [bars.fingerprint, settings.max_gap_ns, settings.period]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def unchanged_files(store: MatrixStore) -> set[str]:
    """Name the files of a store that have the size, time and inode they were published with.

    In an object store, the size and the version.
    """
    path = records_folder(store.path, store.fingerprint) / _FILES
    try:
        facts = digested.load(read_location(path, MAX_MANIFEST_BYTES))
        manifest = read_location(store.path / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        if facts["manifest"] != sha256_hex(manifest):
            return set()
        is_far = is_remote(store.path)
        find = _listed_in(listed_below(store.path)) if is_far else _standing_in(store.path)
    except (OSError, ValueError):
        return set()
    found = set()
    for name, state in facts["files"].items():
        with suppress(OSError, KeyError):
            if find(name) == state:
                found.add(name)
    return found


def _listed_in(there: Listing) -> Callable[[str], list[Any]]:
    """Return what tells how an object stands, by its name: size and version."""
    return lambda name: [there[name].n_bytes, there[name].version]


def _standing_in(store: Path) -> Callable[[str], list[Any]]:
    """Return what tells how a file of a store stands: size, time of the last change and inode."""

    def look(name: str) -> list[Any]:
        found = os.lstat(os.path.join(store, name))  # noqa: PTH118 (a path each takes longer)
        return [found.st_size, found.st_mtime_ns, found.st_ino]

    return look


def _path(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.json"
