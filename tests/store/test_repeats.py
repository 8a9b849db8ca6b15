"""Frames of repeats are ordinary zstd: its own decoder gives the windows back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import zstd

from grandbatch.store.repeats import can_repeat, encode_repeats, pack_windows, rows_of_repeats


def windows_of(runs, length, stride):
    return np.concatenate(
        [run[s : s + length] for run in runs for s in range(0, len(run) - length + 1, stride)]
    ).reshape(-1, length, runs[0].shape[1])


@given(
    st.integers(2, 80),
    st.integers(1, 20),
    st.data(),
)
def test_the_windows_of_any_runs_come_back(length, n_features, data):
    stride = data.draw(st.integers(1, length - 1))
    counts = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    runs = [
        rng.normal(size=((n - 1) * stride + length, n_features)).astype(np.float32) for n in counts
    ]
    expected = windows_of(runs, length, stride)
    got = np.frombuffer(zstd.decompress(encode_repeats(runs, length, stride)), np.float32)
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)


@pytest.mark.parametrize("length", [2, 3, 400, 4000])
def test_long_and_short_windows_come_back(length):
    run = np.arange((20 + length) * 4, dtype=np.float32).reshape(-1, 4)
    assert can_repeat(length * 16, 16)
    got = np.frombuffer(zstd.decompress(encode_repeats([run], length, 1)), np.float32)
    np.testing.assert_array_equal(got.reshape(-1, length, 4), windows_of([run], length, 1))


def test_at_stride_one_each_row_is_stored_about_once():
    run = np.random.default_rng(0).normal(size=(1023 + 48, 13)).astype(np.float32)
    assert len(encode_repeats([run], 48, 1)) < 1.1 * run.nbytes


def test_windows_larger_than_half_a_block_are_left_to_the_compressor():
    assert not can_repeat(65 * 1024, 52)
    assert not can_repeat(2496, 2496)


@given(st.integers(2, 80), st.integers(1, 20), st.data())
def test_the_rows_of_any_runs_are_in_the_frame_as_they_are(length, n_features, data):
    stride = data.draw(st.integers(1, length - 1))
    counts = tuple(data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    runs = [
        rng.normal(size=((n - 1) * stride + length, n_features)).astype(np.float32) for n in counts
    ]
    frame = np.frombuffer(encode_repeats(runs, length, stride), np.uint8)
    rows = np.concatenate(runs)
    taken, packed = np.empty_like(rows), np.empty_like(rows)
    assert rows_of_repeats(frame, counts, length, stride, taken)
    pack_windows(windows_of(runs, length, stride), counts, stride, packed)
    assert taken.tobytes() == packed.tobytes() == rows.tobytes()


def test_what_is_no_such_frame_to_the_byte_is_told():
    run = np.random.default_rng(0).normal(size=(99 + 48, 13)).astype(np.float32)
    frame = encode_repeats([run], 48, 1)
    taken = np.empty_like(run)

    def is_taken(frame, counts=(100,), stride=1):
        return rows_of_repeats(np.frombuffer(frame, np.uint8), counts, 48, stride, taken)

    assert is_taken(frame)
    assert not is_taken(zstd.compress(windows_of([run], 48, 1)))
    assert not is_taken(frame[:-1])
    assert not is_taken(frame + b"\0")
    assert not is_taken(frame[:100])
    assert not is_taken(frame, counts=(60, 40))
    assert not is_taken(frame, counts=(99,))
    assert not is_taken(frame, counts=(50,), stride=2)
    first_sequences = 9 + 3 + 47 * 52 + 3 + 3 + 52 * 52
    changed = bytearray(frame)
    changed[first_sequences + 5] ^= 1
    assert not is_taken(bytes(changed))
