"""Builds on hosts whose network and servers fail meanwhile: the same bytes, or the stated error."""

from __future__ import annotations

import json
import time

import pytest
from building_on_hosts import begin, command, put_bars, two_workers
from hosts import NO_HOSTS, can_make_hosts
from waiting import wait_until
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


def test_a_worker_that_is_cut_off_and_a_server_that_fails_cost_time_and_nothing_else(cluster, bars):
    builder = begin(cluster, "cli", "slow-wire/s.zarr", lease_seconds=60.0)
    wire, host, log = cluster.wire, cluster.hosts["w1"], "build-slow-wire-s.zarr"

    def wait_for(found):
        wait_until(found, lambda: builder.poll() is not None, lambda: cluster.told(log))

    def fails(times, **how):
        for name, value in how.items():
            setattr(wire, name, value)
        wire.drop()
        before = wire.faults
        wait_for(lambda: wire.faults - before >= times)

    host.cut_off()
    ends = time.monotonic() + OUTAGE_SECONDS
    fails(4, answer=SLOW_DOWN)
    wait_for(lambda: time.monotonic() > ends)
    wire.well()
    fails(4, down=True)
    wire.well()
    fails(4, cut_after=30)
    wire.well()
    before, wire.stalled = wire.requests, True
    wait_for(lambda: wire.requests > before)
    wire.drop()
    wire.well()
    # given up by Dask's own patience, half a minute; the other one does its part
    cluster.wait_for_workers(1)
    host.plug_in()
    assert builder.wait(240) == 0, cluster.told(log)
    assert "trying again" in cluster.told(log)
    assert cluster.objects("slow-wire/s.zarr/") == bars
    # it ends, as a worker does that has lost its scheduler; another takes its place
    host.started[-1].wait(120)
    cluster.start_worker("w1")
    cluster.wait_for_workers(2)


def test_a_worker_that_joins_late_without_credentials_is_named_and_the_same_command_goes_on(
    cluster, bars
):
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

    # and an outage from the very beginning is waited for
    wire = cluster.wire
    wire.answer, before = SLOW_DOWN, wire.faults
    again = cluster.hosts["cli"].start(*command(cluster, "slow-late/s.zarr"), log="again")
    wait_until(
        lambda: wire.faults - before >= 6,
        lambda: again.poll() is not None,
        lambda: cluster.told("again"),
    )
    wire.well()
    assert again.wait(240) == 0, cluster.told("again")
    assert json.loads(cluster.told("again").splitlines()[-1])["resumed_chunks"] > 0
    assert cluster.objects("slow-late/s.zarr/") == bars
