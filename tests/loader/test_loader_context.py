"""With each window comes the last one of coarser bars that was known when it was, and no other."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from timeframes import gappy_bars, write_bars
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import CheckpointError, DamagedStoreError, StoreChangedError, UsageError

pytestmark = pytest.mark.filterwarnings(
    # the other libraries' own
    "ignore:'set_vital' is deprecated:UserWarning"
)

MINUTE = 60 * 10**9
FAST, SLOW = 5 * MINUTE, 30 * MINUTE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("context")
    write_bars(path / "bars.csv", gappy_bars(["CCC", "AAA", "BBB"], 1400))
    return path


@pytest.fixture(scope="module")
def build(folder):
    def made(name, **options):
        given = {"layout": "rows", "overlap": 11, "chunk_windows": 16, "sequence_length": 12}
        given |= options
        return gb.build_store(folder / "bars.csv", folder / name, durable=False, **given)

    return made


@pytest.fixture(scope="module")
def fast(build):
    return build("fast.zarr", sequence_length=10, overlap=8)


@pytest.fixture(scope="module")
def slow(build):
    return build("slow.zarr", resample="30min")


def brute_force(fast, slow, fast_delay=FAST, slow_delay=SLOW, max_age=None):
    """For each window of `fast` its context's number, or -1; one by one."""
    ends, symbols = slow.end_time[:], np.array(slow.symbols)[slow.symbol[:]]
    found = []
    for end, number in zip(fast.end_time[:].tolist(), fast.symbol[:].tolist(), strict=True):
        age = end + fast_delay - (ends + slow_delay)
        fits = (symbols == fast.symbols[number]) & (age >= 0)
        if max_age is not None:
            fits &= age <= max_age
        mine = np.flatnonzero(fits)
        found.append(mine[np.argmax(ends[mine])] if len(mine) else -1)
    return np.array(found)


def assert_pairs(batch, slow, pairs):
    context = batch.context["slow"]
    index = context.index.numpy()
    np.testing.assert_array_equal(index, pairs[batch.index.numpy()])
    np.testing.assert_array_equal(context.end_time, slow.end_time[:][index])
    wanted = slow.matrices[:][index]
    np.testing.assert_array_equal(context.matrices.numpy().view(np.int32), wanted.view(np.int32))


def make_loader(fast, slow, batch_size=37, cache_bytes=0, **options):
    config = gb.BatchConfig(batch_size=batch_size, cache_bytes=cache_bytes, num_workers=2)
    options = {"seed": 3, "shuffle_chunks": 3} | options
    return gb.SlidingWindowDataLoader(fast, config, context={"slow": slow}, **options)


@pytest.mark.slow
@pytest.mark.parametrize("max_age", [None, "2h", "20min"])
@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_pairs_are_those_of_a_search_one_by_one(fast, slow, max_age, cache_bytes):
    limit = None if max_age is None else {"2h": 120, "20min": 20}[max_age] * MINUTE
    pairs = brute_force(fast, slow, max_age=limit)
    loader = make_loader(fast, slow, cache_bytes=cache_bytes, max_age=max_age)
    assert loader.n_without_context == np.count_nonzero(pairs < 0) > 0
    for _ in range(2):
        seen = []
        for batch in loader:
            assert_pairs(batch, slow, pairs)
            seen += batch.index.tolist()
        assert sorted(seen) == np.flatnonzero(pairs >= 0).tolist()


def test_an_age_is_less_than_a_coarser_bar_and_a_gap(fast, slow):
    for batch in make_loader(fast, slow):
        age = batch.end_time + FAST - (batch.context["slow"].end_time + SLOW)
        # gaps are of up to 100 bars
        assert bool((age >= 0).all())
        assert bool((age < SLOW + 100 * FAST).all())
    assert bool((age < SLOW).any())


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "windows"},
        {"layout": "windows", "overlap": 0},
        {"overlap": 7},
        {"overlap": 3},
        {"chunk_windows": 4, "layout": "windows"},
        {"feature_set": "tactical", "sequence_length": 9, "overlap": 6},
    ],
)
def test_pairs_are_right_whatever_the_stores_are_like(fast, build, options):
    name = "-".join(map(str, options.values())) + ".zarr"
    slow = build(f"slow-{name}", resample="30min", **options)
    pairs = brute_force(fast, slow)
    loader = make_loader(fast, slow)
    assert sum(assert_pairs(batch, slow, pairs) is None and len(batch) for batch in loader) == len(
        np.flatnonzero(pairs >= 0)
    )


def test_a_store_may_be_its_own_context(fast):
    for batch in make_loader(fast, fast):
        assert torch.equal(batch.index, batch.context["slow"].index)
        assert torch.equal(batch.matrices, batch.context["slow"].matrices)


