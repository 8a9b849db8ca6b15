"""Packed chunks, each decoded as soon as its own bytes have come.

An answer with several of them is never held whole: memory that nobody touched before costs as much
as decoding does, and of what came a moment ago most is still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grandbatch.store.format import CRC_BYTES
from grandbatch.store.reading.arrays import ArrayReader
from grandbatch.store.reading.opened import OpenFiles
from grandbatch.store.reading.together import decodes
from grandbatch.values.arrays import Float32
from grandbatch.values.checksums import crc32c


def decode_as_they_come(
    reader: ArrayReader, chunks: range, out: Float32, slots: Sequence[int], files: OpenFiles
) -> bool:
    """Decode neighbouring chunks of one file by one request, straight to where they are wanted.

    Parameters
    ----------
    reader : ArrayReader
    chunks : range
    out : (S, R, F) float32, C-contiguous
    slots : sequence of int
        Which of `out` each chunk is decoded into, from its first row on.
    files : OpenFiles

    Returns
    -------
    bool
        Whether all chunks came, and are what they must be. If not, what lies in those slots means
        nothing.

    Raises
    ------
    StoreError
        If a file can't be opened or the store was replaced.
    OSError
    """
    coming = _Coming(reader, chunks, out, slots, files)
    start = reader.offset(chunks[0])
    files.receive(reader, chunks[0], start, start + coming.n_bytes, coming.take)
    return coming.is_whole


class _Coming:
    """Chunks on their way; parameters as for `decode_as_they_come`."""

    def __init__(
        self,
        reader: ArrayReader,
        chunks: range,
        out: Float32,
        slots: Sequence[int],
        files: OpenFiles,
    ):
        digests = reader.digests
        numbers = slice(chunks.start, chunks.stop)
        self._lengths = digests.length[numbers].tolist()
        self._expected = digests.crc32c[numbers].tolist()
        self._codec = reader.spec.codec
        width = reader.spec.chunk_bytes // out.itemsize
        self._targets = [out[slot].reshape(-1)[:width] for slot in slots]
        self._room = files.scratch(max(self._lengths)).data
        self._number = self._n_there = 0
        self._is_right = True
        self.n_bytes = sum(self._lengths)

    @property
    def is_whole(self) -> bool:
        """Whether all are decoded."""
        return self._is_right and self._number == len(self._lengths)

    def take(self, at: int, piece: memoryview) -> None:
        """Take a piece, behind so many bytes; the first comes again where an answer was cut."""
        if not at:
            self._number = self._n_there = 0
        while piece and self._is_right and self._number < len(self._lengths):
            length = self._lengths[self._number]
            n_bytes = min(length - self._n_there, len(piece))
            if n_bytes == length:
                encoded = piece[:n_bytes]
            else:
                self._room[self._n_there : self._n_there + n_bytes] = piece[:n_bytes]
                encoded = self._room[:length]
            piece = piece[n_bytes:]
            self._n_there += n_bytes
            if self._n_there == length:
                self._is_right = self._decode(self._number, encoded)
                self._number, self._n_there = self._number + 1, 0

    def _decode(self, number: int, encoded: memoryview) -> bool:
        payload, trailer = encoded[:-CRC_BYTES], encoded[-CRC_BYTES:]
        expected = self._expected[number]
        if int.from_bytes(trailer, "little") != expected or crc32c(payload) != expected:
            return False
        return decodes(np.frombuffer(payload, np.uint8), self._codec, self._targets[number])
