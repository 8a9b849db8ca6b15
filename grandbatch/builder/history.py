"""What the last build of a store took: kept beside the store, where nothing depends on it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from grandbatch.files import digested
from grandbatch.files.ordinary import read_whole
from grandbatch.files.whole import write_whole
from grandbatch.memory import peak_bytes
from grandbatch.store.publish import beside

_MAX_BYTES = 2**20


class BuildClock:
    """Times the stages of a build that starts now. `tell` hears what `Progress` hears."""

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
    path = _path(store)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, digested.dump(facts), durable=False)


def read_build(store: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return what building this very store took; None where it was built elsewhere."""
    try:
        facts = digested.load(read_whole(_path(store), _MAX_BYTES))
    except (OSError, ValueError):
        return None
    return facts if facts.get("fingerprint") == fingerprint else None


def rates_beside(store: Path) -> list[float]:
    """Bars per second of the builds that were recorded beside a store, lowest first."""
    rates = []
    for path in sorted(_path(store).parent.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            facts = digested.load(read_whole(path, _MAX_BYTES))
            rates.append(float(facts["n_rows"]) / float(facts["seconds"]))
    return sorted(rates)


def _path(store: Path) -> Path:
    return beside(store) / "builds" / f"{store.name}.json"
