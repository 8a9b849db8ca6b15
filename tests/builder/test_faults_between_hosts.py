"""Builds on hosts whose network and servers fail meanwhile: the same bytes, or the stated error."""

from __future__ import annotations

import time

import pytest
from building_on_hosts import begin, build, built, command, put_bars, two_workers
from hosts import NO_HOSTS, can_make_hosts
from wire import SLOW_DOWN

pytestmark = pytest.mark.slow

OUTAGE_SECONDS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not can_make_hosts():
        pytest.skip(NO_HOSTS)
    with two_workers(tmp_path_factory.mktemp("hosts"), ["late"]) as made:
        yield made


@pytest.fixture(scope="module")
def bars(cluster, tmp_path_factory):
    return put_bars(cluster, tmp_path_factory.mktemp("bars"))


def wait_until(true, process, cluster, log):
    """Wait for a condition that a build under way must see before it ends."""
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, cluster.told(log)
        assert time.monotonic() < deadline, cluster.told(log)
        time.sleep(0.05)


def test_requests_that_are_refused_cut_dropped_or_never_answered_are_made_again(cluster, bars):
    builder = begin(cluster, "cli", "slow-wire/s.zarr", lease_seconds=60.0)
    wire, log = cluster.wire, "build-slow-wire-s.zarr"

    def fails(times, **how):
        for name, value in how.items():
            setattr(wire, name, value)
        wire.drop()
        before = wire.faults
        wait_until(lambda: wire.faults - before >= times, builder, cluster, log)

    ends = time.monotonic() + OUTAGE_SECONDS
    fails(4, answer=SLOW_DOWN)
    wait_until(lambda: time.monotonic() > ends, builder, cluster, log)
    wire.well()
    fails(4, down=True)
    wire.well()
    fails(4, cut_after=30)
    wire.well()
    before, wire.stalled = wire.requests, True
    wait_until(lambda: wire.requests - before >= 2, builder, cluster, log)
    wire.drop()
    wire.well()
    assert builder.wait(240) == 0, cluster.told(log)
    assert "trying again" in cluster.told(log)
    assert cluster.objects("slow-wire/s.zarr/") == bars


def test_an_outage_from_the_very_beginning_is_waited_for(cluster, bars):
    wire = cluster.wire
    wire.answer, before = SLOW_DOWN, wire.faults
    host = cluster.hosts["cli"]
    process = host.start(*command(cluster, "early/s.zarr"), log="early")
    wait_until(lambda: wire.faults - before >= 6, process, cluster, "early")
    wire.well()
    assert process.wait(240) == 0, cluster.told("early")
    assert cluster.objects("early/s.zarr/") == bars


def test_a_worker_that_joins_late_without_credentials_ends_the_build_and_is_named(cluster, bars):
    builder = begin(cluster, "cli", "slow-late/s.zarr")
    pause = cluster.folder / "pause"
    pause.touch()
    late = cluster.hosts["late"]
    worker = cluster.start_worker("late", {**cluster.keys(), "AWS_SECRET_ACCESS_KEY": "wrong"})
    try:
        assert builder.wait(120) == 1
    finally:
        pause.unlink()
        worker.kill()
        worker.wait()
    last = cluster.told("build-slow-late-s.zarr").splitlines()[-1]
    assert f"worker tcp://{late.address}:" in last
    assert "AWS_ACCESS_KEY_ID" in last
    assert "manifest.json" not in cluster.names("slow-late/s.zarr/")
    cluster.wait_for_workers(2)
    assert built(build(cluster, "cli", "slow-late/s.zarr"))["resumed_chunks"] > 0
    assert cluster.objects("slow-late/s.zarr/") == bars


def test_a_worker_that_is_cut_off_costs_its_tasks_and_may_come_back_whenever(cluster, bars):
    builder = begin(cluster, "cli", "slow-cut/s.zarr", lease_seconds=60.0)
    host = cluster.hosts["w1"]
    host.cut_off()
    # by Dask's own patience, half a minute
    cluster.wait_for_workers(1)
    host.plug_in()
    assert builder.wait(240) == 0, cluster.told("build-slow-cut-s.zarr")
    assert cluster.objects("slow-cut/s.zarr/") == bars
    # it ends, as a worker does that has lost its scheduler; another takes its place
    host.started[-1].wait(120)
    cluster.start_worker("w1")
    cluster.wait_for_workers(2)
    assert built(build(cluster, "cli", "slow-cut/s.zarr"))["reused"]
