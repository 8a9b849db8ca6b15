"""Loops that are cut short: by a store that goes away, an error, Ctrl-C, or the caller."""

import gc
import shutil
import signal
import threading
import time

import pytest
from leaks import assert_no_threads, assert_none_opened, open_files

import grandbatch as gb
from grandbatch.errors import DamagedStoreError, StoreChangedError
from grandbatch.loader import batches
from grandbatch.loader.stream import _Queue
from grandbatch.loader.table import Table


@pytest.fixture(params=["windows", "rows"])
def store(request, make_store, monkeypatch):
    """313 windows in 20 chunks, of which three are mixed and few are gathered at once."""
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 16)
    return make_store(400, layout=request.param, overlap=47)


def make_stream(store, prefetch, **options):
    config = gb.BatchConfig(batch_size=8, sequence_length=48, overlap=store.overlap, cache_bytes=0)
    loader = gb.SlidingWindowDataLoader(store, config, **{"shuffle_chunks": 3, **options})
    return gb.DataStreamer(loader, prefetch)


def test_who_waits_for_a_block_helps_to_decode_it(store, monkeypatch):
    fill, helped, names = Table.fill, threading.Event(), set()

    def slow_fill(table, slot, chunk, files):
        name = threading.current_thread().name
        names.add(name.rpartition("_")[0] or name)
        if name.startswith("grandbatch-decode"):
            assert helped.wait(120), "nobody else decodes"
        fill(table, slot, chunk, files)
        helped.set()

    monkeypatch.setattr(Table, "fill", slow_fill)
    seen = [i for batch in make_stream(store, 0) for i in batch.index.tolist()]
    assert sorted(seen) == list(range(len(store)))
    assert names == {"grandbatch-decode", "MainThread"}


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_store_deleted_file_by_file_is_an_error_whichever_file_goes_first(
    store, tmp_path, prefetch
):
    files = [path.relative_to(store.path) for path in store.path.rglob("*") if path.is_file()]
    used = [path for path in files if path.name not in ("zarr.json", ".complete")]
    for first in used:
        copy = tmp_path / "copy.zarr"
        shutil.copytree(store.path, copy)
        stream = make_stream(gb.MatrixStore.open(copy), prefetch)
        batches = iter(stream)
        next(batches)
        (copy / first).unlink()
        stream.loader.set_epoch(0)
        del batches
        with pytest.raises((DamagedStoreError, StoreChangedError)) as caught:
            list(stream)
        name = first.parts[0]
        assert ("deleted" if name == "manifest.json" else f"of {name} is damaged") in str(
            caught.value
        )
        shutil.rmtree(copy)
    assert_no_threads()


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_store_that_goes_away_in_the_middle_of_an_epoch_is_an_error(store, prefetch):
    stream = make_stream(store, prefetch, shuffle=False)
    batches = iter(stream)
    seen = [next(batches) for _ in range(3)]
    shutil.rmtree(store.path)
    with pytest.raises((StoreChangedError, DamagedStoreError)):
        seen.extend(batches)
    assert 3 <= len(seen) < len(stream)
    assert_no_threads()


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_store_replaced_in_the_middle_of_an_epoch_is_an_error_though_its_bytes_are_the_same(
    store, tmp_path, prefetch
):
    shutil.copytree(store.path, tmp_path / "twin.zarr")
    batches = iter(make_stream(store, prefetch))
    next(batches)
    store.path.rename(tmp_path / "former.zarr")
    (tmp_path / "twin.zarr").rename(store.path)
    with pytest.raises(StoreChangedError, match="replaced"):
        list(batches)
    assert_no_threads()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_an_error_names_the_chunk_and_leaves_the_state_before_it(store, prefetch):
    stream = make_stream(store, prefetch, shuffle=False)
    chunk = 13
    reader = store._readers[store.spec.data.name]
    path = store.path / store.spec.data.file(0)
    raw = bytearray(path.read_bytes())
    raw[reader.offset(chunk) + 20] ^= 16
    path.write_bytes(raw)
    seen = []
    with pytest.raises(DamagedStoreError, match=rf"chunk {chunk} of {store.spec.data.name}"):
        seen.extend(stream)
    assert [n for batch in seen for n in batch.index.tolist()] == list(range(chunk * 16))
    assert stream.state_dict()["position"] == seen[-1].position.to_json()
    assert_no_threads()


