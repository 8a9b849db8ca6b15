"""Windows per second and peak memory of the loader, beside memcpy and a torch DataLoader.

The work is one shuffled epoch of 1,000,000 strategic windows at stride 1, page cache warm. Every
case runs in a process of its own, in turns, so that its peak memory is its own. `first` is the
rate of a fresh loader, which decodes everything; `later` that of the epochs after it. The peer is
`torch.utils.data.DataLoader` over a `np.memmap` of the materialised windows with a batched
`__getitems__`, no workers (its fastest way here). The trainer is a loop that does nothing: where
it computes, `DataStreamer` gathers meanwhile.

With a context, each window comes with one of half-hour bars. The rate in bytes is to be at least
0.6 of that without. With weights, windows are drawn by a number of their own each; the rate is to
be at least half of that without. Both have rows of their own, with shares of processor time in
their notes: on a busy machine those count.

At stride 36 every window is read anew. The `limit` there is what two cores could do at most: one
process reads and decodes chunks all the time, another only copies windows from a table of decoded
ones, at the same time, with nothing between; their costs per window, added and shared by two.

    python benchmarks/loader.py [--json PATH] [--windows N] [--wide-windows N] [--rounds R]
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring import (
    Figures,
    Row,
    answer,
    in_turns,
    medians,
    metered,
    options_of,
    processor_seconds,
    report,
    run_apart,
)
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
MEMCPY, PEER, LIMIT = "memcpy, 1 thread", "DataLoader over memmap", "limit of two cores"
GOALS = {WITH_CONTEXT: 0.6, WITH_WEIGHTS: 0.5}


def epoch_figures(batches: Any) -> Figures:
    """Costs of an epoch, with its rate by the clock and that of processor time."""

    def go_through() -> Figures:
        return {"windows": sum(len(batch) for batch in batches)}

    found = metered(go_through)
    rates = {"rate": found["windows"] / found["seconds"]}
    return {**found, **rates, "of_processor": found["windows"] / found["processor"]}


def first_and_later(batches: Any) -> Figures:
    """Figures of the first epoch, and medians of the later ones, whose costs are told."""
    (first, *later) = (epoch_figures(batches) for _ in range(EPOCHS))
    found = medians(later)
    return {
        **found,
        "first": first["rate"],
        "later": found["rate"],
        "first_of_processor": first["of_processor"],
        "later_of_processor": found["of_processor"],
    }


def run_memcpy() -> Figures:
    source, target = np.ones(2**24, np.float32), np.ones(2**24, np.float32)

    def copy() -> None:
        target[:] = source

    found = medians([metered(copy) for _ in range(12)][2:])
    return {**found, "later": source.nbytes / found["seconds"] / WINDOW_BYTES}


def run_loader(
    store: str,
    batch_size: int,
    shuffle_chunks: int | None,
    context: str | None = None,
    weighted: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Figures:
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


def run_dataloader(path: str, batch_size: int) -> Figures:
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


def run_limit(store: str) -> Figures:
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
    user, system = processor_seconds(family=True)
    return {"later": 2 / total, "user": user, "system": system, "load": os.getloadavg()[0]}


WORKS = {
    "memcpy": run_memcpy,
    "loader": run_loader,
    "dataloader": run_dataloader,
    "limit": run_limit,
}


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
    chosen: dict[str, dict[str, Any]] = {MEMCPY: {"kind": "memcpy"}}
    for batch in (1024, 64):
        peer = {"kind": "dataloader", "path": stores["npy"], "batch_size": batch}
        chosen[f"{PEER}, batch {batch}"] = peer
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
            chosen[f"{name}, {LIMIT}"] = {"kind": "limit", "store": store}
    return chosen


def rows_of(results: dict[str, Figures]) -> list[Row]:
    """Later epochs of each case, and what contexts and weights leave of the rate without."""
    memcpy = results[MEMCPY]["later"] / 1e6
    rows = []
    for name, result in results.items():
        kind = name.split(", batch ")[0]
        peer = results.get(f"{PEER}, batch {64 if name.endswith('batch 64') else 1024}")
        limit = results.get(f"{kind}, {LIMIT}")
        is_ours = "vif" in result and not name.startswith(PEER)
        notes = [f"peak {result['peak_bytes'] / 1e6:.0f} MB"]
        if "vif" in result:
            first = result["first"] / result["later"]
            notes = [f"first epoch {first:.2f} of it", f"VIF {result['vif']:.2f}", *notes]
        rows.append(
            Row(
                name,
                result["later"] / 1e6,
                "M windows/s",
                result,
                limit=memcpy if limit is None else limit["later"] / 1e6,
                peer=peer["later"] / 1e6 if peer and is_ours else None,
                note=", ".join(notes),
            )
        )
    return rows + [
        share_row(name, result, results[name.removesuffix(ending)], goal)
        for name, result in results.items()
        for ending, goal in GOALS.items()
        if name.endswith(ending)
    ]


def share_row(name: str, result: Figures, plain: Figures, goal: float) -> Row:
    """The least share of processor time, of the rate in bytes without a context or weights."""
    more = result["window_bytes"] / plain["window_bytes"]
    first, later, *processor = (
        result[rate] * more / plain[rate]
        for rate in ("first", "later", "first_of_processor", "later_of_processor")
    )
    note = (
        f"first epoch {processor[0]:.2f}, later {processor[1]:.2f}; by the clock {first:.2f}, "
        f"{later:.2f}; opened in {result['opening_s']:.2f} s, "
        f"buffers of {result['buffer_bytes'] / 1e6:.0f} MB"
    )
    return Row(f"{name}: of the rate without", min(processor), "", result, goal=goal, note=note)


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--wide-windows", type=int, default=250_000)
    parser.add_argument("--folder", type=Path, help="where stores are kept and reused")
    options = parser.parse_args()
    if options.case is not None:
        answer(options.case, WORKS)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stores = build_stores(folder, options.windows, options.wide_windows)
        todo = {name: partial(run_apart, __file__, case) for name, case in cases(stores).items()}
        results = in_turns(todo, options.rounds)
    report(__file__, rows_of(results), options, results=results)


if __name__ == "__main__":
    main()
