"""How windows are merged of smaller ones: plans that kernels follow, a row for each merge.

Each level of a plan is a row of scratch, with the window that ends at each bar. Row 0 holds single
bars at first; a result's row is none that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Pass = tuple[int, int, int, int, int, int]

N_LEVELS = 4
"""Rows of scratch that any plan gets by with.

Who changes it must change the files of kernels that use it too, or compiled ones are kept.
"""
_MEANS, _MOMENTS = (3, 5), (3, 5, 7)
"""Odd numbers of parts that kernels merge at once."""


@lru_cache(maxsize=512)
def window_steps(n: int) -> Int64Array:
    """Plan how a window of n is merged of smaller ones: in as few merges as two ways find.

    Returns
    -------
    (S, 5) int64
        The rows of the older part, of the newer part and of the result, and the parts' lengths.
    """
    shorter = min(_merges([n]), _merges(_prime_factors(n)), key=len)
    planned = np.array(shorter, np.int64).reshape(-1, 5)
    planned.flags.writeable = False
    return planned


def _merges(factors: Sequence[int]) -> list[tuple[int, int, int, int, int]]:
    """Multiply a window's length by each factor: by its binary digits, youngest first."""
    steps = []
    level, size = 0, 1
    for factor in factors:
        total, done, left = -1, 0, factor
        while True:
            if left & 1 and done:
                steps.append((level, total, _free(level, total), size, done))
                total, done = _free(level, total), done + size
            elif left & 1:
                total, done = level, size
            left >>= 1
            if not left:
                break
            steps.append((level, level, _free(level, total), size, size))
            level, size = _free(level, total), 2 * size
        level, size = total, done
    return steps


@lru_cache(maxsize=512)
def window_passes(n: int) -> Int64Array:
    """Plan means as `window_steps` does sums, with up to 8 equal parts merged at once.

    Returns
    -------
    (P, 6) int64
        The rows of the parts, of what is newer than they, and of the result; how many parts there
        are, their length, and that of what is newer, 0 for nothing.
    """
    return _planned(min(_passes([n], _MEANS), _passes(_odd_factors(n), _MEANS), key=len))


@lru_cache(maxsize=512)
def moment_passes(n: int) -> Int64Array:
    """Plan as `window_passes` does, with 7 parts too, and with some bars more than a product.

    Returns
    -------
    (P, 6) int64
        As `window_passes`. Either there is 1 part, or nothing newer.
    """
    ways = [_passes([n], _MOMENTS), _passes(_odd_factors(n), _MOMENTS)]
    ways += [_and_some(n - more, more) for more in (1, 2, 3, 4, 5, 7, 8) if more < n - 1]
    return _planned(min(ways, key=len))


def _planned(passes: list[Pass]) -> Int64Array:
    planned = np.array(passes, np.int64).reshape(-1, 6)
    planned.flags.writeable = False
    return planned


def _and_some(n: int, more: int) -> list[Pass]:
    """Merge windows of n, older, and of `more`, which are merged at once and kept meanwhile."""
    kept = 0 if more == 1 else 1
    first = [(0, 0, kept, more, 1, 0)] if kept else []
    passes = _passes(_odd_factors(n), _MOMENTS, kept)
    level = passes[-1][2]
    return [*first, *passes, (level, kept, _free(level, kept), 1, n, more)]


def _passes(factors: Sequence[int], at_once: Sequence[int], kept: int = -1) -> list[Pass]:
    """Multiply a window's length by each factor: by parts at once, or by its binary digits."""
    passes = []
    level, size = 0, 1
    for factor in factors:
        total, done, left = -1, 0, factor
        if factor in at_once:
            passes.append((level, level, _free(level, kept), factor, size, 0))
            level, size = _free(level, kept), factor * size
            continue
        while left:
            while not left & 1:
                parts = next(p for p in (8, 4, 2) if left % p == 0)
                to = _free(level, total, kept)
                passes.append((level, level, to, parts, size, 0))
                level, size, left = to, parts * size, left // parts
            if done:
                to = _free(level, total, kept)
                passes.append((level, total, to, 1, size, done))
                total, done = to, done + size
            else:
                total, done = level, size
            left -= 1
        level, size = total, done
    return passes


def _free(*taken: int) -> int:
    """Return a row of scratch that is none of those."""
    return next(row for row in range(N_LEVELS) if row not in taken)


def _prime_factors(n: int) -> list[int]:
    factors, divisor = [], 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    return factors + [n] * (n > 1)


def _odd_factors(n: int) -> list[int]:
    """Return the prime factors, those of 2 as one."""
    even = n & -n
    return [even] * (even > 1) + _prime_factors(n // even)