@pytest.mark.parametrize("name", ["end_time", "symbol"])
def test_a_damaged_value_costs_no_windows_of_chunks_that_were_read_with_it(store, name):
    stream = make_stream(store, 0, shuffle=False, shuffle_chunks=20)
    path, chunk = store.path / name / "c/0", 13
    assert stream.loader.store.n_chunks == 20
    raw = bytearray(path.read_bytes())
    raw[chunk * 16 * getattr(store, name).dtype.itemsize] ^= 16
    path.write_bytes(raw)
    seen = []
    with pytest.raises(DamagedStoreError, match=f"of {name} is damaged: values 208 to 224"):
        seen.extend(stream)
    assert [n for batch in seen for n in batch.index.tolist()] == list(range(chunk * 16))


class Reading:
    """Chunks as they are read, each in its time: what happens meanwhile may take its own."""

    def __init__(self, patch):
        self.chunks = []
        self.interrupt_at = None
        self.answered = threading.Event()
        self.held, self.let_go = False, threading.Event()
        read = gb.MatrixStore.read_chunk

        def slowly(store, chunk, *more):
            self.chunks.append(chunk)
            self.take_time(len(self.chunks))
            return read(store, chunk, *more)

        patch.setattr(gb.MatrixStore, "read_chunk", slowly)
        # chunks that take so long are large, and not read together
        patch.setattr(gb.MatrixStore, "read_chunks", lambda *_: False)

    def take_time(self, number):
        main = threading.main_thread()
        if self.interrupt_at is not None and number >= self.interrupt_at:
            if number == self.interrupt_at:
                signal.pthread_kill(main.ident, signal.SIGINT)
            if threading.current_thread() is not main:
                # no other chunk is begun before the interrupt was heard, and could be answered
                assert self.answered.wait(120)
                time.sleep(0.5)
        elif self.held:
            assert self.let_go.wait(120)
        time.sleep(0.05)

    def hear(self, *_):
        self.answered.set()
        raise KeyboardInterrupt


@pytest.fixture
def reading(monkeypatch):
    """Chunks that take 50 ms each, and a count of them."""
    before = signal.getsignal(signal.SIGINT)
    found = Reading(monkeypatch)
    signal.signal(signal.SIGINT, found.hear)
    yield found
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 2])
def test_ctrl_c_ends_reading_at_once_and_the_next_loop_starts_clean(store, reading, prefetch):
    stream = make_stream(store, prefetch, shuffle_chunks=20)
    # the block has 20 chunks, two at a time
    reading.interrupt_at = 5
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert len(reading.chunks) < 12
    assert_no_threads()
    assert len(reading.chunks) < 12
    reading.interrupt_at = None
    # what had been decoded is kept, but for a chunk that was cut short in the caller's own thread
    assert sum(len(batch) for batch in stream) == len(store)
    assert set(reading.chunks) == set(range(store.n_chunks))
    assert len(reading.chunks) <= store.n_chunks + (prefetch == 0)


def test_closing_a_stream_does_not_wait_for_a_whole_block(store, reading, monkeypatch):
    close = _Queue.close

    def close_and_let_go(queue):
        close(queue)
        reading.let_go.set()

    monkeypatch.setattr(_Queue, "close", close_and_let_go)
    batches = iter(make_stream(store, 2, shuffle_chunks=4))
    next(batches)
    reading.held = True
    done = len(reading.chunks)
    batches.close()
    assert len(reading.chunks) <= done + 2
    assert_no_threads()


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_leaving_early_leaks_no_thread_no_file_and_no_table(store, prefetch):
    stream = make_stream(store, prefetch)
    for _ in stream:
        break
    stream.close()
    gc.collect()
    files, tables = open_files(), stream.loader._buffers._idle[0]
    for left_behind in range(30):
        for number, _batch in enumerate(stream):
            if number == left_behind:
                break
        del _batch
        stream.close()
        assert_no_threads()
    assert_none_opened(files)
    assert stream.loader._buffers._idle[0] is tables
