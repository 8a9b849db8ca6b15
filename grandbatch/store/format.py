"""The arrays of a store: their names, shapes, chunks, shards and codecs. Values only.

`docs/format.md` describes the same for people who write stores with other tools.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError

FORMAT = 1
CRC_BYTES = 4
"""Of the crc32c after each chunk's bytes."""

MANIFEST_NAME = "manifest.json"
LABEL_CHUNK_WINDOWS = 65_536
DATA_NAMES = "matrices", "features"
ARRAY_NAMES = (
    *DATA_NAMES, "end_time", "symbol", "close_price", "next_return", "first_row", "start", "targets"
)  # fmt: skip
"""Of all arrays that a store of any settings may have."""
NEXT_RETURN_VERSION = 2
"""Raised whenever `next_return` means another value."""
# a file costs two folders and a rename: below this size that is a tenth of a build's time
_FILE_BYTES = 4 * 1024 * 1024
MAX_SHARD_CHUNKS = 1024

Layout = Literal["windows", "rows"]
Codec = Literal["none", "lz4", "zstd"]

LAYOUTS: tuple[Layout, ...] = ("windows", "rows")
CODECS: tuple[Codec, ...] = ("none", "lz4", "zstd")

_EPOCH_UNITS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


MAX_CHUNK_BYTES = 2**31 - 2**16
"""Of a decoded chunk: codecs take no more."""

MAX_CHUNKS = 8_000_000
"""Of matrices, so that their manifest stays below `MAX_MANIFEST_BYTES`."""

MAX_MANIFEST_BYTES = 2**30
MAX_METADATA_BYTES = 2**28
"""Of a `zarr.json`: larger ones are not read."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    A file holds `shard_chunks` chunks (Zarr v3 sharding) where that is above 1, else one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    codec: Codec = "none"
    shard_chunks: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def n_chunks(self) -> int:
        """Chunks along the first dimension; the others are never cut."""
        return -(-self.shape[0] // self.chunk_shape[0])

    @property
    def n_files(self) -> int:
        """Files that hold the chunks."""
        return -(-self.n_chunks // self.shard_chunks)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk_shape) * np.dtype(self.dtype).itemsize

    def file(self, number: int) -> str:
        """Path of a file inside the store, by Zarr's default chunk keys."""
        zeros = "/0" * (len(self.shape) - 1)
        return f"{self.name}/c/{number}{zeros}"

    def lengths_in(self, length: npt.NDArray[np.uint32], number: int) -> npt.NDArray[np.uint32]:
        """Take the encoded lengths of a file's chunks from those of all."""
        first = number * self.shard_chunks
        return length[first : min(first + self.shard_chunks, self.n_chunks)]

    def file_bytes(self, length: npt.NDArray[np.uint32], number: int) -> int:
        """Bytes of a file, from the encoded lengths of all chunks: they lie without gaps."""
        return int(self.lengths_in(length, number).sum(dtype=np.int64)) + self.index_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a file; a chunk alone has none."""
        return self.shard_chunks * 16 + CRC_BYTES if self.shard_chunks > 1 else 0

    @property
    def fill_value(self) -> float | int:
        """What stands beyond the array's end in its last chunk."""
        return math.nan if np.dtype(self.dtype).kind == "f" else 0


