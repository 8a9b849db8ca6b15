"""The per-window arrays: what a window's last bar says, from the grid and the bars cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.builder.plan import LABEL_READ_ROWS, BuildPlan
from grandbatch.features.inputs import inputs_of
from grandbatch.grid import ChunkRuns, RunColumns
from grandbatch.store.codecs import decode_into
from grandbatch.store.file_records import is_whole, read_file
from grandbatch.store.format import CRC_BYTES, StoreSpec
from grandbatch.store.manifest import ChunkDigests, Manifest
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging
from grandbatch.targets import Target, target_values
from grandbatch.targets.rows import longest_horizon
from grandbatch.values.arrays import Float32, Float64, Int64

LabelArrays = dict[str, npt.NDArray[Any]]
"""Per-window values by the name of their array, `start` always among them."""

_SKIPPED_ROWS = 16_384
"""Rows between runs that it is worth not to read."""


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """One chunk of the per-window arrays of an older store that stays, but for numbers of rows.

    Or the beginning of it.
    """

    n_windows: int
    """How many windows stay, from its first on."""
    store: Path
    digests: Mapping[str, ChunkDigests]
    """Of the chunk, by the array's name."""
    unchanged: frozenset[str]
    """Files that stand as they were published: they are not read again."""


@dataclass(frozen=True, eq=False)
class LabelJob:
    """One chunk of every per-window array to write, and the chunks of windows that it describes."""

    number: int
    chunks: ChunkRuns
    bars: Bars
    targets: tuple[Target, ...]
    staging: Staging
    kept: KeptLabels | None = None
    rest: ChunkRuns | None = None
    """Of the chunks of windows behind those that stay; None where all do."""


