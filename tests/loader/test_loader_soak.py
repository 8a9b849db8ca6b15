"""Memory and threads over many epochs, and over one long one.

`GRANDBATCH_SOAK_WINDOWS=20000000` makes the long epoch as long as that; the default takes seconds.
"""

import gc
import multiprocessing
import os
import threading

import numpy as np
import psutil
import pytest

import grandbatch as gb
from grandbatch.builder.settings import make_settings
from grandbatch.order import default_shuffle_chunks, shuffle_vif

WINDOWS = int(os.environ.get("GRANDBATCH_SOAK_WINDOWS", "400000"))


def standing():
    """Resident bytes, threads and open files of this process."""
    process = psutil.Process()
    return process.memory_info().rss, threading.active_count(), process.num_fds()


def two_hundred_epochs(path, prefetch):
    """The standing of a process that does nothing else, after each tenth epoch."""
    store = gb.MatrixStore.open(path)
    config = gb.BatchConfig(batch_size=64, sequence_length=48, overlap=47, cache_bytes=0)
    stream = gb.DataStreamer(gb.SlidingWindowDataLoader(store, config, shuffle_chunks=8), prefetch)
    course = []
    for epoch in range(200):
        assert sum(len(batch) for batch in stream) == len(store)
        if epoch >= 20 and epoch % 10 == 9:
            gc.collect()
            course.append(standing())
    return course


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 2])
def test_two_hundred_epochs_leave_no_trace(make_store, prefetch):
    store = make_store(1000, layout="rows", overlap=47)
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        course = processes.apply(two_hundred_epochs, (store.path, prefetch))
    rss, threads, files = zip(*course, strict=True)
    assert max(rss) - rss[0] < 8 * 2**20
    assert set(threads) == {threads[0]}
    assert set(files) == {files[0]}


def one_long_epoch(path):
    """How often each window came, and the standing while the second half ran and after it."""
    store = gb.MatrixStore.open(path)
    config = gb.BatchConfig(batch_size=1024, sequence_length=48, overlap=47, cache_bytes=0)
    loader = gb.SlidingWindowDataLoader(store, config)
    assert loader.shuffle_vif <= 2
    assert loader.buffer_bytes <= 64_000_000
    times = np.zeros(len(store), np.uint8)
    course = []
    for number, batch in enumerate(loader):
        times[batch.index.numpy()] += 1
        if number > len(loader) // 2:
            course.append(standing())
    return times, course, standing()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_epoch_stays_within_its_buffers(tmp_path):
    source = tmp_path / "bars.csv"
    gb.create_large_dataset_simulation(source, WINDOWS + 87)
    store = gb.build_store(source, tmp_path / "s.zarr", overlap=47, layout="rows")
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        times, course, after = processes.apply(one_long_epoch, (store.path,))
    assert (times == 1).all()
    rss, threads, files = zip(*course, strict=True)
    assert max(rss) - rss[0] < 16 * 2**20
    assert len(set(threads)) == 1
    assert max(files) < 64
    assert after[1] < threads[0]


@pytest.mark.parametrize("n_windows", [10_000, 10**6, 10**8, 10**10])
def test_the_default_shuffle_of_overlapping_windows_is_good_for_any_size_of_store(n_windows):
    chunk_windows = default_chunk_windows(47)
    n_chunks = -(-n_windows // chunk_windows)
    chunk_bytes = (chunk_windows - 1 + 48) * 13 * 4
    chunks = default_shuffle_chunks(n_chunks, chunk_bytes, shuffle=True)
    assert shuffle_vif(1024, chunks, n_chunks) <= 2
    labels = chunk_windows * 40
    assert 2 * chunks * (chunk_bytes + labels) <= 64_000_000


def default_chunk_windows(overlap):
    return make_settings("strategic", None, overlap, "rows", None, "auto", None).chunk_windows


@pytest.mark.parametrize(("overlap", "windows"), [(47, 256), (25, 256), (24, 1024), (12, 1024)])
def test_chunks_are_smaller_where_windows_overlap(overlap, windows):
    assert default_chunk_windows(overlap) == windows
