"""Permutations that stay the same for ever, without compiled code.

numpy's generators may change their streams between versions, and a checkpoint must outlive that.
So the places of a permutation are sorted by random keys from a generator written down here. Sorting
is as fast as a compiled Fisher-Yates is where numpy sorts with vector instructions, and a loader
that needs no compiler starts sooner and in 100 MB less.
"""

from __future__ import annotations

import numpy as np

from grandbatch.values.arrays import Float64, Int32, UInt64

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_BLOCK = 2**14
_UNUSED_BITS = 11
_BELOW_ONE = 2.0**-53


def stream_key(*parts: int) -> int:
    """Mix whole numbers into the 64-bit key of one random stream, by splitmix64's finaliser."""
    key = 0
    for part in parts:
        key = (key + part + _GAMMA) & _MASK
        for shift, factor in _MIX:
            key = ((key ^ (key >> shift)) * factor) & _MASK
        key ^= key >> _LAST_SHIFT
    return key


def permutation(n: int, key: int) -> Int32:
    """Return the numbers below n in a random order.

    Each gets the next draw of splitmix64 (https://prng.di.unimi.it/splitmix64.c) started at `key`,
    its lowest bits replaced by the number itself, and they are sorted. So draws that are equal in
    their upper bits, fewer than one pair in 2^40, leave their numbers in order.

    Parameters
    ----------
    n : int
        Below 2^31.
    key : int
        Below 2^64.

    Returns
    -------
    (n,) int32
    """
    bits = max(n - 1, 0).bit_length()
    low = np.uint64(2**bits - 1)
    keyed = np.empty(n, np.uint64)
    # block by block, so that the passes over a block find it in the cache
    for first in range(0, n, _BLOCK):
        stop = min(first + _BLOCK, n)
        number = np.arange(first, stop, dtype=np.uint64)
        keyed[first:stop] = (_words(number, key) & ~low) | number
    keyed.sort()
    return (keyed & low).astype(np.int32)


def uniform(n: int, key: int) -> Float64:
    """Return `n` random numbers from 0 to below 1, the upper 53 bits of a stream's words.

    Parameters
    ----------
    n : int
    key : int
        Below 2^64.

    Returns
    -------
    (n,) float64
    """
    drawn = np.empty(n, np.float64)
    for first in range(0, n, _BLOCK):
        number = np.arange(first, min(first + _BLOCK, n), dtype=np.uint64)
        drawn[first : first + len(number)] = _words(number, key) >> np.uint64(_UNUSED_BITS)
    drawn *= _BELOW_ONE
    return drawn


def _words(number: UInt64, key: int) -> UInt64:
    """Words of the stream that starts at `key`, by their numbers."""
    drawn: UInt64 = (number + np.uint64(1)) * np.uint64(_GAMMA) + np.uint64(key)
    for shift, factor in _MIX:
        drawn ^= drawn >> np.uint64(shift)
        drawn *= np.uint64(factor)
    drawn ^= drawn >> np.uint64(_LAST_SHIFT)
    return drawn