def label_jobs(
    plan: BuildPlan, bars: Bars, staging: Staging, kept: Mapping[int, KeptLabels]
) -> Iterator[LabelJob]:
    """Describe all chunks of the per-window arrays, each when it is asked for."""
    spec = plan.spec
    per_label = -(-spec.label_chunk_windows // spec.chunk_windows)
    for number, first in enumerate(range(0, spec.n_chunks, per_label)):
        stop = min(first + per_label, spec.n_chunks)
        of_older = kept.get(number)
        rest = None
        if of_older is not None and of_older.n_windows < spec.label_chunk_windows:
            begin = min(first + of_older.n_windows // spec.chunk_windows, stop - 1)
            rest = plan.grid.runs_of(begin, stop)
        yield LabelJob(
            number,
            plan.grid.runs_of(first, stop),
            bars,
            plan.settings.targets,
            staging,
            of_older,
            rest,
        )


def write_label_chunk(job: LabelJob) -> dict[str, ChunkDigests]:
    """Write one chunk of every per-window array; return its digests by the array's name."""
    spec, kept = job.staging.spec, job.kept
    if kept is not None and job.rest is None and _take_over(job, kept):
        rows = {"first_row": _first_rows(spec, job.chunks)}
        return {**kept.digests, **job.staging.write_labels(job.number, rows)}
    labels = None
    if kept is not None and job.rest is not None:
        labels = _continued(job, kept, job.rest)
    if labels is None:
        labels = window_labels(spec, job.chunks, job.bars, job.targets)
    return job.staging.write_labels(job.number, labels)


def kept_labels(
    old: MatrixStore, n_kept: Mapping[int, int], manifest: Manifest, unchanged: set[str]
) -> dict[int, KeptLabels]:
    """Describe chunks of a store's per-window arrays that stay, by their numbers.

    Of each it is given how many windows do, from its first on.
    """
    per_chunk = -(-old.spec.label_chunk_windows // old.spec.chunk_windows)
    kept = {}
    for number, n_windows in n_kept.items():
        names, digests = set(), {}
        for array in old.spec.labels:
            names.add(array.file(number))
            found = manifest.arrays[array.name]
            digests[array.name] = ChunkDigests(
                found.length[number : number + 1],
                found.crc32c[number : number + 1],
                found.sha256[number : number + 1],
                found.part_crc32c[number * per_chunk : (number + 1) * per_chunk],
            )
        kept[number] = KeptLabels(n_windows, old.path, digests, frozenset(names & unchanged))
    return kept


def _take_over(job: LabelJob, kept: KeptLabels) -> bool:
    """Stage the files of a chunk that stays, unless one is damaged."""
    arrays = [array for array in job.staging.spec.labels if array.name != "first_row"]
    try:
        for array in arrays:
            name, digests = array.file(job.number), kept.digests[array.name]
            known = digests.length, digests.sha256
            if name not in kept.unchanged and not is_whole(
                kept.store / name, array, job.number, *known
            ):
                return False
            job.staging.take_named(name, kept.store)
    except FileNotFoundError:
        return False
    return True


def _continued(job: LabelJob, kept: KeptLabels, rest: ChunkRuns) -> LabelArrays | None:
    """Put the values of the rest behind those that stay; None if the older store's are damaged."""
    spec, n_windows = job.staging.spec, rest.windows[0] - job.chunks.windows[0]
    before: LabelArrays = {"first_row": _first_rows(spec, job.chunks)[:n_windows]}
    for array in spec.labels:
        if array.name == "first_row":
            continue
        digests = kept.digests[array.name]
        path, known = kept.store / array.file(job.number), (digests.length, digests.sha256)
        try:
            data = read_file(path, array, job.number, *known)
        except FileNotFoundError:
            data = None
        if data is None:
            return None
        chunk = np.empty(array.chunk_shape, array.dtype)
        decode_into(memoryview(data)[:-CRC_BYTES], array.codec, chunk)
        before[array.name] = chunk[:n_windows]
    behind = window_labels(spec, rest, job.bars, job.targets)
    return {name: np.concatenate([of, behind[name]]) for name, of in before.items()}


def _first_rows(spec: StoreSpec, chunks: ChunkRuns) -> Int64:
    """Row numbers of the first bars of all windows of consecutive chunks, (W,) int64."""
    runs = chunks.columns
    return _stepping(runs.first_row, runs.n_windows, spec.stride)


def _stepping(first: Int64, count: Int64, step: int) -> Int64:
    """Count from each first number on by steps, the runs one behind the other."""
    before = np.cumsum(count) - count
    numbers: Int64 = np.repeat(first - before * step, count)
    numbers += np.arange(0, len(numbers) * step, step)
    return numbers


def window_labels(
    spec: StoreSpec, chunks: ChunkRuns, bars: Bars, targets: Sequence[Target] = ()
) -> LabelArrays:
    """Per-window values of consecutive chunks.

    Returns
    -------
    dict of str to (W,) array
        `end_time`, `symbol`, `close_price`, `next_return`, `first_row`, as in the store, and
        `start`: a window's first row inside its chunk's block. With targets `targets`, (W, K).
    """
    runs = chunks.columns
    n_windows = int(runs.n_windows.sum())
    labels = {
        array.name: np.empty((n_windows, *array.shape[1:]), array.dtype)
        for array in spec.labels
        if targets or array.name != "targets"
    }
    labels["start"] = np.empty(n_windows, np.int32)
    ahead = max(1, longest_horizon(targets))
    columns = tuple(dict.fromkeys(("timestamp", "close", *inputs_of(targets))))
    place = np.cumsum(runs.n_windows) - runs.n_windows
    block_row = _within_chunks(runs)
    for some in _read_together(runs, ahead):
        first, count, n_rows = runs.first_row[some], runs.n_windows[some], runs.n_rows[some]
        ranges, skipped = _ranges(first, n_rows, ahead, bars.n_rows)
        read = bars.read_ranges(ranges, columns)
        # of all runs at once: at stride 1 a chunk has few windows
        here = _places(place[some], count)
        first_row = _stepping(first, count, spec.stride)
        at = first_row + (spec.sequence_length - 1) - np.repeat(skipped, count)
        labels["first_row"][here] = first_row
        labels["start"][here] = first_row - np.repeat(first - block_row[some], count)
        labels["symbol"][here] = np.repeat(runs.symbol[some], count)
        labels["end_time"][here] = read["timestamp"].take(at)
        labels["close_price"][here] = read["close"].take(at)
        # only a segment's last bar has none that follows
        is_last = first + n_rows == runs.segment_stop[some]
        without = (np.cumsum(count) - 1)[is_last]
        labels["next_return"][here] = _next_returns(read["close"], at, without)
        if targets:
            segment_stop = np.repeat(runs.segment_stop[some] - skipped, count)
            labels["targets"][here] = _targets(targets, read, at, segment_stop)
    return labels


def _within_chunks(runs: RunColumns) -> Int64:
    """Return each run's first row in its chunk's block, (R,) int64."""
    rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs.n_rows)])
    begins = np.concatenate([np.zeros(1, np.int64), runs.ends[:-1]])
    of_chunks: Int64 = np.repeat(rows[begins], runs.ends - begins)
    return rows[:-1] - of_chunks


