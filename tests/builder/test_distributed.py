"""Builds on clusters: workers that die, run out of memory, stand still, or see another disk."""

from __future__ import annotations

import logging
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask
import numpy as np
import psutil
import pytest
from dask_processes import processes, start_scheduler, start_worker
from distributed import Client, LocalCluster
from simulated import write_bars

import grandbatch as gb
from grandbatch import errors
from grandbatch.bars.building.memory import shares_of_workers
from grandbatch.builder import records
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.records import JoinedRecords
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import (
    DamagedStoreError,
    GrandbatchError,
    MemoryLimitError,
    StoreError,
    UsageError,
)
from grandbatch.scheduling import Schedule, cluster, open_schedule, opening


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def here():
    """A client of a cluster inside this process."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as made,
        Client(made) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def by_wire():
    """A client of a cluster inside this process, to which all goes as bytes."""
    options = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1"}
    with (
        LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", **options) as made,
        Client(made) as client,
    ):
        yield client


def holds_nothing(client):
    """Whether a client lets go of its futures: it does so in a thread of its own."""
    deadline = time.monotonic() + 60
    while client.futures and time.monotonic() < deadline:
        time.sleep(0.01)
    return not client.futures


def listening():
    """Addresses that this process and its children listen on."""
    me = psutil.Process()
    return {
        connection.laddr
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def target_of(source, store, **changes):
    made = make_settings("strategic", None, changes.get("overlap", 40), "windows", 4, "none", None)
    return Request.of(source, store, made, gb.BarRules(), changes.get("cache"))


def test_workers_of_a_local_cluster_are_known_by_address_and_as_of_this_machine(here):
    shares = shares_of_workers(Schedule.on_cluster(here))
    assert {share.address: share.threads for share in shares} == here.nthreads()
    assert all(share.is_here for share in shares)


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_build_changes_no_byte(tmp_path):
    source = write_bars(tmp_path / "b.csv", 12_000, symbols=2)
    plain = build(target_of(source, tmp_path / "plain.zarr"), BuildOptions(durable=False)).store
    expected = contents(plain.path)
    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started.append(scheduler)
        started += [start_worker(address, tmp_path / f"w{n}") for n in range(2)]
        with open_schedule(address, None) as schedule:
            for engine in ("overlap", "direct"):
                schedule.client.wait_for_workers(2, timeout=120)
                victim = started[-1]

                def kill(stage, done, total, victim=victim):
                    if stage == "chunks" and 0 < done < total:
                        victim.kill()

                result = build(
                    target_of(source, tmp_path / f"{engine}.zarr"),
                    BuildOptions(
                        engine=engine, partition_bars=200, schedule=schedule, durable=False
                    ),
                    kill,
                )
                assert victim.wait() == -signal.SIGKILL
                assert contents(result.store.path) == expected
                started.append(start_worker(address, tmp_path / f"w-{engine}"))
    work = sorted(path.name for path in (tmp_path / ".grandbatch").iterdir())
    assert work == ["bars", "builds", "locks"]


@pytest.mark.slow
def test_a_worker_that_can_not_see_the_disk_is_an_error_before_the_first_task(tmp_path):
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    shared = tmp_path / "shared"
    shared.mkdir()
    source = write_bars(shared / "b.csv", 400)
    hide = f'mount -t tmpfs none {shared} && exec "$@"'
    told = []
    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started.append(scheduler)
        prefix = (unshare, "-rm", "sh", "-c", hide, "sh")
        started.append(start_worker(address, tmp_path / "w", prefix=prefix))
        with open_schedule(address, None) as schedule:
            schedule.client.wait_for_workers(1, timeout=120)
            (worker,) = schedule.client.nthreads()
            options = BuildOptions(schedule=schedule)
            with pytest.raises(StoreError, match=f"worker {worker} can't see .*shared disk"):
                build(target_of(source, shared / "s.zarr"), options, lambda *a: told.append(a))
    assert told == []
    assert not (shared / ".grandbatch" / "bars").exists()
    assert not (shared / "s.zarr").exists()


@pytest.mark.slow
def test_a_cache_that_a_worker_can_not_see_is_an_error_that_names_it(tmp_path, here, monkeypatch):
    source = write_bars(tmp_path / "b.csv", 400)
    target = target_of(source, tmp_path / "s.zarr", cache=tmp_path / "elsewhere")
    monkeypatch.setattr(here, "run", lambda function, *values: {"tcp://far:1": function(*values)})
    real = "grandbatch.scheduling.origin._sight"
    seen = []

    def blind(path):
        seen.append(path)
        return None if "elsewhere" in path and seen.count(path) > 1 else (1, b"")

    monkeypatch.setattr(real, blind)
    with pytest.raises(StoreError, match=r"tcp://far:1 can't see .*elsewhere"):
        build(target, BuildOptions(schedule=Schedule.on_cluster(here)))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_worker_of_another_version_is_refused(tmp_path, here, monkeypatch):
    source = write_bars(tmp_path / "b.csv", 400)
    monkeypatch.setattr(here, "run", lambda function, *values: {"tcp://far:1": "0.0.1"})
    with pytest.raises(StoreError, match=r"tcp://far:1 runs grandbatch 0\.0\.1"):
        build(
            target_of(source, tmp_path / "s.zarr"),
            BuildOptions(schedule=Schedule.on_cluster(here)),
        )


@pytest.mark.slow
def test_a_worker_without_the_kernels_module_is_told_what_to_do_and_then_builds_the_same(
    tmp_path, monkeypatch
):
    source = write_bars(tmp_path / "b.csv", 400)
    (tmp_path / "far_kernels.py").write_text(
        "import grandbatch as gb\n\n\ndef change(close, first, out):\n"
        "    out[:] = close[first:] - close[first - 1 : -1]\n\n\n"
        "MINE = gb.FeatureSet('mine', [gb.Feature('change', 1, change)], 8)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "w").mkdir()
    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started += [scheduler, start_worker(address, tmp_path / "w")]
        monkeypatch.chdir(tmp_path)  # where the worker, which has begun elsewhere, doesn't look
        with Client(address) as client:
            client.wait_for_workers(1, timeout=120)
            build_far = partial(
                gb.build_store, source, feature_set="far_kernels.py:MINE", durable=False
            )
            with pytest.raises(StoreError, match=r"No module named 'far_kernels'.*upload_file"):
                build_far(tmp_path / "far.zarr", client=client)
            client.upload_file("far_kernels.py")
            far = build_far(tmp_path / "far.zarr", client=client)
            near = build_far(tmp_path / "near.zarr")
    assert contents(far.path) == contents(near.path)


def hoard(step_bytes, n_steps):
    held = []
    for _ in range(n_steps):
        held.append(np.ones(step_bytes, np.uint8))
        time.sleep(0.05)
    return len(held)


@pytest.mark.slow
def test_a_worker_ended_for_memory_is_reported_as_that(caplog):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="400MiB",
            dashboard_address="127.0.0.1:0",
        ) as made,
        Client(made) as client,
    ):  # fmt: skip
        (worker,) = client.nthreads()
        with pytest.raises(MemoryLimitError) as caught:
            Schedule.on_cluster(client).run([partial(hoard, 25_000_000, 200)])
    message = str(caught.value)
    assert f"worker {worker} was ended for memory" in message
    assert f"its limit of {400 * 2**20:,}" in message
    held = int(message.split("held ")[1].split(" bytes", maxsplit=1)[0].replace(",", ""))
    assert held > 0.9 * 400 * 2**20
    assert "give each worker more memory" in message
    assert "fewer bars a partition" in message


@pytest.mark.slow
def test_a_cluster_whose_workers_are_all_paused_is_an_error_not_a_hang():
    with (
        dask.config.set(
            {"distributed.worker.memory.pause": 0.001, "distributed.worker.memory.terminate": False}
        ),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, memory_limit="8GiB",
            dashboard_address="127.0.0.1:0",
        ) as made,
        Client(made) as client,
    ):  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and "paused" not in str(client.scheduler_info()):
            time.sleep(0.05)
        began = time.monotonic()
        schedule = Schedule(client=client, patience_seconds=1.0)
        with pytest.raises(MemoryLimitError, match=r"1 workers are paused .* more memory"):
            schedule.run([partial(pow, 2, 2)])
        assert time.monotonic() - began < 15


@pytest.mark.slow
def test_a_cluster_without_workers_is_an_error_not_a_hang():
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as made,
        Client(made) as client,
    ):
        schedule = Schedule(client=client, patience_seconds=0.5)
        with pytest.raises(GrandbatchError, match=r"no worker for 0\.5 seconds; start one"):
            schedule.run([partial(pow, 2, 2)])


@pytest.mark.slow
def test_a_scheduler_that_dies_is_an_error_that_says_so(tmp_path):
    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started += [scheduler, start_worker(address, tmp_path / "w")]
        with open_schedule(address, None) as schedule:
            schedule.client.wait_for_workers(1, timeout=120)
            tasks = [partial(time.sleep, 0.2) for n in range(100)]
            with pytest.raises(GrandbatchError, match=r"the scheduler at .* is gone"):
                schedule.run(tasks, lambda result: scheduler.kill())


def test_nobody_at_the_address_is_a_wrong_usage(monkeypatch):
    monkeypatch.setattr(opening, "_CONNECT_SECONDS", 0.2)
    for address in ("tcp://127.0.0.1:1", "carrier-pigeon://coop:1"):
        with pytest.raises(UsageError, match="no scheduler answers"), open_schedule(address, None):
            pass


def make_error(name):
    raise getattr(errors, name)(f"a {name}: got this, wanted that")


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_goes_through_pickle_unchanged(name):
    with pytest.raises(GrandbatchError) as caught:
        make_error(name)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert (copy.args, vars(copy)) == (caught.value.args, vars(caught.value))


def test_the_error_of_a_task_comes_out_of_a_cluster_as_it_is(here):
    schedule = Schedule.on_cluster(here)
    with pytest.raises(DamagedStoreError, match="got this, wanted that"):
        schedule.run([partial(make_error, "DamagedStoreError")])
    assert holds_nothing(here)


class TakesTwo(Exception):
    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


class HoldsALock(Exception):
    def __init__(self):
        super().__init__("held")
        self.lock = threading.Lock()


class ComesFromALock(StoreError):
    pass


class HasNoWords(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Ends(BaseException):
    pass


def fail(kind):
    if kind == "takes two":
        raise TakesTwo("a price", "row 7")
    if kind == "holds a lock":
        raise HoldsALock
    if kind == "local":
        raise type("Local", (ValueError,), {})("made here\nin a task")
    if kind == "no words":
        raise HasNoWords
    if kind == "ends":
        raise Ends("a panic")
    if kind == "exits":
        sys.exit(3)
    raise ComesFromALock("ours stays ours") from HoldsALock()


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("takes two", GrandbatchError, "TakesTwo: a price at row 7"),
        ("holds a lock", GrandbatchError, "HoldsALock: held"),
        ("local", GrandbatchError, "Local: made here in a task"),
        ("no words", HasNoWords, ""),
        ("ends", GrandbatchError, "Ends: a panic"),
        ("exits", GrandbatchError, "SystemExit: 3"),
        ("comes from one", ComesFromALock, "ours stays ours"),
    ],
)
def test_an_error_that_can_not_travel_is_told_and_nobody_waits(kind, error, told, by_wire):
    with pytest.raises(error) as raised:
        Schedule.on_cluster(by_wire).run([partial(fail, kind)])
    if error is GrandbatchError:
        assert type(raised.value) is GrandbatchError
        assert told in str(raised.value)
        assert str(raised.value).startswith("worker ")
        assert "test_distributed.py, line " in str(raised.value)
        assert "\n" not in str(raised.value)
    # the worker lives on
    assert Schedule.on_cluster(by_wire).run([partial(pow, 2, 3)]) == [8]


def test_many_tasks_go_to_the_scheduler_in_waves_and_results_come_in_order(here, monkeypatch):
    monkeypatch.setattr(cluster, "WAVE_TASKS", 8)
    monkeypatch.setattr(cluster, "WAVE_TASKS_PER_WORKER", 1)
    held, heard = [], []

    def note(result):
        held.append(len(here.futures))
        heard.append(result)

    tasks = [partial(pow, n, 2) for n in range(100)]
    assert Schedule.on_cluster(here).run(tasks, note) == [n**2 for n in range(100)]
    assert sorted(heard) == [n**2 for n in range(100)]
    # a wave, half of the one before, and what ended but was not yet taken
    assert max(held) <= 24
    assert holds_nothing(here)


def test_a_graph_with_dependencies_is_never_cut(monkeypatch):
    monkeypatch.setattr(cluster, "WAVE_TASKS", 2)
    chain = {0: (pow, 2, 1), **{n: (pow, n - 1, 1) for n in range(1, 10)}}
    linked = {("a", 0): (pow, 2, 1), **{("a", n): (pow, ("a", n - 1), 1) for n in range(1, 200)}}
    assert len(list(cluster.cut_into_waves(linked, list(linked), 1))) == 1
    assert sum(len(keys) for _, keys in cluster.cut_into_waves(chain, list(chain), 1)) == 10


@pytest.mark.slow
def test_local_workers_listen_on_loopback_only_and_come_warm(tmp_path, caplog):
    caplog.set_level(logging.INFO, "grandbatch")
    source = write_bars(tmp_path / "b.csv", 600)
    store = tmp_path / "s.zarr"
    sizes, joined = [], []
    before = listening()
    with open_schedule(None, 1) as schedule:
        opened = listening() - before
        real = schedule.client.run
        loaded = []

        def run(function, *values):
            answers = real(function, *values)
            if function.__name__ == "warm_worker":
                loaded.append(real(lambda: "grandbatch.store.staging" in sys.modules))
            return answers

        schedule.client.run = run
        gather = schedule.client.gather

        def weigh(futures):
            results = gather(futures)
            for result in results:
                kind = joined if isinstance(result, JoinedRecords) else sizes
                kind.append(len(pickle.dumps(result)))
            return results

        schedule.client.gather = weigh
        build(target_of(source, store), BuildOptions(schedule=schedule, durable=False))
        assert holds_nothing(schedule.client)
    assert {place.ip for place in opened} == {"127.0.0.1"}
    assert [set(answers.values()) for answers in loaded] == [{True}]
    # what comes back to the driver: records, never rows
    assert max(sizes) < 4096
    built = gb.MatrixStore.open(store)
    of_chunk = 2 * 8 * len(built.feature_names) + 64  # moments, count, digests
    assert sum(joined) < built.n_chunks * of_chunk + 2048
    ours = (record for record in caplog.records if record.name.startswith("grandbatch"))
    text = "\n".join(record.getMessage() for record in ours)
    assert "1 local workers started in" in text
    assert "engine auto is direct on a cluster" in text
    assert "dashboard: http://127.0.0.1:" in text or "dashboard" not in text


def test_two_builds_at_once_on_one_cluster_share_no_task(tmp_path, here, monkeypatch):
    # both join their records at the same time: equal keys would give one the other's
    meet = threading.Barrier(2, timeout=60)
    join = records._run

    def join_together(*given):
        meet.wait()
        return join(*given)

    def make(n, **where):
        path = write_bars(tmp_path / f"{n}.csv", 400 + 40 * n)
        return gb.build_store(path, tmp_path / f"{n}-{len(where)}.zarr", chunk_windows=16, **where)

    alone = [make(n) for n in (0, 1)]
    monkeypatch.setattr(records, "_run", join_together)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(partial(make, client=here), (0, 1)))
    for one, other in zip(alone, together, strict=True):
        assert contents(other.path) == contents(one.path)
