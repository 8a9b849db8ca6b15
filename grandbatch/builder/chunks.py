"""From feature rows to encoded chunks and records: the work of one task of a build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from grandbatch.errors import KernelError
from grandbatch.grid import ChunkRuns, RunColumns
from grandbatch.kernels.statistics import row_moments
from grandbatch.store.codecs import Chunk, encode_chunk, sealed
from grandbatch.store.file_records import FileRecord, chunk_digests
from grandbatch.store.format import StoreSpec
from grandbatch.store.repeats import can_repeat, encode_repeats
from grandbatch.store.staging import Staging

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Feature rows of some ranges of rows, one range behind the other.

    Parameters
    ----------
    values : (T, F) float32, C-contiguous
    starts : (R,) int64
        Row number of each range's first row, rising.
    places : (R,) int64
        Where in `values` each range begins.
    """

    values: Float32Array
    starts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, values: Float32Array, bounds: npt.NDArray[np.int64], before: int = 0
    ) -> FeatureRows:
        """Describe rows of ranges, (R, 2); before all but the first `before` more rows stand."""
        starts, stops = bounds.T
        steps = (stops - starts + before)[:-1]
        return cls(values, starts, np.concatenate([[0], np.cumsum(steps)]))

    def find(self, first_row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Find where in `values` rows stand, by their numbers."""
        place = self.starts.searchsorted(first_row, side="right") - 1
        found: npt.NDArray[np.int64] = self.places[place] + first_row - self.starts[place]
        return found

    def of_runs(self, runs: RunColumns) -> list[Float32Array]:
        """Return the rows of each run, (n_rows, F) float32."""
        begin = self.find(runs.first_row)
        stop = begin + runs.n_rows
        return [self.values[a:b] for a, b in zip(begin.tolist(), stop.tolist(), strict=True)]


@dataclass(frozen=True)
class FileJob:
    """One file of chunks to write: its number, and the runs of each of its chunks."""

    number: int
    chunks: ChunkRuns


def write_files(staging: Staging, jobs: Sequence[FileJob], features: FeatureRows) -> int:
    """Write files of chunks, each followed by its record.

    Parameters
    ----------
    staging : Staging
    jobs : sequence of FileJob
    features : FeatureRows
        At least those of the jobs' windows.

    Returns
    -------
    int
        Chunks written.
    """
    spec = staging.spec
    for job in jobs:
        encoded = list(_encode_chunks(spec, job.chunks.columns, features))
        record = file_record(spec, job, chunk_digests(encoded), features)
        staging.write_recorded(record, encoded)
    return sum(len(job.chunks) for job in jobs)


def file_record(
    spec: StoreSpec,
    job: FileJob,
    digests: Mapping[str, npt.NDArray[Any]],
    features: FeatureRows,
) -> FileRecord:
    """Describe a file of chunks; `digests` are its chunks' length, crc32c and sha256.

    The others are as in `write_files`.

    Raises
    ------
    NotFiniteError
        If a row of a window holds NaN or an infinity.
    """
    found = _statistics(spec, job, features)
    if not all(np.isfinite(found[name]).all() for name in ("mean", "low", "high")):
        raise _not_finite(job, features)
    return FileRecord(
        number=np.int64(job.number),  # type: ignore[arg-type]  # a 0-d array once read back
        **digests,
        **found,
    )


class NotFiniteError(KernelError):
    """A feature row with a value that is no number, of row `row` and feature number `feature`."""

    def __init__(self, row: int, feature: int, value: float) -> None:
        super().__init__(f"feature {feature} is {value} in row {row:,}: stores hold finite numbers")
        self.row, self.feature, self.value = row, feature, value


def _not_finite(job: FileJob, features: FeatureRows) -> NotFiniteError:
    """Find the first value that is not finite among the rows of a file's windows."""
    runs = job.chunks.columns
    for first_row, rows in zip(runs.first_row.tolist(), features.of_runs(runs), strict=True):
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong):
            row, feature = (int(place) for place in wrong[0])
            return NotFiniteError(first_row + row, feature, float(rows[row, feature]))
    raise AssertionError("statistics of finite rows are finite")


def _encode_chunks(spec: StoreSpec, runs: RunColumns, features: FeatureRows) -> Iterator[Chunk]:
    stretches = features.of_runs(runs)
    for begin, end in pairwise([0, *runs.ends.tolist()]):
        if spec.layout == "rows":
            yield encode_chunk(_block(spec, stretches[begin:end]), spec.codec)
        else:
            yield _encode_windows(spec, stretches[begin:end])


def _encode_windows(spec: StoreSpec, stretches: Sequence[Float32Array]) -> Chunk:
    L, stride, row_bytes = spec.sequence_length, spec.stride, spec.n_features * 4
    counts = [(len(rows) - L) // stride + 1 for rows in stretches]
    if (
        spec.codec == "zstd"
        and sum(counts) == spec.chunk_windows
        and can_repeat(L * row_bytes, stride * row_bytes)
    ):
        return sealed(encode_repeats(stretches, L, stride))
    chunk = np.empty(spec.data.chunk_shape, np.float32)
    at = 0
    for rows, count in zip(stretches, counts, strict=True):
        chunk[at : at + count] = as_strided(
            rows,
            (count, L, spec.n_features),
            (stride * row_bytes, row_bytes, 4),
            writeable=False,
        )
        at += count
    chunk[at:] = np.nan
    return encode_chunk(chunk, spec.codec)


def _block(spec: StoreSpec, stretches: Sequence[Float32Array]) -> Float32Array:
    """Return the block of layout `rows`: the runs one after the other, NaN to the end."""
    if len(stretches) == 1 and len(stretches[0]) == spec.block_rows:
        return stretches[0]
    block = np.full((spec.block_rows, spec.n_features), np.nan, np.float32)
    np.concatenate(stretches, out=block[: sum(len(rows) for rows in stretches)])
    return block


def _statistics(
    spec: StoreSpec, job: FileJob, features: FeatureRows
) -> dict[str, npt.NDArray[Any]]:
    """Moments of the rows that each chunk uses and the chunk before does not."""
    runs, n = job.chunks.columns, len(job.chunks)
    begin = features.find(runs.first_row)
    count = np.empty(n, np.int64)
    mean, m2, low, high = (np.empty((n, spec.n_features)) for _ in range(4))
    new, stop = begin + runs.n_repeated, begin + runs.n_rows
    row_moments(features.values, new, stop, runs.ends, count, mean, m2, low, high)
    return {"count": count, "mean": mean, "m2": m2, "low": low, "high": high}
