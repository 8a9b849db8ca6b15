"""Where tasks wait for requests more are under way than there are threads; never too many."""

from __future__ import annotations

import os
import threading
import time
from functools import partial

import pytest
from dask_processes import processes, start_scheduler, start_worker
from distributed import Client, LocalCluster

from grandbatch.scheduling import Schedule, open_schedule
from grandbatch.scheduling import turns as turns_module
from grandbatch.scheduling.turns import Turns, turn

THREADS = 2


@pytest.fixture(scope="module")
def here():
    """A client of a cluster inside this process, of one worker."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=THREADS,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as made,
        Client(made) as client,
    ):
        yield client


class Meeting:
    """Tasks that are under way until so many have met, and how many were at most."""

    def __init__(self, wanted):
        self.all_here = threading.Barrier(wanted)
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __reduce__(self):
        raise AssertionError("it is of this process")

    def attend(self, number):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.all_here.wait(60)
            return number
        finally:
            with self.lock:
                self.now -= 1


meetings = {}


def attend(name, number):
    return meetings[name].attend(number)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_so_many_tasks_are_under_way_for_each_thread_and_no_more(here, turns):
    meeting = meetings["all"] = Meeting(turns * THREADS)
    schedule = Schedule.on_cluster(here).in_turns(turns)
    calls = [partial(attend, "all", n) for n in range(4 * turns * THREADS)]
    graph = {f"attend-{turns}-{n}": (call,) for n, call in enumerate(calls)}
    assert schedule.run_graph(graph, list(graph)) == [*range(len(calls))]
    assert meeting.most == turns * THREADS


def failing(number):
    raise ValueError(f"task {number} failed")


def test_tasks_that_fail_give_their_turns_back(here):
    schedule = Schedule.on_cluster(here).in_turns(2)
    for _ in range(3 * THREADS):
        with pytest.raises(ValueError, match="failed"):
            schedule.run([partial(failing, n) for n in range(4)])
    meetings["after"] = Meeting(2 * THREADS)
    graph = {f"after-{n}": (partial(attend, "after", n),) for n in range(2 * THREADS)}
    assert schedule.run_graph(graph, list(graph)) == [*range(2 * THREADS)]


def test_whoever_waits_with_the_larger_number_of_turns_goes_first():
    turns, began = Turns(), []

    def go(most):
        assert turns.take(most, 60)
        began.append(most)

    assert turns.take(2, 0)
    assert turns.take(2, 0)
    assert not turns.take(2, 0.01)
    waiting = [threading.Thread(target=go, args=(most,)) for most in (1, 2)]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    assert not began
    turns.give_back()
    waiting[1].join(60)
    assert began == [2]
    turns.give_back()
    turns.give_back()
    waiting[0].join(60)
    assert began == [2, 1]


def test_a_task_that_waits_for_long_goes_to_a_worker_that_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr(turns_module, "_WAIT_SECONDS", 0.1)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        meetings["late"] = Meeting(4)
        graph = {f"late-{n}": (partial(attend, "late", n),) for n in range(4)}
        scaled = threading.Timer(0.5, cluster.scale, [2])
        scaled.start()
        schedule = Schedule.on_cluster(client).in_turns(2)
        assert schedule.run_graph(graph, list(graph)) == [*range(4)]
        scaled.join()


def test_outside_of_a_worker_nobody_waits():
    with turn(1), turn(1):
        pass


def test_threads_of_this_process_have_one_task_each():
    assert Schedule.local("threads", 3).in_turns(2).tasks_at_once == 3


@pytest.mark.slow
def test_a_worker_that_is_killed_with_two_tasks_under_way_costs_these_tasks_only(tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()

    def tell_and_wait(number):  # not of this module, which the others can't import
        (begun / f"{number}-{os.getpid()}").touch()
        time.sleep(0.3)
        return number

    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started.append(scheduler)
        started += [start_worker(address, tmp_path / f"w{n}") for n in range(2)]
        victim = started[-1]

        def kill():
            while len([*begun.glob(f"*-{victim.pid}")]) < 2:
                time.sleep(0.01)
            victim.kill()

        with open_schedule(address, None) as schedule:
            schedule.client.wait_for_workers(2, timeout=120)
            killer = threading.Thread(target=kill)
            killer.start()
            calls = [partial(tell_and_wait, n) for n in range(24)]
            assert schedule.in_turns(2).run(calls) == [*range(24)]
            killer.join(60)
    assert victim.poll() is not None
    numbers = [int(path.name.partition("-")[0]) for path in begun.iterdir()]
    assert set(numbers) == {*range(24)}
    assert len(numbers) > 24
