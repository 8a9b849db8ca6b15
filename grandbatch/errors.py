"""The errors grandbatch raises.

Every message says what was got, what was wanted, where, and what to do:

    GrandbatchError
    ├── UsageError            a setting or flag that makes no sense (exit 2)
    │   └── MissingExtraError     an optional extra's libraries are not installed
    ├── InputError            the bars are missing or bad
    │   ├── ColumnError           a header that can't be mapped
    │   ├── TimestampError        dates that can't be decided or read
    │   ├── BadRowsError          more bad rows than allowed
    │   ├── NoWindowsError        the bars give no window at all
    │   └── DamagedBarsError      the bars cache is damaged, or was cleared under its reader
    ├── StoreError            a store can't be used
    │   ├── StoreNotFoundError    nothing there, or not a finished store
    │   ├── StoreMismatchError    it holds something else than asked for
    │   ├── StoreChangedError     it was replaced under a reader
    │   ├── StoreBusyError        another process builds it
    │   ├── StoreUnreachableError no answer from where it is; its bytes may be well
    │   └── DamagedStoreError     bytes that are not those written
    ├── CheckpointError       a checkpoint can't be used
    │   ├── CheckpointNotFoundError nothing there; wrong usage, too (exit 2)
    │   └── DamagedCheckpointError  bytes that are not those written
    ├── KernelError           a kernel that does not keep what a feature promises
    ├── TrainingError         a batch that can't be learnt from
    ├── DiskFullError         no room for a file
    └── MemoryLimitError      a run that does not fit
"""

from __future__ import annotations

from grandbatch.values.texts import printable

__all__ = [
    "BadRowsError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ColumnError",
    "DamagedBarsError",
    "DamagedCheckpointError",
    "DamagedStoreError",
    "DiskFullError",
    "GrandbatchError",
    "InputError",
    "KernelError",
    "MemoryLimitError",
    "MissingExtraError",
    "NoWindowsError",
    "StoreBusyError",
    "StoreChangedError",
    "StoreError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "StoreUnreachableError",
    "TimestampError",
    "TrainingError",
    "UsageError",
]


class GrandbatchError(Exception):
    """Base of every error raised on purpose. `exit_code` is the command line's."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(GrandbatchError, ValueError):
    """A setting, flag or argument that makes no sense, or contradicts another."""

    exit_code = 2


class MissingExtraError(UsageError, ImportError):
    """The libraries of an optional extra are not installed."""


class InputError(GrandbatchError):
    """Input bars that are missing, unreadable or bad."""


class ColumnError(InputError):
    """A header whose columns can't be mapped to timestamp, open, high, low, close, volume."""


class TimestampError(InputError):
    """Timestamps whose form can't be decided or read."""


class BadRowsError(InputError):
    """More rows break the rules of bars than the settings allow.

    `reason` is the rule that a single bar broke, where it was one; else None.
    """

    reason: str | None = None


class NoWindowsError(InputError):
    """The bars are too few, or too broken up, to give a single window."""


class DamagedBarsError(InputError):
    """Bars of a cache differ from those that were written, or are gone while they are in use.

    Its first argument says what is wrong, a second one what to do.
    """

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class StoreError(GrandbatchError):
    """A store that can't be used."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no finished store at the path."""


class StoreMismatchError(StoreError):
    """The store holds something else than what was asked for."""


class StoreChangedError(StoreError):
    """The store was replaced or deleted while it was being read."""


class StoreBusyError(StoreError):
    """Another process holds the store's lock."""


class StoreUnreachableError(StoreError):
    """Where the store is gives no answer, or refuses: nothing is said of the store's bytes."""


class DamagedStoreError(StoreError):
    """Bytes of a store differ from those that were written."""


class CheckpointError(GrandbatchError):
    """A checkpoint that is damaged, foreign, or unsafe to read."""


class CheckpointNotFoundError(CheckpointError, UsageError):
    """There is no checkpoint at the path, so that it can't be read."""

    exit_code = 2


class DamagedCheckpointError(CheckpointError):
    """Bytes of a checkpoint differ from those that were written; an older one may do."""


class KernelError(GrandbatchError):
    """A kernel that looks ahead, reads past its lookback, or depends on more than its bars."""


class TrainingError(GrandbatchError):
    """A batch that can't be learnt from. Weights that came of it are not saved."""


class DiskFullError(GrandbatchError, OSError):
    """A file could not be written for lack of room. What was finished before is kept."""


class MemoryLimitError(GrandbatchError):
    """A run that needs more memory than its limit."""
