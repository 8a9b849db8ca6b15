"""How kernels are compiled: lazily, kept on disk, without the GIL.

Covers the decorators, and a word about what takes so long. Kernels must not call compiled functions
of other files: numba's cache of a kernel is renewed when the kernel's own file changes, and only
then.
"""

from __future__ import annotations

import logging
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core import event

from grandbatch.files.system import user_id

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("grandbatch")
_PATIENCE = 2.0
"""Seconds of compiling that need no explanation."""

COMPILING_BYTES = 56 * 2**20
"""What a process holds for good once it has compiled what reads bars."""


class _Telling(event.Listener):  # type: ignore[misc]  # numba is untyped
    """Tells once, while it lasts, that kernels are being compiled."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._depth, self._has_told = 0, False

    def on_start(self, _: object) -> None:
        if self._depth == 0:
            self._began = time.monotonic()
        self._depth += 1
        self._tell()

    def on_end(self, _: object) -> None:
        self._tell()
        self._depth -= 1

    def _tell(self) -> None:
        lasts = self._began is not None and time.monotonic() - self._began > _PATIENCE
        if lasts and not self._has_told:
            self._has_told = True
            _log.info("compiling kernels for this processor: once, it may take 15 seconds")


event.register("numba:compile", _Telling())


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop at its first call.

    No `fastmath` and no `parallel`: a value's bits must depend on its own terms alone. A division
    by zero gives inf or nan, as in numpy, for the kernel to replace.

    Machine code is kept in the package's folder, else in the user's cache folder, else in one of
    the user's own among temporary files. Where none can be written, each process compiles anew.
    """
    return cast("Callable[P, R]", _kept(function, nogil=True, error_model="numpy"))


def _kept(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # of the places that numba knows none can be written
        folder = _own_folder()
    if folder is None:
        return numba.njit(**options)(function)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_DIR = before


def _own_folder() -> Path | None:
    """Return a folder for temporary files that nobody else can write: what lies there is run."""
    user = user_id()
    folder = Path(tempfile.gettempdir()) / f"grandbatch-kernels-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == user
    return folder if is_own and not status.st_mode & 0o077 else None


def compiling_bytes(kernel: Callable[..., Any]) -> int:
    """Bytes for compiling, if this process compiled a kernel or will have to; 0 where it is kept.

    Parameters
    ----------
    kernel : callable
        A compiled one, that stands for all: they are compiled by the same runs.
    """
    stats = cast("Any", kernel).stats
    code = cast("Any", kernel).py_func.__code__
    if stats.cache_path is None or stats.cache_misses:
        return COMPILING_BYTES
    written = Path(code.co_filename).stat().st_mtime
    kept = Path(stats.cache_path).glob(f"*.{code.co_qualname}-*.nbi")
    return 0 if any(index.stat().st_mtime >= written for index in kept) else COMPILING_BYTES


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper into its callers, for one so hot that the call itself would show."""
    jitted = numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
    return cast("Callable[P, R]", jitted)
