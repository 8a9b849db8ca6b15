"""`MemoryMonitor`: one process tree's memory against its limit, sampled in a light thread.

Covers what is used, how near that is to the limit, and giving back what nobody needs. Does not
cover what a training does about it (`grandbatch.training.guard`), nor a single batch that takes
more than everything before it: no thread can stop that one.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Self, SupportsFloat

from grandbatch.errors import MemoryLimitError, UsageError
from grandbatch.memory.allocator import give_back
from grandbatch.memory.usage import MemoryUsage, forget_peak, own_bytes, read_usage

_log = logging.getLogger("grandbatch")

PERIOD_SECONDS = 0.2
"""Between two samples."""

SPARING = 400
"""A sample, or a trim, is followed by at least so many times its processor time of rest."""

_TRIM_SECONDS = 10.0
"""Between two trims while memory stays short."""


class Level(IntEnum):
    """What is done as memory runs short; each level includes those below it."""

    CALM = 0
    TRIM = 1
    """Give back what is free: garbage, the C library's and pyarrow's pools."""
    PREFETCH = 2
    """Prepare fewer batches ahead; drop the cache of decoded chunks."""
    BATCH = 3
    """Hand over smaller batches."""
    HOLD = 4
    """Admit no batch for a while."""
    STOP = 5
    """Save a checkpoint and raise."""


# shares of the allowed memory at which a level begins: the further ones need room to take effect
_BEGINS = {
    Level.TRIM: 0.70,
    Level.PREFETCH: 0.80,
    Level.BATCH: 0.88,
    Level.HOLD: 0.96,
    Level.STOP: 1.0,
}
# hysteresis: a level ends only this far below where it began, so that none flickers
_SLACK = 0.06


def next_level(share: float, before: Level) -> Level:
    """Return the level for a share of the allowed memory, coming from another level.

    A level is entered at its share, and left 0.06 below it.
    """
    reached = _level_at(share)
    return reached if reached >= before else max(reached, min(before, _level_at(share + _SLACK)))


def _level_at(share: float) -> Level:
    return max((level for level, begin in _BEGINS.items() if share >= begin), default=Level.CALM)


@dataclass(frozen=True)
class Sample:
    """One look of the monitor.

    Parameters
    ----------
    time : float
        Seconds since 1970.
    usage : MemoryUsage
    allowed_bytes : int
        What the tree may hold now: `max_memory_percent` of what it could hold.
    level : Level
    """

    time: float
    usage: MemoryUsage
    allowed_bytes: int
    level: Level


@dataclass(frozen=True)
class Look:
    """The tree's memory at this moment, told by its own figures and the latest sample's others.

    Parameters
    ----------
    rss_bytes : int
    peak_bytes : int
        Highest seen since the look before.
    allowed_bytes : int
    """

    rss_bytes: int
    peak_bytes: int
    allowed_bytes: int


class MemoryMonitor:
    """Compares the process tree's memory with its limit.

    Parameters
    ----------
    max_memory_percent : float
        Share of the limit, in percent, that may be used.
    limit_bytes : int, optional
        A limit below that of the system.

    Attributes
    ----------
    heard : callable or None
        Called with each `Sample`, in the sampling thread.
    cpu_seconds : float
        Processor time that the thread has taken.

    Examples
    --------
    >>> import grandbatch as gb
    >>> monitor = gb.MemoryMonitor(max_memory_percent=80.0)
    >>> usage = monitor.usage()
    >>> 0 < usage.rss_bytes < usage.limit_bytes
    True
    """

    def __init__(self, max_memory_percent: float = 80.0, limit_bytes: int | None = None):
        if not (isinstance(max_memory_percent, SupportsFloat) and 0 < max_memory_percent <= 100):
            raise UsageError(
                f"max_memory_percent must be above 0 and at most 100, got {max_memory_percent}"
            )
        if limit_bytes is not None and limit_bytes <= 0:
            raise UsageError(f"limit_bytes must be positive, got {limit_bytes}")
        self.max_memory_percent = max_memory_percent
        self._setting_bytes = limit_bytes
        self.heard: Callable[[Sample], None] | None = None
        self.cpu_seconds = 0.0
        self._lock = threading.Lock()
        self._level = Level.CALM
        self._expected_bytes = 0
        self._others_bytes = 0
        self._peak_bytes = 0
        self._highest_bytes = 0
        self._next_trim = 0.0
        self._sample: Sample | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def usage(self) -> MemoryUsage:
        """Read usage and limit now."""
        return read_usage(self._setting_bytes)

    def is_over(self) -> bool:
        """Whether more than the allowed share is in use."""
        return self.usage().percent > self.max_memory_percent

    def check(self, planned_bytes: int = 0) -> MemoryUsage:
        """Read usage, and raise where it is, or with what is planned will be, over the share.

        Raises
        ------
        MemoryLimitError
            With the figures.
        """
        usage = self.usage()
        if usage.rss_bytes + planned_bytes > self.allowed_bytes(usage):
            raise self.error(usage, planned_bytes)
        return usage

    def allowed_bytes(self, usage: MemoryUsage) -> int:
        """Return what the tree may hold: the allowed share of what it could hold."""
        return int(usage.usable_bytes * self.max_memory_percent / 100)

    def error(self, usage: MemoryUsage, planned_bytes: int = 0) -> MemoryLimitError:
        """Make the error that tells the figures."""
        planned = f" and {planned_bytes:,} more are needed" if planned_bytes else ""
        others = usage.limit_bytes - usage.usable_bytes
        held = f", of which others hold {others:,}" if others else ""
        return MemoryLimitError(
            f"{usage.rss_bytes:,} bytes are in use{planned}, {usage.percent:.1f} % of the limit of "
            f"{usage.limit_bytes:,} ({usage.source}){held}; {self.max_memory_percent:g} % are "
            f"allowed, {self.allowed_bytes(usage):,} bytes: use smaller batches, less prefetch or "
            "cache, or raise max_memory_percent or the limit"
        )

    @property
    def level(self) -> Level:
        """The level in force."""
        return self._level

    @property
    def latest(self) -> Sample:
        """The latest sample; the first is taken when asked for."""
        return self._sample or self.sample()

    def sample(self) -> Sample:
        """Read everything now, set the level, and trim where that is due."""
        usage = self.usage()
        own, _ = own_bytes()
        allowed = self.allowed_bytes(usage)
        with self._lock:
            self._others_bytes = max(0, usage.rss_bytes - own)
            self._peak_bytes = max(self._peak_bytes, usage.rss_bytes)
            self._judge(usage.rss_bytes, allowed)
            sample = Sample(time.time(), usage, allowed, self._level)
            self._sample = sample
        return sample

    def look(self) -> Look:
        """Read this process's memory now, and take the rest from the latest sample."""
        sample = self.latest
        own, highest = own_bytes()
        with self._lock:
            rss = own + self._others_bytes
            peak = max(rss, self._peak_bytes)
            if highest > self._highest_bytes:
                # the system's own mark misses no peak, but falls never: it counts when it rises
                if self._highest_bytes:
                    peak = max(peak, highest + self._others_bytes)
                self._highest_bytes = highest
            self._peak_bytes = 0
        return Look(rss, peak, sample.allowed_bytes)

    def forget_peak(self) -> None:
        """Make the next batch's peak show in `look`, also where there was a higher one before."""
        forget_peak()
        with self._lock:
            self._highest_bytes = own_bytes()[1]

    def expect(self, expected_bytes: int, look: Look) -> Level:
        """Say what the next batch will bring memory to; return the level for that."""
        with self._lock:
            self._expected_bytes = expected_bytes
            self._judge(look.rss_bytes, look.allowed_bytes)
            return self._level

    def _judge(self, rss_bytes: int, allowed_bytes: int) -> None:
        share = max(rss_bytes, self._expected_bytes) / max(1, allowed_bytes)
        self._level = next_level(share, self._level)

    def trim(self) -> int:
        """Give memory back that nobody uses; return how many bytes that were."""
        before, _ = own_bytes()
        began = time.thread_time()
        gc.collect()
        # another thread may be importing it just now
        pool = getattr(sys.modules.get("pyarrow"), "default_memory_pool", None)
        if pool is not None:
            pool().release_unused()
        give_back()
        cost = time.thread_time() - began
        self._next_trim = time.monotonic() + max(_TRIM_SECONDS, SPARING * cost)
        return max(0, before - own_bytes()[0])

    def start(self) -> None:
        """Start sampling in a thread."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="grandbatch-memory", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        before = Level.CALM
        rest = 0.0
        while not self._stopped.wait(rest):
            began = time.thread_time()
            try:
                sample = self.sample()
                if self.heard is not None:
                    self.heard(sample)
                rest = max(PERIOD_SECONDS, SPARING * (time.thread_time() - began))
                # trims space themselves: their cost must not keep the next sample waiting
                if sample.level and (sample.level > before or time.monotonic() >= self._next_trim):
                    self.trim()
                before = sample.level
            except OSError as error:
                # /proc may refuse for a moment, such as for want of file handles
                _log.warning("memory can't be read: %s", error)
                rest = PERIOD_SECONDS
            self.cpu_seconds = time.thread_time()
