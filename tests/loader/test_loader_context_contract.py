"""The contract of the loader holds with contexts as without, however they are held in memory."""

from __future__ import annotations

import gc
import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from leaks import assert_no_threads, assert_none_opened, open_files
from timeframes import gappy_bars, write_bars
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import DamagedStoreError, StoreChangedError
from grandbatch.loader import batches, slabs
from grandbatch.loader.context.slots import SlotContexts
from grandbatch.loader.context.whole import WholeContexts

pytestmark = pytest.mark.filterwarnings(
    # the other libraries' own
    "ignore:'set_vital' is deprecated:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
)

FAST, SLOW = 5 * 60 * 10**9, 15 * 60 * 10**9
HELD = {"beside the slots": 0, "whole": 2**15, "whole, and all chunks": 2**26}
"""How contexts are held, and a cache for it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract")
    write_bars(path / "bars.csv", gappy_bars(["BBB", "AAA"], 300, seed=4))
    for layout in ("rows", "windows"):
        for name, length, options in (("fast", 6, {}), ("slow", 8, {"resample": "15min"})):
            gb.build_store(
                path / "bars.csv",
                path / f"{name}-{layout}.zarr",
                sequence_length=length,
                overlap=length - 1,
                layout=layout,
                chunk_windows=16,
                durable=False,
                **options,
            )
    return path


@pytest.fixture(params=HELD)
def held(request, monkeypatch):
    if request.param == "beside the slots":
        monkeypatch.setattr("grandbatch.loader.context.room.ContextRoom.is_whole", lambda *_: False)
    return HELD[request.param]


@pytest.fixture
def small_slabs(monkeypatch):
    """Gather few windows at a time, so that a small store takes many slabs."""
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 50)


def stores(folder, layout="rows"):
    return [gb.MatrixStore.open(folder / f"{name}-{layout}.zarr") for name in ("fast", "slow")]


def make_loader(folder, cache_bytes=0, layout="rows", batch_size=7, **options):
    fast, slow = stores(folder, layout)
    config = gb.BatchConfig(batch_size=batch_size, cache_bytes=cache_bytes, num_workers=2)
    options = {"shuffle_chunks": 3, "context": {"slow": slow}} | options
    return gb.SlidingWindowDataLoader(fast, config, **options)


@pytest.fixture(scope="module")
def truth(folder):
    """By window its matrix; its context's number, or -1; and the contexts' matrices and times."""
    fast, slow = stores(folder)
    ends, symbols = slow.end_time[:], np.array(slow.symbols)[slow.symbol[:]]
    pairs = []
    for end, number in zip(fast.end_time[:].tolist(), fast.symbol[:].tolist(), strict=True):
        known = (symbols == fast.symbols[number]) & (ends + SLOW <= end + FAST)
        pairs.append(int(np.flatnonzero(known)[-1]) if known.any() else -1)
    return fast.matrices[:], np.array(pairs), slow.matrices[:], ends


def assert_true(batch, truth):
    """Compare windows and contexts to the bit."""
    matrices, pairs, slow, ends = truth
    context, index = batch.context["slow"], batch.index.numpy()
    assert batch.matrices.numpy().tobytes() == matrices[index].tobytes()
    assert context.index.tolist() == pairs[index].tolist()
    assert context.end_time.tolist() == ends[pairs[index]].tolist()
    assert context.matrices.numpy().tobytes() == slow[pairs[index]].tobytes()


def signed(batch):
    """Window numbers, negative where the weight is 0."""
    return torch.where(batch.weight == 1, batch.index, -1 - batch.index).tolist()


def indices(found):
    return [number for batch in found for number in signed(batch)]


def with_context(truth):
    return np.flatnonzero(truth[1] >= 0).tolist()


ORDERS = [{"shuffle": False}, {"shuffle": True}, {"shuffle": True, "run_length": 5}]


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("order", ORDERS, ids=["store order", "shuffled", "runs"])
@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_contract(folder, truth, held, small_slabs, layout, order, world_size):
    real = []
    for rank in range(world_size):

        def stream(state=None, prefetch=0, rank=rank):
            loader = make_loader(folder, held, layout, rank=rank, world_size=world_size, **order)
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            return gb.DataStreamer(loader, prefetch)

        whole, states = [], []
        running = stream()
        for batch in running:
            assert_true(batch, truth)
            whole.append(signed(batch))
            states.append(running.state_dict())
        assert len(whole) == len(running)
        every = max(1, len(whole) // 2)
        for done in range(every, len(whole), every):
            again = stream(states[done - 1], prefetch=2)
            rest = []
            for batch in again:
                assert_true(batch, truth)
                rest.append(signed(batch))
            assert rest == whole[done:]
            assert again.state_dict() == states[-1]
        real += [number for windows in whole for number in windows if number >= 0]
    assert sorted(real) == with_context(truth)


def test_the_ways_of_holding_contexts_are_all_tried(folder, held, request):
    tables = make_loader(folder, held)._buffers.take_tables()
    kind = WholeContexts if held else SlotContexts
    assert all(isinstance(table.contexts["slow"]._source, kind) for table in tables)
    assert len(tables) == (1 if held == 2**26 else 2)


def test_every_resume_can_be_resumed_again(folder, held):
    whole = indices(make_loader(folder, held))
    loader = make_loader(folder, held)
    for done, _ in enumerate(loader, start=1):
        if done % 10 != 1:
            continue
        again = make_loader(folder, held)
        again.load_state_dict(loader.state_dict())
        seen = indices(batch for _, batch in zip(range(3), again, strict=False))
        third = make_loader(folder, held, batch_size=11)
        third.load_state_dict(again.state_dict())
        seen += indices(third) if third.epoch == 0 else []
        assert whole[: done * 7] + seen == whole


def test_an_epochs_end_resumes_at_the_next_epochs_start(folder, held, truth):
    loader = make_loader(folder, held)
    first, second = indices(loader), indices(loader)
    assert first != second
    assert sorted(first) == sorted(second) == with_context(truth)
    again = make_loader(folder, held)
    list(again)
    resumed = make_loader(folder, held)
    resumed.load_state_dict(again.state_dict())
    assert indices(resumed) == second


@pytest.mark.parametrize("other", [1, 3, 8])
def test_a_state_of_four_ranks_goes_on_at_another_number(folder, held, truth, other):
    seen = []
    for rank in range(4):
        loader = make_loader(folder, held, rank=rank, world_size=4)
        for _, batch in zip(range(5), loader, strict=False):
            seen += signed(batch)
        state = loader.state_dict()
    for rank in range(other):
        loader = make_loader(folder, held, rank=rank, world_size=other)
        loader.load_state_dict(state)
        for batch in loader:
            assert_true(batch, truth)
            seen += signed(batch)
    assert sorted(number for number in seen if number >= 0) == with_context(truth)


@pytest.mark.parametrize("remainder", ["pad", "drop"])
def test_all_ranks_see_equally_many_batches_of_equal_size(folder, held, truth, remainder):
    sizes, seen = [], []
    for rank in range(4):
        loader = make_loader(folder, held, rank=rank, world_size=4, remainder=remainder)
        found = list(loader)
        assert len(found) == len(loader)
        sizes.append([len(batch) for batch in found])
        seen += [number for number in indices(found) if number >= 0]
    assert all(one == sizes[0] for one in sizes)
    lost = len(with_context(truth)) - len(seen)
    assert len(set(seen)) == len(seen)
    assert lost == (0 if remainder == "pad" else len(with_context(truth)) % 4)


def test_a_new_batch_size_takes_effect_at_once_and_changes_no_order(folder, held, truth):
    loader, sizes, seen = make_loader(folder, held, batch_size=32), [], []
    for number, batch in enumerate(loader):
        assert_true(batch, truth)
        sizes.append(len(batch))
        seen += signed(batch)
        loader.batch_size = [32, 16, 16, 64, 64, 64][min(number, 5)]
    assert seen == indices(make_loader(folder, held))
    assert sizes[:5] == [32, 32, 16, 16, 64]


@pytest.mark.parametrize("pooled", [False, True])
def test_batches_that_are_kept_are_never_overwritten(
    folder, held, truth, small_slabs, monkeypatch, pooled
):
    if pooled:
        monkeypatch.setattr(slabs, "FRESH_BYTES", 0)
    loader = make_loader(folder, held)
    kept = [*loader, *loader]
    for batch in kept:
        assert_true(batch, truth)


def test_two_loops_over_one_loader_do_not_disturb_each_other(folder, held, truth, small_slabs):
    loader = make_loader(folder, held)
    whole = indices(make_loader(folder, held))
    seen = [[], []]
    for pair in zip(iter(loader), iter(loader), strict=True):
        for batch, numbers in zip(pair, seen, strict=True):
            assert_true(batch, truth)
            numbers.extend(signed(batch))
    assert seen == [whole, whole]


def test_a_cache_given_up_changes_nothing(folder, held, truth):
    loader = make_loader(folder, held)
    whole = make_loader(folder, held)
    assert indices(loader) == indices(whole)
    loader.release_cache()
    assert loader.spare_bytes == 0
    for batch, other in zip(loader, whole, strict=True):
        assert_true(batch, truth)
        assert signed(batch) == signed(other)


def test_a_pickled_loader_goes_on_as_this_one(folder, held, truth):
    loader = make_loader(folder, held)
    next(iter(loader))
    again = pickle.loads(pickle.dumps(loader))
    found = list(again)
    assert indices(found) == indices(loader)
    for batch in found:
        assert_true(pickle.loads(pickle.dumps(batch)), truth)


@pytest.mark.slow
def test_leaving_early_leaks_no_thread_no_file_and_no_table(folder, held):
    loader = make_loader(folder, held, batch_size=1)
    stream = gb.DataStreamer(loader, 2)
    next(iter(stream))
    stream.close()
    gc.collect()
    tables = loader._buffers._idle[0]
    files = open_files()
    for _ in range(10):
        for _batch in stream:
            break
        stream.close()
    assert_no_threads()
    assert_none_opened(files)
    assert loader._buffers._idle[0] is tables


def test_three_iterations_over_workers_are_three_epochs(folder, held, truth):
    loader = make_loader(folder, held)
    there = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=True)
    alone = make_loader(folder, held)
    for _ in range(3):
        found = list(there)
        for batch in found:
            assert_true(batch, truth)
        assert indices(found) == indices(alone)


def test_a_stateful_dataloader_resumes_behind_any_batch(folder, held, truth):
    module = pytest.importorskip("torchdata.stateful_dataloader")
    loader = make_loader(folder, held, batch_size=40)

    def run(state=None):
        made = module.StatefulDataLoader(loader, batch_size=None, num_workers=2)
        loader.set_epoch(0)
        if state is not None:
            made.load_state_dict(json.loads(json.dumps(state)))
        return made

    running, whole, states = run(), [], []
    for batch in running:
        assert_true(batch, truth)
        whole.append(signed(batch))
        states.append(running.state_dict())
    assert sorted(n for numbers in whole for n in numbers) == with_context(truth)
    for done in (1, 2, len(whole) - 1):
        rest = list(run(states[done - 1]))
        assert [signed(batch) for batch in rest] == whole[done:]
        for batch in rest:
            assert_true(batch, truth)


def in_another_process(loader, pipe):
    pipe.send([(signed(batch), batch.context["slow"].index.tolist()) for batch in loader])


@pytest.mark.slow
def test_a_loader_goes_to_a_spawned_process(folder, truth):
    loader = make_loader(folder, 2**20)
    next(iter(loader))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=in_another_process, args=(loader, there))
    process.start()
    assert here.poll(60)
    found = [(signed(batch), batch.context["slow"].index.tolist()) for batch in loader]
    assert here.recv() == found
    process.join()


def copied(folder, tmp_path):
    for path in folder.glob("*-rows.zarr"):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_context_deleted_under_a_running_loader_is_an_error(
    folder, held, tmp_path, small_slabs, prefetch
):
    there = copied(folder, tmp_path)
    stream = gb.DataStreamer(make_loader(there, held), prefetch)
    first = iter(stream)
    next(first)
    stream.close()
    (there / "slow-rows.zarr").rename(there / "gone.zarr")
    with pytest.raises(StoreChangedError):
        list(stream)


def test_a_context_replaced_between_epochs_is_an_error(folder, held, tmp_path):
    there = copied(folder, tmp_path)
    loader = make_loader(there, held)
    list(loader)
    shutil.rmtree(there / "slow-rows.zarr")
    shutil.copytree(folder / "slow-windows.zarr", there / "slow-rows.zarr")
    with pytest.raises(StoreChangedError):
        next(iter(loader))


@pytest.mark.parametrize("name", ["end_time", "first_row", "start", "features"])
def test_a_damaged_context_is_an_error_that_names_what_is_damaged(folder, held, tmp_path, name):
    there = copied(folder, tmp_path)
    files = (one for one in (there / "slow-rows.zarr" / name / "c").rglob("*") if one.is_file())
    file = sorted(files)[0]
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DamagedStoreError, match=rf"slow-rows.*{name}"):
        list(make_loader(there, held))


def test_a_damaged_context_costs_only_its_own_windows_and_is_read_again_once_mended(
    folder, tmp_path, truth, held
):
    for name in ("fast", "slow"):
        shutil.copytree(folder / f"{name}-rows.zarr", tmp_path / f"{name}-rows.zarr")
    whole = indices(make_loader(tmp_path, held, shuffle=False, shuffle_chunks=64))
    slow = gb.MatrixStore.open(tmp_path / "slow-rows.zarr")
    path = slow.path / "end_time/c/0"
    sound = path.read_bytes()
    chunk = slow.n_chunks // 2
    raw = bytearray(sound)
    raw[chunk * slow.chunk_windows * 8] ^= 1
    loader, seen = make_loader(tmp_path, held, shuffle=False, shuffle_chunks=64), []
    path.write_bytes(raw)
    with pytest.raises(DamagedStoreError, match="end_time is damaged"):
        seen.extend(loader)
    for batch in seen:
        assert_true(batch, truth)
    assert 0 < len(indices(seen)) < len(whole)
    assert indices(seen) == whole[: len(indices(seen))]
    path.write_bytes(sound)
    loader.set_epoch(0)
    assert indices(loader) == whole
