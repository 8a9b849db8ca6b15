"""The grid maps windows, rows and chunks onto each other over any segments."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grandbatch.errors import UsageError
from grandbatch.grid import Grid, Segments, Stretches


def segments_of(lengths, gaps=None):
    """Segments of these lengths, each after a number of unused rows."""
    gaps = gaps or [0] * len(lengths)
    starts, at = [], 0
    for length, gap in zip(lengths, gaps, strict=True):
        at += gap
        starts.append(at)
        at += length
    return Segments(
        np.array(starts, np.int64),
        np.array(lengths, np.int64),
        np.arange(len(lengths), dtype=np.int32),
    )


def naive_windows(segments, lookback, length, stride):
    """(first row, segment) of every window, by trying every start."""
    found = []
    for number, (start, size) in enumerate(zip(segments.start, segments.length, strict=True)):
        first = int(start) + lookback
        while first + length <= start + size:
            found.append((first, number))
            first += stride
    return found


def stretches_of(periods):
    """The stretches of rows with these periods, as long as segments don't matter."""
    periods = np.asarray(periods)
    start = np.flatnonzero(np.append(True, np.diff(periods) != 0))
    return Stretches(start, periods[start])


@st.composite
def grids(draw, by_period=False):
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    length = draw(st.integers(1, 12))
    stretches = None
    if by_period:
        steps = st.lists(st.sampled_from([0] * 6 + [1, 2]), min_size=60, max_size=60)
        periods = [np.cumsum(draw(steps))[:n] for n in lengths]
        stretches = stretches_of(np.concatenate(periods))
    return Grid(
        segments_of(lengths),
        stretches=stretches,
        lookback=draw(st.integers(0, 8)),
        sequence_length=length,
        overlap=draw(st.integers(0, length - 1)),
        chunk_windows=draw(st.integers(1, 9)),
    )


@given(grids())
def test_every_window_comes_once_in_order_and_inside_its_segment(grid):
    expected = naive_windows(grid.segments, grid.lookback, grid.sequence_length, grid.stride)
    windows = np.arange(grid.n_windows)
    got = list(zip(grid.first_row(windows), grid.segment_of(windows), strict=True))
    assert got == expected


@given(grids())
def test_chunks_cover_the_windows_without_gap_or_repeat(grid):
    ranges = [grid.chunk_range(chunk) for chunk in range(grid.n_chunks)]
    assert [w for lo, hi in ranges for w in range(lo, hi)] == list(range(grid.n_windows))
    assert all(hi - lo == grid.chunk_windows for lo, hi in ranges[:-1])


@given(grids())
def test_a_chunks_rows_are_one_range_that_its_windows_begin_and_end(grid):
    for chunk in range(grid.n_chunks):
        windows = np.arange(*grid.chunk_range(chunk))
        first = grid.first_row(windows)
        expected = [[first.min(), first.max() + grid.sequence_length]]
        assert grid.row_ranges(chunk, chunk + 1).tolist() == expected


@given(grids(by_period=True))
def test_windows_are_numbered_by_the_period_of_their_last_bar_then_as_ever(grid):
    windows = naive_windows(grid.segments, grid.lookback, grid.sequence_length, grid.stride)
    stretches = grid.stretches
    lengths = np.diff(stretches.start, append=int(grid.segments.length.sum()))
    period = np.repeat(stretches.period, lengths)
    ends = [period[first + grid.sequence_length - 1] for first, _ in windows]
    expected = [windows[i] for i in np.argsort(ends, kind="stable")]
    numbers = np.arange(grid.n_windows)
    got = list(zip(grid.first_row(numbers), grid.segment_of(numbers), strict=True))
    assert got == expected


@given(grids(by_period=True))
def test_the_ranges_of_chunks_in_the_order_of_periods_hold_each_run_whole(grid):
    for chunk in range(grid.n_chunks):
        ranges = grid.row_ranges(chunk, chunk + 1)
        assert all(a[1] + grid.lookback < b[0] for a, b in itertools.pairwise(ranges))
        for run in grid.runs(chunk):
            inside = [lo <= run.first_row and run.first_row + run.n_rows <= hi for lo, hi in ranges]
            assert sum(inside) == 1
    assert grid.most_runs == max((len(grid.runs(c)) for c in range(grid.n_chunks)), default=0)


@given(st.booleans().flatmap(lambda by: grids(by_period=by)))
def test_runs_join_to_the_chunk_and_never_cross_a_border(grid):
    for chunk in range(grid.n_chunks):
        lo, hi = grid.chunk_range(chunk)
        joined = []
        for run in grid.runs(chunk):
            windows = np.arange(run.first_window, run.first_window + run.n_windows)
            assert len(set(grid.segment_of(windows))) == 1
            assert run.first_row + run.n_rows <= run.segment_stop
            assert run.n_rows == (run.n_windows - 1) * grid.stride + grid.sequence_length
            joined.extend(windows)
        assert joined == list(range(lo, hi))


@given(st.booleans().flatmap(lambda by: grids(by_period=by)))
def test_rows_counted_by_chunks_are_each_used_row_once(grid):
    used = set()
    for first in grid.first_row(np.arange(grid.n_windows)):
        used.update(range(first, first + grid.sequence_length))
    counted = [
        row
        for chunk in range(grid.n_chunks)
        for p in grid.runs(chunk)
        for row in range(p.first_row + p.n_repeated, p.first_row + p.n_rows)
    ]
    assert sorted(counted) == sorted(used)


@given(grids())
def test_block_rows_is_the_most_that_any_chunk_needs(grid):
    needed = [sum(p.n_rows for p in grid.runs(chunk)) for chunk in range(grid.n_chunks)]
    assert grid.block_rows == max(needed, default=0)


def test_a_segment_of_exactly_lookback_and_length_gives_one_window():
    assert Grid(Segments.single(88), 40, 48, 12, 16).n_windows == 1
    assert Grid(Segments.single(87), 40, 48, 12, 16).n_windows == 0


@pytest.mark.parametrize(
    "sizes", [(-1, 48, 12, 1), (0, 0, 0, 1), (0, 4, 4, 1), (0, 4, -1, 1), (0, 4, 1, 0)]
)
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(UsageError, match="must be"):
        Grid(Segments.single(100), *sizes)


@pytest.mark.slow
def test_runs_of_many_chunks_are_those_of_each_and_weigh_what_segments_do():
    segments = Segments(np.array([0, 900, 2_000]), np.array([900, 1_100, 80_000]), np.arange(3))
    grid = Grid(segments, lookback=20, sequence_length=48, overlap=47, chunk_windows=4)
    runs = grid.runs_of(3, grid.n_chunks)
    assert len(runs) == grid.n_chunks - 3 > 20_000
    assert list(runs) == [grid.runs(chunk) for chunk in range(3, grid.n_chunks)]
    assert any(len(one) > 1 for one in runs)
    assert len(pickle.dumps(runs)) < 1_500
    with pytest.raises(IndexError):
        runs[len(runs)]
