"""Splits: no two of them read bars of the same time, checked against every bar of every window."""

import datetime as dt
import json
import re
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.loader.subset import select, within
from grandbatch.order import OrderSettings
from grandbatch.splits import reach_of, read_spans
from grandbatch.splits.ranked import times_of_ranks

MINUTE = 60 * 10**9
EPOCH = pd.Timestamp("2024-01-01", tz="UTC").value
STEADY, BROKEN = (0.97, 0.01, 0.01, 0.01), (0.6, 0.2, 0.15, 0.05)
THREE = {"train": 0.6, "validation": 0.2, "test": 0.2}


class BareStore:
    """The per-window values of a store, and the bars that each window reads, by plain loops."""

    path = "bare"

    def __init__(
        self, times, lookback, length, stride, max_gap, chunk_windows=4, horizons=(), zeros=()
    ):
        self.sequence_length, self.stride, self.chunk_windows = length, stride, chunk_windows
        self.spec = SimpleNamespace(label_chunk_windows=3 * chunk_windows)
        self.symbols = tuple(f"S{number}" for number in range(len(times)))
        flat = [time for of_symbol in times for time in of_symbol]
        self.attrs = {
            "lookback": lookback,
            "first_time": min(flat),
            "last_time": max(flat),
            "max_gap_ns": max_gap,
            **({"target_horizons": list(horizons)} if horizons else {}),
        }
        ahead = max([1, *horizons])
        self.spans, self.place, rows = [], [], []
        row = 0
        for symbol, of_symbol in enumerate(times):
            for segment in cut(of_symbol, max_gap):
                starts = range(lookback, len(segment) - length + 1, stride)
                for number, start in enumerate(starts):
                    last = start + length - 1
                    read = min(last + ahead, len(segment) - 1)
                    self.spans.append((segment[start - lookback], segment[read]))
                    self.place.append(number)
                    close = 0.0 if row + last in zeros else 1.0
                    follows = 0.0 if close and last + 1 < len(segment) else np.nan
                    rows.append((segment[last], row + start, symbol, follows, close))
                row += len(segment)
        columns = zip(*rows, strict=True) if rows else [[]] * 5
        kinds = (np.int64, np.int64, np.int32, np.float64, np.float64)
        self.end_time, self.first_row, self.symbol, self.next_return, self.close_price = (
            np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)
        )

    def __len__(self):
        return len(self.end_time)


def cut(times, max_gap):
    segments = []
    for time in times:
        if not segments or (max_gap is not None and time - segments[-1][-1] > max_gap):
            segments.append([])
        segments[-1].append(time)
    return segments


