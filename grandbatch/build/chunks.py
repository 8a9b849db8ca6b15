"""From feature rows to encoded chunks and records: the work of one task of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from grandbatch.grid import Piece
from grandbatch.kernels.statistics import row_moments
from grandbatch.store.codecs import encode, seal
from grandbatch.store.format import StoreSpec
from grandbatch.store.repeats import can_repeat, encode_repeats
from grandbatch.store.writer import FileRecord, digests_of, write_file, write_record

Float32Array = npt.NDArray[np.float32]
Labels = dict[str, npt.NDArray[Any]]
"""Per-window values by the name of their array, `start` always among them."""


@dataclass(frozen=True)
class FileJob:
    """One file of chunks to write: its number, and the pieces of each of its chunks."""

    number: int
    chunks: Sequence[Sequence[Piece]]


def write_files(
    staging: Path,
    spec: StoreSpec,
    jobs: Sequence[FileJob],
    features: Float32Array,
    bars: Mapping[str, npt.NDArray[Any]],
    first_row: int,
    *,
    durable: bool,
) -> int:
    """Write files of chunks, each followed by its record.

    Parameters
    ----------
    staging : Path
    spec : StoreSpec
    jobs : sequence of FileJob
    features : (T, F) float32, C-contiguous
        Feature rows from row number `first_row` on.
    bars : mapping
        `timestamp` (int64, ns) and `close` (float64) from the same row on, one row longer where
        there is one: it gives the last window's next return.
    first_row : int
    durable : bool

    Returns
    -------
    int
        Chunks written.
    """
    for job in jobs:
        encoded = [_encode_chunk(spec, pieces, features, first_row) for pieces in job.chunks]
        write_file(staging, spec.data, job.number, encoded, durable=durable)
        record = file_record(spec, job, digests_of(encoded), features, bars, first_row)
        write_record(staging, record, durable=durable)
    return sum(len(job.chunks) for job in jobs)


def file_record(
    spec: StoreSpec,
    job: FileJob,
    digests: Mapping[str, npt.NDArray[Any]],
    features: Float32Array,
    bars: Mapping[str, npt.NDArray[Any]],
    first_row: int,
) -> FileRecord:
    """Describe a file of chunks; `digests` are its chunks' length, crc32c and sha256.

    The others are as in `write_files`.
    """
    return FileRecord(
        number=np.int64(job.number),  # type: ignore[arg-type]  # a 0-d array once read back
        **digests,
        **_statistics(spec, job, features, first_row),
        **window_labels(spec, job, bars, first_row),
    )


def _encode_chunk(
    spec: StoreSpec, pieces: Sequence[Piece], features: Float32Array, first_row: int
) -> bytes:
    runs = [features[p.first_row - first_row :][: p.n_rows] for p in pieces]
    n_windows = sum(piece.n_windows for piece in pieces)
    if spec.layout == "rows":
        return encode(_block(spec, runs), spec.codec)
    row_bytes = spec.n_features * 4
    if (
        spec.codec == "zstd"
        and n_windows == spec.chunk_windows
        and can_repeat(spec.sequence_length * row_bytes, spec.stride * row_bytes)
    ):
        return seal(encode_repeats(runs, spec.sequence_length, spec.stride))
    chunk = np.empty(spec.data.chunk_shape, np.float32)
    at = 0
    for run, piece in zip(runs, pieces, strict=True):
        chunk[at : at + piece.n_windows] = as_strided(
            run,
            (piece.n_windows, spec.sequence_length, spec.n_features),
            (spec.stride * row_bytes, row_bytes, 4),
            writeable=False,
        )
        at += piece.n_windows
    chunk[at:] = np.nan
    return encode(chunk, spec.codec)


def _block(spec: StoreSpec, runs: Sequence[Float32Array]) -> Float32Array:
    """Return the block of layout `rows`: the runs one after the other, NaN to the end."""
    if len(runs) == 1 and len(runs[0]) == spec.block_rows:
        return runs[0]
    block = np.full((spec.block_rows, spec.n_features), np.nan, np.float32)
    np.concatenate(runs, out=block[: sum(len(run) for run in runs)])
    return block


def _statistics(
    spec: StoreSpec, job: FileJob, features: Float32Array, first_row: int
) -> dict[str, npt.NDArray[Any]]:
    """Moments of the rows that each chunk uses and the chunk before does not."""
    n = len(job.chunks)
    count = np.zeros(n, np.int64)
    moments = [np.empty((n, spec.n_features)) for _ in range(4)]
    for chunk, pieces in enumerate(job.chunks):
        new = [
            features[p.first_row + p.n_repeated - first_row : p.first_row + p.n_rows - first_row]
            for p in pieces
        ]
        rows = new[0] if len(new) == 1 else np.concatenate(new)
        count[chunk] = len(rows)
        row_moments(rows, *(values[chunk] for values in moments))
    mean, m2, low, high = moments
    return {"count": count, "mean": mean, "m2": m2, "low": low, "high": high}


def window_labels(
    spec: StoreSpec, job: FileJob, bars: Mapping[str, npt.NDArray[Any]], first_row: int
) -> Labels:
    """Per-window values of a file's windows, from bars as in `write_files`."""
    parts: dict[str, list[npt.NDArray[Any]]] = {array.name: [] for array in spec.labels}
    parts["start"] = []
    close = bars["close"]
    for pieces in job.chunks:
        block_row = 0
        for piece in pieces:
            steps = np.arange(piece.n_windows, dtype=np.int64) * spec.stride
            last = piece.first_row + steps + spec.sequence_length - 1
            at = last - first_row
            parts["first_row"].append(piece.first_row + steps)
            parts["symbol"].append(np.full(piece.n_windows, piece.symbol, np.int32))
            parts["end_time"].append(bars["timestamp"][at])
            parts["close_price"].append(close[at])
            parts["next_return"].append(_next_returns(close, at, last + 1 < piece.segment_stop))
            parts["start"].append((block_row + steps).astype(np.int32))
            block_row += piece.n_rows
    return {name: np.concatenate(values) for name, values in parts.items()}


def _next_returns(
    close: npt.NDArray[np.float64], at: npt.NDArray[np.int64], has_next: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """c[t+1]/c[t] - 1; NaN where the segment ends at t, 0 where c[t] is 0."""
    returns = np.full(len(at), np.nan)
    now = close[at[has_next]]
    then = close[at[has_next] + 1]
    safe = np.where(now == 0, 1.0, now)
    returns[has_next] = np.where(now == 0, 0.0, then / safe - 1.0)
    return returns
