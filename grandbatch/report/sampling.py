"""What a page shows of a store's matrices: a few chunks, spread evenly, always the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Float32, Float64, Int64

_CHUNKS = 512
_DECODED_BYTES = 768 * 2**20
"""Of all sampled chunks; they are decoded one at a time, at about 1 GB/s."""
_ROWS = 200_000


@dataclass(frozen=True, eq=False)
class RowSample:
    """The last feature rows of sampled windows, in store order.

    Parameters
    ----------
    time : (S,) int64
        ns since 1970 UTC.
    values : (S, F) float32
    targets : (S, K) float32
        Of these windows; K is 0 where the store has none.
    n_chunks : int
        Chunks that were read.
    """

    time: Int64
    values: Float32
    targets: Float32
    n_chunks: int


def spread(n: int, most: int) -> Int64:
    """At most `most` of the numbers 0..n-1, spread evenly, (min(n, most),) int64."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return (np.arange(most, dtype=np.int64) * 2 + 1) * n // (2 * most)


def sample_rows(store: MatrixStore) -> RowSample:
    """Read the last row of windows from chunks spread over the whole store."""
    chunk_bytes = int(np.prod(store.chunk_shape)) * 4
    chunks = spread(store.n_chunks, min(_CHUNKS, max(1, _DECODED_BYTES // chunk_bytes)))
    most = max(1, _ROWS // len(chunks))
    buffer = np.empty(store.chunk_shape, np.float32)
    times, values, targets = [], [], []
    for chunk in chunks:
        first, stop = store.chunk_range(int(chunk))
        chosen = spread(stop - first, most)
        store.read_chunk(int(chunk), buffer)
        labels = store.read_labels(int(chunk))
        if labels.start is None:
            rows = buffer[chosen, -1]
        else:
            rows = buffer[labels.start[chosen] + store.sequence_length - 1]
        times.append(labels.end_time[chosen])
        values.append(rows)
        if labels.targets is None:
            targets.append(np.empty((len(chosen), 0), np.float32))
        else:
            targets.append(labels.targets[chosen])
    found = np.concatenate(times), np.concatenate(values), np.concatenate(targets)
    return RowSample(*found, len(chunks))


@dataclass(frozen=True, eq=False)
class Bands:
    """How a feature is distributed in each stretch of time.

    Parameters
    ----------
    edges : (B + 1,) int64
        ns since 1970 UTC, the same for all features.
    quantiles : (5, B, F) float64
        5th, 25th, 50th, 75th and 95th percentile; NaN where a stretch has too few rows.
    mean : (B, F) float64
        Likewise.
    """

    edges: Int64
    quantiles: Float64
    mean: Float64


def time_bands(sample: RowSample, n_bins: int = 48, fewest: int = 5) -> Bands:
    """Distribution of every feature over stretches of equal length."""
    low, high = int(sample.time.min()), int(sample.time.max()) + 1
    edges = low + (np.arange(n_bins + 1, dtype=np.int64) * ((high - low) // n_bins + 1))
    order = np.argsort(sample.time, kind="stable")
    cuts = np.searchsorted(sample.time[order], edges)
    n_features = sample.values.shape[1]
    quantiles = np.full((5, n_bins, n_features), np.nan)
    mean = np.full((n_bins, n_features), np.nan)
    for number in range(n_bins):
        inside = order[cuts[number] : cuts[number + 1]]
        if len(inside) >= fewest:
            rows = sample.values[inside].astype(np.float64)
            quantiles[:, number] = np.percentile(rows, [5, 25, 50, 75, 95], axis=0)
            mean[number] = rows.mean(axis=0)
    return Bands(edges, quantiles, mean)


def correlations(values: Float32) -> Float64:
    """Pearson correlation of all features, (F, F) float64; NaN where one never changes."""
    rows = values.astype(np.float64)
    constant = rows.max(axis=0) == rows.min(axis=0)
    rows -= rows.mean(axis=0)
    scale = np.sqrt((rows**2).sum(axis=0))
    scale[constant] = np.nan
    found: Float64 = np.clip(rows.T @ rows / np.outer(scale, scale), -1.0, 1.0)
    return found