@st.composite
def bare_stores(draw, max_stride=5):
    """Up to four symbols of very different coverage, with gaps."""
    length = draw(st.sampled_from([5, 3, 2, 1]))
    stride = draw(st.sampled_from(range(1, min(length, max_stride) + 1)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    times = []
    for n_bars in draw(st.lists(st.sampled_from([100, 40, 12, 1]), min_size=1, max_size=4)):
        steps = rng.choice([1, 2, 7, 40], n_bars, p=draw(st.sampled_from([STEADY, BROKEN])))
        times.append((EPOCH + MINUTE * (rng.integers(50) + np.cumsum(steps))).tolist())
    gap = draw(st.sampled_from([None, 2 * MINUTE, 7 * MINUTE]))
    # a price of 0 has no next return either, and ends no segment; that matters with targets
    horizons = draw(st.sampled_from([(), (1,), (4,), (2, 9)]))
    zeros = draw(st.sampled_from([0.0, 0.0, 0.2])) if horizons else 0.0
    at_zero = set(np.flatnonzero(rng.random(sum(map(len, times))) < zeros).tolist())
    lookback = draw(st.sampled_from([3, 0, 1]))
    return BareStore(times, lookback, length, stride, gap, horizons=horizons, zeros=at_zero)


def windows_of(store, split):
    order = within(OrderSettings(), split)
    found = select(store, order)
    return [w for b, e in zip(found.begin, found.end, strict=True) for w in range(b, e)]


def reads_of(store, split):
    """Exact first and last time that any window of a split reads."""
    spans = [store.spans[window] for window in windows_of(store, split)]
    return min(first for first, _ in spans), max(last for _, last in spans)


def made_or_none(make):
    """Return what `make` makes, or None where it is right to say that something is too small."""
    try:
        return make()
    except UsageError as error:
        if re.search("no window left|none ends after|too small to tell|don't fit", str(error)):
            return None
        raise


MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
DURATIONS = st.integers(0, 12).map(lambda minutes: minutes * MINUTE)


@MANY
@given(bare_stores(), st.integers(1, 9))
def test_the_bounds_hold_what_a_window_reads_however_the_store_is_read(store, step):
    if not len(store):
        return
    parts = [
        read_spans(store, first, min(first + step, len(store)))
        for first in range(0, len(store), step)
    ]
    first_read, last_read = (np.concatenate(bounds) for bounds in zip(*parts, strict=True))
    for name, got in zip(("first", "last"), read_spans(store, 0, len(store)), strict=True):
        np.testing.assert_array_equal(got, first_read if name == "first" else last_read)
    exact = np.array(store.spans)
    assert (first_read <= exact[:, 0]).all()
    assert (last_read >= exact[:, 1]).all()
    # never so wide as to be of no use: within the symbol's next windows
    if store.stride == 1:
        settled = np.array(store.place) >= reach_of(store).rows
        np.testing.assert_array_equal(first_read[settled], exact[settled, 0])
        if store.close_price.all():
            np.testing.assert_array_equal(last_read, exact[:, 1])


@MANY
@given(bare_stores(), DURATIONS, DURATIONS)
def test_no_two_splits_read_bars_of_the_same_time_and_the_embargo_holds(store, embargo, warmup):
    if not len(store):
        return
    made = made_or_none(lambda: gb.split_store(store, THREE, embargo=embargo, warmup=warmup))
    if made is None:
        return
    read = [reads_of(store, split) for split in made.values()]
    for (_, earlier), (later, _) in pairwise(read):
        assert later - earlier > embargo
    assert read == sorted(read)
    for split in made.values():
        kept = windows_of(store, split)
        assert len(kept) == split.n_windows
        ends = store.end_time[kept]
        assert ((ends >= split.start) & (ends < split.stop)).all()
        period = (store.end_time >= split.start) & (store.end_time < split.stop)
        assert split.n_windows + split.n_purged + split.n_embargoed == period.sum()
        assert not split.n_embargoed or embargo


@pytest.mark.slow
@MANY
@given(bare_stores(max_stride=1), DURATIONS, DURATIONS)
def test_at_stride_one_nothing_is_purged_without_need(store, embargo, warmup):
    """Once a segment is long enough to tell where its windows begin to read."""
    assume(store.close_price.all())
    made = made_or_none(lambda: gb.split_store(store, THREE, embargo=embargo, warmup=warmup))
    if made is None:
        return
    splits = list(made.values())
    for number, split in enumerate(splits):
        kept = set(windows_of(store, split))
        for window, (first, last) in enumerate(store.spans):
            if not split.start <= store.end_time[window] < split.stop:
                continue
            reaches_back = number > 0 and first <= reads_of(store, splits[number - 1])[1] + embargo
            reaches_on = number < 2 and last >= splits[number + 1].start - warmup - embargo
            if store.place[window] >= reach_of(store).rows:
                assert (window in kept) == (not reaches_back and not reaches_on)
            elif window in kept:
                assert not reaches_back
                assert not reaches_on


@MANY
@given(bare_stores(), st.integers(1, 4), DURATIONS, DURATIONS, st.booleans())
def test_each_walk_forward_pair_is_apart_and_tests_follow_each_other(
    store, n_splits, embargo, warmup, rolling
):
    if not len(store):
        return
    train = 20 * MINUTE if rolling else None
    pairs = made_or_none(
        lambda: gb.walk_forward(store, n_splits, train=train, warmup=warmup, embargo=embargo)
    )
    if pairs is None:
        return
    assert len(pairs) == n_splits
    for training, test in pairs:
        assert training.stop == test.start
        assert reads_of(store, test)[0] - reads_of(store, training)[1] > embargo
        if rolling:
            assert training.start == test.start - warmup - embargo - train
        else:
            assert training.start == store.attrs["first_time"]
    for (_, earlier), (_, later) in pairwise(pairs):
        assert earlier.stop == later.start
    assert pairs[-1][1].stop == store.attrs["last_time"] + 1


def even_store(n_bars=400, stride=1, n_symbols=2, lookback=3, length=5):
    times = (EPOCH + MINUTE * np.arange(n_bars)).tolist()
    return BareStore([times] * n_symbols, lookback, length, stride, None)


def test_a_border_at_stride_one_costs_each_symbol_what_a_window_spans():
    store = even_store()
    made = gb.split_store(store, {"train": 0.75, "test": 0.25})
    train, test = made["train"], made["test"]
    # the last bar + 1 of one window; rows before the first that ends behind the border
    assert (train.n_purged, test.n_purged) == (2, 2 * (3 + 5 - 1))
    assert train.n_windows + train.n_purged == round(0.75 * len(store))


def test_with_a_warm_up_the_split_before_is_purged_and_the_next_stays_whole():
    store = even_store()
    made = gb.split_store(store, {"train": 0.75, "test": 0.25}, warmup="7min")
    assert (made["train"].n_purged, made["test"].n_purged) == (2 * (1 + 7), 0)
    reads = [reads_of(store, split) for split in made.values()]
    assert reads[1][0] - reads[0][1] == MINUTE


def test_an_embargo_is_given_up_by_the_split_before():
    store = even_store()
    plain = gb.split_store(store, {"train": 0.75, "test": 0.25}, warmup="7min")
    held = gb.split_store(
        store, {"train": 0.75, "test": 0.25}, warmup="7min", embargo=dt.timedelta(minutes=30)
    )
    assert held["train"].n_embargoed == 2 * 30
    assert held["train"].n_purged == plain["train"].n_purged
    assert held["test"].n_windows == plain["test"].n_windows


def test_a_split_may_look_back_into_time_that_no_split_uses():
    store = even_store()
    hour = 60 * MINUTE
    bounds = {"train": (None, EPOCH + 2 * hour), "test": (EPOCH + 4 * hour, None)}
    made = gb.split_store(store, bounds, embargo="1h")
    assert [split.n_purged + split.n_embargoed for split in made.values()] == [0, 0]
    assert made["test"].n_windows == 2 * (400 - 240)


def test_sessions_that_end_before_a_border_cost_nothing():
    day = 1440 * MINUTE
    times = [EPOCH + d * day + m * MINUTE for d in range(10) for m in range(540, 570)]
    store = BareStore([times], 3, 5, 1, 60 * MINUTE)
    made = gb.split_store(
        store, {"train": (None, "2024-01-08"), "test": ("2024-01-08T00:00:00Z", None)}
    )
    assert [split.n_purged for split in made.values()] == [0, 0]
    assert [split.n_windows for split in made.values()] == [7 * 23, 3 * 23]


def test_a_halted_or_new_symbol_costs_the_others_nothing():
    times = (EPOCH + MINUTE * np.arange(400)).tolist()
    alone = gb.split_store(BareStore([times], 3, 5, 1, None), {"a": (None, times[300])})
    halted, new = times[:200] + times[350:], times[320:]
    store = BareStore([times, halted, new], 3, 5, 1, None)
    made = gb.split_store(store, {"a": (None, times[300]), "b": (times[300], None)})
    kept = store.symbol[windows_of(store, made["a"])]
    assert (kept == 0).sum() == alone["a"].n_windows - 1
    kept = store.symbol[windows_of(store, made["b"])]
    assert [(kept == symbol).sum() for symbol in range(3)] == [100 - 7, 50 - 7, 73 - 7]


def test_walk_forward_takes_lengths_of_time():
    store = even_store()
    pairs = gb.walk_forward(store, 3, test="1h", train="2h", warmup="7min", embargo="5min")
    for training, test in pairs:
        assert test.stop - test.start == 60 * MINUTE
        assert test.start - training.start == (120 + 12) * MINUTE
        assert test.n_windows == 2 * 60
        assert training.n_windows == 2 * (120 - 1)
    assert pairs[-1][1].stop == store.attrs["last_time"] + 1
    growing = gb.walk_forward(store, 3, test="1h")
    sizes = [training.n_windows for training, _ in growing]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == 2 * 60


def test_walk_forward_cuts_windows_evenly_by_default():
    pairs = gb.walk_forward(even_store(), 4, warmup="7min")
    assert {test.n_windows for _, test in pairs} <= {156, 158, 160}
    assert sum(test.n_windows for _, test in pairs) == pytest.approx(0.8 * 2 * 393, abs=2)


@MANY
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=300),
    st.integers(1, 50),
    st.data(),
)
def test_ranks_are_found_as_by_sorting(values, size, data):
    times = np.array(values, np.int64)
    if data.draw(st.booleans()):
        times = times // 2**55 * 3
    ranks = data.draw(st.lists(st.integers(0, len(times) - 1), max_size=5))
    low, high = int(times.min()), int(times.max())
    if high - low >= 2**62:
        return
    got = times_of_ranks(lambda: np.split(times, range(size, len(times), size)), ranks, low, high)
    assert got == np.sort(times)[ranks].tolist()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "name the splits"),
        ([0.8, 0.2], "name the splits"),
        ({"a": 0.8, "b": 0.3}, r"at most 1, .*got 0\.8 \+ 0\.3 = 1\.1"),
        ({"a": 0.8, "b": -0.1}, "above 0"),
        ({"a": float("nan")}, "at most 1, .*got nan"),
        ({"a": 0.5, "b": ("2024-01-02", None)}, "fractions or times, not both"),
        ({"a": "2024-01-02"}, r"'a' must be a fraction or \(start, stop\)"),
        ({"a": True}, "must be a fraction"),
        ({"a": ("2024-01-02", "soon")}, "a's stop must be a time such as"),
        ({"a": ("10:00", None)}, "a's start must be a time such as .* '10:00' names no year"),
        ({"a": ("2024-01-02", "2024-01-01")}, "'a' must stop after it starts"),
        (
            {"a": (None, "2024-01-01T02:00"), "b": ("2024-01-01T01:00", None)},
            "'b' starts at 2024-01-01T01:00:00Z, before 'a' stops at 2024-01-01T02:00:00Z",
        ),
        ({"a": ("2030-01-01", "2031-01-01")}, "no window left: 0 end from .*where there are bars"),
        ({"a": 0.5, "b": 0.004, "c": 0.4}, "'b' has no window left: 4 end from .* make the split"),
        ({"a": 0.5, "b": 0.0001, "c": 0.4}, "'b' is 0.0001 of 786 windows: none ends"),
    ],
)
def test_parts_that_make_no_sense_are_refused(parts, message):
    with pytest.raises(UsageError, match=message):
        gb.split_store(even_store(), parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_splits": 0}, "n_splits must be a whole number"),
        ({"test": "0s"}, "test must be longer than 0"),
        ({"test": "1 parsec"}, "test must be a length of time such as"),
        ({"embargo": "-1min"}, "embargo must be a length of time .* 0 or more"),
        ({"warmup": 0.5}, "warmup must be a length of time .* needs a unit"),
        ({"test": "2h"}, "5 test periods and the training before them don't fit"),
        ({"train": "2h"}, "don't fit.*training at 2023-12-31"),
        ({"n_splits": 500}, "too small to tell apart by time"),
    ],
)
def test_walks_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        gb.walk_forward(even_store(), **options)


