"""One holder at a time, told by an object that it renews: a lock for hosts that share no disk.

The object is put only where there is none, and replaced only where the version stands that was
seen: whoever comes second is refused by the store. It is renewed as long as its holder lives. Who
waits takes it over once it has seen the same version for the time that the holder itself has named:
measured here, by no other host's clock. A holder whose object was taken over, or who could not
renew it for that time, has lost it, and finds out by `check`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grandbatch.errors import StoreBusyError, StoreError
from grandbatch.files import digested
from grandbatch.files.locations import told
from grandbatch.files.object_clients import split_url
from grandbatch.files.objects import ObjectChangedError, Objects, Patience
from grandbatch.files.refusals import check_conditions
from grandbatch.files.verbs import begun, names_in, objects_of

LEASE_SECONDS = 60.0
"""How long a lease holds that isn't renewed."""

_RENEWALS = 6
"""In the time that a lease holds."""

_SURE = 0.75
"""Share of that time after which a holder that couldn't renew no longer counts on its lease."""

_log = logging.getLogger("grandbatch")


@dataclass(frozen=True)
class Seen:
    """What stands in a lease's object."""

    owner: str
    who: str
    seconds: float
    version: str
    is_held: bool


class Lease:
    """A lease that this process holds, and renews in a thread of its own until it ends."""

    def __init__(self, location: Path, what: str) -> None:
        self.location = location
        self._objects = objects_of(location)
        self._what = what
        self._owner = secrets.token_hex(16)
        self._since = time.strftime("%H:%M:%S")
        self._seconds = LEASE_SECONDS
        self._count = 0
        self._version = ""
        self._renewed = 0.0
        self._lost = ""
        self._ended = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    @property
    def fence(self) -> Fence:
        """What tasks see by whether it is held still."""
        return Fence(str(self.location), self._owner, self._seconds)

    def try_to_take(self, patience: Callable[[Seen], bool]) -> Seen | None:
        """Take the lease if nobody has it, or if there is no patience with whoever has.

        Returns
        -------
        Seen or None
            Who has it; None where it is taken.
        """
        looked = begun(partial(look, self._objects))  # of use where there is an object already
        if self._create():
            return None
        seen = looked()
        try:
            if seen is not None and (not seen.is_held or not patience(seen)):
                version = seen.version
                self._took(lambda data: self._objects.replace("", data, version))
                return None
        except (ObjectChangedError, FileNotFoundError):
            seen = None
        # where none was seen another was faster
        seen = seen or look(self._objects)
        return seen or Seen("", "another process", self._seconds, "", True)

    def _create(self) -> bool:
        with suppress(FileExistsError):
            self._took(lambda data: self._objects.create("", data))
            return True
        return False

    def begin(self) -> None:
        """Renew it from now on."""
        _own[self._owner] = self
        self._thread.start()

    def end(self) -> None:
        """Let it go, so that nobody waits for it to run out."""
        self._ended.set()
        self._thread.join(self._seconds)
        _own.pop(self._owner, None)
        with suppress(OSError), self._turn:
            if not self._lost:
                self._objects.replace("", self._content(is_held=False), self._version)

    def check(self) -> None:
        """See that nobody else can hold it by now.

        Raises
        ------
        StoreError
            If it was taken over, or could not be renewed for too long.
        """
        unsure = time.monotonic() - self._renewed > _SURE * self._seconds
        if self._lost or unsure:
            why = self._lost or f"it could not be renewed for {_SURE * self._seconds:.0f} s"
            raise StoreError(
                f"this process no longer holds {self.location}, by which one builds at a time "
                f"({why}): nothing more is written for {self._what}; run the same command again, "
                "what was finished is kept"
            )

    def renew(self) -> None:
        """Renew it now, and see that it holds.

        Raises
        ------
        StoreError
            As `check`.
        """
        self._renew()
        self.check()

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        # one that comes late is none
        patience = Patience(self._seconds / 4, self._seconds / 4)
        objects = replace(self._objects, patience=patience)
        with self._turn:
            try:
                self._took(lambda data: objects.replace("", data, self._version))
            except (ObjectChangedError, FileNotFoundError):
                seen = None
                with suppress(OSError):
                    seen = look(self._objects)
                if seen is not None and seen.owner == self._owner:
                    self._version = seen.version  # it was our own, whose answer was lost
                else:
                    self._lost = f"{'nobody' if seen is None else seen.who} has it now"
            except OSError as error:
                _log.debug("%s can't be renewed: %s", self.location, error)

    def _took(self, put: Callable[[bytes], str]) -> None:
        began = time.monotonic()
        self._count += 1
        self._version = put(self._content(is_held=True))
        # from when it was asked for: the store may have had it at once, and the answer late
        self._renewed = began

    def _content(self, *, is_held: bool) -> bytes:
        # never the same bytes twice: of equal ones the version may be the same
        value = {
            "owner": self._owner,
            "who": f"process {os.getpid()} on {socket.gethostname()} since {self._since}",
            "seconds": self._seconds,
            "count": self._count,
            "held": is_held,
        }
        return json.dumps(value).encode()


_own: dict[str, Lease] = {}
"""The leases that this process holds, by their owners."""


