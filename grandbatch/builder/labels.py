"""The per-window arrays: what a window's last bar says, from the grid and the bars cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.bars import Bars
from grandbatch.builder.plan import BuildPlan
from grandbatch.grid import Run
from grandbatch.store.format import StoreSpec
from grandbatch.store.manifest import ChunkDigests
from grandbatch.store.staging import Staging

Labels = dict[str, npt.NDArray[Any]]
"""Per-window values by the name of their array, `start` always among them."""

Chunks = Sequence[Sequence[Run]]

_READ_ROWS = 262_144


@dataclass(frozen=True, eq=False)
class LabelJob:
    """One chunk of every per-window array to write, and the chunks of windows that it describes."""

    number: int
    chunks: Chunks
    bars: Bars
    staging: Staging


def label_jobs(plan: BuildPlan, bars: Bars, staging: Staging) -> list[LabelJob]:
    """Describe all chunks of the per-window arrays."""
    spec = plan.spec
    per_label = -(-spec.label_chunk_windows // spec.chunk_windows)
    return [
        LabelJob(
            number,
            [plan.grid.runs(c) for c in range(first, min(first + per_label, spec.n_chunks))],
            bars,
            staging,
        )
        for number, first in enumerate(range(0, spec.n_chunks, per_label))
    ]


def write_label_chunk(job: LabelJob) -> dict[str, ChunkDigests]:
    """Write one chunk of every per-window array; return its digests by the array's name."""
    labels = window_labels(job.staging.spec, job.chunks, job.bars)
    return job.staging.write_labels(job.number, labels)


def window_labels(spec: StoreSpec, chunks: Chunks, bars: Bars) -> Labels:
    """Per-window values of consecutive chunks.

    Returns
    -------
    dict of str to (W,) array
        `end_time`, `symbol`, `close_price`, `next_return`, `first_row`, as in the store, and
        `start`: a window's first row inside its chunk's block.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {array.name: [] for array in spec.labels}
    parts["start"] = []
    for together in _read_together(chunks):
        base, last_run = together[0][0].first_row, together[-1][-1]
        # one bar more, where there is one: it gives the last next return
        stop = min(last_run.first_row + last_run.n_rows + 1, bars.n_rows)
        read = bars.read(base, stop, ("timestamp", "close"))
        close = read["close"]
        for runs in together:
            block_row = 0
            for run in runs:
                steps = np.arange(run.n_windows, dtype=np.int64) * spec.stride
                last = run.first_row + steps + spec.sequence_length - 1
                at = last - base
                parts["first_row"].append(run.first_row + steps)
                parts["symbol"].append(np.full(run.n_windows, run.symbol, np.int32))
                parts["end_time"].append(read["timestamp"][at])
                parts["close_price"].append(close[at])
                parts["next_return"].append(_next_returns(close, at, last + 1 < run.segment_stop))
                parts["start"].append((block_row + steps).astype(np.int32))
                block_row += run.n_rows
    return {name: np.concatenate(values) for name, values in parts.items()}


def _read_together(chunks: Chunks) -> Iterator[Chunks]:
    """Cut consecutive chunks at where bars are no longer read at once."""
    begin = 0
    for place, runs in enumerate(chunks, start=1):
        rows = runs[-1].first_row + runs[-1].n_rows - chunks[begin][0].first_row
        if rows >= _READ_ROWS or place == len(chunks):
            yield chunks[begin:place]
            begin = place


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
