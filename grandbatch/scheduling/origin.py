"""Where tasks come from: each refuses a process that is of another version, or on other disks.

Workers are looked at before a run, and may join while it goes on. What a task writes on a disk of
its own is lost, and what another version computes may be other numbers: so every task that is sent
to a cluster looks for itself, at each call.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from grandbatch.errors import GrandbatchError, StoreError
from grandbatch.files.ordinary import open_regular
from grandbatch.files.verbs import each
from grandbatch.scheduling.turns import turn
from grandbatch.version import __version__

_PACKAGES = ("numpy", "numba", "llvmlite", "pandas", "pyarrow", "numcodecs")
"""Whose versions may change bits: what computes, what reads numbers and times, what packs them."""

_BEGINNING_BYTES = 128

PathSight = tuple[int, bytes] | None
"""Size and beginning of a file; None where it can't be read."""


class Access(Protocol):
    """A place that every process must reach, as a value that can be a key."""

    def problem(self) -> str:
        """Try; say what goes wrong, or nothing."""
        ...

    def __hash__(self) -> int: ...


@lru_cache(maxsize=1)
def bit_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions, here, of all that may change a bit of a store."""
    return (("grandbatch", __version__), *((name, _version(name)) for name in _PACKAGES))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def look_at(paths: Sequence[str]) -> list[PathSight]:
    """Return what is seen of files."""
    return [_sight(path) for path in paths]


def _sight(path: str) -> PathSight:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(_BEGINNING_BYTES)
    except OSError:
        return None


@dataclass(frozen=True)
class Origin:
    """The process that sends tasks: its versions, and what it sees of files that must be shared."""

    versions: tuple[tuple[str, str], ...]
    paths: tuple[str, ...] = ()
    sights: tuple[PathSight, ...] = ()
    reaches: tuple[Access, ...] = ()
    """Asked once in each process: what they look at doesn't change for it."""

    @classmethod
    def here(cls, paths: Sequence[str] = (), reaches: Sequence[Access] = ()) -> Origin:
        """Describe this process."""
        return cls(bit_versions(), tuple(paths), tuple(look_at(paths)), tuple(reaches))

    def check(self, where: str) -> None:
        """Compare with the process that this is called in.

        Raises
        ------
        StoreError
            If it isn't the same; names the process by `where`.
        """
        self.compare(where, bit_versions(), look_at(self.paths))
        for reach in self.reaches:
            problem = _problem_of(reach)
            if problem:
                raise unreachable({where: problem})

    def compare(
        self, where: str, versions: Sequence[tuple[str, str]], sights: Sequence[PathSight]
    ) -> None:
        """Compare with what another process has told of itself.

        Raises
        ------
        StoreError
            As `check`.
        """
        expected = dict(self.versions)
        for name, found in versions:
            ours = expected.get(name, "none")
            if found != ours:
                raise StoreError(
                    f"worker {where} runs {name} {found}, and this is {ours}: stores of two "
                    "versions may differ; install the same one on every worker and run the same "
                    "command again, what a build has finished is kept"
                )
        for path, sight, wanted in zip(self.paths, sights, self.sights, strict=True):
            if sight != wanted:
                raise StoreError(
                    f"worker {where} can't see {path} as this process does; every worker must "
                    "reach the inputs, the bars cache and the store's folder under the same "
                    "paths: use a shared disk, or --scheduler threads"
                )


def problems_of(reaches: Sequence[Access]) -> list[str]:
    """Say what keeps this process from places, a line for each that it can't reach."""
    return [problem for problem in each(_problem_of, reaches, far=True) if problem]


_reached: set[Access] = set()
"""What this process has reached; what it couldn't is tried anew by the next build."""


def _problem_of(reach: Access) -> str:
    problem = "" if reach in _reached else reach.problem()
    if not problem:
        _reached.add(reach)
    return problem


def unreachable(problems: Mapping[str, str]) -> StoreError:
    """Say which workers can't reach a place, and why, by their addresses."""
    told = "; ".join(f"worker {where}: {what}" for where, what in sorted(problems.items()))
    return StoreError(
        f"{told}. Every worker goes to these places itself: give it the credentials and "
        "the endpoint in its own environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL …), start it again and run the same command"
    )


@dataclass(frozen=True, eq=False)
class _Guarded:
    """A task's function that first looks where it is."""

    function: Any
    origin: Origin
    turns: int
    token: Any
    """The task's key, and the origin's: Dask would hash all that goes into it to tell it apart."""

    def __dask_tokenize__(self) -> Any:
        return self.token

    def __call__(self, *values: Any, **named: Any) -> Any:
        with turn(self.turns):
            return self._call(*values, **named)

    def _call(self, *values: Any, **named: Any) -> Any:
        self.origin.check(_address())
        try:
            return self.function(*values, **named)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a worker is to live on)
            failed = packed(error, _address())
        # outside: it would take the error along, as its context
        raise failed


class PackedError(Exception):
    """An error of a task on its way to who sent it.

    As itself it may not get there: what can't be read back ends the connection that it comes by,
    and whoever waits then waits for ever. This one is made of nothing but text and bytes.
    """

    def __init__(self, told: str, pickled: bytes | None) -> None:
        super().__init__(told, pickled)
        self.told, self.pickled = told, pickled

    def unpack(self) -> BaseException:
        """Return the task's own error, or one of ours that says what it was."""
        with suppress(Exception):
            found = pickle.loads(self.pickled or b"")  # noqa: S301 (of a worker, as all)
            if isinstance(found, BaseException):
                return found
        return GrandbatchError(self.told)


def packed(error: BaseException, where: str) -> PackedError:
    """Pack an error of a task that runs in a process, which `where` names."""
    try:
        said = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 (it is somebody's)
        said = ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    told = (
        f"worker {where}: {type(error).__name__}{': ' if said else ''}{said} "
        f"({frame.filename}, line {frame.lineno})"
    )
    pickled = None
    if isinstance(error, Exception):  # what ends a process is told, and ends no other
        error.__cause__ = error.__context__ = error.__traceback__ = None
        with suppress(Exception):
            pickled = pickle.dumps(error)
    return PackedError(told, pickled)


def _address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return f"process {os.getpid()}"


def guard(graph: Mapping[Any, Any], origin: Origin, turns: int) -> dict[Any, Any]:
    """Return a Dask graph whose tasks refuse to run anywhere but where `origin` says.

    So many of them are under way at once for each thread of a worker.
    """
    from dask._task_spec import Task, convert_legacy_graph
    from dask.tokenize import tokenize

    of_origin = tokenize(origin)
    guarded: dict[Any, Any] = {}
    for key, node in convert_legacy_graph(dict(graph)).items():
        # others hold values, or name another task
        if type(node) is not Task:
            guarded[key] = node
        elif node.dependencies:
            call = _Guarded(node.func, origin, turns, (node.key, of_origin))
            guarded[key] = Task(node.key, call, *node.args, **node.kwargs)
        else:
            guarded[key] = Task(node.key, _Guarded(node, origin, turns, (node.key, of_origin)))
    return guarded
