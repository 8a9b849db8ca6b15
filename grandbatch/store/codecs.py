"""Chunks to bytes and back: none, blosc lz4 or zstd, and crc32c last.

The bytes are what Zarr's own codecs read: `bytes`, then the compressor, then `crc32c`.
"""

from __future__ import annotations

from typing import Any

import crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import numpy.typing as npt

from grandbatch.store.format import Codec

Array = npt.NDArray[Any]

CRC_BYTES = 4
ZSTD_LEVEL = 1
BLOSC_LEVEL = 5
BLOSC_TYPESIZE = 4

_NO_CHUNK = 2**64 - 1

# Blosc's own threads give other bytes from run to run, and they start when it is called from the
# main thread. Zarr calls it from threads of its own, where they are off already.
numcodecs.blosc.use_threads = False


def encode(values: Array, codec: Codec) -> bytes:
    """Encode a C-contiguous chunk; the result ends with its crc32c."""
    payload: Any
    if codec == "none":
        payload = values.reshape(-1).view(np.uint8)
        payload.flags.writeable = False
    elif codec == "lz4":
        payload = numcodecs.blosc.compress(
            values.reshape(-1), b"lz4", BLOSC_LEVEL, numcodecs.blosc.NOSHUFFLE
        )
    else:
        payload = numcodecs.zstd.compress(values, ZSTD_LEVEL)
    return seal(payload)


def seal(payload: Any) -> bytes:
    """Append the crc32c of a payload: bytes, or a read-only array of them."""
    return b"".join((payload, checksum(payload).to_bytes(CRC_BYTES, "little")))


def checksum(payload: Any, before: int = 0) -> int:
    """Return the crc32c of some bytes, or of those before and them; without the GIL if many."""
    return int(crc32c.crc32c(payload, before))


def decode_into(payload: Any, codec: Codec, out: Array) -> None:
    """Decode a chunk without its crc32c into a C-contiguous array of the chunk's shape.

    Raises
    ------
    ValueError, RuntimeError
        If the payload is no chunk of that size.
    """
    if codec == "none":
        out.reshape(-1).view(np.uint8)[:] = payload
    elif codec == "lz4":
        numcodecs.blosc.decompress(payload, out)
    else:
        numcodecs.zstd.decompress(payload, out)


def index_bytes(shard_chunks: int) -> int:
    """Bytes of the index at the end of a file of so many chunks; a chunk alone has none."""
    return shard_chunks * 16 + CRC_BYTES if shard_chunks > 1 else 0


def shard_index(lengths: npt.NDArray[np.unsignedinteger[Any]], shard_chunks: int) -> bytes:
    """Make the index of a file whose chunks, of these lengths, lie in order without gaps.

    As Zarr v3 sharding has it: where each chunk starts and how long it is, then their crc32c.
    """
    index = np.full((shard_chunks, 2), _NO_CHUNK, "<u8")
    sizes = lengths.astype(np.uint64)
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    raw = index.tobytes()
    return raw + checksum(raw).to_bytes(CRC_BYTES, "little")
