"""Settings, as frozen values that check themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, SupportsFloat

from grandbatch.errors import UsageError
from grandbatch.values.checks import whole

MOST = 2**53
"""Of windows in a batch, of batches, steps and threads."""

BatchSize = int | Literal["auto"]

DEFAULT_CACHE_BYTES = 64 * 1024 * 1024


class _Unless(int):
    """A default that gives way to what the store says: it is not what a person has given."""


def is_given(value: int) -> bool:
    """Whether a person has given a value, which then holds for any store."""
    return not isinstance(value, _Unless)


@dataclass(frozen=True)
class BatchConfig:
    """How batches are formed, prefetched and checkpointed.

    Length and overlap are the store's unless they are given: those given must be the store's.

    Raises
    ------
    UsageError
        If a value makes no sense; the message names the field.

    Examples
    --------
    >>> import grandbatch as gb
    >>> gb.BatchConfig(batch_size=64, seed=1).batch_size
    64
    """

    batch_size: BatchSize = 32
    """Windows in a batch, or "auto"."""
    sequence_length: int = _Unless(48)
    """Feature rows in a window; the store's unless given."""
    overlap: int = _Unless(12)
    """Rows shared by neighbouring windows; the store's unless given."""
    prefetch_batches: int = 2
    """Batches prepared ahead by the stream; 0 prepares each when asked for."""
    max_memory_percent: float = 80.0
    """Share of the memory limit, in percent, that the process tree may use."""
    checkpoint_frequency: int = 100
    """Steps between two checkpoints."""
    cache_bytes: int = _Unless(DEFAULT_CACHE_BYTES)
    """Bound of the cache of decoded chunks, in bytes; 0 keeps none. By default 64 MiB, or 256 MiB
    with the labels of a store at a URL that is not kept on a disk."""
    num_workers: int = 2
    """Threads that decode chunks ahead, at most one less than there are cores: a loop that would
    wait for them helps. They never change the order."""
    seed: int = 0
    """Seed of the epoch order."""
    adaptive: bool = True
    """Split what is handed over when memory runs short."""
    min_batch_size: int = 1
    """The adaptive batch size never goes below this."""
    max_batch_size: int | None = None
    """With batch_size="auto" the batch never grows beyond this."""

    def __post_init__(self) -> None:
        auto = self.batch_size == "auto"
        whole("sequence_length", self.sequence_length, 1)
        whole("overlap", self.overlap, 0)
        if self.overlap >= self.sequence_length and not isinstance(self.overlap, _Unless):
            raise UsageError(
                f"overlap must be smaller than sequence_length ({self.sequence_length}), "
                f"got {self.overlap}"
            )
        if not auto:
            if isinstance(self.batch_size, str):
                raise UsageError(f'batch_size must be a number or "auto", got {self.batch_size!r}')
            whole("batch_size", self.batch_size, 1, MOST)
        whole("prefetch_batches", self.prefetch_batches, 0, MOST)
        whole("checkpoint_frequency", self.checkpoint_frequency, 1, MOST)
        whole("cache_bytes", self.cache_bytes, 0)
        whole("num_workers", self.num_workers, 1, MOST)
        whole("seed", self.seed, 0)
        whole("min_batch_size", self.min_batch_size, 1, MOST)
        if self.max_batch_size is not None:
            whole("max_batch_size", self.max_batch_size, self.min_batch_size, MOST)
        if isinstance(self.batch_size, int) and not (
            self.min_batch_size <= self.batch_size <= (self.max_batch_size or self.batch_size)
        ):
            raise UsageError(
                f"batch_size must be from min_batch_size ({self.min_batch_size}) to "
                f"max_batch_size ({self.max_batch_size}), got {self.batch_size}"
            )
        percent = self.max_memory_percent
        if not (isinstance(percent, SupportsFloat) and 0 < percent <= 100):
            raise UsageError(f"max_memory_percent must be above 0 and at most 100, got {percent!r}")

    @property
    def stride(self) -> int:
        """Bars between the starts of neighbouring windows."""
        return self.sequence_length - self.overlap

    def with_window(self, sequence_length: int, overlap: int) -> BatchConfig:
        """Return the settings with a length and an overlap where none was given."""
        windows = {"sequence_length": sequence_length, "overlap": overlap}
        unset = {n: _Unless(v) for n, v in windows.items() if isinstance(getattr(self, n), _Unless)}
        return replace(self, **unset) if unset else self  # type: ignore[arg-type]  # both are int

    @classmethod
    def strategic(cls) -> BatchConfig:
        """Return the settings for strategic matrices: 48 rows, overlap 12, batches of 32."""
        return cls(
            batch_size=32,
            sequence_length=48,
            overlap=12,
            max_memory_percent=75.0,
            checkpoint_frequency=100,
        )

    @classmethod
    def tactical(cls) -> BatchConfig:
        """Return the settings for tactical matrices: 60 rows, overlap 15, batches of 64."""
        return cls(
            batch_size=64,
            sequence_length=60,
            overlap=15,
            max_memory_percent=80.0,
            checkpoint_frequency=200,
        )

    @classmethod
    def hierarchical(cls) -> BatchConfig:
        """Return the settings for tactical matrices with a context: every bar, batches of 256.

        Neighbouring windows share their context, so that many are needed for few of these.
        """
        return replace(cls.tactical(), batch_size=256, overlap=59)


def calculate_optimal_batch_size(
    data_size: int,
    memory_limit_gb: float = 4.0,
    sequence_length: int = 48,
) -> int:
    """Choose a batch size by the size of the dataset and the memory there is for batches.

    Parameters
    ----------
    data_size : int
        Bars.
    memory_limit_gb : float
        Memory for the whole run, in GiB.
    sequence_length : int
        Rows in a window.

    Returns
    -------
    int
        8 to 16 below 10,000 bars, 16 to 32 below 100,000, else 32 to 64: the upper figure where
        a thousandth of the memory holds such a batch of 16 float64 features, else the lower.

    Raises
    ------
    UsageError
        If an argument is not positive, or not finite.
    """
    if not all(0 < x < math.inf for x in (data_size, memory_limit_gb, sequence_length)):
        raise UsageError(
            "data_size, memory_limit_gb and sequence_length must be positive and finite, got "
            f"{data_size}, {memory_limit_gb}, {sequence_length}"
        )
    memory_bytes, window_bytes = memory_limit_gb * 2**30, sequence_length * 16 * 8
    if data_size < 10_000:
        upper = 16
    elif data_size < 100_000:
        upper = 32
    else:
        upper = 64
    return upper if upper * window_bytes * 1000 <= memory_bytes else upper // 2
