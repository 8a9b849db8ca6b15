"""Feature rows of bars held in arrays, segment by segment. Knows no Dask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from grandbatch.features.fused import Production
from grandbatch.features.inputs import refuse_not_finite
from grandbatch.features.sets import FeatureSet
from grandbatch.values.arrays import Array

F32 = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

_BLOCK_BYTES = 2**21
_LEAST_BLOCK_ROWS, _USUAL_BLOCK_ROWS, _MOST_BLOCK_ROWS = 1_000, 8_000, 16_000


def segment_starts(
    timestamp_ns: Int64Array,
    symbol_codes: npt.NDArray[np.integer],
    max_gap_ns: int | None = None,
) -> Int64Array:
    """Find the rows that begin a segment, seen from the row before them.

    Parameters
    ----------
    timestamp_ns : (n,) int64
        Nanoseconds since 1970 UTC, rising within a symbol.
    symbol_codes : (n,) int
        Equal for rows of one symbol.
    max_gap_ns : int, optional
        The largest distance in time inside a segment; by default any.

    Returns
    -------
    (S,) int64
        Row positions, rising. Never 0: what came before it isn't seen.
    """
    begins = symbol_codes[1:] != symbol_codes[:-1]
    if max_gap_ns is not None:
        begins = begins | (timestamp_ns[1:] - timestamp_ns[:-1] > max_gap_ns)
    return (np.flatnonzero(begins) + 1).astype(np.int64, copy=False)


def compute_rows(
    feature_set: FeatureSet,
    columns: Mapping[str, Array],
    starts: Int64Array,
    first: int = 0,
) -> F32:
    """Compute the feature rows of bars in arrays.

    Parameters
    ----------
    feature_set : FeatureSet
        What to compute.
    columns : mapping of str to (n,) array, contiguous
        The bars: at least `feature_set.inputs`, all finite; `timestamp` is int64, the others
        float64.
    starts : (S,) int64
        Rising positions where a segment begins. Position 0 need not be among them: the rows may
        begin in the middle of a segment.
    first : int
        Rows before it are context only: read, but not written.

    Returns
    -------
    (n - first, n_features) float32, C-contiguous
        nan in all columns of a row that has fewer than `feature_set.lookback` bars of its segment
        before it in the arrays; finite elsewhere for the built-in sets.

    Raises
    ------
    InputError
        If a bar is not finite.
    """
    bars = {name: columns[name] for name in feature_set.inputs}
    refuse_not_finite(bars)
    n = len(bars[feature_set.inputs[0]])
    lookback = feature_set.lookback
    out = np.empty((n - first, feature_set.n_features), np.float32)
    stops = [int(start) for start in starts if start > 0] + [n]
    begin = 0
    for stop in stops:
        lacking = slice(max(first, begin), max(first, min(begin + lookback, stop)))
        out[lacking.start - first : lacking.stop - first] = np.nan
        if lacking.stop < stop:
            run = {name: values[begin:stop] for name, values in bars.items()}
            _write_run(feature_set, run, lacking.stop - begin, out[lacking.stop - first :])
        begin = stop
    return out


def _write_run(feature_set: FeatureSet, run: Mapping[str, Array], first: int, out: F32) -> None:
    """Write the rows from `first` of one segment's run to the start of `out`.

    Block by block, columns first: writing one column into rows of many would fetch a cache line
    for each number.
    """
    from grandbatch.kernels.layout import write_rows

    production = feature_set.production
    n = len(run[feature_set.inputs[0]])
    block_rows = min(_block_rows(production), n - first)
    block = np.empty(production.width * block_rows, np.float32)
    for begin in range(first, n, block_rows):
        stop = min(begin + block_rows, n)
        columns = block[: production.width * (stop - begin)].reshape(production.width, -1)
        place = 0
        for producer in production.producers:
            producer.write(run, begin, stop, columns[place : place + producer.width])
            place += producer.width
        write_rows(columns, production.order, out[begin - first : stop - first])


def _block_rows(production: Production) -> int:
    """Choose how many bars are done together.

    Few, so that their columns stay in the caches; many, so that neither the calls nor the lookback
    of each block weigh. No power of two: columns 4 KiB apart fall on the same cache lines.
    """
    fit = _BLOCK_BYTES // (production.width * 4)
    least = min(2 * production.lookback, _MOST_BLOCK_ROWS)
    rows = max(_LEAST_BLOCK_ROWS, least, min(fit, _USUAL_BLOCK_ROWS))
    return rows // 8 * 8 | 8
