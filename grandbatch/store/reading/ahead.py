"""Read chunks ahead where each would be a request: many by one, several requests at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from grandbatch.errors import StoreError
from grandbatch.files.locations import TAKEN_BYTES
from grandbatch.store.reading.arrays import ArrayReader
from grandbatch.store.reading.arriving import decode_as_they_come
from grandbatch.store.reading.opened import OpenFiles
from grandbatch.store.reading.together import read_as_stored
from grandbatch.values.arrays import Float32

_JOINED_BYTES, _PACKED_JOINED_BYTES = 4 * 2**20, 8 * 2**20
"""Bytes that are read at once of neighbouring chunks: more would be no faster. What is decoded as
it comes isn't held, and most files are no larger: a second request costs the server again."""
_UNDER_WAY_BYTES = 64 * 2**20
"""Bytes on their way at once, at most; and of a larger chunk, one."""
_MOST_AT_ONCE = 32


@dataclass(frozen=True)
class ReadAhead:
    """Reads chunks of a store's matrices, and their labels, before each of them is wanted.

    Parameters
    ----------
    data : ArrayReader
        Of the matrices.
    labels : sequence of ArrayReader
        Of the per-window values.
    """

    data: ArrayReader
    labels: Sequence[ArrayReader]

    def at_once(self, runs: Collection[Sequence[tuple[int, int]]]) -> int:
        """How many threads may read some runs, as of `runs`, ahead at the same time."""
        begins, lengths = self.data.begins, self.data.digests.length
        ends = ((run[0][1], run[-1][1]) for run in runs)
        largest = max((int(begins[b] - begins[a] + lengths[b]) for a, b in ends), default=1)
        return max(1, min(_MOST_AT_ONCE, _UNDER_WAY_BYTES // largest, len(runs)))

    def most_bytes(self, *, labels: bool) -> int:
        """Bytes held at most of what comes: what answers are put together in, and their pieces.

        Parameters
        ----------
        labels : bool
            Whether they are read ahead, too.
        """
        lengths = self.data.digests.length
        n_bytes = min(max(_UNDER_WAY_BYTES, int(lengths.max())), self.data.n_bytes)
        share = sum(reader.n_bytes for reader in self.labels) / self.data.n_bytes if labels else 0
        pieces = min(_MOST_AT_ONCE * TAKEN_BYTES, n_bytes)
        return int((n_bytes + pieces) * (1 + share))

    def runs(self, chunks: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """Part pairs of a number and a chunk, in the order of chunks, into neighbours in one file.

        Where each chunk would be a request, a run of them is one.
        """
        numbers = np.fromiter((chunk for _, chunk in chunks), np.int64, len(chunks))
        return [list(chunks[begin:stop]) for begin, stop in self._runs(numbers)]

    def _runs(self, chunks: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Give the place of each run's first chunk, and of the one behind its last."""
        starts = self.data.begins[chunks]
        stops = starts + self.data.digests.length[chunks]
        is_apart = np.diff(chunks) != 1
        is_apart |= np.diff(chunks // self.data.spec.shard_chunks) != 0
        joined = _JOINED_BYTES if self.data.spec.codec == "none" else _PACKED_JOINED_BYTES
        begin = 0
        for end in (*(np.flatnonzero(is_apart) + 1).tolist(), len(chunks)):
            while begin < end:
                within = int(np.searchsorted(stops, starts[begin] + joined, "right"))
                stop = min(end, max(within, begin + 1))
                yield begin, stop
                begin = stop

    def read(
        self,
        first: int,
        last: int,
        windows: tuple[int, int],
        files: OpenFiles,
        *,
        labels: bool,
        into: tuple[Float32, Sequence[int]] | None = None,
    ) -> bool:
        """Ask at once for the bytes of neighbouring chunks, and of their labels if so wished.

        Who reads a chunk meets what went wrong.

        Parameters
        ----------
        first, last : int
        windows : (int, int)
            The chunks' first, and the one after their last.
        files : OpenFiles
            Which has them from then on.
        labels : bool
        into : tuple of (S, R, F) float32 and sequence of int, optional
            Where the chunks go as they are decoded, and to which place each.

        Returns
        -------
        bool
            Whether they are there, and right. Then `files` doesn't have them.
        """
        end = self.data.offset(last) + int(self.data.digests.length[last])
        read_chunks = partial(_read, self.data, first, self.data.offset(first), end, files)
        asked: list[Callable[[], None]] = [read_chunks]
        straight = False
        if into is not None:

            def read_straight() -> None:
                nonlocal straight
                with suppress(OSError, StoreError):
                    chunks = range(first, last + 1)
                    is_plain = self.data.spec.codec == "none"
                    read = read_as_stored if is_plain else decode_as_they_come
                    straight = read(self.data, chunks, *into, files)
                    if not straight:
                        read_chunks()

            asked = [read_straight]
        for reader in self.labels if labels else ():
            size, *rest = reader.spec.chunk_shape
            itemsize = math.prod(rest) * reader.itemsize
            chunk, place = divmod(windows[0], size)
            stop = place + windows[1] - windows[0]
            if stop <= size:
                asked.append(
                    partial(_read, reader, chunk, place * itemsize, stop * itemsize, files)
                )
        files.at_once(asked)
        return straight


def _read(reader: ArrayReader, chunk: int, start: int, stop: int, files: OpenFiles) -> None:
    with suppress(OSError):
        files.read_ahead(reader, chunk, start, stop)
