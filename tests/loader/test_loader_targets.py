"""A store's targets come with each batch, wherever it goes; without any nothing changes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.loader.labels import LABEL_DTYPE, label_dtype

pytestmark = pytest.mark.filterwarnings(
    # the other libraries' own
    "ignore:'set_vital' is deprecated:UserWarning"
)

TARGETS = "forward_return:5,triple_barrier:0.01:0.01:40,forward_volatility:3"


@pytest.fixture(params=["windows", "rows"])
def store(make_store, request):
    return make_store(500, layout=request.param, overlap=40, symbols=2, targets=TARGETS)


def same(batch, store):
    wanted = store.targets[:][batch.index.numpy()]
    found = batch.targets.numpy()
    assert (found.shape, found.dtype) == ((len(batch), 3), np.float32)
    np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32))
    np.testing.assert_array_equal(batch.next_return, store.next_return[:][batch.index.numpy()])
    return len(batch)


@pytest.mark.parametrize("cache_bytes", [0, 2**24])
@pytest.mark.parametrize("batch_size", [7, 64, 5000])
def test_batches_carry_the_targets_of_their_windows(store, cache_bytes, batch_size):
    config = gb.BatchConfig(batch_size=batch_size, cache_bytes=cache_bytes)
    loader = gb.SlidingWindowDataLoader(store, config, shuffle=True, shuffle_chunks=2, seed=1)
    for _ in range(2):
        assert sum(same(batch, store) for batch in loader) == len(store)


def test_without_targets_there_are_none(make_store):
    plain = make_store(200)
    assert label_dtype(plain) == LABEL_DTYPE
    batch = next(iter(gb.SlidingWindowDataLoader(plain)))
    assert batch.targets is None
    assert "targets" not in batch.tensors()
    assert pickle.loads(pickle.dumps(batch)).targets is None


def test_what_is_made_of_a_batch_has_its_targets(store):
    loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=20), shuffle=True)
    batch = next(iter(loader))
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.position == batch.position
    made = [copy, batch.to("cpu"), batch.normalised(gb.feature_statistics(loader))]
    for one in made:
        assert same(one, store) == 20
    assert [same(part, store) for part in batch.split(8)] == [8, 8, 4]
    assert list(batch.tensors())[-1] == "targets"
    np.testing.assert_array_equal(batch.numpy()["targets"], batch.targets)


def test_tensordicts_have_targets(store):
    pytest.importorskip("tensordict")
    batch = next(iter(gb.SlidingWindowDataLoader(store)))
    found = batch.to_tensordict()["targets"]
    assert found.shape == (len(batch), 3)
    assert torch.equal(found, batch.targets) or bool(found.isnan().any())


@pytest.mark.parametrize("n_workers", [0, 2])
def test_workers_and_streams_hand_them_over(store, n_workers):
    loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=64), shuffle=True, seed=2)
    there = DataLoader(loader, batch_size=None, num_workers=n_workers)
    assert sum(same(batch, store) for batch in there) == len(store)
    loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=64), shuffle=True, seed=2)
    assert sum(same(batch, store) for batch in gb.DataStreamer(loader)) == len(store)


def test_a_resumed_epoch_has_the_batches_that_would_have_come(store):
    def loader():
        config = gb.BatchConfig(batch_size=16, cache_bytes=0)
        return gb.SlidingWindowDataLoader(store, config, shuffle=True, seed=3)

    whole = loader()
    batches = list(whole)
    first = loader()
    for number, _ in enumerate(first):
        if number == 4:
            state = first.state_dict()
            break
    second = loader()
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == len(batches) - 5
    for one, other in zip(rest, batches[5:], strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.targets.view(torch.int32), other.targets.view(torch.int32))


def test_a_stateful_data_loader_resumes_with_them(store):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def made():
        loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=32), shuffle=True)
        return stateful(loader, batch_size=None, num_workers=0)

    first = made()
    batches = iter(first)
    next(batches)
    state = first.state_dict()
    wanted = [batch.targets for batch in batches]
    second = made()
    second.load_state_dict(state)
    found = [batch.targets for batch in second]
    assert len(found) == len(wanted) > 2
    assert all(
        torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(found, wanted, strict=True)
    )


def test_buffers_count_the_targets(make_store):
    plain, more = make_store(400), make_store(400, name="t.zarr", targets=TARGETS)
    loaders = [gb.SlidingWindowDataLoader(store) for store in (plain, more)]
    extra = loaders[1].buffer_bytes - loaders[0].buffer_bytes
    assert extra == len(more) * (label_dtype(more).itemsize - LABEL_DTYPE.itemsize)
    assert extra >= len(more) * 3 * 4
