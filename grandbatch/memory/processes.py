"""The processes of a run and their memory, as one list."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grandbatch.errors import UsageError
from grandbatch.memory.records import read_records

_SILENT_SECONDS = 10.0
"""A rank that records about once a second and has not for so long was killed, or hangs."""


@dataclass(frozen=True)
class ProcessMemory:
    """One process of a run: a trainer's rank, or a worker of a Dask cluster.

    Parameters
    ----------
    kind : str
        "rank" or "worker".
    name : str
    host : str
    pid : int or None
        None where it was not told.
    rss_bytes, limit_bytes : int
        Resident memory of the process and those below it; what it may hold at most, 0 for no limit.
    level : str or None
        What is done for want of memory (`Level`); None where nobody tells.
    status : str
        "running", "paused", "ended", "failed", "silent", "gone".
    pauses, restarts : int
        How often it was paused, or started again.
    reason : str or None
        Why something was last done about its memory.
    batch_size : int or None
        Of a rank.
    """

    kind: str
    name: str
    host: str = ""
    pid: int | None = None
    rss_bytes: int = 0
    limit_bytes: int = 0
    level: str | None = None
    status: str = "running"
    pauses: int = 0
    restarts: int = 0
    reason: str | None = None
    batch_size: int | None = None

    def after(self, restarts: int, reason: str | None) -> ProcessMemory:
        """Return it with restarts counted; its own reason is the later one."""
        return replace(self, restarts=restarts, reason=self.reason or reason)


def run_processes(checkpoint_dir: str | Path) -> list[ProcessMemory]:
    """Return the memory of a training's ranks, by what they last wrote beside its checkpoints.

    Raises
    ------
    UsageError
        If nothing was written there.
    """
    records = read_records(checkpoint_dir)
    if not records:
        raise UsageError(f"no memory records in {checkpoint_dir}: name the folder of a training")
    by_rank: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_rank.setdefault(record["rank"], []).append(record)
    return [_of_rank(rank, own) for rank, own in sorted(by_rank.items())]


def _of_rank(rank: int, records: list[dict[str, Any]]) -> ProcessMemory:
    last = {record["kind"]: record for record in records}
    process = ProcessMemory("rank", str(rank), status=_status(records[-1]))
    if "start" in last:
        process = replace(process, host=last["start"]["host"], pid=last["start"]["pid"])
    if "sample" in last:
        names = ("rss_bytes", "limit_bytes", "level", "pauses", "batch_size", "host", "pid")
        process = replace(process, **{name: last["sample"][name] for name in names})
    reasons = [record["reason"] for record in records if record.get("reason")]
    starts = sum(record["kind"] == "start" for record in records)
    return process.after(max(0, starts - 1), reasons[-1] if reasons else None)


def _status(last: dict[str, Any]) -> str:
    if last["kind"] == "end":
        return "failed" if last["error"] else "ended"
    return "silent" if time.time() - float(last["time"]) > _SILENT_SECONDS else "running"