@dataclass(frozen=True)
class StoreSpec:
    """The sizes from which all arrays of a store follow.

    Raises
    ------
    UsageError
        If layout or codec is unknown.
    """

    n_windows: int
    sequence_length: int
    stride: int
    n_features: int
    chunk_windows: int
    layout: Layout
    codec: Codec
    block_rows: int
    shard_chunks: int
    n_targets: int = 0

    @classmethod
    def plan(
        cls,
        *,
        n_windows: int,
        sequence_length: int,
        stride: int,
        n_features: int,
        chunk_windows: int,
        layout: str,
        codec: str,
        block_rows: int,
        n_targets: int = 0,
    ) -> StoreSpec:
        """Choose codec and sharding for the sizes. Neither depends on the number of windows."""
        if layout not in LAYOUTS:
            raise UsageError(f"unknown layout {layout!r}; choose windows or rows")
        if codec != "auto" and codec not in CODECS:
            raise UsageError(f"unknown codec {codec!r}; choose auto, none, lz4 or zstd")
        repeats = sequence_length - stride > sequence_length / 2
        chosen = _auto_codec(layout, repeats=repeats) if codec == "auto" else codec
        row_bytes = n_features * 4
        distinct = ((chunk_windows - 1) * stride + sequence_length) * row_bytes
        encoded = float(distinct)
        if layout == "windows" and not (chosen == "zstd" and repeats):
            encoded = float(chunk_windows * sequence_length * row_bytes)
        if chosen == "lz4":
            encoded *= 0.6  # measured on features of real bars: 0.55 to 0.65
        shard_chunks = 1
        while shard_chunks * encoded < _FILE_BYTES and shard_chunks < MAX_SHARD_CHUNKS:
            shard_chunks *= 2
        return cls(
            n_windows=n_windows,
            sequence_length=sequence_length,
            stride=stride,
            n_features=n_features,
            chunk_windows=chunk_windows,
            layout=layout,
            codec=chosen,  # type: ignore[arg-type]  # checked above
            block_rows=block_rows,
            shard_chunks=shard_chunks,
            n_targets=n_targets,
        )

    @property
    def overlap(self) -> int:
        """Rows that neighbouring windows share."""
        return self.sequence_length - self.stride

    @property
    def n_chunks(self) -> int:
        """Chunks of `chunk_windows` windows."""
        return -(-self.n_windows // self.chunk_windows)

    @cached_property
    def data(self) -> ArraySpec:
        """The array that holds the matrices: `matrices` or `features`."""
        if self.layout == "windows":
            tail = (self.sequence_length, self.n_features)
            shape, chunk = (self.n_windows, *tail), (self.chunk_windows, *tail)
            name, dimensions = "matrices", ("window", "step", "feature")
        else:
            tail = (self.block_rows, self.n_features)
            shape, chunk = (self.n_chunks, *tail), (1, *tail)
            name, dimensions = "features", ("chunk", "row", "feature")
        return ArraySpec(name, "<f4", shape, chunk, dimensions, self.codec, self.shard_chunks)

    @cached_property
    def label_chunk_windows(self) -> int:
        """Windows in a chunk of the per-window arrays: whole chunks, at least 65,536 of them."""
        whole = -(-LABEL_CHUNK_WINDOWS // self.chunk_windows) * self.chunk_windows
        return min(whole, max(1, self.n_windows))

    @cached_property
    def labels(self) -> tuple[ArraySpec, ...]:
        """The per-window arrays."""

        def array(name: str, dtype: str, **attributes: Any) -> ArraySpec:
            return ArraySpec(
                name,
                dtype,
                (self.n_windows,),
                (self.label_chunk_windows,),
                ("window",),
                attributes=attributes,
            )

        arrays = [
            array("end_time", "<i8", **_EPOCH_UNITS, long_name="time of the window's last bar"),
            array("symbol", "<i4", long_name="index into the group's symbols"),
            array("close_price", "<f8", long_name="close of the window's last bar"),
            array(
                "next_return",
                "<f8",
                long_name="(c[t+1] - c[t]) / |c[t]| after the last bar",
            ),
            array("first_row", "<i8", long_name="row number of the window's first bar"),
        ]
        if self.layout == "rows":
            arrays.append(array("start", "<i4", long_name="first row inside the chunk's block"))
        if self.n_targets:
            arrays.append(
                ArraySpec(
                    "targets",
                    "<f4",
                    (self.n_windows, self.n_targets),
                    (self.label_chunk_windows, self.n_targets),
                    ("window", "target"),
                    attributes={"long_name": "targets at the window's last bar"},
                )
            )
        return tuple(arrays)

    @cached_property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """All arrays of the store."""
        return (self.data, *self.labels)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all arrays, decoded."""
        return sum(a.n_chunks * a.chunk_bytes for a in self.arrays)


def _auto_codec(layout: str, *, repeats: bool) -> Codec:
    """Choose a codec for windows that share more than half their rows, or don't."""
    if not repeats:
        return "lz4"
    # of rows zstd keeps 0.5 to 0.8, for a third of a build and half of reading a chunk
    return "zstd" if layout == "windows" else "none"
