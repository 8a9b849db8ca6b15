"""The loader's contract: exactly once, right bits, one order, exact resume, clean failure."""

import gc
import json
import multiprocessing
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from leaks import assert_no_threads, assert_none_opened, open_files
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import (
    CheckpointError,
    DamagedStoreError,
    StoreChangedError,
    UsageError,
)
from grandbatch.loader import batches, slabs
from grandbatch.loader.slabs import SlabPool
from grandbatch.loader.table import SlotShape
from grandbatch.order import EpochOrder, deal

N_ROWS = 330
LABELS = ("end_time", "symbol", "close_price", "next_return", "first_row")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same 243 windows, 16 chunks of 16, in both layouts."""
    folder = tmp_path_factory.mktemp("stores")
    source = folder / "bars.csv"
    gb.create_large_dataset_simulation(source, num_rows=N_ROWS)
    return {
        layout: gb.build_store(
            source, folder / f"{layout}.zarr", overlap=47, layout=layout, chunk_windows=16
        )
        for layout in ("windows", "rows")
    }


@pytest.fixture(scope="module")
def truth(stores):
    store = stores["windows"]
    return {"matrices": store.matrices[:], **{name: getattr(store, name)[:] for name in LABELS}}


@pytest.fixture
def small_slabs(monkeypatch):
    """Gather few windows at a time, so that a small store takes many slabs."""
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 50)


@pytest.fixture(params=["fresh", "pooled"])
def slab_memory(request, monkeypatch):
    """Slabs as small ones are made, and as large ones are."""
    if request.param == "pooled":
        monkeypatch.setattr(slabs, "FRESH_BYTES", 0)


def make_loader(store, batch_size=7, cache_bytes=0, num_workers=2, **options):
    config = gb.BatchConfig(
        batch_size=batch_size,
        sequence_length=store.sequence_length,
        overlap=store.overlap,
        cache_bytes=cache_bytes,
        num_workers=num_workers,
    )
    return gb.SlidingWindowDataLoader(store, config, **{"shuffle_chunks": 3, **options})


def expected_ranks(loader, world_size, position=None, epoch=0):
    """Windows of each rank by the pure order, repeated ones included as negative numbers."""
    order = EpochOrder(loader.settings, loader.selection, epoch)
    dealt = deal(order, world_size, position)
    ranks = []
    for rank in range(world_size):
        windows = [
            int(w)
            for s in dealt.shares(rank)
            for w in order.block_windows(s.block)[s.offset : s.stop]
        ]
        if len(windows) < dealt.windows_per_rank:
            windows.append(-1 - int(order.block_windows(order.n_blocks - 1)[-1]))
        ranks.append(windows)
    return ranks


def signed(batch):
    """Window numbers, negative where the weight is 0."""
    return torch.where(batch.weight == 1, batch.index, -1 - batch.index).tolist()


def indices(batches):
    return [number for batch in batches for number in signed(batch)]


def assert_true(batch, truth):
    """Compare a batch with the store to the bit, NaN included."""
    index = batch.index.numpy()
    for name, values in truth.items():
        got = getattr(batch, name).numpy()
        assert got.dtype == values.dtype, name
        assert got.tobytes() == values[index].tobytes(), name


ORDERS = [{"shuffle": False}, {"shuffle": True}, {"shuffle": True, "run_length": 5}]


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("order", ORDERS, ids=["store order", "shuffled", "runs"])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_contract(stores, truth, small_slabs, layout, order, world_size, batch_size, prefetch):
    store = stores[layout]

    def stream(rank, state=None):
        loader = make_loader(store, batch_size, rank=rank, world_size=world_size, **order)
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        return gb.DataStreamer(loader, prefetch)

    expected = expected_ranks(stream(0).loader, world_size)
    real = [number for windows in expected for number in windows if number >= 0]
    assert sorted(real) == list(range(len(store)))
    for rank in range(world_size):
        whole, states = [], []
        running = stream(rank)
        for batch in running:
            assert_true(batch, truth)
            whole.append(signed(batch))
            states.append(running.state_dict())
            assert states[-1]["position"] == batch.position.to_json()
        assert len(whole) == len(running)
        assert [n for windows in whole for n in windows] == expected[rank]
        assert {len(windows) for windows in whole[:-1]} <= {batch_size}
        every = max(1, len(whole) // 3)
        for done in range(every, len(whole), every):
            again = stream(rank, states[done - 1])
            batches = [signed(batch) for batch in again]
            assert batches == whole[done:]
            assert again.state_dict() == states[-1]


def test_every_batch_can_be_resumed_and_every_resume_resumed_again(stores):
    store = stores["rows"]
    whole = indices(make_loader(store))
    loader = make_loader(store)
    for done, batch in enumerate(loader, start=1):
        again = make_loader(store)
        again.load_state_dict(loader.state_dict())
        batches = iter(again)
        seen = indices(batch for _, batch in zip(range(3), batches, strict=False))
        third = make_loader(store, batch_size=11)
        third.load_state_dict(again.state_dict())
        if third.epoch == 0:
            seen += indices(third)
        assert whole[: done * 7] + seen == whole if done * 7 < len(store) else batch is not None


def test_an_epochs_end_resumes_at_the_next_epochs_start(stores):
    loader = make_loader(stores["rows"])
    first, second = indices(loader), indices(loader)
    assert first != second
    assert sorted(first) == sorted(second)
    again = make_loader(stores["rows"])
    *_, last = again
    state = again.state_dict()
    assert (last.position.epoch, last.position.step) == (1, 0)
    resumed = make_loader(stores["rows"])
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert indices(resumed) == second


def test_the_order_is_the_same_in_both_layouts_at_another_path_and_by_default(stores, tmp_path):
    copied = tmp_path / "copied.zarr"
    shutil.copytree(stores["rows"].path, copied)
    loaders = [
        gb.SlidingWindowDataLoader(store, seed=3)
        for store in (*stores.values(), gb.MatrixStore.open(copied))
    ]
    sequences = [indices(loader) for loader in loaders]
    assert sequences[0] == sequences[1] == sequences[2]
    state = None
    for batch in loaders[0]:
        state = loaders[0].state_at(batch.position)
        break
    loaders[1].load_state_dict(state)
    loaders[2].load_state_dict(state)
    assert indices(loaders[1]) == indices(loaders[2])


@pytest.mark.parametrize("cache_bytes", [0, 2**20, 2**30])
@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_neither_cache_nor_threads_change_what_is_handed_over(
    stores, truth, layout, cache_bytes, num_workers
):
    loader = make_loader(
        stores[layout], cache_bytes=cache_bytes, num_workers=num_workers, shuffle_chunks=2
    )
    for epoch in range(3):
        batches = list(loader)
        assert indices(batches) == expected_ranks(loader, 1, epoch=epoch)[0]
        for batch in batches:
            assert_true(batch, truth)


def test_a_store_that_fits_is_decoded_once(stores, monkeypatch):
    loader = make_loader(stores["rows"], cache_bytes=2**30)
    reads = []
    read, read_together = gb.MatrixStore.read_chunk, gb.MatrixStore.read_chunks
    monkeypatch.setattr(
        gb.MatrixStore, "read_chunk", lambda *a, **k: (reads.append(a[1]), read(*a, **k))[1]
    )

    def heard(store, chunks, *more):
        were_read = read_together(store, chunks, *more)
        reads.extend(chunks if were_read else ())
        return were_read

    monkeypatch.setattr(gb.MatrixStore, "read_chunks", heard)
    for _ in range(3):
        list(loader)
    assert sorted(reads) == list(range(16))


@pytest.mark.parametrize("other", [1, 2, 3, 8])
@pytest.mark.parametrize("done", [1, 4, 8])
def test_a_state_of_four_ranks_goes_on_at_another_number(stores, other, done):
    store = stores["rows"]
    seen, states = [], []
    for rank in range(4):
        loader = make_loader(store, rank=rank, world_size=4)
        batches = iter(loader)
        seen += indices(next(batches) for _ in range(done))
        states.append(loader.state_dict())
        batches.close()
    for state in states[1:]:
        for key in ("epoch", "step", "next_block", "open_spans"):
            assert state["position"][key] == states[0]["position"][key]
    for rank in range(other):
        loader = make_loader(store, batch_size=5, rank=rank, world_size=other)
        loader.load_state_dict(states[rank % 4])
        seen += indices(loader)
    assert sorted(number for number in seen if number >= 0) == list(range(len(store)))


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("batch_size", [1, 7, 61, 62])
def test_all_ranks_see_equally_many_batches_of_equal_size(stores, remainder, batch_size):
    sizes, seen = [], []
    for rank in range(4):
        loader = make_loader(
            stores["rows"], batch_size, rank=rank, world_size=4, remainder=remainder
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        sizes.append([len(batch) for batch in batches])
        seen += indices(batches)
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]
    real = [number for number in seen if number >= 0]
    assert len(real) == len(set(real)) == (243 if remainder == "pad" else 240)
    assert len(seen) - len(real) == (1 if remainder == "pad" else 0)


def test_an_epoch_left_early_starts_again_unless_a_state_was_loaded(stores):
    loader = make_loader(stores["rows"])
    whole = indices(make_loader(stores["rows"]))
    for number, _ in enumerate(loader):
        if number == 4:
            break
    state = loader.state_dict()
    assert state["position"]["step"] == 5
    assert indices(loader) == whole
    loader.load_state_dict(state)
    assert indices(loader) == whole[35:]
    assert loader.epoch == 1


def test_leaving_behind_the_last_batch_completes_the_epoch(stores):
    loader = make_loader(stores["rows"])
    for number, _ in enumerate(loader, start=1):
        if number == len(loader):
            break
    assert loader.epoch == 1


def test_set_epoch_chooses_the_order_and_keeps_a_loaded_state_of_that_epoch(stores):
    loader = make_loader(stores["rows"])
    list(loader)
    second = indices(loader)
    loader.set_epoch(1)
    assert indices(loader) == second
    loader.set_epoch(1)
    next(iter(loader))
    state = loader.state_dict()
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert indices(loader) == second[7:]
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert loader.state_dict()["position"]["step"] == 0
    with pytest.raises(UsageError, match="epoch"):
        loader.set_epoch(-1)


def test_a_new_batch_size_takes_effect_at_once_and_changes_no_order(stores, truth):
    loader = make_loader(stores["rows"], batch_size=32)
    whole = indices(make_loader(stores["rows"]))
    sizes, seen = [], []
    for number, batch in enumerate(loader):
        sizes.append(len(batch))
        seen += signed(batch)
        assert_true(batch, truth)
        assert batch.position.step in (number + 1, 0)
        loader.batch_size = [32, 16, 16, 64, 64, 64][min(number, 5)]
    assert seen == whole
    assert sizes[:4] == [32, 32, 16, 16]
    assert 64 in sizes
    with pytest.raises(UsageError, match="batch_size"):
        loader.batch_size = 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 9}, "seed is 9 here and 0 there"),
        ({"shuffle_chunks": 4}, "shuffle_chunks is 4 here and 3 there"),
        ({"run_length": 2}, "run_length"),
        ({"shuffle": False}, "shuffle"),
        ({"start": 0}, "start"),
        ({"remainder": "drop"}, "remainder"),
    ],
)
def test_a_state_of_another_order_is_refused(stores, options, words):
    loader = make_loader(stores["rows"])
    next(iter(loader))
    with pytest.raises(CheckpointError, match=words):
        make_loader(stores["rows"], **options).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("state", [{}, None, [], {"format": 2}, {"format": 1, "content_id": "x"}])
def test_what_is_no_state_of_these_windows_is_refused(stores, state):
    with pytest.raises(CheckpointError):
        make_loader(stores["rows"]).load_state_dict(state)


def test_a_state_without_a_right_position_is_refused_and_changes_nothing(stores):
    loader = make_loader(stores["rows"])
    state = loader.state_dict()
    for position in (None, {}, {**state["position"], "epoch": -1}, {"epoch": "x"}):
        with pytest.raises(CheckpointError):
            loader.load_state_dict({**state, "position": position})
    assert loader.state_dict() == state


def test_batches_that_are_kept_are_never_overwritten(stores, truth, small_slabs, slab_memory):
    loader = make_loader(stores["rows"], batch_size=5, cache_bytes=2**30)
    kept = [batch for _ in range(3) for batch in loader]
    assert len(kept) == 3 * len(loader)
    for batch in kept:
        assert_true(batch, truth)


def test_a_view_of_a_batch_keeps_its_memory(stores, truth, small_slabs, slab_memory):
    loader = make_loader(stores["rows"], batch_size=5)
    views = []
    for batch in loader:
        views.append((batch.index.tolist(), batch.matrices.numpy()[1:, 3:]))
        views.append((batch.index.tolist(), torch.utils.dlpack.from_dlpack(batch.matrices)[1:, 3:]))
    del batch
    for index, view in views:
        assert np.array_equal(np.asarray(view), truth["matrices"][index][1:, 3:], equal_nan=True)


def test_a_slab_returns_to_its_pool_when_the_last_view_is_gone():
    pool = SlabPool(8, (2, 3), torch.float32, pinned=False)
    slab = pool.take(8)
    address = slab.data_ptr()
    part, array = slab[2:4], slab[5].numpy()
    del slab
    assert pool.take(8).data_ptr() != address
    row = array[1:]
    del part, array
    held = pool.take(3)
    assert held.data_ptr() != address
    del row
    taken = {pool.take(8).data_ptr() for _ in range(1)}
    again = [pool.take(8) for _ in range(3)]
    assert address in taken | {slab.data_ptr() for slab in again}


def test_dropped_batches_need_a_few_slabs_only(stores, small_slabs, monkeypatch):
    monkeypatch.setattr(slabs, "FRESH_BYTES", 0)
    addresses = set()
    loader = make_loader(stores["rows"], batch_size=64)
    for _ in range(5):
        for batch in loader:
            addresses.add(batch.matrices.untyped_storage().data_ptr())
    assert len(addresses) <= 5


def damage(store, tmp_path, chunk):
    """Copy a store and flip one bit in a chunk of its matrices."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(store.path, path)
    opened = gb.MatrixStore.open(path)
    reader = opened._readers[opened.spec.data.name]
    file = path / opened.spec.data.file(chunk // opened.spec.data.shard_chunks)
    raw = bytearray(file.read_bytes())
    raw[reader.offset(chunk) + 9] ^= 4
    file.write_bytes(raw)
    return opened


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_an_error_comes_at_the_batch_it_belongs_to(
    stores, tmp_path, small_slabs, layout, shuffle, prefetch
):
    store = damage(stores[layout], tmp_path, 9)
    loader = make_loader(store, shuffle=shuffle)
    whole = expected_ranks(loader, 1)[0]
    readable = next(at for at, number in enumerate(whole) if number // 16 == 9) // 7 * 7
    seen = []
    stream = gb.DataStreamer(loader, prefetch)
    with pytest.raises(DamagedStoreError, match=r"chunk 9 of (matrices|features)"):
        seen.extend(signed(batch) for batch in stream)
    seen = [number for windows in seen for number in windows]
    assert seen == whole[:readable]
    assert stream.state_dict()["position"]["step"] == readable // 7
    with pytest.raises(DamagedStoreError):
        list(stream)


def test_damaged_labels_are_an_error_too(stores, tmp_path):
    for cache_bytes in (0, 2**30):
        for name in LABELS:
            path = tmp_path / f"{name}-{cache_bytes}.zarr"
            shutil.copytree(stores["rows"].path, path)
            file = path / name / "c" / "0"
            raw = bytearray(file.read_bytes())
            raw[100] ^= 1
            file.write_bytes(raw)
            with pytest.raises(DamagedStoreError, match=name):
                list(make_loader(gb.MatrixStore.open(path), cache_bytes=cache_bytes))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_store_deleted_under_a_running_loader_is_an_error(
    stores, tmp_path, small_slabs, prefetch
):
    path = tmp_path / "copy.zarr"
    shutil.copytree(stores["rows"].path, path)
    batches = iter(gb.DataStreamer(make_loader(gb.MatrixStore.open(path)), prefetch))
    next(batches)
    path.rename(tmp_path / "gone.zarr")
    with pytest.raises(StoreChangedError):
        list(batches)


def test_a_store_replaced_between_epochs_is_an_error_though_all_of_it_is_cached(stores, tmp_path):
    path = tmp_path / "copy.zarr"
    shutil.copytree(stores["rows"].path, path)
    loader = make_loader(gb.MatrixStore.open(path), cache_bytes=2**30)
    list(loader)
    shutil.rmtree(path)
    shutil.copytree(stores["windows"].path, path)
    with pytest.raises(StoreChangedError):
        list(loader)


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_leaving_a_loop_early_leaks_no_thread_and_no_file(stores, prefetch):
    loader = make_loader(stores["rows"], batch_size=1)
    stream = gb.DataStreamer(loader, prefetch)
    next(iter(stream))
    stream.close()
    gc.collect()
    files = open_files()
    for _ in range(20):
        for _batch in stream:
            break
        stream.close()
    assert_no_threads()
    assert_none_opened(files)


def test_threads_and_memory_stay_flat_over_many_epochs(stores):
    loader = make_loader(stores["rows"])
    list(loader)
    tables = loader._buffers._idle[0]
    for _ in range(30):
        for _batch in loader:
            pass
    assert_no_threads()
    assert loader._buffers._idle[0] is tables


def test_two_loops_over_one_loader_do_not_disturb_each_other(
    stores, truth, small_slabs, slab_memory
):
    loader = make_loader(stores["rows"])
    whole = indices(make_loader(stores["rows"]))
    first, second = iter(loader), iter(loader)
    seen = [[], []]
    for one, two in zip(first, second, strict=True):
        assert_true(one, truth)
        assert_true(two, truth)
        seen[0] += signed(one)
        seen[1] += signed(two)
    assert seen == [whole, whole]


def in_spawned_process(loader, pipe):
    pipe.send([batch.index.tolist() for batch in loader])


@pytest.mark.slow
def test_a_loader_goes_to_a_spawned_process(stores):
    loader = make_loader(stores["rows"])
    next(iter(loader))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=in_spawned_process, args=(loader, there))
    process.start()
    assert here.poll(60)
    assert here.recv() == [batch.index.tolist() for batch in loader]
    process.join()


def test_a_pickled_loader_and_batch_are_the_same(stores, truth):
    loader = make_loader(stores["rows"])
    loader.load_state_dict({**loader.state_dict()})
    again = pickle.loads(pickle.dumps(loader))
    batches = list(loader)
    assert indices(again) == indices(batches)
    batch = pickle.loads(pickle.dumps(batches[3]))
    assert_true(batch, truth)
    assert batch.position == batches[3].position


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_torchs_dataloader_hands_over_the_same_batches_for_any_workers(stores, workers):
    loader = make_loader(stores["rows"], rank=1, world_size=2)
    expected = [(signed(batch), batch.position) for batch in loader]
    loader.set_epoch(0)
    batches = DataLoader(loader, batch_size=None, num_workers=workers)
    assert len(batches) == len(expected)
    assert [(signed(batch), batch.position) for batch in batches] == expected


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_a_state_taken_behind_a_workers_batch_goes_on_with_any_workers(stores):
    loader = make_loader(stores["rows"])
    batches = DataLoader(loader, batch_size=None, num_workers=2)
    whole = indices(make_loader(stores["rows"]))
    for number, batch in enumerate(batches):
        if number == 4:
            state = loader.state_at(batch.position)
            break
    for workers in (0, 3):
        loader.load_state_dict(state)
        assert indices(DataLoader(loader, batch_size=None, num_workers=workers)) == whole[35:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 2, "world_size": 2}, "rank must be from 0"),
        ({"world_size": 0}, "rank must be from 0"),
        ({"symbols": ["NOPE"]}, "has no symbol NOPE"),
        ({"start": "1990-01-01", "stop": "1990-02-01"}, "no window .* ends from 1990-01-01"),
        ({"start": "yesterday-ish"}, "start must be a time"),
        ({"stop": 1.5}, "stop must be a time"),
        ({"start": 10, "stop": 10}, "start must be before stop"),
        ({"dtype": torch.int32}, "dtype must be float32"),
        ({"shuffle_chunks": 0}, "shuffle_chunks"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(stores, options, words):
    with pytest.raises(UsageError, match=words):
        make_loader(stores["rows"], **options)


def test_a_path_is_no_store(stores):
    with pytest.raises(UsageError, match=r"MatrixStore\.open"):
        gb.SlidingWindowDataLoader(stores["rows"].path)


def test_a_config_that_contradicts_the_store_names_both_values(stores):
    config = gb.BatchConfig(sequence_length=48, overlap=12)
    with pytest.raises(UsageError, match=r"overlap=12, the store .* was built with 47"):
        gb.SlidingWindowDataLoader(stores["rows"], config)
    config = gb.BatchConfig(sequence_length=60, overlap=47)
    with pytest.raises(UsageError, match=r"sequence_length=60, the store .* was built with 48"):
        gb.SlidingWindowDataLoader(stores["rows"], config)


def test_the_loaders_seed_wins_over_the_configs(stores):
    store = stores["rows"]
    config = gb.BatchConfig(sequence_length=48, overlap=47, seed=5)
    assert gb.SlidingWindowDataLoader(store, config).settings.seed == 5
    assert gb.SlidingWindowDataLoader(store, config, seed=0).settings.seed == 0
    assert gb.SlidingWindowDataLoader(store).settings.seed == 0


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("run_length", [1, 4])
def test_a_subset_is_what_a_filter_over_the_labels_keeps(make_store, layout, run_length):
    store = make_store(180, layout=layout, overlap=47, symbols=3)
    times, symbols = store.end_time[:], store.symbol[:]
    start, stop = np.sort(times)[[100, 220]]
    kept = (times >= start) & (times < stop) & (symbols != 1)
    for first, last in (
        (int(start), int(stop)),
        (str(start.astype("datetime64[ns]")), str(stop.astype("datetime64[ns]"))),
    ):
        loader = make_loader(
            store, start=first, stop=last, symbols=["S2", "S0"], run_length=run_length
        )
        assert sorted(indices(loader)) == np.flatnonzero(kept).tolist()
        assert len(loader) == -(-kept.sum() // 7)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("S1", ("S1",)),
        ("S1*", ("S1", "S10", "S11")),
        (["S?", "S11"], (*(f"S{n}" for n in range(10)), "S11")),
        ("S[02]", ("S0", "S2")),
        (lambda name: int(name[1:]) % 5 == 1, ("S1", "S11", "S6")),
    ],
)
def test_symbols_are_chosen_by_name_pattern_or_predicate(make_store, asked, names):
    store = make_store(100, overlap=47, symbols=12)
    loader = gb.SlidingWindowDataLoader(store, symbols=asked)
    met = {store.symbols[int(code)] for batch in loader for code in batch.symbol}
    assert met == set(names)
    assert loader.state_dict()["order"]["symbols"] == sorted(names)