def test_contexts_go_wherever_a_batch_goes(fast, slow):
    pairs = brute_force(fast, slow)
    batch = next(iter(make_loader(fast, slow)))
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.position == batch.position
    for one in (copy, batch.to("cpu"), *batch.split(10)):
        assert_pairs(one, slow, pairs)
    names = list(batch.tensors())[-3:]
    assert names == ["slow.matrices", "slow.index", "slow.end_time"]
    assert batch.numpy()["slow.matrices"].shape == (37, 12, slow.n_features)
    plain = next(iter(gb.SlidingWindowDataLoader(fast)))
    assert plain.context == {}
    statistics = gb.feature_statistics(gb.SlidingWindowDataLoader(fast))
    with pytest.warns(UserWarning, match="constant"):
        assert_pairs(batch.normalised(statistics), slow, pairs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrower_dtype_is_the_contexts_too(fast, slow, dtype):
    for batch in make_loader(fast, slow, dtype=dtype):
        context = batch.context["slow"]
        wanted = torch.from_numpy(slow.matrices[:][context.index.numpy()]).to(dtype)
        assert torch.equal(context.matrices.view(torch.int16), wanted.view(torch.int16))


def signature(batches):
    return [
        (batch.index.tolist(), batch.context["slow"].index.tolist(), batch.context["slow"].matrices)
        for batch in batches
    ]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one[:2] == other[:2]
        assert torch.equal(one[2].view(torch.int32), other[2].view(torch.int32))


def test_any_batch_can_be_resumed(fast, slow):
    whole = make_loader(fast, slow, batch_size=101)
    batches = signature(whole)
    running = make_loader(fast, slow, batch_size=101)
    for number, _ in enumerate(running):
        state = running.state_dict()
        again = make_loader(fast, slow, batch_size=101)
        again.load_state_dict(state)
        assert_same(signature(again), batches[number + 1 :] or signature(whole))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_streams_and_stateful_data_loaders_hand_over_the_same(fast, slow, workers):
    wanted = signature(make_loader(fast, slow))
    assert_same(signature(gb.DataStreamer(make_loader(fast, slow))), wanted)
    there = DataLoader(make_loader(fast, slow), batch_size=None, num_workers=workers)
    assert_same(signature(there), wanted)
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    first = stateful(make_loader(fast, slow), batch_size=None, num_workers=workers)
    batches = iter(first)
    head = [next(batches) for _ in range(5)]
    state = first.state_dict()
    second = stateful(make_loader(fast, slow), batch_size=None, num_workers=workers)
    second.load_state_dict(state)
    assert_same(signature(head) + signature(second), wanted)


def test_two_ranks_share_an_epoch_and_three_go_on_with_it(fast, slow):
    pairs = brute_force(fast, slow)
    ranks = [make_loader(fast, slow, rank=rank, world_size=2) for rank in range(2)]
    seen = []
    for loader in ranks:
        for number, batch in enumerate(loader):
            seen += batch.index[batch.weight > 0].tolist()
            if number == 6:
                state = loader.state_dict()
                break
    for rank in range(3):
        loader = make_loader(fast, slow, rank=rank, world_size=3)
        loader.load_state_dict(state)
        for batch in loader:
            assert_pairs(batch, slow, pairs)
            seen += batch.index[batch.weight > 0].tolist()
    assert sorted(seen) == np.flatnonzero(pairs >= 0).tolist()


def test_a_state_of_another_context_is_refused(fast, slow, build):
    state = make_loader(fast, slow).state_dict()
    other = build("slow-other.zarr", resample="1h")
    for loader in (
        gb.SlidingWindowDataLoader(fast, seed=3, shuffle_chunks=3),
        make_loader(fast, slow, max_age="2h"),
        make_loader(fast, other),
    ):
        with pytest.raises(CheckpointError, match="taken with the contexts"):
            loader.load_state_dict(state)
    plain = gb.SlidingWindowDataLoader(fast, seed=3, shuffle_chunks=3).state_dict()
    with pytest.raises(CheckpointError, match="of none"):
        make_loader(fast, slow).load_state_dict(plain)


def test_buffers_count_what_contexts_take(fast, slow):
    plain = gb.SlidingWindowDataLoader(fast, gb.BatchConfig(cache_bytes=0), shuffle_chunks=3)
    loader = make_loader(fast, slow)
    tables = loader._buffers.take_tables()
    contexts = [table.contexts["slow"] for table in tables]
    held = sum(c.buffer.rows.nbytes + c._source._records.nbytes + c._ids.nbytes for c in contexts)
    extra = loader.buffer_bytes - plain.buffer_bytes
    assert held < extra < held + 5 * slow.block_rows * slow.n_features * 4
    assert loader.window_bytes == 4 * (10 * fast.n_features + 12 * slow.n_features)


def test_a_context_that_fits_is_kept_whole_and_counted(fast, slow):
    loader = make_loader(fast, slow, cache_bytes=2**24)
    (table,) = loader._buffers.take_tables()
    context, whole = table.contexts["slow"], table.contexts["slow"]._source._table
    held = sum(
        one.buffer.rows.nbytes + one.labels.records.nbytes + one._starts.nbytes
        for one in (table, whole)
    )
    assert loader.buffer_bytes == held + context._ids.nbytes
    # and in two tables together only once
    two = make_loader(fast, slow, cache_bytes=2**17)
    tables = two._buffers.take_tables()
    assert len(tables) == 2
    assert len({id(table.contexts["slow"]._source) for table in tables}) == 1


def reach_from(store, index):
    """Where the bars that a window reads begin, by the rows of its own bars."""
    return store.first_row[:][index] - store.attrs["lookback"]


def test_a_split_reads_nothing_of_the_one_before_by_its_contexts_either(fast, slow):
    train, test = gb.split_store(fast, {"train": 0.5, "test": 0.5}).values()
    pairs = brute_force(fast, slow)
    # of every coarser bar the time, in the order of rows: each symbol's, as read from the input
    bars = gb.read_bars(slow.path.parent / "bars.csv", resample="30min").compute()
    times = bars["timestamp"].dt.as_unit("ns").astype("int64").to_numpy()
    last_read = 0
    for batch in make_loader(fast, slow, subset=train):
        last_read = max(last_read, int(batch.end_time.max()))
    found = []
    for batch in make_loader(fast, slow, subset=test):
        assert_pairs(batch, slow, pairs)
        first = reach_from(slow, batch.context["slow"].index.numpy())
        # nothing of the time before is in any bar that a context reads
        assert (times[first] >= last_read + FAST).all()
        found += batch.index.tolist()
    plain = gb.SlidingWindowDataLoader(fast, subset=test)
    assert 0 < len(found) < plain.n_windows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_age": "2h"}, "max_age is that of a context"),
        ({"context": ["slow"]}, "stores by name"),
        ({"context": {"slow": "slow.zarr"}}, "must be a MatrixStore"),
        ({"context": {"weight": None}}, "that no part of a batch has"),
        ({"context": {"two words": None}}, "letters, digits and _"),
        ({"context": {7: None}}, "letters, digits and _"),
    ],
)
def test_wrong_contexts_are_refused(fast, options, words):
    with pytest.raises(UsageError, match=words) as refused:
        gb.SlidingWindowDataLoader(fast, **options)
    assert "\n" not in str(refused.value)


