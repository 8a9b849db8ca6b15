"""Two ranks on two hosts that share an object store; killed, they go on on a third one."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from hosts import NO_HOSTS, around_a_store, can_make_hosts
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb

pytestmark = pytest.mark.slow

EPOCHS = 3


def start(cluster, name, host, rank, leader, checkpoints):
    """Start a rank on a host, as torchrun does; the first one's address is known to all."""
    folder = cluster.folder / name
    folder.mkdir(exist_ok=True)
    environment = {
        "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": leader.address,
        "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return host.start(
        sys.executable, "-m", "grandbatch", "train", "strategic", "--store", "s3://bkt/s.zarr",
        "--checkpoint-dir", f"s3://bkt/{checkpoints}", "--epochs", EPOCHS, "--batch-size", 32,
        "--checkpoint-frequency", 4, "--trace", folder / "trace", "--json", "--quiet",
        environment=environment, log=f"{name}-{rank}",
    )  # fmt: skip


def traces(cluster, name):
    """What each rank has written of its batches, in order."""
    paths = [cluster.folder / name / f for f in ("trace", "trace.1")]
    return [
        # the last line may be on its way
        [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]
        if path.exists()
        else []
        for path in paths
    ]


def finish(cluster, name, host, checkpoints):
    """Train on one host, by two ranks, to the end; return what it says, and the traces."""
    ranks = [start(cluster, name, host, rank, host, checkpoints) for rank in range(2)]
    for number, process in enumerate(ranks):
        assert process.wait(240) == 0, cluster.told(f"{name}-{number}")
    summary = json.loads(cluster.told(f"{name}-0").splitlines()[-1])
    del summary["checkpoint_dir"]
    return summary, traces(cluster, name)


def test_ranks_on_two_hosts_that_are_killed_go_on_on_a_third_as_if_never_stopped(tmp_path):
    if not can_make_hosts():
        pytest.skip(NO_HOSTS)
    store = gb.build_store(write_bars(tmp_path / "b.csv", 2_400), tmp_path / "s.zarr", overlap=40)
    with around_a_store(tmp_path, ["one", "two", "three"]) as cluster:
        cluster.put("s.zarr", store.path)
        one, two, three = (cluster.hosts[name] for name in ("one", "two", "three"))
        whole = finish(cluster, "whole", three, "whole")
        ranks = [
            start(cluster, "cut", host, rank, one, "cut") for rank, host in enumerate((one, two))
        ]
        wait_until(
            lambda: min(map(len, traces(cluster, "cut"))) >= 10,
            lambda: [rank.poll() for rank in ranks] != [None, None],
            lambda: cluster.told("cut-0"),
        )
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.wait()
        before = traces(cluster, "cut")
        summary, after = finish(cluster, "rest", three, "cut")
    assert summary == whole[0]
    for first, rest, expected in zip(before, after, whole[1], strict=True):
        step = len(expected) - len(rest)
        assert 8 <= step <= len(first)
        assert first[:step] + rest == expected
    seen = Counter(window for lines in whole[1] for line in lines for window in line["windows"])
    assert sorted(seen) == list(range(len(store)))
    assert min(seen.values()) == EPOCHS
    # and one that fills up the last batch of an epoch, where windows are odd
    assert seen.total() - EPOCHS * len(store) in (0, EPOCHS)
