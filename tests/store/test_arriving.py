"""Chunks decoded as they come are those read one by one, or nothing of them is believed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from grandbatch.store import OpenFiles
from grandbatch.store.reading.arriving import decode_as_they_come

VARIANTS = [
    {"layout": "windows", "overlap": 12},
    {"layout": "windows", "overlap": 12, "codec": "zstd"},
    {"layout": "rows", "overlap": 24, "codec": "lz4"},
    {"layout": "rows", "overlap": 47, "codec": "zstd"},
]
CHUNKS, SLOTS = range(1, 5), [5, 0, 3, 2]


@pytest.fixture(params=VARIANTS, ids=str)
def store(request, make_store):
    return make_store(2_000, symbols=2, chunk_windows=8, **request.param)


class InPieces(OpenFiles):
    """Files whose answers come in pieces of a size, and may be cut once, and begin again."""

    def __init__(self, size, cut_after=None):
        super().__init__()
        self.size, self.cut_after = size, cut_after

    def receive(self, reader, chunk, start, stop, take):
        data = bytearray(stop - start)
        n_bytes = self.get(reader, chunk).read_into([data], start)
        for end in (self.cut_after, n_bytes):
            for at in range(0, end or 0, self.size):
                take(at, memoryview(data)[at : min(at + self.size, end)])
        return n_bytes


def decoded(store, files):
    """Whether chunks came, and what is in eight slots then."""
    rows = store.chunk_shape[0] * (store.sequence_length if store.layout == "windows" else 1)
    out = np.full((8, rows + 1, store.n_features), 7, np.float32)
    data = store.array_reader(store.spec.data.name)
    with files:
        return decode_as_they_come(data, CHUNKS, out, SLOTS, files), out


@pytest.mark.parametrize("cut_after", [None, 1, 5_000])
@pytest.mark.parametrize("size", [7, 1_000, 2**20])
def test_chunks_that_come_in_any_pieces_are_those_read_one_by_one(store, size, cut_after):
    came, out = decoded(store, InPieces(size, cut_after))
    assert came
    for chunk, slot in zip(CHUNKS, SLOTS, strict=True):
        expected = store.read_chunk(chunk)
        np.testing.assert_array_equal(out[slot, :-1].reshape(expected.shape), expected)
    # nothing else is touched
    assert (out[:, -1] == 7).all()
    assert (out[sorted(set(range(8)) - set(SLOTS))] == 7).all()


def test_a_changed_byte_or_a_missing_end_is_noticed(store):
    data = store.spec.data
    lengths = store.array_reader(data.name).digests.length[: data.shard_chunks].tolist()
    assert len(lengths) > CHUNKS[-1]
    path = store.path / data.file(0)
    content = path.read_bytes()
    for chunk in (CHUNKS[0], CHUNKS[-1]):
        begin = sum(lengths[:chunk])
        for at in (begin, begin + lengths[chunk] // 2, begin + lengths[chunk] - 1):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert not decoded(store, InPieces(1_000))[0]
    path.write_bytes(content)
    assert decoded(store, InPieces(1_000))[0]

    class EndsBefore(InPieces):
        def receive(self, reader, chunk, start, stop, take):
            return super().receive(reader, chunk, start, stop - 1, take)

    assert not decoded(store, EndsBefore(1_000))[0]


def test_of_an_answer_no_more_than_a_chunk_is_held(make_store):
    store = make_store(20_000, chunk_windows=32, overlap=12, codec="lz4")
    data = store.array_reader("matrices")
    chunks = range(min(store.n_chunks, store.spec.data.shard_chunks) - 1)
    n_bytes = int(data.digests.length[: len(chunks)].sum())
    largest = int(data.digests.length.max())
    assert n_bytes > 10 * largest
    out = np.empty((len(chunks), 32 * store.sequence_length, store.n_features), np.float32)
    with OpenFiles() as files:
        tracemalloc.start()
        try:
            assert decode_as_they_come(data, chunks, out, list(chunks), files)
            held = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # and a piece of what is on a disk
    assert held < largest + 2**18 + 100_000
