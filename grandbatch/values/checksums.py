"""crc32c of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any


@cache
def _loaded() -> Callable[[Any, int], int]:
    # a run that reuses all that is there asks for none, and loads nothing for it
    from crc32c import crc32c

    function: Callable[[Any, int], int] = crc32c
    return function


def crc32c(payload: Any, before: int = 0) -> int:
    """Return the crc32c of some bytes, or of those before and them; without the GIL if many."""
    return _loaded()(payload, before)


def crc32c_of_each(payloads: Iterable[Any]) -> list[int]:
    """Return the crc32c of each of some pieces of bytes."""
    function = _loaded()
    return [function(payload, 0) for payload in payloads]
