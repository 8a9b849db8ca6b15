"""How kernels are compiled: lazily, kept on disk, without the GIL.

Covers the decorators. Kernels must not call compiled functions of other files: numba's cache
of a kernel is renewed when the kernel's own file changes, and only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop at its first call.

    No `fastmath` and no `parallel`: a value's bits must depend on its own terms alone. A division
    by zero gives inf or nan, as in numpy, for the kernel to replace.

    Where neither the package's folder nor the user's cache folder can be written, the machine code
    isn't kept, and each process compiles anew.
    """
    try:
        jitted = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        jitted = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("Callable[P, R]", jitted)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper into its callers, for one so hot that the call itself would show."""
    jitted = numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
    return cast("Callable[P, R]", jitted)
