"""The stream: the loader's batches prepared ahead, and nothing else changed."""

import signal
import subprocess
import sys
import time

import pytest
from leaks import assert_no_threads, loader_threads
from waiting import wait_until

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.loader import batches

PROGRAM = """
import sys
import grandbatch as gb

store = gb.MatrixStore.open(sys.argv[1])
config = gb.BatchConfig(
    batch_size=1, sequence_length=48, overlap=12, prefetch_batches=int(sys.argv[2])
)
while True:
    for batch in gb.DataStreamer(gb.SlidingWindowDataLoader(store, config)):
        print(len(batch), flush=True)
"""


@pytest.fixture
def loader(make_store, monkeypatch):
    """41 batches of 3 windows, gathered six windows at a time."""
    monkeypatch.setattr(batches, "SLAB_WINDOWS", 6)
    store = make_store(210, layout="rows", overlap=47)
    config = gb.BatchConfig(batch_size=3, sequence_length=48, overlap=47, cache_bytes=0)
    return gb.SlidingWindowDataLoader(store, config, shuffle_chunks=2)


def sequence(batches):
    return [(batch.index.tolist(), batch.position) for batch in batches]


def test_the_sequence_is_the_same_for_any_prefetch_over_epochs(loader):
    expected = [sequence(loader) for _ in range(3)]
    for prefetch in (0, 1, 2, 7, 100):
        stream = gb.DataStreamer(loader, prefetch)
        loader.set_epoch(0)
        assert [sequence(stream) for _ in range(3)] == expected
        assert len(stream) == 41
    assert_no_threads()


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_the_state_is_that_of_the_batch_handed_over(loader, prefetch):
    stream = gb.DataStreamer(loader, prefetch)
    assert stream.state_dict()["position"]["step"] == 0
    for batch in stream:
        time.sleep(0.001)
        assert stream.state_dict()["position"] == batch.position.to_json()
    assert stream.state_dict()["position"]["epoch"] == 1


@pytest.mark.parametrize("prefetch", [0, 1, 5, 100])
def test_an_epoch_left_early_starts_again_though_all_of_it_was_prepared(loader, prefetch):
    expected = sequence(loader)
    loader.set_epoch(0)
    stream = gb.DataStreamer(loader, prefetch)
    for number, _ in enumerate(stream):
        time.sleep(0.002)
        if number == 10:
            break
    assert loader.epoch == 0
    state = stream.state_dict()
    assert sequence(stream) == expected
    stream.load_state_dict(state)
    assert sequence(stream) == expected[11:]


def test_no_more_is_prepared_than_asked_for(loader, monkeypatch):
    prepared = []
    batches = type(loader).batches

    def counted(self, *where):
        for batch in batches(self, *where):
            prepared.append(len(batch))
            yield batch

    monkeypatch.setattr(type(loader), "batches", counted)
    running = iter(gb.DataStreamer(loader, 3))
    for handed_over in range(1, 6):
        next(running)
        wait_until(lambda wanted=handed_over + 3: len(prepared) >= wanted)
        time.sleep(0.02)  # in which more would come
        assert len(prepared) == handed_over + 3
    running.close()


def test_leaving_the_loop_or_the_block_ends_the_thread(loader):
    stream = gb.DataStreamer(loader, 2)
    for _ in stream:
        break
    assert_no_threads()
    with gb.DataStreamer(loader, 2) as stream:
        running = iter(stream)
        next(running)
        assert loader_threads()
    assert_no_threads()
    assert list(running) == []


def test_iterating_again_ends_the_former_iteration(loader):
    stream = gb.DataStreamer(loader, 2)
    former = iter(stream)
    next(former)
    expected = sequence(loader)
    loader.set_epoch(0)
    assert sequence(stream) == expected
    assert list(former) == []


def test_an_error_comes_behind_the_batches_before_it(loader, monkeypatch):
    batches = type(loader).batches

    def failing(self, *where):
        for number, batch in enumerate(batches(self, *where)):
            if number == 7:
                raise OSError("the disk is gone")
            yield batch

    monkeypatch.setattr(type(loader), "batches", failing)
    for prefetch in (1, 4, 50):
        seen = []
        with pytest.raises(OSError, match="the disk is gone"):
            seen.extend(gb.DataStreamer(loader, prefetch))
        assert_no_threads()
        assert loader.state_dict()["position"]["step"] == 7


def test_an_error_of_the_consumer_ends_the_thread(loader):
    def train():
        for batch in gb.DataStreamer(loader, 2):
            raise RuntimeError(f"no use for {len(batch)} windows")

    with pytest.raises(RuntimeError, match="no use for 3 windows"):
        train()
    assert_no_threads()


@pytest.mark.parametrize("prefetch", [-1, 1.5, True])
def test_a_prefetch_that_makes_no_sense_is_refused(loader, prefetch):
    with pytest.raises(UsageError, match="prefetch_batches"):
        gb.DataStreamer(loader, prefetch)


def test_the_configs_prefetch_is_the_default(loader):
    assert gb.DataStreamer(loader).prefetch_batches == 2


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_interrupt_ends_the_process(make_store, prefetch):
    store = make_store(400)
    command = [sys.executable, "-c", PROGRAM, str(store.path), str(prefetch)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert errors.rstrip().endswith("KeyboardInterrupt")
