"""Builds on hosts that share nothing: one input, one command, files of chunks that take a while."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hosts import Cluster, digests, shared_nothing
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb

# several files of chunks, of few bars: more than two workers have under way at once
SETTINGS = {"sequence_length": 120, "overlap": 119, "chunk_windows": 64, "codec": "none"}
FLAGS = (
    "--sequence-length", 120, "--overlap", 119, "--chunk-windows", 64, "--codec", "none",
    "--partition-bars", 400,
)  # fmt: skip


@contextmanager
def two_workers(folder, more: Sequence[str] = ()) -> Iterator[Cluster]:
    """Make hosts, and start a worker on `w1` and `w2`."""
    with shared_nothing(folder, more) as cluster:
        cluster.preload = cluster.folder / "slow_files.py"
        wrote, pause = str(cluster.folder / "wrote"), str(cluster.folder / "pause")
        script = _SLOW_FILES.replace("WROTE", wrote).replace("PAUSE", pause)
        cluster.preload.write_text(script)
        cluster.start_worker("w1")
        cluster.start_worker("w2")
        cluster.wait_for_workers(2)
        yield cluster


def put_bars(cluster: Cluster, folder, seeds=range(3), inputs="in") -> dict[str, str]:
    """Put inputs into the bucket; return the files of the store that is built of all of them."""
    for seed in seeds:
        path = write_bars(folder / f"S{seed}.csv", 2_400, seed=seed)
        cluster.put(f"{inputs}/{path.name}", path)
    rules = gb.BarRules(symbol_from="filename")
    store = gb.build_store(
        folder / "*.csv", folder / f"s-{seeds[-1]}.zarr", rules=rules, **SETTINGS
    )
    return digests(store.path)


def call(cluster, store, *flags, inputs="in"):
    """The command that builds, in short."""
    where = ("--store", f"s3://bkt/{store}", "--scheduler", cluster.scheduler)
    what = ("build", "strategic", f"s3://bkt/{inputs}/*.csv", "--symbol-from", "filename")
    return [*what, *where, *FLAGS, "--json", *flags]


def command(cluster, store, *flags):
    """The command that builds, as a process is started by it."""
    return [sys.executable, "-m", "grandbatch", *call(cluster, store, *flags)]


def build(cluster, host, store, *flags, inputs="in"):
    return cluster.grandbatch(host, *call(cluster, store, *flags, inputs=inputs))


def begin(cluster, host, store, lease_seconds=6.0):
    """Begin to build, and wait until three files of chunks are written, not all."""
    assert store.startswith("slow")
    wrote = cluster.folder / "wrote"
    wrote.unlink(missing_ok=True)
    log = f"build-{store.replace('/', '-')}"
    script = _AS_THE_COMMAND.replace("HOLD", str(cluster.folder / "hold"))
    script = script.replace("LASTS", str(lease_seconds))
    command = (sys.executable, "-c", script, *call(cluster, store))
    process = cluster.hosts[host].start(*command, log=log)
    wait_until(
        lambda: wrote.exists() and wrote.read_text().count(store) >= 3,
        lambda: process.poll() is not None,
        lambda: cluster.told(log),
    )
    return process


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
        time.sleep(0.5)
        while Path("PAUSE").exists():
            time.sleep(0.1)

if Staging.write_file.__name__ != "slowly":  # Dask loads this more than once
    Staging.write_file = slowly
"""
# as the command, but that a lease may hold for a few seconds, and that it waits before it ends
_AS_THE_COMMAND = """
import sys, time
from pathlib import Path
from grandbatch.files import leases
leases.LEASE_SECONDS = LASTS
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
