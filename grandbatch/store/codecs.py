"""Chunks to bytes and back: none, blosc lz4 or zstd, and crc32c last.

The bytes are what Zarr's own codecs read: `bytes`, then the compressor, then `crc32c`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.store.format import CRC_BYTES, Codec
from grandbatch.values.checksums import crc32c

Array = npt.NDArray[Any]
Chunk = tuple[bytes | memoryview, bytes]
"""An encoded chunk: its payload, and the crc32c that follows it."""

ZSTD_LEVEL = 1
BLOSC_LEVEL = 5
BLOSC_TYPESIZE = 4

_NO_CHUNK = 2**64 - 1

_ZSTD_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_BLOSC_HEADER_BYTES = 16


@cache
def _blosc() -> Any:
    import numcodecs.blosc

    # Blosc's own threads give other bytes from run to run, and they start when it is called from
    # the main thread. Zarr calls it from threads of its own, where they are off already.
    numcodecs.blosc.use_threads = False
    return numcodecs.blosc


@cache
def _zstd() -> Any:
    import numcodecs.zstd

    return numcodecs.zstd


def encode_chunk(values: Array, codec: Codec) -> Chunk:
    """Encode a C-contiguous chunk, without a copy where nothing packs it."""
    if codec == "none":
        raw = values.reshape(-1).view(np.uint8)
        raw.flags.writeable = False
        return sealed(raw.data)
    if codec == "lz4":
        blosc = _blosc()
        return sealed(blosc.compress(values.reshape(-1), b"lz4", BLOSC_LEVEL, blosc.NOSHUFFLE))
    return sealed(_zstd().compress(values, ZSTD_LEVEL))


def sealed(payload: bytes | memoryview) -> Chunk:
    """Give a payload its crc32c."""
    return payload, crc32c(payload).to_bytes(CRC_BYTES, "little")


def decode_into(payload: Any, codec: Codec, out: Array) -> None:
    """Decode a chunk without its crc32c into a C-contiguous array of the chunk's shape.

    Raises
    ------
    ValueError, RuntimeError
        If the payload is no chunk of that size.
    """
    if codec == "none":
        out.reshape(-1).view(np.uint8)[:] = payload
        return
    # a decoder is content with fewer bytes, and leaves what was in the rest of the array
    size = _blosc_bytes(payload) if codec == "lz4" else _zstd_bytes(payload)
    if size != out.nbytes:
        raise ValueError(f"{out.nbytes:,} decoded bytes wanted, its header says {size:,}")
    (_blosc() if codec == "lz4" else _zstd()).decompress(payload, out)


def _blosc_bytes(payload: Any) -> int:
    """Return how many bytes a blosc buffer decodes to; its header has that, and its own length."""
    header = bytes(payload[:_BLOSC_HEADER_BYTES])
    if len(header) < _BLOSC_HEADER_BYTES or int.from_bytes(header[12:], "little") != len(payload):
        raise ValueError(f"its header is not that of {len(payload):,} bytes")
    return int.from_bytes(header[4:8], "little")


def _zstd_bytes(payload: Any) -> int:
    """Return how many bytes a zstd frame decodes to, by its header (RFC 8878, 3.1.1.1).

    The decoder holds the frame to it, and a second frame would find no room.
    """
    header = bytes(payload[:18])
    if header[:4] != _ZSTD_MAGIC or len(header) < 6:
        raise ValueError("it doesn't begin with a zstd frame")
    descriptor = header[4]
    is_single_segment = descriptor >> 5 & 1
    width = (is_single_segment, 2, 4, 8)[descriptor >> 6]
    if not width:
        raise ValueError("its zstd frame doesn't say how many bytes it holds")
    at = 5 + (1 - is_single_segment) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(header[at : at + width], "little") + (256 if width == 2 else 0)


def shard_index(lengths: npt.NDArray[np.unsignedinteger[Any]], shard_chunks: int) -> bytes:
    """Make the index of a file whose chunks, of these lengths, lie in order without gaps.

    As Zarr v3 sharding has it: where each chunk starts and how long it is, then their crc32c.
    """
    index = np.full((shard_chunks, 2), _NO_CHUNK, "<u8")
    sizes = lengths.astype(np.uint64)
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    raw = index.tobytes()
    return raw + crc32c(raw).to_bytes(CRC_BYTES, "little")
