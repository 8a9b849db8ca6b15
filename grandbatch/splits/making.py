"""`split_store` and `walk_forward`: parts of a store that read no bar of each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.splits.ranked import times_of_ranks
from grandbatch.splits.reach import Reach, window_spans
from grandbatch.splits.split import Chain, Period, Split
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Bool, Int64
from grandbatch.values.checks import whole
from grandbatch.values.times import shown, to_duration, to_nanoseconds

if TYPE_CHECKING:
    from grandbatch.values.times import Duration, Time

    Bounds = tuple[Time | None, Time | None]


SpanReader = Callable[[int, int], tuple[Int64, Int64]]

_BLOCK_WINDOWS = 2**18
_ROUNDING = 1e-9
_LEAST_CLOSE = 1e-100


def split_store(
    store: MatrixStore,
    parts: Mapping[str, float] | Mapping[str, Bounds],
    *,
    warmup: Duration = 0,
    embargo: Duration = 0,
) -> dict[str, Split]:
    """Split a store by time, so that no window of one split reads a bar that another reads.

    A window belongs to the split that its last bar's time falls in. It is left out (purged) where
    anything it reads, from `lookback` bars before its first row to the bar after its last, or to
    the longest horizon of its targets, may lie in what a neighbour reads. That holds across all
    symbols: no two splits read bars of the same time, whatever the symbol.

    Parameters
    ----------
    store : MatrixStore
    parts : mapping of str to float, or of str to (start, stop)
        In the order of time. Fractions of all windows, as counted before purging, adding up to at
        most 1; or times, None for the first and last bar's, without a zone UTC.
    warmup : str or timedelta
        How long before its start a split may look back; the split before gives that time up. With
        0 the windows that look back over a border are the ones purged behind it.
    embargo : str or timedelta
        Time between the last bar that a split reads and the first that the next one reads. The
        split before gives it up.

    Returns
    -------
    dict of str to Split
        To be given to `SlidingWindowDataLoader` as `subset`.

    Raises
    ------
    UsageError
        If the parts make no sense, or one has no window left.

    Notes
    -----
    Purging and embargo are those of M. López de Prado, Advances in Financial Machine Learning
    (2018), section 7.4. A store holds the times of its windows' last bars only: where these
    don't tell when exactly a window begins or ends to read, it is taken to read as much as it may.
    """
    periods = _periods(store, parts)
    return _make(store, [periods], warmup, embargo)[0]


def walk_forward(
    store: MatrixStore,
    n_splits: int = 5,
    *,
    test: Duration | None = None,
    train: Duration | None = None,
    warmup: Duration = 0,
    embargo: Duration = 0,
) -> list[tuple[Split, Split]]:
    """Make pairs of training and test splits that move forward in time.

    Test periods follow each other without a break up to the last bar. The training windows of a
    pair end before its test windows; each pair is purged as by `split_store`.

    Parameters
    ----------
    store : MatrixStore
    n_splits : int
        Pairs.
    test : str or timedelta, optional
        Length of each test period. By default all windows are cut into `n_splits + 1` parts of
        equally many, and all but the first are test periods.
    train : str or timedelta, optional
        Length of each training period (a rolling window). By default all from the first bar on
        (an expanding one).
    warmup : str or timedelta
        How long before its start a test period may look back. With at least what a window spans,
        nothing of the test periods is purged.
    embargo : str or timedelta
        Time between the last bar that the training reads and the first that the test reads.

    Returns
    -------
    list of (Split, Split)
        Training and test, from the earliest to the latest.

    Raises
    ------
    UsageError
        If the periods don't fit into the store's time, or one has no window left.
    """
    whole("n_splits", n_splits, 1)
    reach = reach_of(store)
    borders = _test_borders(store, reach, n_splits, test)
    given_up = to_duration(warmup, "warmup") + to_duration(embargo, "embargo")
    length = None if train is None else to_duration(train, "train")
    earliest = borders[0] - given_up - (1 if length is None else max(1, length))
    if earliest < reach.first_time:
        raise UsageError(
            f"{n_splits} test periods and the training before them don't fit: the first test "
            f"period would start at {shown(borders[0])}, its training at {shown(earliest)} at the "
            f"latest, and bars start at {shown(reach.first_time)}; take fewer or shorter ones"
        )
    chains = []
    for number, (start, stop) in enumerate(pairwise(borders)):
        began = reach.first_time if length is None else start - given_up - length
        train_period = Period(f"training of pair {number}", began, start)
        chains.append([train_period, Period(f"test of pair {number}", start, stop)])
    made = _make(store, chains, warmup, embargo)
    return [(first, second) for first, second in (splits.values() for splits in made)]


def reach_of(store: MatrixStore) -> Reach:
    """Return what is known of all windows of a store."""
    return Reach(
        lookback=int(store.attrs["lookback"]),
        sequence_length=store.sequence_length,
        stride=store.stride,
        first_time=int(store.attrs["first_time"]),
        last_time=int(store.attrs["last_time"]),
        max_gap_ns=store.attrs["max_gap_ns"],
        horizon=max([1, *_horizons(store)]),
    )


def _horizons(store: MatrixStore) -> list[int]:
    return list(store.attrs.get("target_horizons", ()))


def _ended(store: MatrixStore, first: int, stop: int) -> Bool:
    """Tell which windows are known to end with their segment.

    They have no next return. Nor has one whose close is 0, or so small that a return from it may
    be infinite: where there are targets, it may read on all the same.
    """
    ended: Bool = np.isnan(store.next_return[first:stop])
    if _horizons(store):
        ended &= np.abs(store.close_price[first:stop]) > _LEAST_CLOSE
    return ended


def span_reader(store: MatrixStore) -> SpanReader:
    """Prepare to bound the first and the last time that windows of a store read.

    Returns
    -------
    callable
        Of (first, stop), windows of a range: `first_read` and `last_read` as of `window_spans`,
        (stop - first,) int64 each.
    """
    if store.attrs.get("order", "symbol") == "symbol":
        return partial(read_spans, store)
    # the windows before and behind one of the same symbol are those of the rows before and behind
    first_row = store.first_row[:]
    in_rows = np.argsort(first_row)
    spans = window_spans(
        reach_of(store),
        store.end_time[:][in_rows],
        first_row[in_rows],
        store.symbol[:][in_rows],
        _ended(store, 0, len(store))[in_rows],
        slice(0, len(store)),
    )
    for values in spans:
        values[in_rows] = values.copy()
    return lambda first, stop: (spans[0][first:stop], spans[1][first:stop])


def read_spans(store: MatrixStore, first: int, stop: int) -> tuple[Int64, Int64]:
    """Bound the times that windows of a store in the order of symbols read, as `span_reader`."""
    reach = reach_of(store)
    low = max(0, first - reach.windows_before)
    high = min(len(store), stop + reach.windows_behind)
    return window_spans(
        reach,
        store.end_time[low:high],
        store.first_row[low:high],
        store.symbol[low:high],
        _ended(store, low, high),
        slice(first - low, stop - low),
    )


def _make(
    store: MatrixStore, chains: Sequence[Sequence[Period]], warmup: Duration, embargo: Duration
) -> list[dict[str, Split]]:
    wait = to_duration(warmup, "warmup"), to_duration(embargo, "embargo")
    first_time = reach_of(store).first_time
    spans = span_reader(store)
    made = [Chain(periods, *wait, first_time) for periods in chains]
    for turn in range(len(chains[0])):
        for first, stop in _blocks(store):
            windows = store.end_time[first:stop], *spans(first, stop)
            for chain in made:
                chain.take_in(turn, *windows)
    return [chain.splits() for chain in made]


def _blocks(store: MatrixStore) -> Iterator[tuple[int, int]]:
    """Ranges of windows: whole chunks of the per-window arrays, so that each is read once."""
    size = store.spec.label_chunk_windows
    step = max(1, _BLOCK_WINDOWS // size) * size
    for first in range(0, len(store), step):
        yield first, min(first + step, len(store))


def _ranked_times(store: MatrixStore, ranks: Sequence[int]) -> list[int]:
    reach = reach_of(store)
    return times_of_ranks(
        lambda: (store.end_time[first:stop] for first, stop in _blocks(store)),
        ranks,
        reach.first_time,
        reach.last_time,
    )


def _test_borders(
    store: MatrixStore, reach: Reach, n_splits: int, test: Duration | None
) -> list[int]:
    """Return the starts of the test periods, and the end of the last."""
    end = reach.last_time + 1
    if test is None:
        n = len(store)
        ranks = [n * number // (n_splits + 1) for number in range(1, n_splits + 1)]
        borders = _ranked_times(store, ranks)
        if len(set(borders)) < n_splits:
            raise UsageError(
                f"{n_splits + 1} parts of {n:,} windows are too small to tell apart by time; "
                "take fewer pairs"
            )
        return [*borders, end]
    length = to_duration(test, "test")
    if length == 0:
        raise UsageError(f"test must be longer than 0, got {test!r}")
    return [end - number * length for number in range(n_splits, -1, -1)]


def _periods(store: MatrixStore, parts: Mapping[str, float] | Mapping[str, Bounds]) -> list[Period]:
    if not isinstance(parts, Mapping) or not parts:
        raise UsageError(f"name the splits, such as {{'train': 0.8, 'test': 0.2}}, got {parts!r}")
    shares: dict[str, float] = {}
    bounds: dict[str, Bounds] = {}
    for name, part in parts.items():
        if isinstance(part, int | float) and not isinstance(part, bool):
            shares[name] = float(part)
        elif isinstance(part, Sequence) and not isinstance(part, str) and len(part) == 2:
            bounds[name] = (part[0], part[1])
        else:
            raise UsageError(f"split {name!r} must be a fraction or (start, stop), got {part!r}")
    if shares and bounds:
        raise UsageError(f"give fractions or times, not both, got {dict(parts)!r}")
    return _by_fractions(store, shares) if shares else _by_times(store, bounds)


def _by_fractions(store: MatrixStore, shares: Mapping[str, float]) -> list[Period]:
    values = list(shares.values())
    total = math.fsum(values)
    if not all(share > 0 for share in values) or not total <= 1 + _ROUNDING:
        raise UsageError(
            "fractions must be above 0 and add up to at most 1, such as 0.7,0.15,0.15, got "
            + " + ".join(str(share) for share in values)
            + f" = {total:g}"
        )
    n, reach = len(store), reach_of(store)
    ranks = [round(n * math.fsum(values[: number + 1])) for number in range(len(values))]
    inner = [rank for rank in ranks if rank < n]
    ends = _ranked_times(store, inner) + [reach.last_time + 1] * (len(ranks) - len(inner))
    starts = [reach.first_time, *ends[:-1]]
    for name, start, stop in zip(shares, starts, ends, strict=True):
        if start >= stop:
            raise UsageError(
                f"split {name!r} is {shares[name]:g} of {n:,} windows: none ends after the split "
                f"before it and before {shown(stop)}; make it larger"
            )
    return [Period(*p) for p in zip(shares, starts, ends, strict=True)]


def _by_times(store: MatrixStore, bounds: Mapping[str, Bounds]) -> list[Period]:
    reach = reach_of(store)
    periods: list[Period] = []
    for name, (begun, ended) in bounds.items():
        start = reach.first_time if begun is None else to_nanoseconds(begun, f"{name}'s start")
        stop = reach.last_time + 1 if ended is None else to_nanoseconds(ended, f"{name}'s stop")
        if start >= stop:
            raise UsageError(
                f"split {name!r} must stop after it starts, got {shown(start)} and {shown(stop)}"
            )
        if periods and start < periods[-1].stop:
            raise UsageError(
                f"splits must follow each other in time: {name!r} starts at {shown(start)}, "
                f"before {periods[-1].name!r} stops at {shown(periods[-1].stop)}"
            )
        periods.append(Period(name, start, stop))
    return periods
