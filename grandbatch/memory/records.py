"""What a run tells of its memory: JSON lines beside its checkpoints, and Prometheus metrics."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grandbatch.errors import UsageError
from grandbatch.files import json_lines
from grandbatch.memory.monitor import Level, Sample

_log = logging.getLogger("grandbatch")

_ROTATED_BYTES = 4 * 2**20
"""A file this long is put aside, as ``.1``; the one put aside before is dropped."""

_LINE_SECONDS = 1.0
"""Between two samples that are written down, unless the level changes."""


@dataclass
class TrainingProgress:
    """How far a training is, as its thread counts and the monitor's reads.

    Parameters
    ----------
    batch_size : int
        In force.
    steps, windows : int
        Trained on since it began or was resumed.
    batch_seconds, wait_seconds : float
        Spent in training, and waiting for batches.
    chunks : int
        Chunks opened in this epoch, over all ranks.
    """

    batch_size: int = 0
    steps: int = 0
    windows: int = 0
    batch_seconds: float = 0.0
    wait_seconds: float = 0.0
    chunks: int = 0

    def count(self, windows: int, batch_seconds: float, wait_seconds: float, chunks: int) -> None:
        """Count a batch."""
        self.steps += 1
        self.windows += windows
        self.batch_seconds += batch_seconds
        self.wait_seconds += wait_seconds
        self.chunks = chunks


class TrainingLog:
    """The JSON lines of one rank, and its metrics where a port is given. Thread-safe.

    Lines are samples (about one a second), decisions, a start and an end. A disk that is full
    ends the lines, not the run.

    Parameters
    ----------
    folder : Path
        Beside the checkpoints; made where it isn't there.
    rank : int
    metrics_port : int, optional
        Serve Prometheus metrics on the loopback address at this port.

    Raises
    ------
    UsageError
        If prometheus-client is missing or the port is taken.
    """

    def __init__(self, folder: Path, rank: int = 0, metrics_port: int | None = None):
        self._path = folder / f"memory-rank{rank}.jsonl"
        self._rank = rank
        self._lock = threading.Lock()
        self._written = 0.0
        self._level = Level.CALM
        self._pauses = 0
        self._reason: str | None = None
        self._broken = False
        self._metrics = None if metrics_port is None else _Metrics(metrics_port)
        self._write("start", host=platform.node(), pid=os.getpid())

    def sample(self, sample: Sample, progress: TrainingProgress, *, last: bool = False) -> None:
        """Take note of a sample; the last of a run is always written down."""
        if self._metrics is not None:
            self._metrics.latest = sample, progress
        changed = sample.level != self._level or last
        if not changed and sample.time - self._written < _LINE_SECONDS:
            return
        self._level, self._written = sample.level, sample.time
        usage = sample.usage
        self._write(
            "sample",
            pid=os.getpid(),
            host=platform.node(),
            rss_bytes=usage.rss_bytes,
            limit_bytes=usage.limit_bytes,
            allowed_bytes=sample.allowed_bytes,
            available_bytes=usage.available_bytes,
            percent=round(usage.percent, 2),
            devices=[asdict(device) for device in usage.devices],
            level=sample.level.name.lower(),
            pauses=self._pauses,
            reason=self._reason,
            **_rounded(progress),
        )

    def decision(
        self,
        what: str,
        reason: str,
        progress: TrainingProgress,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Take note of a decision and its reason."""
        self._reason = reason
        self._pauses += what == "hold"
        facts = {"what": what, "before": before, "after": after, "reason": reason}
        self._write("decision", **facts, step=progress.steps)

    def end(self, error: str | None, reason: str | None) -> None:
        """Take note of the run's end; no error for one that ended well or was left."""
        self._write("end", error=error, reason=reason)
        if self._metrics is not None:
            self._metrics.close()

    def _write(self, kind: str, **facts: Any) -> None:
        line = {"time": round(time.time(), 3), "kind": kind, "rank": self._rank, **facts}
        with self._lock:
            if self._broken:
                return
            try:
                if json_lines.append(self._path, line) > _ROTATED_BYTES:
                    self._path.replace(self._path.with_name(self._path.name + ".1"))
            except OSError as error:
                self._broken = True
                _log.warning("memory is no longer recorded in %s: %s", self._path, error)


def _rounded(progress: TrainingProgress) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in asdict(progress).items()
    }


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Read the lines of all ranks that recorded into a folder, oldest first.

    A line that is not as it was written, of a killed run or on a damaged disk, is passed over.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(Path(folder).glob("memory-rank*.jsonl*"), reverse=True):
        try:
            found += json_lines.read(path)
        except FileNotFoundError:  # a run that goes on has just moved it on
            continue
    return sorted(found, key=lambda entry: float(entry["time"]))


class _Metrics:
    """Prometheus metrics of one process, on a port of the loopback address."""

    def __init__(self, port: int):
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise UsageError(
                "metrics need prometheus-client: pip install 'grandbatch[metrics]', or serve none"
            ) from None
        self._families = prometheus.metrics_core
        self.latest: tuple[Sample, TrainingProgress] | None = None
        registry = prometheus.CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = prometheus.start_http_server(
                port, addr="127.0.0.1", registry=registry
            )
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"metrics can't be served on port {port} ({error}); choose another port"
            ) from None

    def collect(self) -> Iterator[Any]:
        """Give the latest values: what the registry calls when it is asked."""
        if self.latest is None:
            return
        sample, progress = self.latest
        values = {
            "memory_bytes": sample.usage.rss_bytes,
            "memory_limit_bytes": sample.usage.limit_bytes,
            "memory_allowed_bytes": sample.allowed_bytes,
            "memory_level": int(sample.level),
            "device_memory_bytes": sum(d.used_bytes for d in sample.usage.devices),
            **asdict(progress),
        }
        for name, value in values.items():
            text = _METRICS[name]
            if name in _COUNTED:
                yield self._families.CounterMetricFamily(f"grandbatch_{name}", text, value=value)
            else:
                yield self._families.GaugeMetricFamily(f"grandbatch_{name}", text, value=value)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_COUNTED = ("steps", "windows", "batch_seconds", "wait_seconds")

_METRICS = {
    "memory_bytes": "Resident memory of the process tree",
    "memory_limit_bytes": "The smallest limit in force",
    "memory_allowed_bytes": "Share of the limit that the run may use now",
    "memory_level": "0 calm, 1 trim, 2 prefetch, 3 batch, 4 hold, 5 stop",
    "device_memory_bytes": "Memory of GPUs held by PyTorch",
    "batch_size": "Windows in a batch, in force",
    "steps": "Batches trained on in this run",
    "windows": "Windows trained on in this run",
    "batch_seconds": "Seconds spent in training",
    "wait_seconds": "Seconds waited for batches",
    "chunks": "Chunks opened in this epoch, over all ranks",
}
