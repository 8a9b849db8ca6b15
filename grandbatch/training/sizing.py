"""How many windows to hand over at once, by what batches really take."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 32
"""Measurements that count; a batch that took more than usual is forgotten after so many."""

_CALM_STEPS = 16
"""Calm looks before a batch grows; twice as many after each time that it had to shrink."""

_MOST_CALM_STEPS = 1024

_MEASURED_BEFORE = 4
"""Looks before it may grow, and then every `_CALM_STEPS`, at which a batch's peak is measured."""


class BatchSizer:
    """The size of batches, between two bounds, in powers of two.

    The bounds themselves, and the size to start with, need not be powers of two.

    Parameters
    ----------
    start : int
    smallest, largest : int
    """

    def __init__(self, start: int, smallest: int, largest: int):
        self.size = start
        self._smallest = min(smallest, start)
        self._largest = max(largest, start)
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._calm = 0
        self._patience = _CALM_STEPS

    @property
    def window_bytes(self) -> float:
        """Bytes that a batch takes for each window, at its peak: the most of the latest ones."""
        return max(self._costs, default=0.0)

    @property
    def can_shrink(self) -> bool:
        """Whether there is a smaller size."""
        return self.size > self._smallest

    def measured(self, before_bytes: int, peak_bytes: int) -> None:
        """Take note of memory before a batch of this size, and of its peak."""
        self._costs.append(max(0, peak_bytes - before_bytes) / self.size)

    def expected_bytes(self, rss_bytes: int, size: int | None = None) -> int:
        """Return what memory a batch of a size will bring the tree to."""
        return rss_bytes + int(self.window_bytes * (self.size if size is None else size))

    def smaller(self, rss_bytes: int, room_bytes: int) -> int:
        """Return the next smaller size whose batch is expected to stay within `room_bytes`."""
        size = max(_power_below(self.size), self._smallest)
        while size > self._smallest and self.expected_bytes(rss_bytes, size) > room_bytes:
            size = max(_power_below(size), self._smallest)
        return size

    def larger(self, rss_bytes: int, room_bytes: int) -> int:
        """Return the next larger size, or the same where its batch is expected not to fit."""
        size = min(1 << self.size.bit_length(), self._largest)
        fits = self.expected_bytes(rss_bytes, size) <= room_bytes
        return size if fits else self.size

    def count(self, *, calm: bool) -> None:
        """Count looks at memory that were calm in a row."""
        self._calm = self._calm + 1 if calm else 0

    @property
    def is_patient(self) -> bool:
        """Whether it was calm for long enough to grow."""
        return self._calm >= self._patience

    @property
    def wants_peak(self) -> bool:
        """Whether the next batch's peak must be measured: it decides whether batches may grow."""
        since = self._calm - self._patience + _MEASURED_BEFORE
        return since >= 0 and since % _CALM_STEPS == 0

    def set(self, size: int) -> None:
        """Take a size into force."""
        if size < self.size:
            self._patience = min(2 * self._patience, _MOST_CALM_STEPS)
        self.size, self._calm = size, 0


def _power_below(size: int) -> int:
    return max(1, 1 << (size - 1).bit_length() - 1) if size > 1 else 1
