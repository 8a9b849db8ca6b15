"""`TrainingGuard`: keeps a training run inside its memory, batch by batch.

What it may do, in this order as memory runs short (`grandbatch.memory.monitor.Level`): trim;
prepare fewer batches ahead and drop the cache of decoded chunks; hand over smaller batches; admit
none for up to `HOLD_SECONDS`; raise. When memory is calm again, prefetch and batch size come back.
Which windows come, and in what order, never depends on any of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from grandbatch.errors import MemoryLimitError
from grandbatch.loader import SlidingWindowDataLoader
from grandbatch.loader.windows import SLAB_WINDOWS
from grandbatch.memory.monitor import Level, Look, MemoryMonitor, Sample
from grandbatch.memory.records import TrainingLog, TrainingProgress
from grandbatch.memory.usage import own_bytes
from grandbatch.ranks import Ranks
from grandbatch.training.agreement import AGREE_STEPS, settle
from grandbatch.training.sizing import BatchSizer

_log = logging.getLogger("grandbatch")

HOLD_SECONDS = 5.0
"""How long batches are held back for memory to come free before the run ends."""

_LOOK_SECONDS = 0.005
"""Batches that take less than this are looked at together."""

_FRESH_SECONDS = 0.05
"""Age up to which a sample will do while memory is short."""

_TRIM_SECONDS = 2.0
"""Between two trims that try to spare the batch from shrinking."""

_ROOM = 0.70
"""Share of the allowed memory that a new batch size is expected to stay within: where calm ends."""


@dataclass(frozen=True)
class Allowance:
    """What a training may take for itself now.

    Parameters
    ----------
    batch_size : int
        Windows handed over at once.
    prefetch_batches : int
        Batches prepared ahead.
    cached : bool
        Whether decoded chunks are kept from epoch to epoch.
    """

    batch_size: int
    prefetch_batches: int
    cached: bool = True


def planned_bytes(loader: SlidingWindowDataLoader, settings: Allowance) -> int:
    """Bytes that feeding a trainer will take: decoded chunks, what comes, slabs with batches."""
    held = loader.buffer_bytes - (0 if settings.cached else loader.spare_bytes)
    held += loader.coming_bytes
    if loader.device is not None and loader.device.type != "cpu":
        return held  # its slabs are in the device's own memory
    ahead = settings.batch_size * (1 + settings.prefetch_batches)
    return held + 2 * max(SLAB_WINDOWS, ahead) * loader.window_bytes


class TrainingGuard:
    """Watches a run's memory and decides what it may take.

    Parameters
    ----------
    monitor : MemoryMonitor
    settings : Allowance
        What the run asks for.
    smallest, largest : int
        Bounds of the batch size; both its own where it must not change.
    record : TrainingLog
    ranks : Ranks, optional
        Of the training: they agree on the batch size. None where they can't: it stays as it is.
    """

    def __init__(
        self,
        monitor: MemoryMonitor,
        settings: Allowance,
        smallest: int,
        largest: int,
        record: TrainingLog,
        ranks: Ranks | None,
    ):
        self.monitor = monitor
        self.settings = settings
        self.progress = TrainingProgress(batch_size=settings.batch_size)
        self._asked = settings
        self._record = record
        self._ranks = ranks if ranks is not None and ranks.size > 1 else None
        if ranks is None:
            smallest = largest = settings.batch_size
        self._sizer = BatchSizer(settings.batch_size, smallest, largest)
        self._before_bytes = 0
        self._looked = 0.0
        self._next_trim = 0.0
        self._warm = False
        self._endured = False

    @classmethod
    def of(
        cls,
        loader: SlidingWindowDataLoader,
        monitor: MemoryMonitor,
        record: TrainingLog,
        ranks: Ranks | None,
        recorded_size: int | None,
    ) -> Self:
        """Make the guard of a training on a loader; it begins with the batch size of a record."""
        config = loader.config
        start = recorded_size or loader.batch_size
        smallest, largest = config.min_batch_size, loader.batch_size
        if config.batch_size == "auto":
            largest = config.max_batch_size or max(start, loader.n_windows // loader.world_size)
        if not config.adaptive:
            smallest = largest = start
        settings = Allowance(start, config.prefetch_batches, cached=loader.spare_bytes > 0)
        return cls(monitor, settings, smallest, largest, record, ranks)

    def __enter__(self) -> Self:
        self.monitor.heard = self.heard
        self.monitor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.monitor.stop()
        self.monitor.heard = None
        if isinstance(error, MemoryLimitError):
            # room for the checkpoint
            self.monitor.trim()
        self._record.sample(self.monitor.sample(), self.progress, last=True)
        if error is None or kind is GeneratorExit:
            self._record.end(None, None)
        else:
            self._record.end(type(error).__name__, str(error))

    def heard(self, sample: Sample) -> None:
        """Write down a sample: what the monitor calls."""
        self._record.sample(sample, self.progress)

    def begin(self, planned_bytes: Callable[[Allowance], int]) -> Allowance:
        """Check that the run fits before any work; do without a cache that doesn't.

        Parameters
        ----------
        planned_bytes : callable
            Bytes that the run will take beside what it holds already, before any batch is
            trained on.

        Raises
        ------
        MemoryLimitError
            If it doesn't fit on this rank, or another's doesn't on that.
        """
        usage = self.monitor.usage()
        if own_bytes()[1] > _ROOM * self.monitor.allowed_bytes(usage):
            # batches could hide below what was used before
            self.monitor.forget_peak()
        room = int(_ROOM * self.monitor.allowed_bytes(usage)) - usage.rss_bytes
        if self.settings.cached and planned_bytes(self.settings) > room:
            lean = replace(self.settings, cached=False)
            saved = planned_bytes(self.settings) - planned_bytes(lean)
            if saved:
                self._take(lean, f"its {saved:,} bytes of decoded chunks do not fit")
        failure: MemoryLimitError | None = None
        try:
            self.monitor.check(planned_bytes(self.settings))
        except MemoryLimitError as error:
            failure = error
        if self._ranks is not None:
            size, stop = settle(self._ranks, self._sizer.size, stop=failure is not None)
            if stop and failure is None:
                failure = MemoryLimitError("another rank does not fit its limit: see its log")
            if size != self._sizer.size:
                self._take(replace(self.settings, batch_size=size), "the smallest of all ranks'")
        if failure is not None:
            raise failure
        return self.settings

    def trained(self, windows: int, batch_seconds: float, wait_seconds: float, chunks: int) -> None:
        """Count a batch that was trained on; `chunks` of the epoch are opened so far."""
        self.progress.count(windows, batch_seconds, wait_seconds, chunks)

    def may_go_on(self) -> bool:
        """Tell, after each batch, whether the next may come under the settings in force.

        Where not, close the stream and call `admit` before opening another.

        Raises
        ------
        MemoryLimitError
            If ranks agree that one of them must stop.
        """
        due = self._ranks is not None and self.progress.steps % AGREE_STEPS == 0
        if not due and time.monotonic() - self._looked < _LOOK_SECONDS:
            return True
        before = self.settings
        look, level = self._look(after_batch=True)
        if level >= Level.BATCH and time.monotonic() >= self._next_trim:
            # what a batch left behind must not pass for what the next will take
            self.monitor.trim()
            self._next_trim = time.monotonic() + _TRIM_SECONDS
            look, level = self._look()
        if level >= Level.PREFETCH:
            lean = min(1, self._asked.prefetch_batches)
            self._take(
                replace(before, prefetch_batches=lean, cached=False), self._reason(level, look)
            )
        self._resize(look, level, due=due)
        if level < Level.HOLD:
            self._endured = False
        return self.settings == before and not self._must_hold(level)

    def _resize(self, look: Look, level: Level, *, due: bool) -> None:
        """Choose the next batches' size; where there are ranks, all take the smallest choice."""
        sizer, room = self._sizer, int(_ROOM * look.allowed_bytes)
        size = sizer.size
        if level >= Level.BATCH:
            size = sizer.smaller(look.rss_bytes, room)
        sizer.count(calm=level == Level.CALM)
        if sizer.wants_peak:
            self.monitor.forget_peak()
        if sizer.is_patient:
            size = sizer.larger(look.rss_bytes, room)
            self._take(
                replace(self.settings, prefetch_batches=self._asked.prefetch_batches),
                self._reason(level, look),
            )
        reason = self._reason(level, look)
        if self._ranks is not None:
            if not due:
                return
            wanted = size
            out = self._endured and level >= Level.STOP and not sizer.can_shrink
            size, stop = settle(self._ranks, size, stop=out)
            if out:
                raise self._error()
            if stop:
                raise MemoryLimitError("another rank is out of memory: see its log")
            if size < wanted:
                reason = "another rank can take no more"
        self._take(replace(self.settings, batch_size=size), reason)

    def admit(self) -> Allowance:
        """Wait, with no stream open, while memory is too short; return the settings in force.

        Raises
        ------
        MemoryLimitError
            If it stays over the limit for `HOLD_SECONDS`.
        """
        level = self.monitor.level
        if level >= Level.TRIM:
            self.monitor.trim()
            _, level = self._look()
        if self._must_hold(level):
            if not self._endured:
                self._hold(level)
            if self.monitor.level >= Level.STOP and self._ranks is None:
                raise self._error()
        return self.settings

    def _must_hold(self, level: Level) -> bool:
        """Whether waiting is what is left to do, and was not in vain already."""
        # other ranks can't go on before this one does, and they will agree on smaller batches
        if self._ranks is not None and (self._sizer.can_shrink or self._endured):
            return False
        return level >= Level.STOP or (level >= Level.HOLD and not self._endured)

    def _hold(self, level: Level) -> None:
        """Wait for memory to come free."""
        self._record.decision("hold", f"level {level.name.lower()}", self.progress)
        _log.warning("memory is short: no batch is admitted for up to %g seconds", HOLD_SECONDS)
        deadline = time.monotonic() + HOLD_SECONDS
        while level >= Level.HOLD and time.monotonic() < deadline:
            time.sleep(_FRESH_SECONDS)
            _, level = self._look()
        self._endured = level >= Level.HOLD

    def _error(self) -> MemoryLimitError:
        return self.monitor.error(self.monitor.usage(), self._sizer.expected_bytes(0))

    def _look(self, *, after_batch: bool = False) -> tuple[Look, Level]:
        """Read memory, measure what the last batches took, and set the level for the next."""
        self._looked = time.monotonic()
        if self.monitor.level and time.time() - self.monitor.latest.time >= _FRESH_SECONDS:
            self.monitor.sample()
        look = self.monitor.look()
        if after_batch:
            if self._warm:
                self._sizer.measured(self._before_bytes, look.peak_bytes)
            # the first batch pays for much that stays
            self._warm = True
        self._before_bytes = look.rss_bytes
        expected = self._sizer.expected_bytes(look.rss_bytes)
        return look, self.monitor.expect(expected, look)

    def _take(self, settings: Allowance, reason: str) -> None:
        """Put settings into force, and say why."""
        before, self.settings = self.settings, settings
        if settings.batch_size != before.batch_size:
            self._sizer.set(settings.batch_size)
            self.progress.batch_size = settings.batch_size
        for name in ("batch_size", "prefetch_batches", "cached"):
            old, new = getattr(before, name), getattr(settings, name)
            if old != new:
                _log.info("%s from %s to %s: %s", name.replace("_", " "), old, new, reason)
                self._record.decision(name, reason, self.progress, old, new)

    def _reason(self, level: Level, look: Look) -> str:
        expected = self._sizer.expected_bytes(look.rss_bytes)
        return (
            f"{look.rss_bytes:,} bytes are in use, {expected:,} expected with the next batch, "
            f"{look.allowed_bytes:,} allowed (level {level.name.lower()}; a window takes "
            f"{self._sizer.window_bytes:,.0f})"
        )
