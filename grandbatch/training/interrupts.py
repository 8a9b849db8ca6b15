"""Ctrl-C at a moment when it can be answered: a half-done training step can't be saved.

A process that was started with Ctrl-C ignored, as a shell's script starts what it puts in the
background, goes on ignoring it.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class HeldInterrupts:
    """Holds Ctrl-C back inside a `with` block; `release` lets it through.

    Only the main thread hears signals; in others this does nothing. Leaving the block by an error
    drops what was held: the error ends the run anyway.
    """

    def __init__(self) -> None:
        self.pending = False
        self._before: object = None

    def __enter__(self) -> HeldInterrupts:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]  # as it was given
            self._before = None

    def release(self) -> None:
        """Let what was held through: to whoever held before, else as KeyboardInterrupt."""
        if self.pending:
            self.pending = False
            signal.raise_signal(signal.SIGINT)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.pending = self.pending or not Ending.is_deaf


class Ending:
    """Has SIGTERM end the process as Ctrl-C does, and whatever holds back the one the other."""

    is_deaf = False
    """Whether Ctrl-C is ignored, though it is caught."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._was_deaf = False

    def __enter__(self) -> Ending:
        self._was_deaf = Ending.is_deaf
        Ending.is_deaf |= signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *error: object) -> None:
        Ending.is_deaf = self._was_deaf
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not Ending.is_deaf:
            raise KeyboardInterrupt

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        Ending.is_deaf = False
        signal.raise_signal(signal.SIGINT)
