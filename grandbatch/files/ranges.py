"""Ranges of bytes: joined where they are near, cut out again, put into buffers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any


class Buffers:
    """Buffers of bytes, one behind the other, to be filled.

    Parameters
    ----------
    buffers : sequence of bytes-like, each writable

    Attributes
    ----------
    n_bytes : int
        Of all of them.
    """

    def __init__(self, buffers: Sequence[Any]):
        self._buffers = [memoryview(buffer) for buffer in buffers]
        self._ends = list(accumulate(map(len, self._buffers)))
        self.n_bytes = self._ends[-1] if self._ends else 0

    def put(self, at: int, piece: memoryview) -> None:
        """Write a piece behind so many bytes; what finds no room is left out."""
        number = bisect_right(self._ends, at)
        while piece and number < len(self._buffers):
            target = self._buffers[number]
            free = target[at - self._ends[number] + len(target) :]
            n_bytes = min(len(free), len(piece))
            free[:n_bytes] = piece[:n_bytes]
            piece, at, number = piece[n_bytes:], at + n_bytes, number + 1


def join_ranges(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join ranges of bytes that are at most `gap` apart; in order, without the empty ones."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(one for one in ranges if one[0] < one[1]):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def cut_ranges(
    ranges: Sequence[tuple[int, int]], joined: list[tuple[int, int]], found: list[memoryview]
) -> list[memoryview]:
    """Cut ranges out of the joined ones that hold them."""
    firsts = [start for start, _ in joined]
    parts = []
    for start, stop in ranges:
        at = bisect_right(firsts, start) - 1
        if start < stop:
            parts.append(found[at][start - firsts[at] : stop - firsts[at]])
        else:
            parts.append(memoryview(b""))
    return parts
