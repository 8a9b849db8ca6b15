"""Numba loops over the bars of one segment, behind plain functions.

| module | |
|---|---|
| `bars` | kernels that read bars: lines, numbers, times, rules |
| `compilation` | how kernels are compiled: lazily, kept on disk, without the GIL |
| `strategic` | 13 numbers per bar from the 41 bars up to it |
| `tactical` | 7 numbers per bar from the 22 bars up to it |
| `alpha158_columns` | names and numbers of Alpha158's columns |
| `alpha158_moments` | Alpha158's means, spreads, regressions and correlations, by trees |
| `alpha158_order` | Alpha158's extremes, ranks and quantiles |
| `windows` | kernels of windows of any length: sums, spreads, regressions, extremes, ranks |
| `formulas` | what formulas of indicators need beside windows |
| `barriers` | which of two prices is reached first |
| `local_time` | where local time stands on the circles of day, week and year |
| `statistics` | statistics of feature rows, each chunk for itself, combined in order |
| `layout` | columns of numbers into rows |
| `singles` | numbers as features hold them: float32, finite |
| `vectors` | straight-line code of LLVM, where a compiled loop can't express it well |
| `simulation` | simulated bars, and their lines of CSV |

Importing this package imports no numba and compiles nothing; the first call does, once per machine
where the cache folder can be written. All kernels release the GIL and are safe to call from many
threads. Every value is computed from its own lookback rows, so any cut of a segment into runs
gives the same bits.

A kernel is called as ``kernel(*inputs, first, out)``. It writes one feature, or a fused one several
columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.kernels import alpha158_columns

__all__ = [
    "ALPHA158_WIDTH",
    "STRATEGIC_LOOKBACK",
    "STRATEGIC_WIDTH",
    "TACTICAL_LOOKBACK",
    "TACTICAL_WIDTH",
    "alpha158_kernel",
    "strategic_kernel",
    "tactical_kernel",
]

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

STRATEGIC_LOOKBACK, STRATEGIC_WIDTH = 40, 13
TACTICAL_LOOKBACK, TACTICAL_WIDTH = 21, 7
ALPHA158_WIDTH = len(alpha158_columns.NAMES)


def strategic_kernel(close: F64, volume: F64, first: int, out: F32) -> None:
    """Write the 13 strategic features of bars `first` to the last.

    Parameters
    ----------
    close, volume : (n,) float64, contiguous
        Finite bars of one segment.
    first : int
        The first bar to write, at least 40: so many bars before it are read.
    out : (13, n - first) float32, C-contiguous
        Overwritten. Finite for all finite bars.

    Raises
    ------
    UsageError
        If an array has another shape, type or layout, or `first` is below 40.
    """
    from grandbatch.kernels.strategic import strategic_columns

    c, v = _checked((close, volume), STRATEGIC_LOOKBACK, first, out, (STRATEGIC_WIDTH,))
    strategic_columns(c, v, first, out)


def tactical_kernel(high: F64, low: F64, close: F64, volume: F64, first: int, out: F32) -> None:
    """Write the 7 tactical features of bars `first` to the last.

    Parameters
    ----------
    high, low, close, volume : (n,) float64, contiguous
        Finite bars of one segment.
    first : int
        The first bar to write, at least 21: so many bars before it are read.
    out : (7, n - first) float32, C-contiguous
        Overwritten. Finite for all finite bars.

    Raises
    ------
    UsageError
        If an array has another shape, type or layout, or `first` is below 21.
    """
    from grandbatch.kernels.tactical import tactical_columns

    bars = (high, low, close, volume)
    h, l, c, v = _checked(bars, TACTICAL_LOOKBACK, first, out, (TACTICAL_WIDTH,))
    tactical_columns(h, l, c, v, first, out)


def alpha158_kernel(
    open: F64,  # noqa: A002 - the field's own name
    high: F64,
    low: F64,
    close: F64,
    volume: F64,
    first: int,
    out: F32,
) -> None:
    """Write the 157 columns of Alpha158 that need no vwap, of bars `first` to the last.

    Parameters
    ----------
    open, high, low, close, volume : (n,) float64, contiguous
        Finite bars of one segment.
    first : int
        The first bar to write, at least 60: so many bars before it are read.
    out : (157, n - first) float32, C-contiguous
        Overwritten, in the order of `alpha158_columns.NAMES`. Finite for all finite bars.

    Raises
    ------
    UsageError
        If an array has another shape, type or layout, or `first` is below 60.
    """
    from grandbatch.kernels.alpha158_moments import moment_columns
    from grandbatch.kernels.alpha158_order import order_columns

    bars = (open, high, low, close, volume)
    o, h, l, c, v = _checked(bars, alpha158_columns.LOOKBACK, first, out, (ALPHA158_WIDTH,))
    order_columns(o, h, l, c, first, out)
    moment_columns(c, v, first, out)


def _checked(
    bars: tuple[F64, ...], lookback: int, first: int, out: F32, columns: tuple[int, ...]
) -> list[F64]:
    """Check what the loops rely on, since they would read or write out of bounds otherwise.

    The arrays come back as read-only views, so that each kernel is compiled for one type of array
    however its callers got theirs.
    """
    n = bars[0].size
    if not lookback <= first <= n:
        raise UsageError(
            f"the first bar to write must be from {lookback} (the lookback) to {n} (the number "
            f"of bars), got {first}; give the kernel more bars before it"
        )
    wanted = (*columns, n - first)
    if out.shape != wanted or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise UsageError(
            f"out must be a C-contiguous float32 array of shape {wanted}, "
            f"got {out.dtype} of shape {out.shape}"
        )
    views = []
    for values in bars:
        if values.shape != (n,) or values.dtype != np.float64 or not values.flags.c_contiguous:
            raise UsageError(
                f"bars must be contiguous float64 arrays of shape ({n},), "
                f"got {values.dtype} of shape {values.shape}; use np.ascontiguousarray"
            )
        view = values.view()
        view.flags.writeable = False
        views.append(view)
    return views
