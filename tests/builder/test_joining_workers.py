"""A worker that joins later, of another version or with other disks, writes into no store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pytest
from dask import delayed
from dask_processes import processes, start_scheduler, start_worker
from distributed import Client, LocalCluster
from simulated import write_bars
from test_distributed import contents, target_of

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.builder import engines
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.errors import GrandbatchError, StoreError
from grandbatch.scheduling import Schedule, bit_versions, fresh, open_schedule
from grandbatch.scheduling.origin import Origin


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


def named_graph():
    name = fresh("d")
    return delayed(pow)(2, 3, dask_key_name=name).__dask_graph__(), [name]


def tuple_graph():
    a, b = fresh("a"), fresh("b")
    return {a: (pow, 2, 3), b: (sum, [a, a])}, [b]


def frame_graph():
    frame = dd.from_pandas(pd.DataFrame({fresh("a"): range(20)}), npartitions=4)
    summed = frame.map_overlap(lambda part: part.rolling(2).sum(), 1, 0).optimize()
    return dict(summed.__dask_graph__()), summed.__dask_keys__()


GRAPHS = {"delayed": named_graph, "tuples": tuple_graph, "frame": frame_graph}


@pytest.mark.parametrize("kind", GRAPHS)
def test_each_task_of_any_graph_refuses_another_version_and_a_missing_place(kind, here, tmp_path):
    sign = tmp_path / "sign"
    sign.write_text("of this run")
    schedule = Schedule(client=here, origin=Origin.here([str(sign)]))
    graph, keys = GRAPHS[kind]()
    assert len(schedule.run_graph(graph, keys)) == len(keys)
    for name, _ in bit_versions():
        others = tuple((n, "0.0.9" if n == name else v) for n, v in bit_versions())
        other = replace(schedule, origin=replace(schedule.origin, versions=others))
        with pytest.raises(
            StoreError, match=rf"worker .*:// ?.* runs {name} .*, and this is 0\.0\.9"
        ):
            other.run_graph(*GRAPHS[kind]())
    for put in (lambda: sign.write_text("of an older one"), sign.unlink, lambda: os.mkfifo(sign)):
        put()
        with pytest.raises(StoreError, match=r"worker .* can't see .*sign as this process does"):
            schedule.run_graph(*GRAPHS[kind]())


@dataclass(frozen=True)
class Counted:
    """A place that is reached only once a file is there; counts how often it was tried."""

    folder: Path

    def problem(self):
        with (self.folder / "tries").open("a") as file:
            file.write("x")
        return "" if (self.folder / "open").exists() else "can't reach s3://x/y: refused"


def test_each_worker_is_asked_for_its_reach_until_it_has_it(here, tmp_path):
    schedule = Schedule(client=here, origin=Origin.here(reaches=[Counted(tmp_path)]))
    for _ in range(2):  # that it couldn't is not remembered
        with pytest.raises(
            StoreError, match=r"worker .*: can't reach s3://x/y: refused\. Every wo"
        ):
            schedule.run([partial(pow, 2, 3)])
    (tmp_path / "open").touch()
    (tmp_path / "tries").unlink()
    assert schedule.run([partial(pow, 2, n) for n in range(5)]) == [1, 2, 4, 8, 16]
    # two threads of the process may both be first
    assert len((tmp_path / "tries").read_text()) <= 2


def test_an_origin_tells_what_another_process_lacks():
    with pytest.raises(StoreError, match="worker tcp://far:1 runs numba none"):
        Origin.here().compare("tcp://far:1", [("numba", "none")], [])


@pytest.mark.parametrize("lost", ["labels", "chunks", "cut"])
def test_no_store_is_published_whose_files_were_not_all_seen(lost, tmp_path, monkeypatch):
    source = write_bars(tmp_path / "b.csv", 3000)
    plain = build(target_of(source, tmp_path / "plain.zarr"), BuildOptions(durable=False)).store
    target = target_of(source, tmp_path / "s.zarr")
    write = engines.write_label_chunk

    def write_elsewhere(job):
        told = write(job)
        if job.number == 0:
            spec = job.staging.spec
            array = spec.data if lost == "chunks" else spec.labels[2]
            path = job.staging.store / array.file(0)
            deadline = time.monotonic() + 120
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.truncate(path, 10) if lost == "cut" else path.unlink()
        return told

    monkeypatch.setattr(engines, "write_label_chunk", write_elsewhere)
    with pytest.raises(StoreError, match=r"c/0.* though the task that wrote it has ended"):
        build(target, BuildOptions(durable=False))
    assert not target.path.exists()
    monkeypatch.undo()
    result = build(target, BuildOptions(durable=False))
    assert (result.resumed_chunks > 0) == (lost != "chunks")
    assert contents(result.store.path) == contents(plain.path)


@pytest.mark.slow
def test_a_gather_that_waits_for_lost_workers_ends():
    done, freed = threading.Event(), []
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as made,
        Client(made) as client,
    ):
        gather = client.gather

        def stuck(futures):
            made.scale(0)
            freed.append(done.wait(120))
            return gather(futures)

        client.gather = stuck
        schedule = Schedule(client=client, patience_seconds=1.0)
        with pytest.raises(GrandbatchError, match=r"no worker for 1 seconds"):
            schedule.run([partial(pow, 2, 2)])
        assert not freed
        done.set()


def test_a_cluster_that_lost_its_workers_is_given_up_within_a_minute():
    assert Schedule().patience_seconds + 5 <= 60


def other_version(folder: Path) -> Path:
    """Copy the package as another version whose strategic features differ."""
    there = folder / "other"
    shutil.copytree(
        Path(gb.__file__).parent, there / "grandbatch", ignore=shutil.ignore_patterns("__pycache__")
    )
    (there / "grandbatch" / "version.py").write_text('"""Another."""\n\n__version__ = "0.0.9"\n')
    return there


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["direct", "overlap"])
def test_a_worker_of_another_version_that_joins_in_the_middle_ends_the_build(tmp_path, engine):
    source = write_bars(tmp_path / "b.csv", 20_000)
    plain = build(target_of(source, tmp_path / "plain.zarr"), BuildOptions(durable=False)).store
    other = other_version(tmp_path)
    target = target_of(source, tmp_path / "s.zarr")
    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started += [scheduler, start_worker(address, tmp_path / "w")]
        with open_schedule(address, None) as schedule:
            schedule.client.wait_for_workers(1, timeout=120)
            options = BuildOptions(
                engine=engine, partition_bars=200, schedule=schedule, durable=False
            )

            def join(stage, done, total):
                if stage == "chunks" and done == 0 and len(started) == 2:
                    flags = ("--nthreads", "4", "--no-nanny", "--no-dashboard")
                    environment = {**os.environ, "PYTHONPATH": str(other)}
                    command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
                    # python -m looks into the working folder first
                    started.append(
                        subprocess.Popen([*command, *flags], env=environment, cwd=tmp_path)
                    )
                    schedule.client.wait_for_workers(2, timeout=120)

            with pytest.raises(StoreError, match=r"runs grandbatch 0\.0\.9, and this is"):
                build(target, options, join)
            assert not target.path.exists()
            started[-1].kill()
            started[-1].wait()
            deadline = time.monotonic() + 120
            while len(schedule.client.nthreads()) > 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert contents(build(target, options).store.path) == contents(plain.path)


class Late:
    """A worker that joins in the middle of a run, with a disk of its own at the shared one's place.

    The disk is empty, or a copy of the shared one as it was when the worker joined.
    """

    def __init__(self, folder: Path, disk: str) -> None:
        if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
            pytest.skip("no mount namespaces here")
        self.folder, self.shared, self.copy = folder, folder / "shared", folder / "copy"
        self.shared.mkdir()
        mount = "-t tmpfs none" if disk == "empty" else f"--bind {self.copy}"
        self.prefix = (
            "unshare", "-rm", "sh", "-c", f'mount {mount} {self.shared} && exec "$@"', "sh",
        )  # fmt: skip

    @contextmanager
    def cluster(self):
        """A cluster of one worker, that sees the shared disk."""
        with processes() as self.started:
            scheduler, self.address = start_scheduler(self.folder)
            self.started += [scheduler, start_worker(self.address, self.folder / "w")]
            with open_schedule(self.address, None) as self.schedule:
                self.schedule.client.wait_for_workers(1, timeout=120)
                yield self.schedule

    def join(self):
        """Begin, and wait until the scheduler knows it; once."""
        if len(self.started) == 2:
            written = shutil.ignore_patterns("*.partial")
            shutil.copytree(self.shared, self.copy, ignore=written)
            there = self.folder / "late"
            self.started.append(start_worker(self.address, there, prefix=self.prefix))
            self.schedule.client.wait_for_workers(2, timeout=120)

    def leave(self):
        """End, and wait until the scheduler knows it."""
        self.started[-1].kill()
        self.started[-1].wait()
        deadline = time.monotonic() + 120
        while len(self.schedule.client.nthreads()) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["empty", "copied"])
def test_a_worker_with_another_disk_that_joins_in_the_middle_ends_the_build(tmp_path, disk):
    late = Late(tmp_path, disk)
    source = write_bars(late.shared / "b.csv", 20_000)
    plain = build(target_of(source, tmp_path / "plain.zarr"), BuildOptions(durable=False)).store
    target = target_of(source, late.shared / "s.zarr")
    with late.cluster() as schedule:
        options = BuildOptions(partition_bars=200, schedule=schedule, durable=False)

        def join(stage, done, total):
            if stage == "chunks":
                late.join()

        with pytest.raises(StoreError, match=r"can't see|though the task that wrote it"):
            build(target, options, join)
        assert not target.path.exists()
        late.leave()
        assert contents(build(target, options).store.path) == contents(plain.path)


@pytest.mark.slow
@pytest.mark.parametrize("sort", [False, True])
def test_a_worker_with_another_disk_that_joins_while_bars_are_read_is_told(tmp_path, sort):
    late = Late(tmp_path, "copied")
    source = write_bars(late.shared / "b.csv", 3_000, symbols=3)
    rules, cache = BarRules(sort=sort), late.shared / "cache"
    with late.cluster() as schedule:
        with pytest.raises(GrandbatchError, match=r"task that wrote it|not all workers share"):
            prepare_bars(source, cache, rules, schedule, 2000, lambda *_: late.join())
        assert not list(cache.glob("*/bars.json"))
        late.leave()
        bars = prepare_bars(source, cache, rules, schedule, 2000)
    assert bars.n_rows == 9_000
