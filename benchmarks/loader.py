"""Windows per second and peak memory of the loader, beside memcpy and a torch DataLoader.

The work is one shuffled epoch of 1,000,000 strategic windows at stride 1, page cache warm. Every
case runs in a process of its own, in turns, so that its peak memory is its own. `first` is the
rate of a fresh loader, which decodes everything; `later` that of the epochs after it. The peer is
`torch.utils.data.DataLoader` over a `np.memmap` of the materialised windows with a batched
`__getitems__`, no workers (its fastest way here). The trainer is a loop that does nothing: where
it computes, `DataStreamer` gathers meanwhile.

With a context, each window comes with one of half-hour bars. The rate in bytes is to be at least
0.6 of that without. With weights, windows are drawn by a number of their own each; the rate is to
be at least half of that without. Both are printed behind the table, by the clock and in processor
time, from runs in turns: on a busy machine the latter counts.

At stride 36 every window is read anew. The `limit` there is what two cores could do at most: one
process reads and decodes chunks all the time, another only copies windows from a table of decoded
ones, at the same time, with nothing between; their costs per window, added and shared by two.

    python benchmarks/loader.py [--json PATH] [--windows N] [--wide-windows N] [--rounds R]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

import grandbatch as gb
from grandbatch.config import DEFAULT_CACHE_BYTES
from grandbatch.store import OpenFiles

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

Half = Callable[[gb.MatrixStore], Iterator[int]]

L, F, LOOKBACK = 48, 13, 40
WINDOW_BYTES = L * F * 4
EPOCHS = 4
WITH_CONTEXT, WITH_WEIGHTS = ", context", ", weights"
GOALS = {WITH_CONTEXT: 0.6, WITH_WEIGHTS: 0.5}


def peak_rss_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def epoch_rates(batches: Any) -> tuple[float, float]:
    """Windows per second of an epoch by the clock, and of processor time."""
    windows, begin, used = 0, time.perf_counter(), time.process_time()
    for batch in batches:
        windows += len(batch)
    return windows / (time.perf_counter() - begin), windows / (time.process_time() - used)


def first_and_later(batches: Any) -> dict[str, float]:
    (first, *later) = (epoch_rates(batches) for _ in range(EPOCHS))
    clock, processor = (statistics.median(rates) for rates in zip(*later, strict=True))
    return {
        "first": first[0],
        "later": clock,
        "first_of_processor": first[1],
        "later_of_processor": processor,
    }


def run_memcpy() -> dict[str, float]:
    source, target = np.ones(2**24, np.float32), np.ones(2**24, np.float32)
    rates = []
    for _ in range(12):
        begin = time.perf_counter()
        target[:] = source
        rates.append(source.nbytes / (time.perf_counter() - begin))
    return {"later": statistics.median(rates[2:]) / WINDOW_BYTES}


def run_loader(
    store: str,
    batch_size: int,
    shuffle_chunks: int | None,
    context: str | None = None,
    weighted: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> dict[str, float]:
    opened = gb.MatrixStore.open(store)
    contexts = {} if context is None else {"slow": gb.MatrixStore.open(context)}
    weights = np.random.default_rng(0).random(len(opened)) if weighted else None
    config = gb.BatchConfig(
        batch_size=batch_size, sequence_length=L, overlap=opened.overlap, cache_bytes=cache_bytes
    )
    # imports and loads compiled kernels
    next(iter(gb.SlidingWindowDataLoader(opened, config, shuffle_chunks=1)))
    gc.collect()
    begin = time.perf_counter()
    loader = gb.SlidingWindowDataLoader(
        opened, config, shuffle_chunks=shuffle_chunks, context=contexts, weights=weights
    )
    opening = time.perf_counter() - begin
    return {
        **first_and_later(loader),
        "opening_s": opening,
        "window_bytes": loader.window_bytes,
        "vif": loader.shuffle_vif,
        "buffer_bytes": loader.buffer_bytes,
    }


def run_dataloader(path: str, batch_size: int) -> dict[str, float]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Windows(Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.windows = np.load(path, mmap_mode="r")

        def __len__(self) -> int:
            return len(self.windows)

        def __getitems__(self, indices: list[int]) -> torch.Tensor:
            return torch.from_numpy(self.windows[indices])

    loader = DataLoader(Windows(), batch_size, shuffle=True, collate_fn=lambda batch: batch)
    return {**first_and_later(loader), "vif": 1.0}


def read_chunks(store: gb.MatrixStore) -> Iterator[int]:
    """Read and decode chunks for ever, each into one of sixteen slots."""
    slots = np.ones((16, *store.chunk_shape), np.float32)
    with OpenFiles() as files:
        for chunk in itertools.cycle(range(len(store) // store.chunk_windows)):
            store.read_chunk(chunk, slots[chunk % 16], files)
            yield store.chunk_windows


def copy_windows(store: gb.MatrixStore) -> Iterator[int]:
    """Copy batches of shuffled windows out of sixteen chunks for ever."""
    apart = store.stride if store.layout == "rows" else L
    table = np.ones((16, *store.chunk_shape), np.float32).reshape(16, -1, F)
    windows = as_strided(
        table.reshape(-1)[: L * F].view(np.dtype((np.void, WINDOW_BYTES))),
        (table.shape[0] * table.shape[1] - L + 1,),
        (F * 4,),
    )
    slots = np.arange(16)[:, None] * table.shape[1]
    first_rows = slots + np.arange(store.chunk_windows) * apart
    shuffled = np.random.default_rng(0).permutation(first_rows.ravel())
    for batch in itertools.cycle(shuffled.reshape(-1, 1024)):
        yield len(windows[batch])


def repeat_half(half: Half, path: str, start: Barrier, costs: Queue[float]) -> None:
    """Do one half of the loader's work for three seconds; tell the seconds per window."""
    store = gb.MatrixStore.open(path)
    work, windows = half(store), 0
    while windows < len(store):  # so that the page cache, and the allocator, are warm
        windows += next(work)
    start.wait()
    windows, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < 3:
        windows += next(work)
    costs.put((time.perf_counter() - begin) / windows)


