"""Admit a cluster's workers to a run: those of another version, or of other places, are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grandbatch.errors import GrandbatchError
from grandbatch.files.locations import is_remote, location_of, objects_at, told, version_of
from grandbatch.files.patience import Patience
from grandbatch.scheduling.origin import (
    Access,
    Origin,
    bit_versions,
    look_at,
    problems_of,
    unreachable,
)
from grandbatch.scheduling.schedule import Schedule
from grandbatch.version import __version__

FIRST_PATIENCE = Patience(request_seconds=5, total_seconds=15)
"""With a place that a worker tries to reach for the first time."""


@dataclass(frozen=True)
class FileAccess:
    """A file at a URL, which each worker must be able to read."""

    url: str
    version: str
    """As the process sees it that asks."""

    def problem(self) -> str:
        """Ask for its version; say what goes wrong, or nothing."""
        objects = objects_at(self.url)
        try:
            if objects is None:
                found = version_of(location_of(self.url))
            else:
                found = replace(objects, patience=FIRST_PATIENCE).head("").version
        except FileNotFoundError:
            return f"finds no {self.url}"
        except OSError as error:
            return f"can't reach {self.url}: {told(error)}"
        except GrandbatchError as error:
            return f"can't reach {self.url}: {error}"
        if found != self.version:
            return (
                f"{self.url} is another than this process sees there: another server answers, or "
                "it was replaced just now"
            )
        return ""


def check_version(schedule: Schedule) -> None:
    """Refuse workers of another version of this package, before they are asked for anything else.

    Raises
    ------
    StoreError
    """
    here = Origin.here()
    for address, version in sorted(schedule.run_on_workers(own_version).items()):
        here.compare(address, [("grandbatch", version)], ())


def own_version() -> str:
    """Return the version of grandbatch here."""
    return __version__


def admit(
    schedule: Schedule, paths: Sequence[str] = (), reaches: Sequence[Access] = ()
) -> Schedule:
    """Check a cluster's workers, whose version is known, before a run.

    Parameters
    ----------
    schedule : Schedule
        Of a cluster.
    paths : sequence of str
        Files that each must see as this process does.
    reaches : sequence of Access
        Places that each must reach.

    Returns
    -------
    Schedule
        Whose tasks check the same again, wherever they run: workers may join later.

    Raises
    ------
    StoreError
        If one can't take part; all that can't reach a place are named at once.
    """
    origin = Origin.here(paths, reaches)
    versions = schedule.run_on_workers(bit_versions)
    for address, seen in sorted(schedule.run_on_workers(look_at, paths).items()):
        origin.compare(address, versions.get(address, ()), seen)
    found = schedule.run_on_workers(problems_of, reaches)
    problems = {address: ", ".join(told) for address, told in found.items() if told}
    if problems:
        raise unreachable(problems)
    return replace(schedule, origin=origin)


def admit_readers(schedule: Schedule, file: Path) -> Schedule:
    """Check a cluster's workers before they read what lies beside a file, on a disk or at a URL.

    Returns, raises
    ---------------
    As `admit`.
    """
    check_version(schedule)
    if is_remote(file):
        return admit(schedule, reaches=[FileAccess(str(file), version_of(file))])
    return admit(schedule, [str(file)])
