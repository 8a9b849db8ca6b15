"""Ctrl-C at a moment when it can be answered: a half-done training step can't be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class HeldInterrupts:
    """Holds Ctrl-C back inside a `with` block; `release` lets it through.

    Only the main thread hears signals; in others this does nothing. Leaving the block by an error
    drops what was held: the error ends the run anyway.
    """

    def __init__(self) -> None:
        self.pending = False
        self._before: object = None

    def __enter__(self) -> HeldInterrupts:
        if threading.current_thread() is threading.main_thread():
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
        self.pending = True
