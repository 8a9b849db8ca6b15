"""A store that somebody made is read as it is, or is an error: never stray memory, never a wait.

Every digest of these stores fits: only what they say is wrong.
"""

from __future__ import annotations

import math
import os

import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import pytest
from hostile import edit_attributes, edit_manifest, edit_payloads, edit_values

import grandbatch as gb
from grandbatch.errors import DamagedStoreError, StoreError


@pytest.fixture(params=["lz4", "zstd"])
def packed(request, make_store):
    return make_store(400, layout="rows", overlap=40, codec=request.param, name="s.zarr")


@pytest.fixture
def rows(make_store):
    return make_store(400, layout="rows", overlap=40, codec="none", name="s.zarr")


def read_all(path):
    store = gb.MatrixStore.open(path)
    store.matrices[:]
    config = gb.BatchConfig(sequence_length=store.sequence_length, overlap=store.overlap)
    for _ in gb.SlidingWindowDataLoader(store, config, shuffle=True):
        pass


def shorter(payload: bytes, n_bytes: int, codec: str) -> bytes:
    values = np.zeros(n_bytes, np.uint8)
    if codec == "lz4":
        return bytes(numcodecs.blosc.compress(values, b"lz4", 5, numcodecs.blosc.NOSHUFFLE))
    return bytes(numcodecs.zstd.compress(values, 1))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99, 1.01, 3.0])
def test_a_chunk_that_decodes_to_another_size_is_an_error(packed, part):
    wanted = packed.spec.data.chunk_bytes
    codec = packed.spec.codec
    edit_payloads(packed.path, lambda payload: shorter(payload, int(part * wanted), codec))
    with pytest.raises(DamagedStoreError, match=r"chunk 0 of features is damaged.*decode"):
        read_all(packed.path)
    found = gb.MatrixStore.open(packed.path).verify()
    assert len(found.bad_chunks) == packed.n_chunks


def test_frames_that_make_up_less_than_a_chunk_together_are_an_error(make_store):
    store = make_store(400, layout="rows", codec="zstd", name="s.zarr")
    third = shorter(b"", store.spec.data.chunk_bytes // 3, "zstd")
    empty = shorter(b"", 0, "zstd")
    skippable = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"abcd"
    for forged in (third + third, empty + third, skippable + third, skippable, b"", b"(\xb5/\xfd"):
        edit_payloads(store.path, lambda payload, forged=forged: forged)
        with pytest.raises(DamagedStoreError, match="chunk 0 of features is damaged"):
            read_all(store.path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("start", value) for value in (10_000, -1)),
        *(("symbol", value) for value in (1, -1, 2**31 - 1)),
        *(("first_row", value) for value in (-1, 2**62)),
    ],
)
def test_a_value_outside_of_what_it_counts_is_an_error(rows, name, value):
    edit_values(rows.path, name, lambda values: values.__setitem__(3, value))
    opened = gb.MatrixStore.open(rows.path)
    for read in (
        lambda: getattr(opened, name)[:],
        lambda: opened.read_labels(0),
        lambda: read_all(rows.path),
    ):
        with pytest.raises(DamagedStoreError, match=f"chunk 0 of {name} is damaged"):
            read()
    assert not opened.verify().ok


def test_a_wrong_value_among_chunks_read_together_is_told_by_its_own(make_store, monkeypatch):
    monkeypatch.setattr("grandbatch.store.format.LABEL_CHUNK_WINDOWS", 32)
    store = make_store(400, layout="rows", overlap=47, name="s.zarr")
    edit_values(store.path, "start", lambda values: values.__setitem__(-1, 10_000))
    opened = gb.MatrixStore.open(store.path)
    last = opened.n_chunks - 1
    with pytest.raises(DamagedStoreError) as alone:
        opened.read_values([last], ["start"])
    with pytest.raises(DamagedStoreError) as together:
        opened.read_values([0, 1, last], ["start"])
    assert str(together.value) == str(alone.value)


def test_first_rows_that_break_more_often_than_segments_do_are_an_error(make_store):
    store = make_store(400, overlap=40, name="s.zarr")
    edit_values(store.path, "first_row", lambda values: values.__setitem__(slice(0, 9, 2), 0))
    with pytest.raises(DamagedStoreError, match="chunk 0 of first_row"):
        read_all(store.path)


WRONG = (None, "x", -1, 0, 1.5, True, math.nan, 2**70, [], {}, [None], {"a": "b"})


def attribute_names(store):
    return sorted(store.attrs)