def run_limit(store: str) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    start, costs = context.Barrier(2), context.Queue()
    halves = [
        context.Process(target=repeat_half, args=(half, store, start, costs))
        for half in (read_chunks, copy_windows)
    ]
    for process in halves:
        process.start()
    total = sum(costs.get() for _ in halves)
    for process in halves:
        process.join()
    return {"later": 2 / total}


def run_case(case: dict[str, Any]) -> dict[str, float]:
    kinds = {
        "memcpy": run_memcpy,
        "loader": run_loader,
        "dataloader": run_dataloader,
        "limit": run_limit,
    }
    result = kinds[case.pop("kind")](**case)
    return {**result, "peak_rss_bytes": peak_rss_bytes()}


def in_own_process(case: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def build_stores(folder: Path, windows: int, wide_windows: int) -> dict[str, str]:
    """Build the stores, and materialise the windows for the peer; reuse what is there."""
    stores = {}
    for overlap, count in ((47, windows), (12, wide_windows)):
        stride = L - overlap
        source = folder / f"bars-{stride}-{count}.csv"
        if not source.exists():
            gb.create_large_dataset_simulation(source, (count - 1) * stride + L + LOOKBACK)
        codecs = ("auto",) if stride == 1 else ("auto", "none")
        for layout in ("rows", "windows"):
            for codec in codecs:
                name = f"{layout}, stride {stride}, {codec}"
                path = folder / f"{layout}-{stride}-{codec}-{count}.zarr"
                store = gb.build_store(source, path, overlap=overlap, layout=layout, codec=codec)
                stores[name] = str(store.path)
        if stride == 1:
            stores["npy"] = str(folder / f"windows-{count}.npy")
            slow = folder / f"slow-{count}.zarr"
            built = gb.build_store(source, slow, overlap=overlap, resample="30min")
            stores["context"] = str(built.path)
            if not Path(stores["npy"]).exists():
                np.save(stores["npy"], store.matrices[:])
    return stores


def cases(stores: dict[str, str]) -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {"memcpy, 1 thread": {"kind": "memcpy"}}
    for batch in (1024, 64):
        peer = {"kind": "dataloader", "path": stores["npy"], "batch_size": batch}
        chosen[f"DataLoader over memmap, batch {batch}"] = peer
        for layout in ("rows", "windows"):
            store = stores[f"{layout}, stride 1, auto"]
            for chunks, label in ((64, "blocks of 64"), (None, "default blocks")):
                chosen[f"{layout}, {label}, batch {batch}"] = {
                    "kind": "loader",
                    "store": store,
                    "batch_size": batch,
                    "shuffle_chunks": chunks,
                }
    for layout in ("rows", "windows"):
        base = chosen[f"{layout}, default blocks, batch 1024"]
        fewest = {**base, "shuffle_chunks": 64, "cache_bytes": 0}
        chosen[f"{layout}, blocks of 64, no cache"] = fewest
        for name, plain in (
            (f"{layout}, default blocks, batch 1024", base),
            (f"{layout}, blocks of 64, no cache", fewest),
        ):
            chosen[name + WITH_CONTEXT] = {**plain, "context": stores["context"]}
            chosen[name + WITH_WEIGHTS] = {**plain, "weighted": True}
    for name, store in stores.items():
        if "stride 36" in name:
            chosen[f"{name}, batch 1024"] = {
                "kind": "loader",
                "store": store,
                "batch_size": 1024,
                "shuffle_chunks": None,
            }
            chosen[f"{name}, limit of two cores"] = {"kind": "limit", "store": store}
    return chosen


def median_results(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def print_table(results: dict[str, dict[str, float]]) -> None:
    memcpy = results["memcpy, 1 thread"]["later"]
    print(f"{'':44}{'first M/s':>10}{'later M/s':>10}{'of memcpy':>10}{'VIF':>8}{'RSS MB':>8}")
    for name, result in results.items():
        first = f"{result['first'] / 1e6:.2f}" if "first" in result else ""
        vif = f"{result['vif']:.2f}" if "vif" in result else ""
        print(
            f"{name:44}{first:>10}{result['later'] / 1e6:>10.2f}{result['later'] / memcpy:>10.2f}"
            f"{vif:>8}{result['peak_rss_bytes'] / 1e6:>8.0f}"
        )


def print_shares(results: dict[str, dict[str, Any]]) -> None:
    """Print the rates with a context, in bytes of windows, or weights, over those without."""
    for name, result in results.items():
        for ending, goal in GOALS.items():
            if not name.endswith(ending):
                continue
            plain = results[name.removesuffix(ending)]
            more = result["window_bytes"] / plain["window_bytes"]
            shares = {
                rate: result[rate] * more / plain[rate]
                for rate in ("first", "later", "first_of_processor", "later_of_processor")
            }
            result["shares"] = shares
            first, later, *processor = shares.values()
            verdict = "reached" if min(processor) >= goal else f"MISSED ({goal})"
            print(
                f"{name}: {first:.2f} (first) and {later:.2f} (later) of the rate without, in "
                f"processor time {processor[0]:.2f} and {processor[1]:.2f}: {verdict}; opened in "
                f"{result['opening_s']:.2f} s, buffers of {result['buffer_bytes'] / 1e6:.0f} MB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-results/loader.json"))
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--wide-windows", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where stores are kept and reused")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(run_case(options.case)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stores = build_stores(folder, options.windows, options.wide_windows)
        todo = cases(stores)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in todo}
        for _ in range(options.rounds):
            for name, case in todo.items():
                measured[name].append(in_own_process(case))
    results = {name: median_results(rounds) for name, rounds in measured.items()}
    print_table(results)
    print_shares(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), **vars(options)}
    machine = {k: v for k, v in machine.items() if isinstance(v, str | int)}
    options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