def test_stores_that_do_not_go_together_are_refused(fast, slow, build, folder, monkeypatch):
    with pytest.raises(UsageError, match=r"bars of .* last 5min, those of .* 30min"):
        gb.SlidingWindowDataLoader(slow, context={"quick": fast})
    with pytest.raises(UsageError, match="max_age must be a length of time"):
        make_loader(fast, slow, max_age="-2h")
    source = write_bars(folder / "other.csv", gappy_bars(["XXX"], 800))
    other = gb.build_store(source, folder / "x.zarr", durable=False, resample="30min")
    with pytest.raises(UsageError, match="has no symbol of"):
        make_loader(fast, other)
    monkeypatch.setitem(slow.attrs, "bar_duration", 0)
    with pytest.raises(UsageError, match="--bar-duration"):
        make_loader(fast, slow)


def test_where_no_window_has_a_context_it_says_so(fast, slow):
    with pytest.raises(UsageError, match="has a context 'slow' not older than 1s"):
        make_loader(fast, slow, max_age="1s", start="2024-01-02T12:03", stop="2024-01-02T12:04")


def test_symbols_go_together_by_name(folder, slow, build):
    """The stores number them differently, and each has one that the other hasn't."""
    bars = gappy_bars(["CCC", "AAA", "BBB"], 1400)
    source = write_bars(folder / "some.csv", bars[bars["symbol"] != "AAA"])
    options = {"durable": False, "sequence_length": 10, "overlap": 8, "chunk_windows": 16}
    some = gb.build_store(source, folder / "some.zarr", **options)
    fast = build("every.zarr", sequence_length=10, overlap=8)
    few = gb.build_store(source, folder / "some-slow.zarr", resample="30min", **options)
    for one, other in ((some, slow), (fast, few)):
        pairs = brute_force(one, other)
        found = []
        for batch in make_loader(one, other):
            assert_pairs(batch, other, pairs)
            found += batch.index.tolist()
        assert sorted(found) == np.flatnonzero(pairs >= 0).tolist()


