"""Importing without a search for garbage: what is imported stays.

The search goes through all that there is again and again while much is made, which takes a fifth of
a short run.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Search for no garbage while a block imports, nor later, in a process of the command's own."""
    was_on, n_before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_freeze_count() and len(sys.modules) > n_before:
                gc.freeze()
            gc.enable()


def loaded() -> None:
    """Search again, from a command's beginning on, and not among what was imported before it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
