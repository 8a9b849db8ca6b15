"""A store, or a cache of bars, verified by tasks: what is found is what one process finds."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import weakref

import pytest
from dask_processes import ENVIRONMENT, processes, start_scheduler, start_worker
from distributed import Client, LocalCluster
from object_servers import KEYS, put_store
from simulated import write_bars
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.errors import StoreChangedError, StoreError
from grandbatch.files.objects import Objects
from grandbatch.store import reader, verification
from grandbatch.store.format import LABEL_CHUNK_WINDOWS


@pytest.fixture(autouse=True, scope="module")
def small_files():
    """Files of a few chunks, jobs of a few files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grandbatch.store.format._FILE_BYTES", 10_000)
        patch.setattr("grandbatch.store.format.LABEL_CHUNK_WINDOWS", 16)
        patch.setattr("grandbatch.store.verification._JOB_FILES", 2)
        yield


@pytest.fixture(scope="module")
def client():
    """Of a cluster of two workers inside this process, to which all goes as bytes."""
    options = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1"}
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", **options
        ) as made,
        Client(made) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("bars") / "b.csv", 900)


@pytest.fixture
def store(source, tmp_path):
    made = gb.build_store(source, tmp_path / "s.zarr", overlap=30, chunk_windows=4, durable=False)
    assert made.spec.data.n_files > 4
    assert made.spec.labels[0].n_files > 1
    return made.path


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damage(store):
    """Damage one file after the other, each in another way."""
    opened = gb.MatrixStore.open(store)
    files = [store / opened.spec.data.file(number) for number in range(opened.spec.data.n_files)]
    flip(files[0], 100)
    files[1].write_bytes(files[1].read_bytes()[:-40])
    files[2].unlink()
    flip(files[3], -10)
    shutil.copy(files[3], files[4])
    label = {one.name: one for one in opened.spec.labels}
    flip(store / label["end_time"].file(0), 3)
    with (store / label["symbol"].file(1)).open("ab") as file:
        file.write(b"more")
    (store / label["close_price"].file(0)).write_bytes(b"")


