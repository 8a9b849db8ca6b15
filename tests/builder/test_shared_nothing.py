"""Builds on hosts that share nothing but an object store: the same bytes, whatever fails."""

from __future__ import annotations

import json
import sys
import time

import pytest
from building_on_hosts import begin, build, built, call, command, put_bars, two_workers
from cgroups import inside, memory_cgroup
from hosts import NO_HOSTS, can_make_hosts

pytestmark = pytest.mark.slow

# as the command; tells at its end for how many seconds it has waited for another's lease
_COUNTING_PAUSES = """
import atexit, sys, time
from types import SimpleNamespace
from grandbatch.cli import main
from grandbatch.files import leases

pauses = []

def sleep(seconds):
    pauses.append(seconds)
    time.sleep(seconds)

leases.time = SimpleNamespace(monotonic=time.monotonic, strftime=time.strftime, sleep=sleep)
atexit.register(lambda: print(sum(pauses), file=sys.stderr))
sys.argv[0] = "grandbatch"
main()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not can_make_hosts():
        pytest.skip(NO_HOSTS)
    with two_workers(tmp_path_factory.mktemp("hosts"), ["cli2"]) as made:
        yield made


@pytest.fixture(scope="module")
def bars(cluster, tmp_path_factory):
    return put_bars(cluster, tmp_path_factory.mktemp("bars"))


def test_a_build_from_a_url_to_a_url_is_the_local_one(cluster, bars):
    built(build(cluster, "cli", "one/s.zarr"))
    assert cluster.objects("one/s.zarr/") == bars
    assert built(build(cluster, "cli2", "one/s.zarr"))["reused"]
    by_tasks = ("--scheduler", cluster.scheduler)
    alone, told = (
        built(cluster.grandbatch("cli2", "verify", "s3://bkt/one/s.zarr", *where, "--json"))
        for where in ((), by_tasks)
    )
    assert told == alone
    assert told["ok"]
    health = cluster.grandbatch("cli2", "doctor", *by_tasks, "--folder", "s3://bkt/one", "--json")
    assert built(health)["cluster"]["unreachable"] == {}
    # nobody has left anything on a disk of his own but Dask its folders
    for name in ("cli", "cli2", "w1", "w2"):
        left = [file for file in cluster.hosts[name].files() if not file.startswith("./dask/")]
        assert left == []


def test_only_the_builder_itself_takes_of_its_hosts_memory(cluster, bars):
    with memory_cgroup(700 * 2**20) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        host, call = cluster.hosts["cli"], command(cluster, "little/s.zarr")
        built(host.run(*inside(group, call)))
    assert cluster.objects("little/s.zarr/") == bars
    limited = build(cluster, "cli", "less/s.zarr", "--memory-limit", "700MiB")
    assert limited.returncode != 0
    assert "2 worker processes (2 on other machines)" in limited.stderr


def test_inputs_that_grew_extend_the_store_from_another_host(cluster, tmp_path):
    put_bars(cluster, tmp_path, [0], "grown")
    first = built(build(cluster, "cli", "grown/s.zarr", inputs="grown"))
    both = put_bars(cluster, tmp_path, [1], "grown")
    told = built(build(cluster, "cli2", "grown/s.zarr", inputs="grown"))
    assert 0 < told["kept_chunks"] <= first["n_chunks"] < told["n_chunks"]
    assert cluster.objects("grown/s.zarr/") == both
    assert not [name for name in cluster.names("grown/") if ".building" in name]


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
    followed = cluster.hosts["cli2"].run(
        sys.executable, "-c", _COUNTING_PAUSES, *call(cluster, "slow-left/s.zarr")
    )
    told = built(followed)
    assert told["resumed_chunks"] > 0
    # the lease that was left holds for six seconds; looked for once a second
    assert 0 < float(followed.stderr.splitlines()[-1]) <= 6 + 1
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
    other = cluster.hosts["cli2"].start(*command(cluster, "slow-both/s.zarr"), log="other")
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
    where = ("--scheduler", cluster.scheduler, "--folder", "s3://bkt/keys", "--json")
    health = cluster.grandbatch("cli", "doctor", *where)
    assert health.returncode == 1
    (named,) = json.loads(health.stdout)["cluster"]["unreachable"]
    assert named.startswith(f"tcp://{cluster.hosts['w1'].address}:")
    for process in cluster.hosts["w1"].started:
        process.kill()
        process.wait()
    cluster.start_worker("w1")