def _places(first: Int64, count: Int64) -> slice | Int64:
    """Return the places of the windows of some runs: as a slice where they follow each other."""
    if (first[1:] == first[:-1] + count[:-1]).all():
        return slice(int(first[0]), int(first[-1] + count[-1]))
    return _stepping(first, count, 1)


def _read_together(runs: RunColumns, ahead: int) -> Iterator[Int64]:
    """Part runs, by their rows, into those whose bars are read at once; their numbers.

    These, and some rows ahead, are not many more than `LABEL_READ_ROWS`.
    """
    order = np.argsort(runs.first_row, kind="stable")
    first = runs.first_row[order]
    stop = first + runs.n_rows[order]
    # rows that each run adds to those of the runs before
    rows = stop - first + ahead
    rows[1:] = np.clip(stop[1:] - stop[:-1], 0, rows[1:])
    read = np.cumsum(rows)
    begin = 0
    while begin < len(order):
        before = int(read[begin - 1]) if begin else 0
        end = min(int(np.searchsorted(read, before + LABEL_READ_ROWS)) + 1, len(order))
        yield order[begin:end]
        begin = end


def _ranges(
    first: Int64, n_rows: Int64, ahead: int, n_bars: int
) -> tuple[list[tuple[int, int]], Int64]:
    """Return the ranges of bars to read for runs in their order, and what is skipped before each.

    They have the bars that the last next return and the last targets read, where there are so
    many. A run's row number, less what is skipped, is its place among the bars read.
    """
    stop = first + n_rows
    is_apart = np.append(True, first[1:] - stop[:-1] >= _SKIPPED_ROWS)
    begins = np.flatnonzero(is_apart)
    starts, stops = first[begins], stop[np.append(begins[1:], len(first)) - 1]
    stops = np.minimum(stops + ahead, n_bars)
    n_read = stops - starts
    skipped = starts - (np.cumsum(n_read) - n_read)
    ranges = list(zip(starts.tolist(), stops.tolist(), strict=True))
    return ranges, np.repeat(skipped, np.diff(np.append(begins, len(first))))


def _targets(
    targets: Sequence[Target],
    read: Mapping[str, npt.NDArray[Any]],
    at: Int64,
    segment_stop: Int64,
) -> Float32:
    """Compute the targets at windows' last bars, (w, K).

    Bars of a segment are gone through once, those between runs too: a call for each run would
    read its horizon again.

    Parameters
    ----------
    targets : sequence of Target
    read : mapping of str to (n,) array
        Ranges of bars, one behind the other.
    at : (w,) int64
        Places of the windows' last bars among them, rising.
    segment_stop : (w,) int64
        Place after the last bar of each window's segment, were all bars of the range there.
    """
    values = np.empty((len(at), len(targets)), np.float32)
    begins = np.flatnonzero(np.append(True, segment_stop[1:] != segment_stop[:-1]))
    for first, end in pairwise([*begins.tolist(), len(at)]):
        begin, n_bars = int(at[first]), int(at[end - 1] - at[first]) + 1
        for k, target in enumerate(targets):
            stop = min(begin + n_bars + target.horizon, int(segment_stop[first]))
            bars = {name: read[name][begin:stop] for name in target.inputs}
            values[first:end, k] = target_values(target, bars)[at[first:end] - begin]
    return values


def _next_returns(close: Float64, at: Int64, without: Int64) -> Float64:
    """(c[t+1] - c[t]) / |c[t]|: the sign is that of the move, below zero too.

    NaN where the segment ends at t, as of the windows `without`, where c[t] is 0, and where it is
    not finite.
    """
    now = close.take(at)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        returns: Float64 = close.take(at + 1, mode="clip") - now
        returns /= np.abs(now)
    returns[~np.isfinite(returns)] = np.nan
    returns[without] = np.nan
    return returns