@pytest.mark.parametrize("asked", ["T*", ["S1", "S9?"], lambda name: False])
def test_patterns_and_predicates_that_fit_no_symbol_are_refused(make_store, asked):
    with pytest.raises(UsageError, match=r"no symbol .*it has S0, S1"):
        gb.SlidingWindowDataLoader(make_store(100, overlap=47, symbols=3), symbols=asked)


def test_runs_never_cross_symbols(make_store):
    store = make_store(150, overlap=47, symbols=4, layout="rows")
    borders = (np.flatnonzero(np.diff(store.symbol[:])) + 1).tolist()
    assert len(borders) == 3
    inner = [number for number in range(1, 16) if number % 6]
    together = np.zeros(len(store), np.int64)
    for seed in range(6):
        numbers = np.array(indices(make_loader(store, run_length=6, seed=seed)))
        together[numbers[1:][np.diff(numbers) == 1]] += 1
    assert (together[inner] == 6).all()
    # two runs may come one behind the other by chance, but not in all orders
    assert (together[borders] < 6).all()


def in_gloo_group(rank, path, store, results):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    loader = make_loader(store, rank=rank, world_size=2)
    model = DistributedDataParallel(torch.nn.Linear(48 * 13, 1))
    seen = []
    for batch in loader:
        # the backward pass of one process waits for the other's
        model(batch.matrices.flatten(1)).mul(batch.weight[:, None]).sum().backward()
        seen += signed(batch)
    dist.barrier()
    results.put(seen)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_together_and_see_each_window_once(stores, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(
            target=in_gloo_group, args=(rank, tmp_path / "group", stores["rows"], results)
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    seen = results.get(timeout=120) + results.get(timeout=120)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(number for number in seen if number >= 0) == list(range(243))


@pytest.mark.parametrize("overlap", [0, 12, 24, 40, 47])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_windows_of_many_short_segments_are_cut_right(make_store, layout, overlap):
    store = make_store(
        200, layout=layout, overlap=overlap, symbols=5, chunk_windows=32 if overlap > 40 else 5
    )
    expected = {"matrices": store.matrices[:], **{n: getattr(store, n)[:] for n in LABELS}}
    seen = []
    for batch in make_loader(store):
        assert_true(batch, expected)
        seen += signed(batch)
    assert sorted(seen) == list(range(len(store)))


def test_overlapping_windows_take_the_room_of_their_rows(stores):
    assert SlotShape.of(stores["windows"]) == SlotShape(15 + 48, packed=True)
    assert SlotShape.of(stores["rows"]) == SlotShape(15 + 48, packed=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_a_narrower_dtype_is_the_rounded_store(stores, truth, layout, dtype):
    for batch in make_loader(stores[layout], dtype=dtype):
        expected = torch.from_numpy(truth["matrices"][batch.index.numpy()]).to(dtype)
        assert batch.matrices.dtype == dtype
        assert torch.equal(batch.matrices, expected)


def test_a_batch_splits_moves_and_becomes_numpy(stores, truth):
    batch = next(iter(make_loader(stores["rows"])))
    parts = list(batch.split(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [n for part in parts for n in part.index.tolist()] == batch.index.tolist()
    assert parts[-1].position == batch.position
    moved = batch.to("cpu")
    assert_true(moved, truth)
    assert batch.numpy()["matrices"].shape == (7, 48, 13)
    assert set(batch.tensors()) == {"matrices", "index", "weight", *LABELS}


def test_a_rank_without_windows_gets_repeated_ones(make_store):
    store = make_store(90, overlap=47)
    assert len(store) == 3
    for rank in range(5):
        loader = make_loader(store, rank=rank, world_size=5)
        (batch,) = loader
        assert batch.weight.tolist() == [1.0 if rank < 3 else 0.0]


def test_a_batch_may_be_larger_than_memory_would_hold(stores):
    (batch,) = make_loader(stores["rows"], batch_size=10**14)
    assert sorted(batch.index.tolist()) == list(range(len(stores["rows"])))


def test_automatic_batch_size_starts_small(stores):
    loader = make_loader(stores["rows"], batch_size="auto")
    assert len(next(iter(loader))) == loader.batch_size == 16


def test_the_loader_reports_its_shuffle_quality_and_memory(stores):
    loader = make_loader(stores["rows"], batch_size=4, shuffle_chunks=4)
    assert loader.shuffle_vif == pytest.approx(1 + (4 / 4) * (1 - 4 / 16))
    assert loader.buffer_bytes >= 8 * 63 * 13 * 4
    assert replace(loader.settings) == loader.settings


@pytest.mark.parametrize(("bounds", "size"), [({"max_batch_size": 4}, 4),
                                              ({"min_batch_size": 40}, 40)])  # fmt: skip
def test_an_automatic_batch_size_begins_within_its_bounds(stores, bounds, size):
    store = stores["rows"]
    config = gb.BatchConfig(batch_size="auto", sequence_length=48, overlap=store.overlap, **bounds)
    assert gb.SlidingWindowDataLoader(store, config).batch_size == size