def look(objects: Objects) -> Seen | None:
    """Return what stands in a lease's object; None where nothing does.

    Raises
    ------
    OSError
        If it can't be read.
    """
    try:
        data, version = objects.read_version("")
    except FileNotFoundError:
        return None
    try:
        value = digested.parse(data)
        told = str(value["owner"]), str(value["who"]), float(value["seconds"])
        return Seen(*told, version, bool(value["held"]))
    except (ValueError, KeyError, TypeError):
        # what is no lease is never renewed, and taken over in its time
        return Seen("", "an unknown process", LEASE_SECONDS, version, is_held=True)


def held_by_others(folders: Iterable[Path]) -> dict[Path, Seen]:
    """Find the leases right below some URLs that other processes hold, or held when they ended.

    Raises
    ------
    OSError
        If that can't be found out.
    """
    found = {}
    for folder in folders:
        for name in names_in(folder):
            seen = None if name.endswith("/") else look(objects_of(folder / name))
            if seen is not None and seen.is_held and seen.owner not in _own:
                found[folder / name] = seen
    return found


def living_holders(folders: Iterable[Path]) -> list[str]:
    """Say which other processes hold leases right below some URLs, and live.

    That one lives is told by its renewing: it is waited for, at most as long as its lease holds.

    Raises
    ------
    OSError
        If that can't be found out.
    """
    left, living = held_by_others(folders), []
    began = time.monotonic()
    while left:
        time.sleep(min(1.0, *(seen.seconds / 12 for seen in left.values())))
        for location, before in list(left.items()):
            now = look(objects_of(location))
            renewed = now is not None and now.version != before.version
            if now is not None and now.is_held and renewed:
                living.append(now.who)
            if renewed or now is None or time.monotonic() - began >= before.seconds:
                del left[location]
    return living


@dataclass(frozen=True)
class Fence:
    """What a lease was when tasks were sent: they write nothing once another has it.

    Parameters
    ----------
    location : str
        URL of the lease.
    owner : str
    seconds : float
        How long it holds unrenewed.
    """

    location: str
    owner: str
    seconds: float

    def check(self) -> None:
        """See that nobody else has the lease; asked for anew after a twelfth of its time.

        In the process that holds it, and renews it, nobody need be asked.

        Raises
        ------
        StoreError
        """
        held = _own.get(self.owner)
        if held is not None:
            held.check()
            return
        now = time.monotonic()
        if now - _seen_at.get(self, -1e9) < self.seconds / (2 * _RENEWALS):
            return
        seen = look(objects_of(self.location))
        if seen is None or seen.owner != self.owner or not seen.is_held:
            who = "nobody" if seen is None or not seen.is_held else seen.who
            raise StoreError(
                f"{self.location}, by which one builds at a time, is no longer that of the build "
                f"which sent this task ({who} has it): nothing is written"
            )
        _seen_at[self] = now


_seen_at: dict[Fence, float] = {}


_checked: set[tuple[str, str | None]] = set()
"""Buckets, each with its server, that do what leases need as far as this process has seen."""


def _check_once(place: Path) -> None:
    """See, once in a process for each bucket, that its server does what leases need."""
    bucket = split_url(str(objects_of(place).url))[0], os.environ.get("AWS_ENDPOINT_URL")
    if bucket not in _checked:
        check_conditions(objects_of(place))
        _checked.add(bucket)


@contextmanager
def hold_lease(
    place: Path,
    what: str,
    *,
    wait: bool = True,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """Hold a lease, waiting for whoever has it; one that isn't renewed any more is taken over.

    Parameters
    ----------
    place : Path
        URL of its object.
    what : str
        What is built by whoever holds it, in words.
    wait : bool
        Whether to wait for another holder that lives. That one is gone is found out by waiting.
    on_wait : callable, optional
        Told whom one waits for.

    Raises
    ------
    StoreBusyError
        If another holds it and `wait` is false.
    StoreError
        If the place can't be reached, or its server lacks what leases need.
    """
    try:
        _check_once(place.parent)
        lease = Lease(place, what)
        _wait_for(lease, what, on_wait, wait=wait)
    except OSError as error:
        raise StoreError(f"{place} can't be reached: {told(error)}") from error
    lease.begin()
    try:
        yield lease
    finally:
        lease.end()


def _wait_for(
    lease: Lease, what: str, on_wait: Callable[[str], None] | None, *, wait: bool
) -> None:
    """Wait until a lease is taken, or seen not to be renewed for as long as it holds."""
    since, version, who = time.monotonic(), "", ""

    def patience(seen: Seen) -> bool:
        nonlocal since, version
        if seen.version != version:
            since, version = time.monotonic(), seen.version
        is_due = time.monotonic() - since >= seen.seconds
        if is_due:
            _log.warning("%s: %s doesn't renew it; it is taken over", lease.location, seen.who)
        return not is_due

    while (seen := lease.try_to_take(patience)) is not None:
        if not wait:
            raise StoreBusyError(
                f"{what} is being built by {seen.who}; wait for it: one that is gone is taken "
                f"over after {seen.seconds:.0f} s"
            )
        if on_wait and seen.who != who:
            who = seen.who
            on_wait(f"waiting for {who}, which builds {what}")
        time.sleep(min(1.0, seen.seconds / 4))
