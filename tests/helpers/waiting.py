"""Waiting for what other threads and processes do, however long a slow machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 120
"""Far longer than any of it takes: only what never comes is given up."""

T = TypeVar("T")


def wait_until(
    found: Callable[[], T],
    ended: Callable[[], object] = lambda: False,
    told: Callable[[], object] = lambda: None,
) -> T:
    """Wait for something, and return it.

    What it comes of must not have `ended` without it; then it is asked what it `told`.
    """
    deadline = time.monotonic() + SECONDS
    while True:
        # asked for first: what comes last, right before the end, has come
        over = ended()
        if it := found():
            return it
        assert not over, told()
        assert time.monotonic() < deadline, f"nothing for {SECONDS} s"
        time.sleep(0.005)
