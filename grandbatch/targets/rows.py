"""Targets of bars held in arrays, segment by segment. Knows no Dask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grandbatch.errors import KernelError
from grandbatch.features.inputs import inputs_of, refuse_not_finite
from grandbatch.targets.target import Target
from grandbatch.values.arrays import Array, Float32, Int64
from grandbatch.values.texts import one_line


def longest_horizon(targets: Sequence[Target]) -> int:
    """Return the bars after t that any of the targets reads; 0 without any."""
    return max((target.horizon for target in targets), default=0)


def target_values(target: Target, run: Mapping[str, Array]) -> Float32:
    """Compute a target over consecutive bars of one segment.

    Parameters
    ----------
    target : Target
    run : mapping of str to (n,) array, contiguous
        The bars: at least the target's inputs.

    Returns
    -------
    (n,) float32
        NaN where fewer than the horizon's bars follow in the arrays, and where the kernel made
        what is not finite.

    Raises
    ------
    KernelError
        If the kernel raises anything.
    """
    arrays = [run[name] for name in target.inputs]
    n = len(arrays[0])
    out = np.full(n, np.nan, np.float32)
    whole = out[: max(0, n - target.horizon)]
    if len(whole):
        try:
            target.kernel(*arrays, 0, whole)
        except MemoryError:
            raise
        except Exception as error:
            raise KernelError(
                f"the kernel of target {target.name} raised {type(error).__name__} "
                f"({one_line(error)}) on "
                f"{n:,} bars; it must take any finite ones: grandbatch.check runs it on awkward "
                "ones"
            ) from error
        whole[~np.isfinite(whole)] = np.nan
    return out


def compute_targets(
    targets: Sequence[Target], columns: Mapping[str, Array], starts: Int64
) -> Float32:
    """Compute the targets of bars in arrays.

    Parameters
    ----------
    targets : sequence of Target
    columns : mapping of str to (n,) array, contiguous
        The bars: at least what the targets read, all finite.
    starts : (S,) int64
        Rising positions where a segment begins; 0 need not be among them.

    Returns
    -------
    (n, K) float32, C-contiguous
        NaN where fewer bars than a target's horizon follow in the segment, and where a value is
        not finite.

    Raises
    ------
    InputError
        If a bar is not finite.
    KernelError
        If a kernel raises anything.
    """
    names = inputs_of(targets)
    refuse_not_finite({name: columns[name] for name in names})
    n = len(columns[names[0]])
    out = np.empty((n, len(targets)), np.float32)
    stops = [int(start) for start in starts if start > 0] + [n]
    begin = 0
    for stop in stops:
        run = {name: columns[name][begin:stop] for name in names}
        for k, target in enumerate(targets):
            out[begin:stop, k] = target_values(target, run)
        begin = stop
    return out
