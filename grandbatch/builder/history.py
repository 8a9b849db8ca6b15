"""What the last build of a store took, and what it knew of its files: kept beside the store.

Nothing depends on either but time.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedStoreError
from grandbatch.files import digested
from grandbatch.files.locations import is_remote, read_location
from grandbatch.files.ordinary import read_whole
from grandbatch.files.verbs import sizes_below
from grandbatch.files.whole import write_whole
from grandbatch.memory import peak_bytes
from grandbatch.store.file_records import read_record
from grandbatch.store.format import MANIFEST_NAME, MAX_MANIFEST_BYTES
from grandbatch.store.manifest import sha256_hex
from grandbatch.store.publish import beside
from grandbatch.store.staging import Staging

_MAX_BYTES = 2**20
_FILES = "files.json"
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
    names = sizes_below(folder) if is_remote(folder) else [p.name for p in folder.glob("*.json")]
    for name in sorted(names):
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            facts = digested.load(read_location(folder / name, _MAX_BYTES))
            rates.append(float(facts["n_rows"]) / float(facts["seconds"]))
    return sorted(rates)


def keep_records(staging: Staging, store: Path) -> None:
    """Keep the records of a store's files beside it, where a later extension finds them.

    At a URL no store is extended.
    """
    if is_remote(store):
        return
    kept = _records(store)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        staging.record_path(0).parent.rename(kept)


def take_record(store: Path, number: int, sha256: npt.NDArray[np.uint8], staging: Staging) -> bool:
    """Stage the record of a file that is taken over; return whether there is one.

    Where it is missing, or another's, nothing is lost but the time to make it anew: the sha256 of
    the file's chunks tell.
    """
    path = _records(store) / Staging.record_name(number)
    try:
        record = read_record(path)
    except (OSError, DamagedStoreError):
        return False
    is_its_own = np.array_equal(record.sha256, sha256)
    if is_its_own:
        staging.take(path, staging.record_path(number))
    return is_its_own


def remember_files(staging: Staging) -> None:
    """Note how the files of a finished store stand, so that they needn't be read again.

    A file written in the last moments isn't among them: where a disk counts its times in steps,
    a change just after would not show. At a URL no store is extended.
    """
    if is_remote(staging.store):
        return
    latest = time.time_ns() - _TIME_STEP_NS
    arrays = staging.spec.arrays
    names = [array.file(number) for array in arrays for number in range(array.n_files)]
    found = {name: _standing(staging.store / name) for name in names}
    facts = {
        "manifest": sha256_hex((staging.store / MANIFEST_NAME).read_bytes()),
        "files": {name: state for name, state in found.items() if state[1] < latest},
    }
    path = staging.record_path(0).with_name(_FILES)
    write_whole(path, digested.dump(facts), durable=False)


def unchanged_files(store: Path) -> set[str]:
    """Name the files of a store that have the size, time and inode they were published with."""
    try:
        facts = digested.load(read_whole(_records(store) / _FILES, MAX_MANIFEST_BYTES))
        if facts["manifest"] != sha256_hex(read_whole(store / MANIFEST_NAME, MAX_MANIFEST_BYTES)):
            return set()
    except (OSError, ValueError):
        return set()
    found = set()
    for name, state in facts["files"].items():
        with suppress(OSError):
            if _standing(store / name) == state:
                found.add(name)
    return found


def _standing(path: Path) -> list[int]:
    """Size, time of the last change and inode of a file."""
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _records(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.records"


def _path(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.json"
