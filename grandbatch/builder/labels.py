"""The per-window arrays: what a window's last bar says, from the grid and the bars cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.builder.plan import LABEL_READ_ROWS, BuildPlan
from grandbatch.features.inputs import inputs_of
from grandbatch.grid import Run
from grandbatch.store.file_records import is_whole
from grandbatch.store.format import StoreSpec
from grandbatch.store.manifest import ChunkDigests, Manifest
from grandbatch.store.reader import MatrixStore
from grandbatch.store.staging import Staging
from grandbatch.targets import Target, target_values
from grandbatch.targets.rows import longest_horizon
from grandbatch.values.arrays import Float32

LabelArrays = dict[str, npt.NDArray[Any]]
"""Per-window values by the name of their array, `start` always among them."""

Chunks = Sequence[Sequence[Run]]

_SKIPPED_ROWS = 16_384
"""Rows between runs that it is worth not to read."""


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """One chunk of the per-window arrays of an older store that stays, but for numbers of rows."""

    store: Path
    digests: Mapping[str, ChunkDigests]
    """Of the chunk, by the array's name."""
    unchanged: frozenset[str]
    """Files that stand as they were published: they are not read again."""


@dataclass(frozen=True, eq=False)
class LabelJob:
    """One chunk of every per-window array to write, and the chunks of windows that it describes."""

    number: int
    chunks: Chunks
    bars: Bars
    targets: tuple[Target, ...]
    staging: Staging
    kept: KeptLabels | None = None