@pytest.mark.slow
def test_any_attribute_missing_or_of_another_kind_is_an_error_or_changes_nothing(rows):
    matrices = rows.matrices[:]
    sound = {name: (rows.path / name).read_bytes() for name in ("zarr.json", "manifest.json")}
    n_refused = 0
    for name in attribute_names(rows):
        for wrong in (KeyError, *WRONG):
            for path, data in sound.items():
                (rows.path / path).write_bytes(data)

            def edit(attrs, name=name, wrong=wrong):
                attrs.pop(name)
                if wrong is not KeyError:
                    attrs[name] = wrong

            edit_attributes(rows.path, edit)
            try:
                opened = gb.MatrixStore.open(rows.path)
                repr(opened)
                read = opened.matrices[:]
            except StoreError:
                n_refused += 1
            else:
                np.testing.assert_array_equal(read, matrices)
    assert n_refused > 9 * len(attribute_names(rows))


@pytest.mark.slow
def test_any_part_of_a_manifest_of_another_kind_is_an_error_or_changes_nothing(rows):
    matrices, n_refused = rows.matrices[:], 0
    sound = (rows.path / "manifest.json").read_bytes()

    def places(value, path=()):
        yield path
        for key in value if isinstance(value, dict) else ():
            yield from places(value[key], (*path, key))

    def put(value, path, wrong):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = wrong

    found = []
    edit_manifest(rows.path, lambda value: found.extend(places(value)))
    for path in found[1:]:
        for wrong in WRONG:
            (rows.path / "manifest.json").write_bytes(sound)
            edit_manifest(rows.path, lambda value, p=path, w=wrong: put(value, p, w))
            try:
                read = gb.MatrixStore.open(rows.path).matrices[:]
            except StoreError:
                n_refused += 1
            else:
                np.testing.assert_array_equal(read, matrices)
    assert n_refused > 9 * len(found)


@pytest.mark.parametrize("wrong", [10**400, math.inf], ids=["digits", "infinity"])
def test_a_number_that_no_double_is_is_an_error(rows, wrong):
    edit_attributes(rows.path, lambda attrs: attrs["feature_stats"]["rsi"].update(mean=wrong))
    with pytest.raises(StoreError):
        gb.MatrixStore.open(rows.path)


def test_json_that_is_nested_without_end_is_an_error(rows):
    for name in ("manifest.json", "zarr.json"):
        sound = (rows.path / name).read_bytes()
        (rows.path / name).write_text("[" * 200_000)
        with pytest.raises(StoreError):
            gb.MatrixStore.open(rows.path)
        (rows.path / name).write_bytes(sound)


def test_sizes_that_no_file_has_are_an_error_before_anything_is_allocated(rows):
    edit_attributes(rows.path, lambda attrs: attrs.update(shard_chunks=2**40))
    with pytest.raises(DamagedStoreError, match="shard_chunks"):
        gb.MatrixStore.open(rows.path)
    edit_attributes(rows.path, lambda attrs: attrs.update(shard_chunks=512, block_rows=2**40))
    with pytest.raises(DamagedStoreError, match="chunks of"):
        gb.MatrixStore.open(rows.path)


def test_a_manifest_of_a_terabyte_is_not_read(rows):
    os.truncate(rows.path / "manifest.json", 2**40)
    with pytest.raises(StoreError, match=r"has 1,099,511,627,776 bytes, at most"):
        gb.MatrixStore.open(rows.path)


@pytest.mark.parametrize("pattern", ["zarr.json", "*/zarr.json"])
def test_what_stands_in_the_place_of_metadata_is_told_as_what_it_is(rows, tmp_path, pattern):
    path = min(rows.path.glob(pattern))
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DamagedStoreError, match=r"zarr\.json is missing"):
        gb.MatrixStore.open(rows.path)
    path.mkdir()
    with pytest.raises(DamagedStoreError, match=r"zarr\.json is a folder"):
        gb.MatrixStore.open(rows.path)
    path.rmdir()
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedStoreError, match=r"zarr\.json leads out of the store"):
        gb.MatrixStore.open(rows.path)


@pytest.mark.parametrize("name", ["manifest.json", "zarr.json", "close_price/zarr.json"])
def test_a_pipe_in_a_files_place_is_refused_and_not_waited_for(rows, name):
    (rows.path / name).unlink()
    os.mkfifo(rows.path / name)
    with pytest.raises(StoreError):
        gb.MatrixStore.open(rows.path)


def test_a_pipe_or_a_device_in_the_place_of_a_file_of_chunks_is_refused(rows):
    for name in ("features", "end_time"):
        path = rows.path / next(one for one in rows.spec.arrays if one.name == name).file(0)
        path.rename(path.with_name("kept"))
        for make in (os.mkfifo, lambda there: there.symlink_to("/dev/zero")):
            make(path)
            with pytest.raises(DamagedStoreError, match="no ordinary file"):
                read_all(rows.path)
            assert not gb.MatrixStore.open(rows.path).verify().ok
            path.unlink()
        path.with_name("kept").rename(path)
    read_all(rows.path)