def test_an_embargo_longer_than_a_split_says_how_many_windows_it_took():
    with pytest.raises(UsageError, match=r"'train' has no window left: 590 end .* 588 more"):
        gb.split_store(even_store(), {"train": 0.75, "test": 0.25}, embargo="30D")


def test_a_split_goes_through_json_and_says_what_it_is():
    split = gb.split_store(even_store(), {"train": 0.75, "test": 0.25}, embargo="1h")["train"]
    copy = gb.Split.from_json(json.loads(json.dumps(split.to_json())))
    assert copy == split
    assert str(split) == (
        "468 windows ending from 2024-01-01T00:00:00Z to before 2024-01-01T05:02:00Z "
        "(2 purged, 120 embargoed)"
    )
    with pytest.raises(UsageError, match="not a split"):
        gb.Split.from_json({"start": 1})
    with pytest.raises(UsageError, match="must end after it starts"):
        gb.Split.from_json({**split.to_json(), "stop": 0})


def write_gappy_bars(path, seed=3):
    """Three symbols of different coverage, with gaps of up to some hours."""
    rng = np.random.default_rng(seed)
    lines, times = ["timestamp,symbol,open,high,low,close,volume"], []
    for symbol, (begun, n) in enumerate([(0, 4000), (900, 2500), (8000, 900)]):
        minutes = begun + np.cumsum(
            rng.choice([1, 1, 1, 1, 1, 1, 1, 3, 15], n, p=[0.11] * 8 + [0.12])
        )
        leaps = np.cumsum((rng.random(n) < 0.004) * 240)
        close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 3)
        stamps = np.datetime64("2024-01-01T00:00", "m") + minutes + leaps
        times.append(stamps.astype("datetime64[ns]").astype(np.int64).tolist())
        lines += [f"{t},S{symbol},{c},{c},{c},{c},7" for t, c in zip(stamps, close, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return times


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gappy")
    times = write_gappy_bars(folder / "bars.csv")

    def make(layout, overlap, max_gap, horizon=None):
        name = f"{layout}-{overlap}-{max_gap}-{horizon}.zarr"
        store = gb.build_store(
            folder / "bars.csv",
            folder / name,
            layout=layout,
            overlap=overlap,
            chunk_windows=16,
            max_gap=max_gap,
            targets=None if horizon is None else ["forward_return:3", gb.forward_return(horizon)],
            durable=False,
        )
        gap = None if max_gap is None else pd.Timedelta(max_gap).value
        horizons = () if horizon is None else (3, horizon)
        return store, BareStore(times, 40, 48, 48 - overlap, gap, horizons=horizons)

    return make


def loader_of(store, split, **options):
    config = gb.BatchConfig(
        batch_size=13, sequence_length=store.sequence_length, overlap=store.overlap
    )
    return gb.SlidingWindowDataLoader(
        store, config, subset=split, **{"shuffle_chunks": 2, **options}
    )


def numbers(batches):
    return [number for batch in batches for number in batch.index[batch.weight == 1].tolist()]


@pytest.mark.parametrize(
    ("overlap", "max_gap", "horizon"),
    [*product([47, 12, 0], [None, "1h"], [None]), (47, "1h", 60), (12, None, 100)],
)
def test_loaders_of_splits_read_apart_in_real_stores(gappy, overlap, max_gap, horizon):
    store, bare = gappy("windows", overlap, max_gap, horizon)
    rows, _ = gappy("rows", overlap, max_gap, horizon)
    for name in ("end_time", "first_row", "symbol"):
        np.testing.assert_array_equal(getattr(store, name)[:], getattr(bare, name))
    options = {"embargo": "30min", "warmup": "1h"}
    made = gb.split_store(store, THREE, **options)
    assert gb.split_store(rows, THREE, **options) == gb.split_store(bare, THREE, **options) == made
    read = []
    for split in made.values():
        seen = numbers(loader_of(store, split))
        assert len(seen) == len(set(seen)) == split.n_windows == loader_of(rows, split).n_windows
        assert numbers(loader_of(rows, split)) == seen
        read.append([bare.spans[number] for number in seen])
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        apart = min(first for first, _ in read[later]) - max(last for _, last in read[earlier])
        assert apart > 30 * MINUTE


def test_one_split_serves_stores_of_other_windows_of_the_same_bars(gappy):
    wide, _ = gappy("windows", 12, "1h")
    close, bare = gappy("rows", 47, "1h")
    made = gb.split_store(wide, THREE, embargo="30min", warmup="2h")
    reads = [reads_of(bare, split) for split in made.values()]
    assert all(later[0] - earlier[1] > 30 * MINUTE for earlier, later in pairwise(reads))
    assert all(loader_of(close, split).n_windows for split in made.values())


@pytest.mark.parametrize("order", [{}, {"run_length": 5}, {"shuffle": False}])
def test_a_split_is_dealt_to_ranks_and_resumed_like_a_store(gappy, order):
    store, _ = gappy("rows", 47, "1h")
    split = gb.split_store(store, THREE)["train"]
    ranks = [list(loader_of(store, split, rank=rank, world_size=3, **order)) for rank in range(3)]
    assert sorted(n for batches in ranks for n in numbers(batches)) == windows_of(store, split)
    whole = loader_of(store, split, **order)
    batches = iter(whole)
    seen = numbers([next(batches) for _ in range(4)])
    state = json.loads(json.dumps(whole.state_dict()))
    batches.close()
    again = loader_of(store, split, **order)
    again.load_state_dict(state)
    assert seen + numbers(again) == numbers(loader_of(store, split, **order))


def test_a_state_of_another_split_is_refused(gappy):
    store, _ = gappy("rows", 47, "1h")
    made = gb.split_store(store, THREE)
    state = loader_of(store, made["train"]).state_dict()
    for other in (made["test"], None, gb.split_store(store, THREE, embargo="2h")["train"]):
        with pytest.raises(CheckpointError, match="reads is"):
            loader_of(store, other).load_state_dict(state)


def test_a_split_can_be_narrowed_by_time_and_symbol(gappy):
    store, _ = gappy("rows", 47, "1h")
    split = gb.split_store(store, THREE)["train"]
    kept = np.array(windows_of(store, split))
    middle = int(np.median(store.end_time[:][kept]))
    narrow = kept[(store.end_time[:][kept] >= middle) & (store.symbol[:][kept] == 1)]
    assert sorted(numbers(loader_of(store, split, start=middle, symbols="S1"))) == narrow.tolist()
    with pytest.raises(UsageError, match="start must be before stop"):
        loader_of(store, split, start=split.stop)
    with pytest.raises(UsageError, match=r"no window .* reads bars of .* only"):
        loader_of(store, split, start=split.stop - 1)


def test_all_splits_together_are_no_subset(gappy):
    store, _ = gappy("rows", 47, "1h")
    with pytest.raises(
        UsageError, match=r"such as split_store\(store, \.\.\.\)\['train'\], got dict"
    ):
        loader_of(store, gb.split_store(store, THREE))


def test_runs_stay_in_a_segment_where_windows_just_meet(tmp_path):
    """Without lookback and overlap, rows run on from one segment's last window to the next's."""

    def copy(close, first, out):
        out[:] = close[first:]

    lines = ["timestamp,symbol,open,high,low,close,volume"]
    lines += [
        f"2024-01-01T00:{b:02d},S{s},{b + 1},{b + 1},{b + 1},{b + 1},7"
        for s in range(2)
        for b in range(12)
    ]
    (tmp_path / "bars.csv").write_text("\n".join(lines) + "\n")
    chosen = gb.FeatureSet("plain", [gb.Feature("level", 0, copy)], sequence_length=4)
    store = gb.build_store(
        tmp_path / "bars.csv", tmp_path / "plain.zarr", feature_set=chosen, durable=False
    )
    assert store.first_row[:].tolist() == list(range(0, 24, 4))
    found = select(store, OrderSettings(run_length=2))
    assert found.begin.tolist() == [0, 3]
