"""From feature rows to encoded chunks and records: the work of one task of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from grandbatch.errors import KernelError
from grandbatch.grid import Run
from grandbatch.kernels.statistics import row_moments
from grandbatch.store.codecs import encode, seal
from grandbatch.store.file_records import FileRecord, digests_of
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
        cls, values: Float32Array, ranges: Sequence[tuple[int, int]], before: int = 0
    ) -> FeatureRows:
        """Describe rows where `before` more rows stand in front of each range but the first."""
        starts, stops = np.array(ranges, np.int64).T
        steps = (stops - starts + before)[:-1]
        return cls(values, starts, np.concatenate([[0], np.cumsum(steps)]))

    def __call__(self, first_row: int, n_rows: int) -> Float32Array:
        """Return consecutive rows of one range, from a row number on, (n_rows, F) float32."""
        place = self.starts.searchsorted(first_row, side="right") - 1
        at = int(self.places[place] + first_row - self.starts[place])
        return self.values[at : at + n_rows]


@dataclass(frozen=True)
class FileJob:
    """One file of chunks to write: its number, and the runs of each of its chunks."""

    number: int
    chunks: Sequence[Sequence[Run]]


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
        encoded = [_encode_chunk(spec, runs, features) for runs in job.chunks]
        record = file_record(spec, job, digests_of(encoded), features)
        staging.write_file(spec.data, job.number, encoded)
        staging.write_record(record)
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
    for run in (run for runs in job.chunks for run in runs):
        rows = features(run.first_row, run.n_rows)
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong):
            row, feature = (int(place) for place in wrong[0])
            value = float(rows[row, feature])
            return NotFiniteError(run.first_row + row, feature, value)
    raise AssertionError("statistics of finite rows are finite")


def _encode_chunk(spec: StoreSpec, runs: Sequence[Run], features: FeatureRows) -> bytes:
    stretches = [features(run.first_row, run.n_rows) for run in runs]
    n_windows = sum(run.n_windows for run in runs)
    if spec.layout == "rows":
        return encode(_block(spec, stretches), spec.codec)
    row_bytes = spec.n_features * 4
    if (
        spec.codec == "zstd"
        and n_windows == spec.chunk_windows
        and can_repeat(spec.sequence_length * row_bytes, spec.stride * row_bytes)
    ):
        return seal(encode_repeats(stretches, spec.sequence_length, spec.stride))
    chunk = np.empty(spec.data.chunk_shape, np.float32)
    at = 0
    for rows, run in zip(stretches, runs, strict=True):
        chunk[at : at + run.n_windows] = as_strided(
            rows,
            (run.n_windows, spec.sequence_length, spec.n_features),
            (spec.stride * row_bytes, row_bytes, 4),
            writeable=False,
        )
        at += run.n_windows
    chunk[at:] = np.nan
    return encode(chunk, spec.codec)


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
    n = len(job.chunks)
    count = np.zeros(n, np.int64)
    moments = [np.empty((n, spec.n_features)) for _ in range(4)]
    for chunk, runs in enumerate(job.chunks):
        new = [
            features(run.first_row + run.n_repeated, run.n_rows - run.n_repeated) for run in runs
        ]
        rows = new[0] if len(new) == 1 else np.concatenate(new)
        count[chunk] = len(rows)
        row_moments(rows, *(values[chunk] for values in moments))
    mean, m2, low, high = moments
    return {"count": count, "mean": mean, "m2": m2, "low": low, "high": high}
