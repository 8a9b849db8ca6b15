"""A store's lazy arrays index, compare and calculate as the numpy arrays they stand for."""

from __future__ import annotations

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

LABELS = ("end_time", "symbol", "close_price", "next_return", "first_row")


@pytest.fixture(params=["windows", "rows"])
def store(request, make_store):
    return make_store(700, symbols=2, chunk_windows=8, layout=request.param)


@pytest.fixture
def chunks_read(store, monkeypatch):
    read = []
    original = type(store).read_chunk

    def read_chunk(self, chunk):
        read.append(chunk)
        return original(self, chunk)

    monkeypatch.setattr(type(store), "read_chunk", read_chunk)
    return read


INDICES = [
    3,
    np.int64(-1),
    slice(None),
    slice(9, 3),
    slice(5, 3),
    slice(None, None, -1),
    slice(30, 2, -7),
    slice(-5, None),
    slice(1, 30, 9),
    [1, 2],
    [-1, 0, 17, 17],
    [],
    np.array([[3, 20], [9, 3]]),
    (slice(2, 20), -1),
    (slice(2, 20), slice(None), [0, 3]),
    (4, slice(1, 5), 2),
    (3, [0, 5]),
    ([1, 2, 9], [0, 1, 2], 4),
    (slice(None), -1),
    (Ellipsis, 0),
    (Ellipsis, 3, 0, 0),
    (Ellipsis, slice(2, 5), -1),
    (None, 3),
    ([3, 30], None, 2),
    ([3, 30], slice(None), 2),
    (np.array([[3, 20], [9, 3]]), slice(2, 9, 3), [1]),
    ([[3], [30]], [1, 2]),
    (),
    Ellipsis,
    None,
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_gives_what_numpy_gives(store, index):
    whole = store.matrices[:]
    np.testing.assert_array_equal(store.matrices[index], whole[index])
    if not isinstance(index, tuple):
        np.testing.assert_array_equal(store.end_time[index], store.end_time[:][index])


def test_masks_choose_windows(store):
    whole, symbols = store.matrices[:], store.symbol[:]
    np.testing.assert_array_equal(store.matrices[symbols == 1], whole[symbols == 1])
    np.testing.assert_array_equal(
        store.close_price[store.symbol == 1], store.close_price[:][symbols == 1]
    )
    high = whole > 0.5
    np.testing.assert_array_equal(store.matrices[high], whole[high])
    np.testing.assert_array_equal(
        store.matrices[symbols == 1, 2:4, -1], whole[symbols == 1, 2:4, -1]
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_basic_index_gives_what_numpy_gives(store, data):
    index = data.draw(basic_indices(store.matrices.shape, allow_newaxis=True))
    np.testing.assert_array_equal(store.matrices[index], store.matrices[:][index])


@pytest.mark.parametrize(
    "index",
    [
        np.ones(3, bool),
        (0, 0, 0, 0),
        np.array([], float),
        10**6,
        -(10**6),
        [0, 10**6],
        1.5,
        [0.5],
        "a",
    ],
    ids=str,
)
def test_what_is_no_window_is_an_error(store, index):
    with pytest.raises((IndexError, TypeError)):
        store.matrices[index]
    with pytest.raises((IndexError, TypeError)):
        store.symbol[index]


def test_they_compare_and_calculate(store):
    for name in LABELS:
        lazy, whole = getattr(store, name), getattr(store, name)[:]
        assert (lazy.shape, lazy.dtype, lazy.ndim) == (whole.shape, whole.dtype, whole.ndim)
        assert (lazy.size, lazy.nbytes, len(lazy)) == (whole.size, whole.nbytes, len(whole))
        np.testing.assert_array_equal(lazy == whole[0], whole == whole[0])
        np.testing.assert_array_equal(2 * lazy - lazy, 2 * whole - whole)
        np.testing.assert_array_equal(list(lazy), whole)
        np.testing.assert_array_equal(pd.Series(lazy), whole)
        np.testing.assert_array_equal(torch.as_tensor(np.asarray(lazy)), whole)
    assert np.mean(store.close_price) == np.mean(store.close_price[:])
    np.testing.assert_array_equal(
        np.add(store.symbol, 1, where=store.symbol == 1, out=np.zeros(len(store), np.int32)),
        np.where(store.symbol[:] == 1, 2, 0),
    )
    with pytest.raises(TypeError, match="can't be written"):
        np.add(1, 1, out=store.symbol)
    with pytest.raises(TypeError, match="can't be written"):
        np.add.at(store.symbol, [0], 1)


def test_torch_reads_each_chunk_once(store, chunks_read):
    tensor = torch.as_tensor(store.matrices)
    assert chunks_read == list(range(store.n_chunks))
    np.testing.assert_array_equal(tensor.numpy(), store.matrices[:])


def test_a_part_of_each_window_takes_no_more_memory_than_itself(store):
    last = store.matrices[:, -1]
    assert last.base is None
    np.testing.assert_array_equal(last, store.matrices[:][:, -1])


def test_dask_reads_them_by_chunks(store):
    lazy = dask.array.from_array(store.matrices, chunks=(store.chunk_windows, -1, -1))
    expected = store.matrices[:].mean(axis=0)
    np.testing.assert_allclose(lazy.mean(axis=0).compute(scheduler="sync"), expected, rtol=1e-5)


def test_only_the_chunks_with_wanted_windows_are_read(store, chunks_read):
    store.matrices[[1, 17, 2, 18, 3]]
    assert chunks_read == [0, 2]
    store.matrices[8:17, -1]
    assert chunks_read == [0, 2, 1, 2]
    with pytest.raises(IndexError):
        store.matrices[np.ones(3, bool)]
    with pytest.raises(IndexError):
        store.matrices[:, 0, 0, 0]
    assert chunks_read == [0, 2, 1, 2]
