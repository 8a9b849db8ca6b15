"""Small chunks, several by one call: what each costs besides its bytes is shared by them.

A chunk of windows at stride 1 is some 16 KB. To check, read and unpack it alone takes four times
what its bytes do, all of it while no other thread can run Python. Here that is done for some chunks
at once, and whoever finds anything wrong among them reads them one by one, to tell which and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from grandbatch.store.codecs import decode_into
from grandbatch.store.format import CRC_BYTES, Codec
from grandbatch.store.reading.arrays import ArrayReader
from grandbatch.store.reading.opened import OpenFiles
from grandbatch.store.repeats import rows_of_equal_repeats, rows_of_repeats
from grandbatch.values.arrays import Float32, Int64, UInt8
from grandbatch.values.checksums import crc32c_of_each

SMALL_BYTES = 64 * 1024
"""Encoded bytes of a chunk, at most, that are best read together with others."""
_MOST_AT_ONCE = 500
"""Chunks read by one call of the system, which takes some thousand places to read to."""


def read_rows_together(
    reader: ArrayReader,
    chunks: Sequence[int],
    out: Float32,
    slots: Sequence[int],
    files: OpenFiles,
    runs: Sequence[tuple[int, ...]] | None = None,
    stride: int = 1,
) -> bool:
    """Read the rows of several small chunks, each checked by its own crc32c.

    Parameters
    ----------
    reader : ArrayReader
    chunks : sequence of int
        Ascending.
    out : (S, R, F) float32, C-contiguous
    slots : sequence of int
        Which of `out` each chunk is read into, from its first row on.
    files : OpenFiles
    runs : sequence of tuples of int, optional
        Of overlapping windows: each chunk's numbers of windows that follow each other by `stride`
        rows. Those rows are read, each once.
    stride : int

    Returns
    -------
    bool
        Whether all chunks were read, and are what they must be. If not, what lies in those slots
        means nothing: they may be too large for this, or one is damaged.

    Raises
    ------
    StoreError
        If a file can't be opened or the store was replaced.
    OSError
    """
    numbers = np.asarray(chunks, np.int64)
    lengths = reader.digests.length[numbers].astype(np.int64)
    codec = reader.spec.codec
    is_small = lengths.min() > CRC_BYTES and lengths.max() <= SMALL_BYTES
    if not is_small or (runs is not None and codec != "zstd"):
        return False
    if runs is None and codec == "none":
        return read_as_stored(reader, chunks, out, slots, files)

    bounds = [0, *np.cumsum(lengths - CRC_BYTES).tolist()]
    encoded = files.scratch(bounds[-1], "together")
    pieces = [encoded[begin:end] for begin, end in pairwise(bounds)]
    if not _read_checked(reader, numbers, lengths, [piece.data for piece in pieces], files):
        return False
    if runs is None:
        rows = reader.spec.chunk_shape[-2]
        return all(
            decodes(piece, codec, out[slot][:rows])
            for piece, slot in zip(pieces, slots, strict=True)
        )
    return _take_rows(encoded, pieces, (runs, reader.spec.chunk_shape[1], stride), out, slots)


def read_as_stored(
    reader: ArrayReader, chunks: Sequence[int], out: Float32, slots: Sequence[int], files: OpenFiles
) -> bool:
    """Read chunks that nothing packs, of any size, straight to where they are wanted.

    Parameters, returned and raised as for `read_rows_together`.
    """
    numbers = np.asarray(chunks, np.int64)
    lengths = reader.digests.length[numbers].astype(np.int64)
    width, slot_bytes = reader.spec.chunk_bytes, out[0].nbytes
    is_plain = reader.spec.codec == "none" and (lengths == width + CRC_BYTES).all()
    if not is_plain or width > slot_bytes:
        return False
    memory = out.reshape(-1).view(np.uint8).data
    begins = [slot * slot_bytes for slot in slots]
    payloads = [memory[begin : begin + width] for begin in begins]
    return _read_checked(reader, numbers, lengths, payloads, files)


def _read_checked(
    reader: ArrayReader,
    chunks: Int64,
    lengths: Int64,
    payloads: Sequence[memoryview],
    files: OpenFiles,
) -> bool:
    """Read the encoded bytes of chunks, neighbours at once; tell whether they are as written."""
    expected = reader.digests.crc32c[chunks].astype("<u4")
    starts, numbers = reader.offsets(chunks), chunks // reader.spec.shard_chunks
    apart = (numbers[1:] != numbers[:-1]) | (starts[1:] != starts[:-1] + lengths[:-1])
    apart[_MOST_AT_ONCE - 1 :: _MOST_AT_ONCE] = True
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(chunks)]
    trailers = bytearray(CRC_BYTES * len(chunks))
    ends = [memoryview(trailers)[at : at + CRC_BYTES] for at in range(0, len(trailers), CRC_BYTES)]
    for first, stop in pairwise(bounds):
        pairs = zip(payloads[first:stop], ends[first:stop], strict=True)
        buffers = [buffer for pair in pairs for buffer in pair]
        n_read = files.read_into(reader, int(chunks[first]), buffers, int(starts[first]))
        if n_read != lengths[first:stop].sum():
            return False
    return bytes(trailers) == expected.tobytes() and crc32c_of_each(payloads) == expected.tolist()


def decodes(payload: UInt8, codec: Codec, out: Float32) -> bool:
    """Decode a chunk into an array of its size; tell whether it is one of that size."""
    try:
        decode_into(payload, codec, out)
    except (ValueError, RuntimeError):
        return False
    return True


def _take_rows(
    encoded: UInt8,
    pieces: Sequence[UInt8],
    windows: tuple[Sequence[tuple[int, ...]], int, int],
    out: Float32,
    slots: Sequence[int],
) -> bool:
    """Take the rows out of frames of repeats; those that are alike at once."""
    runs, length, stride = windows
    if len(set(runs)) == 1 and len(set(map(len, pieces))) == 1:
        alike = encoded.reshape(len(pieces), -1)
        return rows_of_equal_repeats(alike, runs[0], length, stride, out, np.asarray(slots))
    return all(
        rows_of_repeats(piece, of_chunk, length, stride, out[slot])
        for piece, of_chunk, slot in zip(pieces, runs, slots, strict=True)
    )