def label_jobs(
    plan: BuildPlan, bars: Bars, staging: Staging, kept: Mapping[int, KeptLabels]
) -> Iterator[LabelJob]:
    """Describe all chunks of the per-window arrays, each when it is asked for."""
    spec = plan.spec
    per_label = -(-spec.label_chunk_windows // spec.chunk_windows)
    for number, first in enumerate(range(0, spec.n_chunks, per_label)):
        yield LabelJob(
            number,
            plan.grid.runs_of(first, min(first + per_label, spec.n_chunks)),
            bars,
            plan.settings.targets,
            staging,
            kept.get(number),
        )


def write_label_chunk(job: LabelJob) -> dict[str, ChunkDigests]:
    """Write one chunk of every per-window array; return its digests by the array's name."""
    if job.kept is not None and _take_over(job, job.kept):
        rows = {"first_row": _first_rows(job.staging.spec, job.chunks)}
        return {**job.kept.digests, **job.staging.write_labels(job.number, rows)}
    labels = window_labels(job.staging.spec, job.chunks, job.bars, job.targets)
    return job.staging.write_labels(job.number, labels)


def kept_labels(
    old: MatrixStore, numbers: Iterable[int], manifest: Manifest, unchanged: set[str]
) -> dict[int, KeptLabels]:
    """Describe chunks of a store's per-window arrays that stay, by their numbers."""
    per_chunk = -(-old.spec.label_chunk_windows // old.spec.chunk_windows)
    kept = {}
    for number in numbers:
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
        kept[number] = KeptLabels(old.path, digests, frozenset(names & unchanged))
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


def _first_rows(spec: StoreSpec, chunks: Chunks) -> npt.NDArray[np.int64]:
    """Row numbers of the first bars of all windows of consecutive chunks, (W,) int64."""
    runs = [run for runs in chunks for run in runs]
    first, count = np.array([(run.first_row, run.n_windows) for run in runs], np.int64).T
    rows: npt.NDArray[np.int64] = np.repeat(first, count) + _numbers(count) * spec.stride
    return rows


def _numbers(count: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the windows of each run from 0, the runs one behind the other."""
    before = np.cumsum(count) - count
    return np.arange(count.sum(), dtype=np.int64) - np.repeat(before, count)


def window_labels(
    spec: StoreSpec, chunks: Chunks, bars: Bars, targets: Sequence[Target] = ()
) -> LabelArrays:
    """Per-window values of consecutive chunks.

    Returns
    -------
    dict of str to (W,) array
        `end_time`, `symbol`, `close_price`, `next_return`, `first_row`, as in the store, and
        `start`: a window's first row inside its chunk's block. With targets `targets`, (W, K).
    """
    n_windows = sum(run.n_windows for runs in chunks for run in runs)
    labels = {
        array.name: np.empty((n_windows, *array.shape[1:]), array.dtype)
        for array in spec.labels
        if targets or array.name != "targets"
    }
    labels["start"] = np.empty(n_windows, np.int32)
    ahead = max(1, longest_horizon(targets))
    columns = tuple(dict.fromkeys(("timestamp", "close", *inputs_of(targets))))
    for together in _read_together(_placed(chunks)):
        base, last_run = together[0].run.first_row, together[-1].run
        # the bars that the last next return and the last targets read, where there are so many
        stop = min(last_run.first_row + last_run.n_rows + ahead, bars.n_rows)
        read = bars.read(base, stop, columns)
        close = read["close"]
        if targets:
            for placed, values in _targets(spec, together, targets, read, base):
                labels["targets"][placed.place : placed.place + len(values)] = values
        # of all runs at once: at stride 1 a chunk has few windows
        first, count, segment_stop, symbol, place, block_row = np.array(
            [
                (run.first_row, run.n_windows, run.segment_stop, run.symbol, place, block_row)
                for run, place, block_row in together
            ],
            np.int64,
        ).T
        numbers = _numbers(count)
        steps = numbers * spec.stride
        first_row = np.repeat(first, count) + steps
        last = first_row + (spec.sequence_length - 1)
        at = last - base
        here = np.repeat(place, count) + numbers
        labels["first_row"][here] = first_row
        labels["symbol"][here] = np.repeat(symbol, count)
        labels["end_time"][here] = read["timestamp"][at]
        labels["close_price"][here] = close[at]
        has_next = last + 1 < np.repeat(segment_stop, count)
        labels["next_return"][here] = _next_returns(close, at, has_next)
        labels["start"][here] = np.repeat(block_row, count) + steps
    return labels


class _PlacedRun(NamedTuple):
    """A run, the place of its first window, and of its first row in its chunk's block."""

    run: Run
    place: int
    block_row: int


def _placed(chunks: Chunks) -> list[_PlacedRun]:
    """List the runs of consecutive chunks by their rows."""
    placed = []
    place = 0
    for runs in chunks:
        block_row = 0
        for run in runs:
            placed.append(_PlacedRun(run, place, block_row))
            place += run.n_windows
            block_row += run.n_rows
    return sorted(placed, key=lambda one: one.run.first_row)


def _read_together(placed: Sequence[_PlacedRun]) -> Iterator[Sequence[_PlacedRun]]:
    """Cut runs, sorted by their rows, at where bars are no longer read at once."""
    begin = 0
    for place, (run, _, _) in enumerate(placed):
        stop = run.first_row + run.n_rows
        is_last = place + 1 == len(placed)
        following = stop if is_last else placed[place + 1].run.first_row
        rows = stop - placed[begin].run.first_row
        if is_last or rows >= LABEL_READ_ROWS or following - stop >= _SKIPPED_ROWS:
            yield placed[begin : place + 1]
            begin = place + 1


def _targets(
    spec: StoreSpec,
    together: Sequence[_PlacedRun],
    targets: Sequence[Target],
    read: Mapping[str, npt.NDArray[Any]],
    base: int,
) -> Iterator[tuple[_PlacedRun, Float32]]:
    """Compute the targets at the windows' last bars, (w, K) for each run.

    Bars of a segment are gone through once, those between runs too: a call for each run would
    read its horizon again.
    """
    for segment_stop, in_segment in groupby(together, key=lambda placed: placed.run.segment_stop):
        several = list(in_segment)
        begin = several[0].run.first_row + spec.sequence_length - 1
        n_bars = several[-1].run.first_row + several[-1].run.n_rows - begin
        values = np.empty((n_bars, len(targets)), np.float32)
        for k, target in enumerate(targets):
            stop = min(begin + n_bars + target.horizon, segment_stop)
            bars = {name: read[name][begin - base : stop - base] for name in target.inputs}
            values[:, k] = target_values(target, bars)[:n_bars]
        for placed in several:
            first = placed.run.first_row + spec.sequence_length - 1 - begin
            yield placed, values[first : first + placed.run.n_windows * spec.stride : spec.stride]


def _next_returns(
    close: npt.NDArray[np.float64], at: npt.NDArray[np.int64], has_next: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(c[t+1] - c[t]) / |c[t]|: the sign is that of the move, below zero too.

    NaN where the segment ends at t, where c[t] is 0, and where it is not finite.
    """
    returns = np.full(len(at), np.nan)
    now = close[at[has_next]]
    then = close[at[has_next] + 1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (then - now) / np.abs(now)
    found[~np.isfinite(found)] = np.nan
    returns[has_next] = found
    return returns
