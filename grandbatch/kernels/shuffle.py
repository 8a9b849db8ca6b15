"""Permutations that stay the same for ever: Fisher and Yates' shuffle over splitmix64.

numpy's generators may change their streams between versions, and a checkpoint must outlive that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_TWO_32 = np.uint64(1 << 32)


@compiled
def shuffle_in_place(values: npt.NDArray[np.int32], key: np.uint64) -> None:
    """Permute up to 2^32 values, each permutation equally likely over the keys.

    Fisher and Yates' loop from the end (Knuth, TAOCP 2, 3.4.2, algorithm P). Draws are the upper
    halves of splitmix64 (https://prng.di.unimi.it/splitmix64.c) started at `key`, brought into
    range without bias by Lemire's method (https://arxiv.org/abs/1805.10941).
    """
    state = key
    for last in range(values.size - 1, 0, -1):
        bound = np.uint64(last + 1)
        threshold = bound
        while True:
            state += _GAMMA
            mixed = (state ^ (state >> _SHIFT_1)) * _MIX_1
            mixed = (mixed ^ (mixed >> _SHIFT_2)) * _MIX_2
            product = ((mixed ^ (mixed >> _SHIFT_3)) >> _HALF) * bound
            low = product & _LOW_HALF
            if low >= bound:
                break
            if threshold == bound:
                threshold = (_TWO_32 - bound) % bound
            if low >= threshold:
                break
        other = np.int64(product >> _HALF)
        values[last], values[other] = values[other], values[last]


@compiled
def expand_runs(
    begin: npt.NDArray[np.int32], length: npt.NDArray[np.int32], out: npt.NDArray[np.int32]
) -> None:
    """Write begin[k], begin[k] + 1, ... for `length[k]` values, run after run."""
    at = 0
    for run in range(begin.size):
        for step in range(length[run]):
            out[at] = begin[run] + step
            at += 1
