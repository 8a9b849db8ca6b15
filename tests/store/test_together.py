"""Small chunks read by one call are those read one by one, or nothing of them is believed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from grandbatch.store import OpenFiles

VARIANTS = [
    {"layout": "rows", "overlap": 47},
    {"layout": "rows", "overlap": 24, "codec": "lz4"},
    {"layout": "rows", "overlap": 47, "codec": "zstd"},
    {"layout": "windows", "overlap": 47},
    {"layout": "windows", "overlap": 47, "codec": "lz4"},
    {"layout": "windows", "overlap": 40, "codec": "none"},
]


@pytest.fixture(params=VARIANTS, ids=str)
def store(request, make_store):
    return make_store(700, symbols=2, chunk_windows=8, **request.param)


def runs_of(store, chunk):
    """Numbers of windows that follow each other, by a plain loop."""
    first_row = store.read_labels(chunk).first_row.tolist()
    runs = [1]
    for before, row in pairwise(first_row):
        if row == before + store.stride:
            runs[-1] += 1
        else:
            runs.append(1)
    return tuple(runs)


def shape_of_slot(store):
    """(R, F), with room for a chunk's rows where it breaks twice."""
    rows = store.chunk_shape[0] if store.layout == "rows" else 3 * store.sequence_length + 8 * 8
    return rows, store.n_features


def read_together(store, chunks, slots):
    out = np.full((len(slots) + 3, *shape_of_slot(store)), 7, np.float32)
    runs = [runs_of(store, chunk) for chunk in chunks] if store.layout == "windows" else None
    with OpenFiles() as files:
        return store.read_chunks(chunks, out, slots, files, runs), out


def one_by_one(store, chunk):
    if store.layout == "rows":
        return store.read_chunk(chunk)
    out = np.full(shape_of_slot(store), 7, np.float32)
    return store.read_chunk(chunk, out, None, runs_of(store, chunk))


@pytest.mark.parametrize("pick", ["neighbours", "scattered", "one"])
def test_chunks_read_together_are_those_read_one_by_one(store, pick):
    some = {
        "neighbours": range(store.n_chunks - 1),
        "scattered": range(0, store.n_chunks - 1, 3),
        "one": [3],
    }
    chunks = list(some[pick])
    slots = np.random.default_rng(0).permutation(len(chunks) + 3)[: len(chunks)].tolist()
    were_read, out = read_together(store, chunks, slots)
    # each is decoded apart where the codec isn't one that rows are found in as they are
    assert were_read == (store.layout == "rows" or store.spec.data.codec == "zstd")
    if were_read:
        for chunk, slot in zip(chunks, slots, strict=True):
            np.testing.assert_array_equal(out[slot], one_by_one(store, chunk))
        untouched = sorted(set(range(len(out))) - set(slots))
        assert (out[untouched] == 7).all()


def test_a_changed_byte_among_chunks_read_together_is_noticed(store):
    chunks = [1, 2, 3, 5]
    whole, _ = read_together(store, chunks, [0, 1, 2, 3])
    data = store.spec.data
    lengths = store.array_reader(data.name).digests.length[: data.shard_chunks].tolist()
    path = store.path / data.file(0)
    content = path.read_bytes()
    for chunk in (1, 3, 5):
        begin = sum(lengths[:chunk])
        # its first byte, one in the middle, and the last of its checksum
        for at in (begin, begin + lengths[chunk] // 2, begin + lengths[chunk] - 1):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert not read_together(store, chunks, [0, 1, 2, 3])[0]
    path.write_bytes(content)
    assert read_together(store, chunks, [0, 1, 2, 3])[0] == whole


def test_what_is_cut_into_other_runs_is_left_to_be_read_one_by_one(make_store):
    store = make_store(700, symbols=1, chunk_windows=8, overlap=47)
    out = np.empty((2, *shape_of_slot(store)), np.float32)
    with OpenFiles() as files:
        assert store.read_chunks([0, 1], out, [0, 1], files, [(8,), (8,)])
        assert not store.read_chunks([0, 1], out, [0, 1], files, [(7,), (7,)])
        assert not store.read_chunks([0, 1], out, [0, 1], files, [(8,), (4, 4)])
        assert not store.read_chunks([0, 1], out, [0, 1], files, [(4, 4), (4, 4)])
