"""Tasks give the same results wherever they run, and are heard of one by one."""

from __future__ import annotations

from functools import partial

import pytest
from distributed.process import AsyncProcess

from grandbatch.errors import UsageError
from grandbatch.files.system import available_cores
from grandbatch.scheduling import Schedule, fuller_waves, open_schedule, opening
from grandbatch.scheduling.origin import Origin, guard
from grandbatch.scheduling.schedule import MOST_CALLS_PER_TASK, in_tasks


@pytest.mark.parametrize(
    "schedule", [Schedule.local("sync"), Schedule.local("threads", 1), Schedule.local("threads", 3)]
)
def test_results_come_in_order_and_each_is_heard_of_once(schedule):
    heard = []
    tasks = [partial(pow, n, 2) for n in range(20)]
    assert schedule.run(tasks, heard.append) == [n**2 for n in range(20)]
    assert sorted(heard) == [n**2 for n in range(20)]


def test_the_error_of_a_task_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        Schedule.local("threads", 2).run([partial(divmod, 1, 0)])


def test_nothing_to_do_is_nothing():
    assert Schedule.local().run([]) == []


def test_threads_are_as_many_as_cores_by_default():
    assert Schedule.local().workers == available_cores()


@pytest.mark.parametrize("workers", [0, -1])
@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_less_than_one_worker_is_refused(scheduler, workers):
    with pytest.raises(UsageError, match="at least 1"):
        Schedule.local(scheduler, workers)


@pytest.mark.parametrize("name", ["thread", "processes", "8786"])
def test_an_unknown_scheduler_is_refused(name):
    with pytest.raises(UsageError, match="unknown scheduler"), open_schedule(name, None):
        pass


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_worker_that_takes_its_time_to_end_is_no_warning_of_ours(monkeypatch, caplog, is_ours):
    join, late = AsyncProcess.join, []

    async def join_late(process, timeout=None):
        if not late:
            late.append(process)
            raise TimeoutError
        await join(process, timeout)

    monkeypatch.setattr(AsyncProcess, "join", join_late)
    if not is_ours:
        monkeypatch.setattr(opening, "_is_no_end", lambda record: True)
    with open_schedule(None, 1) as schedule:
        assert schedule.run([partial(pow, 2, 3)]) == [8]
    assert late
    assert ("still alive after" in caplog.text) is not is_ours


def test_waves_that_are_small_are_run_with_those_behind(monkeypatch):
    monkeypatch.setattr("grandbatch.scheduling.jobs.WAVE_JOBS", 16)
    made = []

    def waves():
        for size in (1, 3, 6, 5, 2, 2):
            keys = [(len(made), n) for n in range(size)]
            made.append(size)
            yield {key: (sum, key) for key in keys}, keys

    found = []
    for graph, keys in fuller_waves(waves()):
        assert list(graph) == keys
        found.append((len(keys), len(made)))
    assert found == [(10, 3), (5, 4), (4, 6)], "none is made before it is run"


@pytest.mark.parametrize("workers", [1, 2, 7, 100])
@pytest.mark.parametrize("n", [0, 1, 5, 70, 3_000])
def test_what_a_cluster_does_is_gathered_into_ever_smaller_tasks(n, workers):
    tasks = in_tasks(range(n), workers)
    assert [number for task in tasks for number in task] == [*range(n)]
    sizes = [len(task) for task in tasks]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes, default=1) <= MOST_CALLS_PER_TASK
    for size, done in zip(sizes, (task[0] for task in tasks), strict=True):
        assert size == 1 or size * 2 * workers <= n - done, "no worker is left to wait for another"


def test_each_call_that_a_cluster_made_in_one_task_is_heard_of_by_itself():
    with open_schedule(None, 1) as schedule:
        heard = []
        calls = [partial(pow, n, 2) for n in range(20)]
        assert len(in_tasks(calls, 1)) < len(calls)
        assert schedule.run(calls, heard.append) == [n**2 for n in range(20)]
        assert sorted(heard) == [n**2 for n in range(20)]


class Unhashed:
    def __dask_tokenize__(self):
        raise AssertionError("what goes into a task was hashed")


def test_what_goes_into_a_task_is_not_hashed_to_send_it():
    from dask.tokenize import tokenize

    graph = {"a": (len, [Unhashed()]), ("b", 1): (partial(isinstance, Unhashed()), int)}
    found = guard(graph, Origin.here(), 1)
    tokens = {tokenize(task) for task in found.values()}
    assert len(tokens) == 2
    assert [task() for task in found.values()] == [1, False]
