"""Patience with a wire: how long a request is waited for, and how often it is made again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from grandbatch.files.object_errors import WireError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_TOLD_FROM = 0.5
"""An outage is told from the first pause of so many seconds on."""
_QUIET_SECONDS = 120.0
"""What is told again within that time is the same outage."""

_log = logging.getLogger("grandbatch")
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long requests are waited for.

    Parameters
    ----------
    request_seconds : float
        For one request, until its answer is there whole.
    total_seconds : float
        For a request and all times that it is made again: past that, no further try begins.
    """

    request_seconds: float = 30
    total_seconds: float = 120


PATIENCE = Patience()


def insist(request: Callable[[], T], what: str, server: str, patience: Patience) -> T:
    """Make a request again, with growing pauses, as long as the wire is what fails.

    Parameters
    ----------
    request : callable
    what : str
        What is asked for, for the error.
    server : str
        Outages of which are told once, however many requests wait for their end.
    patience : Patience

    Raises
    ------
    WireError
        When patience ends.
    """
    began, pause, tries = time.monotonic(), _FIRST_PAUSE, 0
    while True:
        try:
            return request()
        except WireError as error:
            told = str(error)
        tries += 1
        waited = time.monotonic() - began
        if waited + pause > patience.total_seconds:
            raise WireError(
                f"{what}: no whole answer in {waited:.0f} s and {tries} tries ({told}); see that "
                "the server and the network are up, and try again"
            ) from None
        if pause >= _TOLD_FROM:
            _tell_once(server, told, patience.total_seconds - waited)
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (that not all come at once)
        pause = min(2 * pause, _LONGEST_PAUSE)


_told_at: dict[str, float] = {}


def _tell_once(server: str, what: str, left: float) -> None:
    now = time.monotonic()
    if now - _told_at.get(server, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _log.warning("%s: %s; trying again for up to %.0f s", server, what, left)
    _told_at[server] = now
