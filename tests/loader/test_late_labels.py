"""Labels are looked up when they are first asked for: whenever that is, they are the windows'."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import grandbatch as gb
from grandbatch.loader import batches, slab_labels

LABELS = ("end_time", "symbol", "close_price", "next_return", "first_row")
CACHE_BYTES = {
    "nothing stays": 0,
    "labels stay while tables take turns": 20_000,
    "all stays": 2**30,
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    source = folder / "bars.csv"
    gb.create_large_dataset_simulation(source, num_rows=600, symbols=2)
    return {
        layout: gb.build_store(
            source, folder / f"{layout}.zarr", overlap=47, layout=layout, chunk_windows=16
        )
        for layout in ("windows", "rows")
    }


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 50)


def make_loader(store, kept, **options):
    config = gb.BatchConfig(
        batch_size=7,
        sequence_length=48,
        overlap=47,
        cache_bytes=CACHE_BYTES[kept],
    )
    return gb.SlidingWindowDataLoader(store, config, shuffle_chunks=3, **options)


def assert_true(store, some):
    for batch in some:
        numbers = batch.index.numpy()
        np.testing.assert_array_equal(batch.matrices.numpy(), store.matrices[:][numbers])
        for name in LABELS:
            values = getattr(batch, name).numpy()
            np.testing.assert_array_equal(values, getattr(store, name)[:][numbers])


@pytest.mark.slow
@pytest.mark.parametrize("kept", CACHE_BYTES)
@pytest.mark.parametrize("layout", ["rows", "windows"])
def test_labels_asked_for_epochs_later_are_those_of_the_windows(stores, layout, kept):
    loader = make_loader(stores[layout], kept)
    epochs = [list(loader) for _ in range(3)]
    del loader
    for epoch in epochs:
        assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == list(
            range(len(stores[layout]))
        )
        assert_true(stores[layout], epoch)


def test_the_case_in_between_is_what_it_says(stores):
    buffers = make_loader(stores["rows"], "labels stay while tables take turns")._buffers
    assert not buffers.resident
    (first, second) = buffers.take_tables()
    assert first.labels is second.labels
    assert first.labels.by_index


def test_nothing_is_looked_up_until_it_is_asked_for(stores, monkeypatch):
    asked = []
    concatenate = slab_labels.SlabLabels._columns
    monkeypatch.setattr(
        slab_labels.SlabLabels,
        "_columns",
        lambda self, parts: asked.append(1) or concatenate(self, parts),
    )
    some = list(make_loader(stores["rows"], "all stays"))
    assert not asked
    for batch in some[:7]:  # of one slab
        assert len(batch.index) == len(batch.weight) == 7
    assert len(asked) == 1


@pytest.mark.parametrize("kept", CACHE_BYTES)
def test_repeated_windows_weigh_nothing_whenever_one_asks(stores, kept):
    store = stores["rows"]
    ranks = [list(make_loader(store, kept, rank=rank, world_size=7)) for rank in range(7)]
    weights = [torch.cat([batch.weight for batch in rank]) for rank in ranks]
    assert len({len(weight) for weight in weights}) == 1
    assert sum(weight.sum().item() for weight in weights) == len(store)
    numbers = torch.cat(
        [batch.index[batch.weight > 0] for rank in ranks for batch in rank]
    ).tolist()
    assert sorted(numbers) == list(range(len(store)))


def test_threads_that_ask_at_once_get_the_same(stores):
    store = stores["rows"]
    some = list(make_loader(store, "all stays"))
    barrier = threading.Barrier(4)

    def ask():
        barrier.wait()
        return torch.cat([batch.end_time for batch in some])

    with ThreadPoolExecutor(4) as pool:
        found = [asked.result() for asked in [pool.submit(ask) for _ in range(4)]]
    expected = store.end_time[:][torch.cat([batch.index for batch in some]).numpy()]
    for times in found:
        np.testing.assert_array_equal(times.numpy(), expected)


def test_a_batch_that_was_never_asked_is_sent_with_its_labels(stores):
    store = stores["windows"]
    sent = [pickle.loads(pickle.dumps(one)) for one in make_loader(store, "all stays")]
    assert_true(store, sent)


def test_labels_asked_for_in_inference_mode_may_be_written_to_outside_of_it(stores):
    batch = next(iter(make_loader(stores["rows"], "all stays")))
    with torch.inference_mode():
        index = batch.index
    index += 1  # of an inference tensor that would be refused
    assert (batch.index == index).all()


def test_labels_stay_those_of_the_batch_where_other_matrices_take_its_place(stores):
    loader = make_loader(stores["rows"], "all stays", seed=5)
    for batch in loader:
        n_windows = len(batch)
        batch.matrices = batch.matrices.flatten(0, 1)[:3]
        assert len(batch.index) == len(batch.weight) == n_windows