def verified(*arguments):
    result = CliRunner().invoke(app, ["verify", *map(str, arguments), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_tasks_find_in_any_damage_what_one_process_finds(where, store, client, request, tmp_path):
    address = client.scheduler.address
    if where == "s3":
        request.getfixturevalue("s3")
    place = store if where == "folder" else f"s3://bars/{tmp_path.name}"
    for is_damaged in (False, True):
        if is_damaged:
            damage(store)
        if where == "s3":
            there = Objects(place)
            there.delete([found.name for found in there.list()])
            put_store(store, place)
        opened = gb.MatrixStore.open(place)
        alone = opened.verify()
        assert alone.ok is not is_damaged
        assert opened.verify(client=client) == alone
        assert opened.verify(scheduler="threads", workers=3) == alone
        code, told = verified(place)
        assert code == is_damaged
        assert verified(place, "--scheduler", address) == (code, told)
        assert len(told["bad_chunks"]) == len(alone.bad_chunks)
    problems = " ".join(problem for _, _, problem in alone.bad_chunks)
    for kind in ("its file has", "crc32c", "index", "bytes wanted", "opened" if where == "folder"
                 else "read"):  # fmt: skip
        assert kind in problems
    assert {array for array, _, _ in alone.bad_chunks} == {
        "matrices", "end_time", "symbol", "close_price",
    }  # fmt: skip


def test_a_cache_of_bars_is_verified_by_tasks(store, client):
    (cache,) = (store.parent / ".grandbatch" / "bars").glob("*/bars.json")
    cache = cache.parent
    flags = ("--scheduler", client.scheduler.address)
    assert verified(cache, *flags) == verified(cache)
    for path in cache.rglob("*.parquet"):
        flip(path, 200)
    code, told = verified(cache)
    assert code == 1
    assert len(told["problems"]) >= 2
    assert verified(cache, *flags) == (code, told)


def test_a_store_that_was_replaced_or_deleted_is_told_as_such(source, store, client):
    opened = gb.MatrixStore.open(store)
    gb.build_store(source, store, overlap=31, overwrite=True, durable=False)
    for options in ({}, {"client": client}):
        with pytest.raises(StoreChangedError, match="was replaced"):
            opened.verify(**options)
    shutil.rmtree(store)
    for options in ({}, {"client": client}):
        with pytest.raises(StoreChangedError, match="was deleted"):
            opened.verify(**options)


def test_jobs_are_described_wave_by_wave_and_each_worker_opens_the_store_once(
    store, client, monkeypatch
):
    monkeypatch.setattr("grandbatch.scheduling.jobs.WAVE_JOBS", 3)
    alive, most, opened = weakref.WeakSet(), [], []
    lock = threading.Lock()
    job_of, describe = verification.VerifyJob, reader.describe

    def note(*fields):
        job = job_of(*fields)
        with lock:
            alive.add(job)
            most.append(len(alive))
        return job

    def count(folder):
        opened.append(folder)
        return describe(folder)

    found = gb.MatrixStore.open(store)
    monkeypatch.setattr(verification, "VerifyJob", note)
    monkeypatch.setattr(reader, "describe", count)
    assert found.verify(client=client).ok
    assert len(most) > 12
    assert max(most) <= 2 * 3
    # both workers are in this process, and each may be first
    assert 1 <= len(opened) <= 2


@pytest.mark.slow
def test_a_worker_that_cannot_reach_the_store_is_named_and_this_process_reads_no_chunk(
    s3, source, tmp_path, monkeypatch
):
    # workers in processes of their own know nothing of small ones
    monkeypatch.setattr("grandbatch.store.format.LABEL_CHUNK_WINDOWS", LABEL_CHUNK_WINDOWS)
    made = gb.build_store(source, tmp_path / "s.zarr", overlap=30, chunk_windows=4, durable=False)
    url = f"s3://bars/{tmp_path.name}/s.zarr"
    put_store(made.path, url)
    reaching = {**ENVIRONMENT, **{k: v for k, v in os.environ.items() if k.startswith("AWS_")}}
    without = {name: value for name, value in reaching.items() if name not in KEYS}
    without["AWS_EC2_METADATA_DISABLED"] = "true"
    ranges = []
    read_range = Objects.read_range

    def note(objects, name, start, stop):
        ranges.append(objects.url)
        return read_range(objects, name, start, stop)

    with processes() as started:
        scheduler, address = start_scheduler(tmp_path)
        started.append(scheduler)
        started.append(start_worker(address, tmp_path / "w1", environment=reaching))
        with Client(address) as client:
            client.wait_for_workers(1, timeout=120)
            (well,) = client.nthreads()
            started.append(start_worker(address, tmp_path / "w2", environment=without))
            client.wait_for_workers(2, timeout=120)
            (ill,) = set(client.nthreads()) - {well}
            opened = gb.MatrixStore.open(url)
            with pytest.raises(StoreError, match="in its own environment") as refused:
                opened.verify(client=client)
            assert f"worker {ill}: can't reach {url}" in str(refused.value)
            assert well not in str(refused.value)
            health = CliRunner().invoke(
                app, ["doctor", "--scheduler", address, "--folder", url, "--json"]
            )
            assert health.exit_code == 1
            found = json.loads(health.stdout)
            assert list(found["cluster"]["unreachable"]) == [ill]
            (problem,) = found["problems"]
            assert problem.startswith(f"worker {ill}: can't reach s3://bars/")
            assert "AWS_ACCESS_KEY_ID" in problem
            started[-1].kill()
            started[-1].wait()
            deadline = time.monotonic() + 120
            while len(client.nthreads()) > 1 and time.monotonic() < deadline:
                time.sleep(0.05)
            monkeypatch.setattr(Objects, "read_range", note)
            assert opened.verify(client=client).ok
            assert not ranges
            health = CliRunner().invoke(app, ["doctor", "--scheduler", address, "--folder", url])
            assert health.exit_code == 0, health.output
            assert "nothing is wrong" in health.output
    assert not [found.name for found in Objects(url).list() if "doctor" in found.name]