@pytest.mark.parametrize("periods", [("fast",), ("slow",), ("fast", "slow")])
def test_stores_in_the_order_of_periods_go_together_with_any(build, fast, slow, periods):
    options = {"order": "period", "period": "1D", "layout": "windows"}
    if "fast" in periods:
        fast = build("fast-days.zarr", sequence_length=10, overlap=8, **options)
    if "slow" in periods:
        slow = build("slow-days.zarr", resample="30min", **options)
    pairs = brute_force(fast, slow)
    train, test = gb.split_store(fast, {"train": 0.5, "test": 0.5}).values()
    n_windows = 0
    for subset in (None, train, test):
        loader = pickle.loads(pickle.dumps(make_loader(fast, slow, subset=subset)))
        found = []
        for batch in loader:
            assert_pairs(batch, slow, pairs)
            found += batch.index.tolist()
        assert len(found) == len(set(found)) == loader.n_windows
        n_windows = n_windows or len(found)
    assert n_windows == np.count_nonzero(pairs >= 0)


def test_several_contexts_come_at_once(fast, slow, build):
    hour = build("hour.zarr", resample="1h")
    pairs = brute_force(fast, slow)
    by_hour = brute_force(fast, hour, slow_delay=60 * MINUTE)
    loader = gb.SlidingWindowDataLoader(fast, context={"slow": slow, "hour": hour})
    both = (pairs >= 0) & (by_hour >= 0)
    assert loader.n_without_context == np.count_nonzero(~both)
    for batch in loader:
        assert_pairs(batch, slow, pairs)
        index = batch.index.numpy()
        np.testing.assert_array_equal(batch.context["hour"].index, by_hour[index])


def test_bars_may_carry_the_time_of_their_closing(folder, slow):
    bars = gappy_bars(["CCC", "AAA", "BBB"], 1400)
    options = {"durable": False, "sequence_length": 10, "overlap": 8, "chunk_windows": 16}
    closing = bars.assign(timestamp=bars["timestamp"] + pd.Timedelta("5min"))
    source = write_bars(folder / "closing.csv", closing)
    fast = gb.build_store(source, folder / "closing.zarr", bar_time="close", **options)
    pairs = brute_force(fast, slow, fast_delay=0)
    loader = make_loader(fast, slow)
    found = []
    for batch in loader:
        assert_pairs(batch, slow, pairs)
        found += batch.index.tolist()
    assert sorted(found) == np.flatnonzero(pairs >= 0).tolist()
    # the same bars, known at the same times: the same contexts
    same = gb.build_store(folder / "bars.csv", folder / "opening.zarr", **options)
    np.testing.assert_array_equal(brute_force(same, slow), pairs)


def test_a_damaged_context_is_an_error_at_the_batch_it_belongs_to(build, fast, tmp_path):
    slow = build("slow-damaged.zarr", resample="30min")
    wanted = signature(make_loader(fast, slow, shuffle=False))
    file = sorted((slow.path / slow.spec.data.name).rglob("c/*"))[-1]
    file = file if file.is_file() else next(one for one in file.rglob("*") if one.is_file())
    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 255
    file.write_bytes(payload)
    found = []

    def go_on():
        for batch in make_loader(fast, slow, shuffle=False):
            found.extend(signature([batch]))

    with pytest.raises(DamagedStoreError, match="slow-damaged"):
        go_on()
    assert 0 < len(found) < len(wanted)
    assert_same(found, wanted[: len(found)])


def test_a_context_replaced_between_epochs_is_an_error_though_all_of_it_is_cached(build, fast):
    slow = build("slow-replaced.zarr", resample="30min")
    loader = make_loader(fast, slow, cache_bytes=2**26)
    assert len(list(loader)) == len(loader)
    build("slow-replaced.zarr", resample="30min", overwrite=True, chunk_windows=8)
    with pytest.raises(StoreChangedError):
        next(iter(loader))


class Sum:
    """A trainer that remembers what it saw."""

    def __init__(self):
        self.seen = []

    def train_batch(self, batch):
        self.seen += batch.index.tolist()
        return {"avg_reward": float(batch.context["slow"].matrices.double().sum())}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_batch_processor_trains_with_contexts_and_resumes(fast, slow, tmp_path):
    def processor():
        config = gb.BatchConfig(batch_size=200, checkpoint_frequency=2)
        return gb.BatchProcessor(
            fast, config, tmp_path, context={"slow": slow}, max_age="2h", seed=1
        )

    trainer = Sum()
    run = processor().process_batches(trainer)
    for _ in range(3):
        next(run)
    run.close()
    for _ in processor().process_batches(trainer):
        pass
    pairs = brute_force(fast, slow, max_age=120 * MINUTE)
    assert sorted(trainer.seen) == np.flatnonzero(pairs >= 0).tolist()
