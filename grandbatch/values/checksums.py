"""crc32c of bytes."""

from __future__ import annotations

from typing import Any


def crc32c(payload: Any, before: int = 0) -> int:
    """Return the crc32c of some bytes, or of those before and them; without the GIL if many."""
    # a run that reuses all that is there asks for none, and loads nothing for it
    from crc32c import crc32c

    return int(crc32c(payload, before))
