"""A store gives back what was written, or an error that says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

import grandbatch as gb
from grandbatch.errors import (
    DamagedStoreError,
    StoreChangedError,
    StoreMismatchError,
    StoreNotFoundError,
)
from grandbatch.store import OpenFiles
from grandbatch.store.manifest import Manifest

VARIANTS = [
    {"layout": "windows"},
    {"layout": "rows"},
    {"layout": "windows", "overlap": 47},
    {"layout": "rows", "overlap": 47},
    {"layout": "windows", "codec": "none"},
    {"layout": "rows", "codec": "none", "overlap": 0},
    {"layout": "windows", "codec": "zstd"},
]


@pytest.fixture(params=VARIANTS, ids=str)
def store(request, make_store):
    return make_store(700, symbols=2, chunk_windows=8, name="s.zarr", **request.param)


def test_slices_agree_with_the_whole(store):
    whole = store.matrices[:]
    assert whole.shape == store.matrices.shape == (len(store), 48, 13)
    for index in (slice(3, 11), slice(7, 9), slice(-5, None), slice(0, 0), slice(1, 30, 4)):
        np.testing.assert_array_equal(store.matrices[index], whole[index])
    np.testing.assert_array_equal(store.matrices[-1], whole[-1])
    np.testing.assert_array_equal(np.asarray(store.matrices), whole)
    assert not np.isnan(whole).any()
    with pytest.raises(IndexError):
        store.matrices[len(store)]


def test_labels_of_a_chunk_agree_with_the_whole_arrays(store):
    for chunk in range(store.n_chunks):
        lo, hi = store.chunk_range(chunk)
        labels = store.read_labels(chunk)
        for name in ("end_time", "symbol", "close_price", "next_return", "first_row"):
            np.testing.assert_array_equal(getattr(labels, name), getattr(store, name)[lo:hi])


@pytest.mark.filterwarnings("error")
def test_zarr_xarray_and_tensorstore_read_the_same(store):
    name = "matrices" if store.layout == "windows" else "features"
    by_zarr = zarr.open_group(store.path, mode="r")[name][:]
    by_xarray = xarray.open_zarr(store.path)
    by_tensorstore = (
        tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(store.path / name)},
            }
        )
        .result()
        .read()
        .result()
    )
    np.testing.assert_array_equal(by_xarray[name].values, by_zarr)
    np.testing.assert_array_equal(by_tensorstore, by_zarr)
    if store.layout == "windows":
        np.testing.assert_array_equal(by_zarr, store.matrices[:])
    np.testing.assert_array_equal(by_xarray["close_price"].values, store.close_price[:])
    times = by_xarray["end_time"].values.astype("datetime64[ns]").astype(np.int64)
    np.testing.assert_array_equal(times, store.end_time[:])


def test_both_layouts_give_the_same_bits_for_every_window(make_store):
    for overlap in (0, 12, 47):
        a, b = (
            make_store(700, symbols=3, overlap=overlap, layout=layout, chunk_windows=8)
            for layout in ("windows", "rows")
        )
        assert a.content_id == b.content_id
        assert a.fingerprint != b.fingerprint
        np.testing.assert_array_equal(a.matrices[:].view(np.int32), b.matrices[:].view(np.int32))


def test_verify_finds_a_sound_store_sound(store):
    assert store.verify().ok


def chunk_files(store):
    return sorted(p for p in store.path.rglob("*") if p.is_file() and "/c/" in str(p))


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_a_chunk_is_an_error_that_names_it(store):
    for path in chunk_files(store):
        sound = path.read_bytes()
        array = path.relative_to(store.path).parts[0]
        for at in {0, len(sound) // 3, len(sound) // 2}:
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 16]) + sound[at + 1 :])
            with pytest.raises(DamagedStoreError, match=rf"chunk \d+ of {array} is damaged"):
                read_everything(gb.MatrixStore.open(store.path))
            found = gb.MatrixStore.open(store.path).verify()
            assert not found.ok
            assert found.bad_chunks[0][0] == array
        path.write_bytes(sound)
    assert store.verify().ok


@pytest.mark.slow
def test_a_flipped_bit_at_the_end_of_a_file_is_found(store):
    """Where a shard has its index, and a chunk alone its checksum."""
    for path in chunk_files(store):
        sound = path.read_bytes()
        array = path.relative_to(store.path).parts[0]
        for back in (1, 3, 5, 12, 19):
            at = len(sound) - back
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            found = gb.MatrixStore.open(store.path).verify()
            assert [bad[0] for bad in found.bad_chunks][:1] == [array]
            if array in ("matrices", "features"):
                with pytest.raises(DamagedStoreError, match=f"of {array} is damaged"):
                    read_everything(gb.MatrixStore.open(store.path))
        path.write_bytes(sound)
    assert store.verify().ok


def test_a_damaged_index_fails_every_chunk_of_its_file_not_only_the_first_read(make_store):
    store = make_store(700, chunk_windows=8)
    path = next(path for path in chunk_files(store) if path.parts[-5] == store.spec.data.name)
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    with OpenFiles() as files:
        for chunk in (0, 1, 0):
            with pytest.raises(DamagedStoreError, match="index of its file"):
                store.read_chunk(chunk, files=files)


def read_everything(store):
    for chunk in range(store.n_chunks):
        store.read_chunk(chunk)
        store.read_labels(chunk)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted", "swapped"])
def test_other_damage_to_a_chunk_is_an_error_too(make_store, damage):
    store = make_store(1500, chunk_windows=8, codec="none", overlap=12)
    assert store.n_chunks > 2
    first = store.path / "matrices/c/0/0/0"
    data = first.read_bytes()
    if damage == "truncated":
        first.write_bytes(data[: len(data) // 2])
    elif damage == "emptied":
        first.write_bytes(b"")
    elif damage == "deleted":
        first.unlink()
    else:
        size = int(store._readers["matrices"].digests.length[0])
        path = store.path / "matrices/c/0/0/0"
        shard = path.read_bytes()
        path.write_bytes(shard[size : 2 * size] + shard[:size] + shard[2 * size :])
    opened = gb.MatrixStore.open(store.path)
    with pytest.raises(DamagedStoreError):
        read_everything(opened)
    assert not opened.verify().ok


@pytest.mark.parametrize("array", ["matrices", "end_time"])
def test_a_chunk_that_the_disk_refuses_to_read_is_an_error_that_names_it(make_store, array):
    store = make_store()
    (path,) = (p for p in chunk_files(store) if array in p.parts)
    path.unlink()
    path.mkdir()  # opens, and can't be read
    with pytest.raises(DamagedStoreError, match=rf"chunk 0 of {array} is damaged: .* can't be"):
        read_everything(store)
    assert {bad[0] for bad in store.verify().bad_chunks} == {array}


def test_changed_metadata_is_found_when_opening(make_store):
    store = make_store()
    path = store.path / "matrices" / "zarr.json"
    path.write_text(path.read_text().replace("48", "49"))
    with pytest.raises(DamagedStoreError, match=r"matrices/zarr\.json is not what was written"):
        gb.MatrixStore.open(store.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "\x00\x01"])
def test_a_damaged_manifest_is_an_error(make_store, text):
    store = make_store()
    (store.path / "manifest.json").write_text(text)
    with pytest.raises((DamagedStoreError, StoreMismatchError)):
        gb.MatrixStore.open(store.path)


def test_no_flipped_bit_of_a_manifest_goes_unseen(make_store):
    store = make_store(300, chunk_windows=4)
    path = store.path / "manifest.json"
    good = path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises((DamagedStoreError, StoreMismatchError)):
            gb.MatrixStore.open(store.path)


def test_what_is_no_finished_store_is_not_opened(tmp_path, make_store):
    with pytest.raises(StoreNotFoundError, match="there is no store at"):
        gb.MatrixStore.open(tmp_path / "nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.save_array(tmp_path / "foreign.zarr", np.zeros(3))
    with pytest.raises(StoreNotFoundError, match="no finished grandbatch store"):
        gb.MatrixStore.open(tmp_path / "foreign.zarr")
    store = make_store()
    (store.path / "manifest.json").unlink()
    with pytest.raises(StoreNotFoundError):
        gb.MatrixStore.open(store.path)


def test_a_store_of_a_later_format_is_refused(make_store):
    store = make_store()
    path = store.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(StoreMismatchError, match="format 2"):
        gb.MatrixStore.open(store.path)


def test_a_store_replaced_or_deleted_under_a_reader_is_an_error(make_store):
    a = make_store(700, overlap=12, name="a.zarr")
    b = make_store(700, overlap=13, name="b.zarr")
    shutil.rmtree(a.path)
    b.path.rename(a.path)
    with pytest.raises(StoreChangedError, match="was replaced"):
        a.matrices[0]
    shutil.rmtree(a.path)
    with pytest.raises(StoreChangedError, match="was deleted"):
        a.matrices[0]


def test_a_store_that_takes_anothers_place_while_it_is_opened_is_read_whole(
    make_store, monkeypatch
):
    a = make_store(700, overlap=12, name="a.zarr")
    b = make_store(700, overlap=13, name="b.zarr")
    expected = b.matrices[:]
    read = Manifest.read_versioned

    def read_then_replaced(folder):
        found = read(folder)
        if b.path.exists():
            shutil.rmtree(a.path)
            b.path.rename(a.path)
        return found

    monkeypatch.setattr(Manifest, "read_versioned", read_then_replaced)
    opened = gb.MatrixStore.open(a.path)
    assert opened.overlap == 13
    np.testing.assert_array_equal(opened.matrices[:], expected)


def test_a_pickled_store_opens_the_same_one_or_says_that_it_is_gone(make_store):
    store = make_store(700, overlap=12, name="a.zarr")
    data = pickle.dumps(store)
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.matrices[:3], store.matrices[:3])
    other = make_store(700, overlap=13, name="b.zarr")
    shutil.rmtree(store.path)
    other.path.rename(store.path)
    with pytest.raises(StoreChangedError):
        len(pickle.loads(data))


def test_nothing_is_opened_while_it_is_unpickled(make_store):
    store = make_store(700, overlap=12, name="a.zarr")
    matrices = store.matrices[:3]
    data = pickle.dumps(store)
    away = store.path.rename(store.path.with_name("away.zarr"))
    copy = pickle.loads(data)
    again = pickle.loads(pickle.dumps(copy))
    with pytest.raises(StoreNotFoundError):
        len(copy)
    with pytest.raises(AttributeError):
        _ = copy.__dask_graph__
    away.rename(store.path)
    for opened in (copy, again):
        np.testing.assert_array_equal(opened.matrices[:3], matrices)
        with pytest.raises(AttributeError, match="no attribute 'matrixes'"):
            _ = opened.matrixes


def test_a_store_that_came_out_of_a_pickle_is_opened_by_many_threads_at_once(make_store):
    store = make_store(700, overlap=12, name="a.zarr")
    for _ in range(20):
        copy = pickle.loads(pickle.dumps(store))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _, copy=copy: len(copy), range(32))) == {len(store)}


def test_statistics_are_those_of_the_used_rows(make_store):
    store = make_store(700, symbols=2, overlap=30, chunk_windows=4)
    rows = {}
    for first, matrix in zip(store.first_row[:], store.matrices[:], strict=True):
        rows.update({int(first) + i: row for i, row in enumerate(matrix)})
    used = np.array([rows[key] for key in sorted(rows)], np.float64)
    for f, name in enumerate(store.feature_names):
        stats = store.feature_stats[name]
        assert stats["count"] == len(used)
        np.testing.assert_allclose(stats["mean"], used[:, f].mean(), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(stats["std"], used[:, f].std(), rtol=1e-9, atol=1e-15)
        assert (stats["min"], stats["max"]) == (used[:, f].min(), used[:, f].max())


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_values_of_several_chunks_read_at_once_are_those_of_each(make_store, layout):
    store = make_store(
        400, layout=layout, overlap=47, targets=["forward_return:4", "forward_drawdown:4"]
    )
    last = store.n_chunks - 1
    names = [spec.name for spec in store.spec.labels]
    assert "targets" in names
    assert 0 < len(store) - store.chunk_range(last)[0] < store.chunk_windows
    for chunks in ([0, 1, 2], [3, 5, 6, last], [last], [7, 2]):
        together = store.read_values(chunks, names)
        for place, chunk in enumerate(chunks):
            first, stop = store.chunk_range(chunk)
            for name, values in together.items():
                expected = getattr(store, name)[first:stop]
                np.testing.assert_array_equal(values[place, : stop - first], expected)
                assert not values[place, stop - first :].any()


def test_of_values_read_at_once_the_damaged_ones_are_named(make_store):
    store = make_store(400, overlap=47)
    path = store.path / "end_time/c/0"
    data = bytearray(path.read_bytes())
    data[5 * 16 * 8 + 3] ^= 1
    path.write_bytes(data)
    assert store.read_values([3, 4, 6], ["end_time"])["end_time"].shape == (3, 16)
    with pytest.raises(DamagedStoreError, match="end_time is damaged: values 80 to 96 do not"):
        store.read_values([3, 4, 5, 6], ["end_time"])
    path.write_bytes(data[: 6 * 16 * 8 - 1])
    with pytest.raises(DamagedStoreError, match="384 bytes wanted, 383 there"):
        store.read_values([3, 4, 5], ["end_time"])
