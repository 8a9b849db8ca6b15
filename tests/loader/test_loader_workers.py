"""Under a `DataLoader`'s worker processes the loader goes from epoch to epoch by itself."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import resource
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info
from waiting import wait_until

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.loader.standing import workers
from grandbatch.loader.standing.workers import WorkerEpochs

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning",
    "ignore:'set_vital' is deprecated:UserWarning",
    "ignore:This process .* is multi-threaded:DeprecationWarning",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    gb.create_large_dataset_simulation(folder / "bars.csv", num_rows=700)
    return gb.build_store(folder / "bars.csv", folder / "s.zarr", overlap=47, layout="rows")


@pytest.fixture
def loader(store):
    """88 batches of 7 windows, the last of 4."""
    config = gb.BatchConfig(batch_size=7, sequence_length=48, overlap=47)
    return gb.SlidingWindowDataLoader(store, config, seed=3)


@pytest.fixture
def epochs(store):
    """Windows of the first epochs, as a loader without workers hands them over."""
    config = gb.BatchConfig(batch_size=7, sequence_length=48, overlap=47)
    alone = gb.SlidingWindowDataLoader(store, config, seed=3)
    return [windows(alone) for _ in range(4)]


def windows(batches):
    return [number for batch in batches for number in batch.index.tolist()]


def through_pickle(loader):
    return pickle.loads(pickle.dumps(loader))


def by_workers(loader, workers=2, **options):
    return DataLoader(loader, batch_size=None, num_workers=workers, **options)


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_three_iterations_are_three_epochs(loader, epochs, workers, persistent):
    batches = by_workers(loader, workers, persistent_workers=persistent)
    for number in range(3):
        assert loader.epoch == number
        assert windows(batches) == epochs[number]


def test_a_new_dataloader_for_each_epoch_goes_on_too(loader, epochs):
    assert [windows(by_workers(loader)) for _ in range(3)] == epochs[:3]


def test_a_fixed_seed_of_torch_does_not_repeat_an_epoch(loader, epochs):
    batches = by_workers(loader)
    for number in range(3):
        torch.manual_seed(0)
        assert windows(batches) == epochs[number]


def test_after_a_resume_the_rest_of_the_epoch_comes_once_and_then_the_next(loader, epochs):
    loader.set_epoch(1)
    for number, batch in enumerate(by_workers(loader)):
        if number == 9:
            state = loader.state_at(batch.position)
            break
    loader.load_state_dict(state)
    batches = by_workers(loader)
    assert windows(batches) == epochs[1][70:]
    assert windows(batches) == epochs[2]
    assert windows(batches) == epochs[3]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_left_early_comes_again_whole_in_every_worker(loader, epochs, persistent):
    batches = by_workers(loader, 2, persistent_workers=persistent)
    for number in range(2):
        for _batch, _ in zip(batches, range(3), strict=False):
            pass
        assert windows(batches) == epochs[number]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("left_at", range(80, 88))
def test_an_epoch_left_near_its_end_is_the_same_for_all_workers(
    loader, epochs, left_at, persistent
):
    """Some workers may have prepared all of theirs by then: they come to terms."""
    batches = by_workers(loader, 2, persistent_workers=persistent)
    for number, _batch in enumerate(batches, start=1):
        if number == left_at:
            break
    first = windows(batches)
    assert first in epochs[:2]
    assert windows(batches) == epochs[epochs.index(first) + 1]


class Late(gb.SlidingWindowDataLoader):
    """Some of its workers take their time to finish an epoch, or to begin one."""

    late, delay, late_to_begin = 1, 0.4, False

    def finish(self, handover):
        if self._is_late():
            time.sleep(self.delay)
        super().finish(handover)

    def __iter__(self):
        if self.late_to_begin and self._is_late():
            time.sleep(self.delay)
        return super().__iter__()

    def _is_late(self):
        worker = get_worker_info()
        return worker is not None and worker.id == self.late


@pytest.fixture
def late(store):
    config = gb.BatchConfig(batch_size=7, sequence_length=48, overlap=47)
    return Late(store, config, seed=3)


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("slow", [0, 1])
def test_a_worker_that_still_finishes_when_the_next_iteration_begins_is_waited_for(
    late, epochs, slow, stateful
):
    made = DataLoader
    if stateful:
        made = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    late.late = slow
    batches = made(late, batch_size=None, num_workers=2, persistent_workers=True)
    for number, _batch in enumerate(batches, start=1):
        if number == 86:  # both were asked for their last batch, and for what is behind it
            break
    assert windows(batches) == epochs[1]
    assert windows(batches) == epochs[2]


@pytest.mark.slow
def test_iterations_begun_and_left_at_once_change_nothing(late, epochs):
    late.late_to_begin, late.delay = True, 0.05
    batches = by_workers(late, 3, persistent_workers=True)
    assert windows(batches) == epochs[0]
    for _ in range(5):
        iter(batches)
    assert windows(batches) == epochs[1]
    iter(batches)
    late.set_epoch(3)
    assert windows(batches) == epochs[3]
    iter(batches)
    late.set_epoch(0)
    iter(batches)
    assert windows(batches) == epochs[0]
    assert windows(batches) == epochs[1]


@pytest.mark.slow
def test_two_dataloaders_over_one_loader_take_turns(loader, epochs):
    one, other = (by_workers(loader, 2, persistent_workers=True) for _ in range(2))
    for number in range(4):
        torch.manual_seed(0)
        assert windows(other if number % 2 else one) == epochs[number]
    loader.set_epoch(0)
    assert windows(by_workers(loader, 3)) == epochs[0]
    loader.set_epoch(1)
    assert windows(one) == epochs[1]


@pytest.mark.slow
def test_workers_ended_before_they_began_do_not_lag_behind(late, epochs):
    late.late_to_begin, late.delay = True, 120.0
    batches, slots = by_workers(late, 2), late._standing.workers._slots
    iterator = iter(batches)
    wait_until(lambda: slots[0, 0])
    os.kill(iterator._workers[1].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        next(iterator)
    assert slots[:2, 0].tolist() == [1, 0]
    late.late_to_begin, late.delay = False, 0.0
    del iterator
    gc.collect()  # the error holds on to the worker that is left
    assert [windows(batches) for _ in range(3)] == epochs[:3]


@pytest.mark.slow
def test_a_worker_that_never_begins_is_waited_for_no_longer_than_stated(late, epochs, monkeypatch):
    monkeypatch.setattr("grandbatch.loader.standing.workers.WAIT_SECONDS", 0.3)
    late.late_to_begin, late.delay = True, 2.0
    with pytest.raises(UsageError, match=r"worker 1 of 2 did not begin .* make a new DataLoader"):
        windows(by_workers(late, 2))
    late.late_to_begin, late.delay = False, 0.0
    assert windows(by_workers(late, 2)) == epochs[0]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_set_epoch_reaches_the_workers(loader, epochs, persistent):
    batches = by_workers(loader, persistent_workers=persistent)
    for number in (2, 0, 1):
        loader.set_epoch(number)
        assert windows(batches) == epochs[number]
    assert windows(batches) == epochs[2]


def test_iterating_with_and_without_workers_is_one_sequence(loader, epochs):
    batches = by_workers(loader, persistent_workers=True)
    assert windows(batches) == epochs[0]
    assert windows(loader) == epochs[1]
    assert windows(batches) == epochs[2]
    assert loader.position == loader.position.from_json(loader.state_dict()["position"])
    assert loader.position.epoch == 3
    assert windows(loader) == epochs[3]


def test_a_state_loaded_behind_persistent_workers_is_refused_with_a_word(loader, epochs):
    batches = by_workers(loader, persistent_workers=True)
    assert windows(batches) == epochs[0]
    loader.load_state_dict(loader.state_dict())
    with pytest.raises(UsageError, match="make a new DataLoader after load_state_dict"):
        windows(batches)
    del batches
    assert windows(by_workers(loader)) == epochs[1]


def test_another_number_of_workers_is_refused_until_the_epoch_is_said(loader, epochs):
    assert windows(by_workers(loader, 2)) == epochs[0]
    with pytest.raises(UsageError, match=r"after 2 workers now 3: call loader\.set_epoch"):
        windows(by_workers(loader, 3))
    loader.set_epoch(loader.epoch)
    assert windows(by_workers(loader, 3)) == epochs[1]


@pytest.mark.slow
def test_workers_that_begin_late_of_a_refused_iteration_disturb_none(loader, epochs, monkeypatch):
    begin = WorkerEpochs.begin
    version = loader._standing.workers._version

    def late(self, worker, epoch):
        if worker.id and worker.num_workers == 3:
            time.sleep(0.5 if self._version == version else 1.5)
        return begin(self, worker, epoch)

    assert windows(by_workers(loader, 2)) == epochs[0]
    monkeypatch.setattr(WorkerEpochs, "begin", late)
    monkeypatch.setattr(workers, "WAIT_SECONDS", 10.0)
    refused = iter(by_workers(loader, 3))
    with pytest.raises(UsageError, match="after 2 workers now 3"):
        next(refused)
    loader.set_epoch(loader.epoch)
    assert windows(by_workers(loader, 3)) == epochs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))]
)
def test_a_copy_of_a_loader_has_epochs_of_its_own(loader, epochs, copied):
    assert windows(by_workers(loader)) == epochs[0]
    other = copied(loader)
    assert [windows(by_workers(other)) for _ in range(2)] == epochs[1:3]
    assert [windows(by_workers(loader)) for _ in range(2)] == epochs[1:3]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_are_no_forks_go_on_too(loader, epochs, start):
    batches = by_workers(loader, 2, multiprocessing_context=start)
    assert [windows(batches) for _ in range(3)] == epochs[:3]


def test_a_loader_that_came_from_another_process_asks_for_the_epoch(loader, epochs, monkeypatch):
    monkeypatch.setattr(loader._standing.workers, "_owner", 1)
    with pytest.raises(UsageError, match=r"call loader\.set_epoch\(epoch\) in the process"):
        windows(by_workers(loader))
    loader.set_epoch(1)
    assert [windows(by_workers(loader)) for _ in range(2)] == epochs[1:3]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_a_stateful_dataloader_goes_from_epoch_to_epoch(loader, epochs, persistent):
    module = pytest.importorskip("torchdata.stateful_dataloader")

    def made():
        return module.StatefulDataLoader(
            loader, batch_size=None, num_workers=2, persistent_workers=persistent
        )

    batches = made()
    assert windows(batches) == epochs[0]
    assert windows(batches) == epochs[1]
    for number, _batch in enumerate(batches):
        if number == 9:
            state = batches.state_dict()
            break
    del batches
    loader.set_epoch(0)
    resumed = made()
    resumed.load_state_dict(state)
    assert windows(resumed) == epochs[2][70:]
    assert windows(resumed) == epochs[3]


def test_a_loader_without_shared_memory_needs_no_workers_and_refuses_them(loader, epochs):
    # files may not be larger than this: a stand-in for a /dev/shm that is full
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        alone = copy.deepcopy(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(list(alone)) == len(list(loader))
    with pytest.raises(UsageError, match="no shared memory could be had"):
        next(iter(DataLoader(alone, batch_size=None, num_workers=1)))
