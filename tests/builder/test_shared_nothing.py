"""Builds on hosts that share nothing but an object store: the same bytes, whatever fails."""

from __future__ import annotations

import json
import sys
import time

import pytest
from hosts import NO_HOSTS, can_make_hosts, digests, shared_nothing
from simulated import write_bars

import grandbatch as gb

pytestmark = pytest.mark.slow

# several files of chunks, of few bars
SETTINGS = {"sequence_length": 120, "overlap": 119, "chunk_windows": 64, "codec": "none"}
FLAGS = (
    "--sequence-length", 120, "--overlap", 119, "--chunk-windows", 64, "--codec", "none",
    "--partition-bars", 400,
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not can_make_hosts():
        pytest.skip(NO_HOSTS)
    with shared_nothing(tmp_path_factory.mktemp("hosts"), ["cli2"]) as made:
        made.preload = made.folder / "slow_files.py"
        made.preload.write_text(_SLOW_FILES.replace("WROTE", str(made.folder / "wrote")))
        made.start_worker("w1")
        made.start_worker("w2")
        made.wait_for_workers(2)
        yield made


@pytest.fixture(scope="module")
def bars(cluster, tmp_path_factory):
    """Three inputs in the bucket, and the files of the store that is built of them in a folder."""
    folder = tmp_path_factory.mktemp("bars")
    for seed in range(3):
        path = write_bars(folder / f"S{seed}.csv", 1_200, seed=seed)
        cluster.put(f"in/{path.name}", path)
    rules = gb.BarRules(symbol_from="filename")
    store = gb.build_store(folder / "*.csv", folder / "s.zarr", rules=rules, **SETTINGS)
    return digests(store.path)


def call(cluster, store, *flags):
    """The command that builds, in short."""
    where = ("--store", f"s3://bkt/{store}", "--scheduler", cluster.scheduler)
    what = ("build", "strategic", "s3://bkt/in/*.csv", "--symbol-from", "filename")
    return [*what, *where, *FLAGS, "--json", *flags]


def build(cluster, host, store, *flags):
    return cluster.grandbatch(host, *call(cluster, store, *flags))


def begin(cluster, host, store):
    """Begin to build, and wait until three files of chunks are written, not all."""
    assert store.startswith("slow")
    wrote = cluster.folder / "wrote"
    wrote.unlink(missing_ok=True)
    log = f"build-{store.replace('/', '-')}"
    script = _SHORT_LEASES.replace("HOLD", str(cluster.folder / "hold"))
    command = (sys.executable, "-c", script, *call(cluster, store))
    process = cluster.hosts[host].start(*command, log=log)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if wrote.exists() and wrote.read_text().count(store) >= 3:
            return process
        assert process.poll() is None, cluster.told(log)
        time.sleep(0.02)
    raise TimeoutError("no chunk is written")


# as workers, but that files of some stores take a while
_SLOW_FILES = """
import time
from pathlib import Path
from grandbatch.store.staging import Staging

def slowly(self, array, number, encoded, write_file=Staging.write_file):
    write_file(self, array, number, encoded)
    if "/slow" in str(self.store) and array.name == "matrices":
        with Path("WROTE").open("a") as file:
            file.write(f"{self.store}\\n")
        time.sleep(1)

if Staging.write_file.__name__ != "slowly":  # Dask loads this more than once
    Staging.write_file = slowly
"""
# as the command, but that a lease holds for a few seconds, and that it waits before it ends
_SHORT_LEASES = """
import sys, time
from pathlib import Path
from grandbatch.files import leases
leases.LEASE_SECONDS = 6.0
from grandbatch.builder import builder
from grandbatch.cli import main

join = builder.join_records

def join_once_let_go(*args):
    while Path("HOLD").exists():
        time.sleep(0.1)
    return join(*args)

builder.join_records = join_once_let_go
sys.argv[0] = "grandbatch"
main()
"""


def built(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_build_from_a_url_to_a_url_is_the_local_one(cluster, bars):
    built(build(cluster, "cli", "one/s.zarr"))
    assert cluster.objects("one/s.zarr/") == bars
    assert built(build(cluster, "cli2", "one/s.zarr"))["reused"]
    # nobody has left anything on a disk of his own but Dask its folders
    for name in ("cli", "cli2", "w1", "w2"):
        left = [file for file in cluster.hosts[name].files() if not file.startswith("./dask/")]
        assert left == []


def test_a_worker_that_is_killed_costs_its_tasks(cluster, bars):
    builder = begin(cluster, "cli", "slow-killed/s.zarr")
    worker = cluster.hosts["w1"].started[-1]
    worker.kill()
    worker.wait()
    assert builder.wait(240) == 0, cluster.told("build-slow-killed-s.zarr")
    assert cluster.objects("slow-killed/s.zarr/") == bars
    cluster.start_worker("w1")


def test_a_builder_that_is_killed_is_followed_from_another_host(cluster, bars):
    builder = begin(cluster, "cli", "slow-left/s.zarr")
    builder.kill()
    builder.wait()
    assert "manifest.json" not in cluster.objects("slow-left/s.zarr/")
    began = time.monotonic()
    told = built(build(cluster, "cli2", "slow-left/s.zarr"))
    assert told["resumed_chunks"] > 0
    assert time.monotonic() - began < 6 + 60
    assert cluster.objects("slow-left/s.zarr/") == bars
    assert not [
        name for name in cluster.names("slow-left/") if ".building" in name or "probes" in name
    ]


def test_of_two_builders_on_two_hosts_one_builds_and_the_other_reuses(cluster, bars):
    hold = cluster.folder / "hold"
    hold.touch()
    one = begin(cluster, "cli", "slow-both/s.zarr")
    busy = build(cluster, "cli2", "slow-both/s.zarr", "--no-wait")
    assert busy.returncode == 1
    assert "is being built by process" in busy.stderr
    assert "on cli since" in busy.stderr
    other = cluster.hosts["cli2"].start(
        sys.executable, "-m", "grandbatch", *call(cluster, "slow-both/s.zarr"), log="other"
    )
    deadline = time.monotonic() + 120
    while "waiting for process" not in cluster.told("other") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert one.poll() is None
    hold.unlink()
    assert one.wait(240) == other.wait(240) == 0
    assert '"reused": true' in cluster.told("other")
    assert cluster.objects("slow-both/s.zarr/") == bars


def test_a_scheduler_that_is_gone_is_an_error_and_the_same_command_goes_on(cluster, bars):
    builder = begin(cluster, "cli", "slow-sched/s.zarr")
    for host in ("sched", "w1", "w2"):
        for process in cluster.hosts[host].started:
            process.kill()
            process.wait()
    assert builder.wait(120) == 1
    assert "the scheduler at tcp://" in cluster.told("build-slow-sched-s.zarr")
    cluster.start_scheduler()
    for name in ("w1", "w2"):
        cluster.start_worker(name)
    assert built(build(cluster, "cli", "slow-sched/s.zarr"))["resumed_chunks"] > 0
    assert cluster.objects("slow-sched/s.zarr/") == bars


def test_workers_without_the_right_credentials_are_named_before_the_first_task(cluster, bars):
    for process in cluster.hosts["w1"].started:
        process.kill()
        process.wait()
    wrong = {**cluster.keys(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    cluster.start_worker("w1", wrong)
    cluster.wait_for_workers(2)
    done = build(cluster, "cli", "keys/s.zarr")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"worker tcp://{cluster.hosts['w1'].address}:" in last
    assert f"worker tcp://{cluster.hosts['w2'].address}:" not in last
    assert "AWS_ACCESS_KEY_ID" in last
    assert not cluster.names("keys/s.zarr/")
    for process in cluster.hosts["w1"].started:
        process.kill()
        process.wait()
    cluster.start_worker("w1")
