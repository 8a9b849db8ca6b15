"""The memory of a cluster's workers is told, and a cluster that is short of it never hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, get_worker
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.errors import MemoryLimitError
from grandbatch.memory.cluster import MemoryPlugin, cluster_processes
from grandbatch.scheduling import Schedule

MIB = 2**20
LIMIT_BYTES = 600 * MIB


@pytest.fixture(scope="module")
def client():
    with (
        # else it gives up a worker that starts again a quarter of a minute behind the last time
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT_BYTES,
            dashboard_address="127.0.0.1:0",
        ) as made,
        Client(made) as client,
    ):  # fmt: skip
        client.register_plugin(MemoryPlugin())
        yield client


def worker_named(client, name):
    return next((p for p in cluster_processes(client) if p.name == str(name)), None)


def fill(percent, seconds, let_go=None):
    """Fill the worker's memory to a share of its limit, and hold that until a file is there."""
    own = psutil.Process().memory_info().rss
    held = np.ones(max(0, LIMIT_BYTES * percent // 100 - own), np.uint8)
    time.sleep(seconds)
    while let_go is not None and not Path(let_go).exists():
        time.sleep(0.05)
    return get_worker().name, int(held[:1].sum())


@pytest.mark.slow
def test_each_workers_figures_come_with_its_heartbeat_and_agree_with_the_system(client):
    wait_until(lambda: all(p.level for p in cluster_processes(client)))

    def close():
        told = cluster_processes(client)
        real = [psutil.Process(p.pid).memory_info().rss for p in told]
        return len(told) == 2 and all(
            abs(p.rss_bytes - rss) < 0.02 * rss for p, rss in zip(told, real, strict=True)
        )

    wait_until(close)
    for process in cluster_processes(client):
        assert process.kind == "worker"
        assert process.limit_bytes == LIMIT_BYTES
        assert (process.status, process.pauses, process.restarts) == ("running", 0, 0)


@pytest.mark.slow
def test_a_worker_under_pressure_is_shown_paused_with_the_reason(client, tmp_path):
    (address, *_) = client.scheduler_info()["workers"]
    name = client.scheduler_info()["workers"][address]["name"]
    let_go = tmp_path / "let go"
    future = client.submit(fill, 85, 0, str(let_go), workers=[address], pure=False)
    shown = wait_until(
        lambda: (p := worker_named(client, name)) and p.pauses and p.status == "paused" and p
    )
    assert shown.reason.startswith("paused at")
    assert shown.rss_bytes > 0.8 * LIMIT_BYTES
    let_go.touch()
    future.result()
    wait_until(lambda: worker_named(client, name).status == "running")
    assert worker_named(client, name).pauses >= 1


@pytest.mark.slow
def test_a_worker_ended_for_memory_is_shown_started_again_with_the_reason(client, tmp_path):
    (address, *_) = client.scheduler_info()["workers"]
    name = client.scheduler_info()["workers"][address]["name"]
    never = str(tmp_path / "never")
    future = client.submit(fill, 130, 0, never, workers=[address], pure=False, retries=0)
    back = wait_until(lambda: (p := worker_named(client, name)) and p.restarts and p)
    assert back.reason.startswith("ended for memory at")
    future.cancel()
    wait_until(lambda: len(client.scheduler_info()["workers"]) == 2)


@pytest.mark.slow
def test_a_build_under_pressure_finishes_and_the_command_shows_its_workers(client, tmp_path):
    source = write_bars(tmp_path / "b.csv", 20_000)
    alone = gb.build_store(source, tmp_path / "alone.zarr", durable=False)
    pressed = client.map(fill, [70] * 2, [3.0] * 2, pure=False)
    began = time.monotonic()
    # which of the two depends on how far the workers have come
    with suppress(MemoryLimitError):
        built = gb.build_store(source, tmp_path / "s.zarr", client=client, durable=False)
        assert built.attrs["content_id"] == alone.attrs["content_id"]
    assert time.monotonic() - began < Schedule().patience_seconds + 30
    client.cancel(pressed)
    wait_until(lambda: len(client.scheduler_info()["workers"]) == 2)
    wait_until(lambda: all(p.level for p in cluster_processes(client)))
    call = [sys.executable, "-m", "grandbatch", "monitor",
            "--scheduler", client.scheduler.address]  # fmt: skip
    told = subprocess.run([*call, "--json"], capture_output=True, check=True, timeout=120).stdout
    processes = json.loads(told)["processes"]
    assert sorted(p["name"] for p in processes) == ["0", "1"]
    assert all(p["rss_bytes"] > 0 and p["level"] for p in processes)
    table = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "worker 0" in table
    assert "worker 1" in table
