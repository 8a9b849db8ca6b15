"""How fast MAPPO trains from a store, and how long it waits for its batches.

One epoch of simulated bars at the sets' own settings, by `BatchProcessor`, with batches prepared
ahead and without. Beside it the limit: the same trainer in a plain loop over tensors that lie in
memory, with nothing watched, recorded or saved. Ways take turns, round by round.

A wait is the time between asking for a batch and having it; the first, in which the store's files
are opened, is among them. The in-memory loop's wait is the time that indexing takes.

    python benchmarks/training.py [--json PATH] [--windows N] [--rounds R] [--threads T]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

import grandbatch as gb
from grandbatch.cli.training import make_config, make_trainer

SETS = ("strategic", "tactical")
RUN_LENGTH = 8
WAYS = {"tensors in memory": None, "2 batches ahead": 2, "none ahead": 0}
"""How batches come: from memory, or from the store with so many prepared ahead."""

Course = tuple[list[float], list[float], float]
"""Seconds waited for and spent on each batch, and those of the whole loop, checkpoints and all."""


def build(folder: Path, feature_set: str, windows: int) -> gb.MatrixStore:
    chosen = gb.STRATEGIC if feature_set == "strategic" else gb.TACTICAL
    rows = windows * (chosen.sequence_length - chosen.overlap) + 2 * chosen.sequence_length
    source = folder / f"{feature_set}.csv"
    gb.create_large_dataset_simulation(source, rows)
    return gb.build_store(source, folder / f"{feature_set}.zarr", feature_set=feature_set)


def shuffled(whole: gb.MatrixBatch, batch_size: int) -> Iterator[gb.MatrixBatch]:
    """Batches of runs of windows, in a random order, as a plain loop would cut them."""
    tensors = whole.tensors()
    runs = torch.split(torch.arange(len(whole)), RUN_LENGTH)
    order = torch.cat([runs[place] for place in torch.randperm(len(runs)).tolist()])
    for rows in torch.split(order, batch_size):
        cut = {name: tensor[rows] for name, tensor in tensors.items()}
        yield gb.MatrixBatch(**cut, position=whole.position)


def in_memory(store: gb.MatrixStore, threads: int) -> Course:
    config = make_config(store, len(store), None, 0)
    whole = next(iter(gb.SlidingWindowDataLoader(store, config, shuffle=False)))
    trainer = make_trainer(store, 0, threads)
    waited, trained = [], []
    asked = time.perf_counter()
    for batch in shuffled(whole, make_config(store, None, None, 0).batch_size):
        began = time.perf_counter()
        trainer.train_batch(batch)
        ended = time.perf_counter()
        waited.append(began - asked)
        trained.append(ended - began)
        asked = time.perf_counter()
    return waited, trained, sum(waited) + sum(trained)


def from_store(store: gb.MatrixStore, threads: int, prefetch: int, checkpoints: Path) -> Course:
    config = make_config(store, None, None, 0)
    config = dataclasses.replace(config, prefetch_batches=prefetch)
    processor = gb.BatchProcessor(store, config, checkpoints, resume=False, run_length=RUN_LENGTH)
    trainer = make_trainer(store, 0, threads)
    waited, trained = [], []
    begin = time.perf_counter()
    with closing(processor.process_batches(trainer)) as results:
        for result in results:
            waited.append(result["wait_time"])
            trained.append(result["batch_time"])
    return waited, trained, time.perf_counter() - begin


def measure(store: gb.MatrixStore, threads: int, way: str, folder: Path) -> dict[str, float]:
    prefetch = WAYS[way]
    if prefetch is None:
        waited, trained, seconds = in_memory(store, threads)
    else:
        waited, trained, seconds = from_store(store, threads, prefetch, folder)
    return {
        "windows_per_second": len(store) / seconds,
        "waited_share": sum(waited) / (sum(waited) + sum(trained)),
        "waited_share_after_first": sum(waited[1:]) / (sum(waited[1:]) + sum(trained[1:])),
        "first_wait_ms": waited[0] * 1e3,
        "wait_ms": statistics.median(waited[1:]) * 1e3,
        "train_ms": statistics.median(trained) * 1e3,
        "batches": len(waited),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-results/training.json"))
    parser.add_argument("--windows", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    print(
        f"{'':30}{'windows/s':>10}{'of memory':>10}{'waits %':>9}{'after 1st %':>12}"
        f"{'1st ms':>8}{'wait ms':>9}{'train ms':>9}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for feature_set in SETS:
            store = build(folder, feature_set, options.windows)
            rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for number in range(options.rounds + 1):
                for way, found in rounds.items():
                    where = folder / f"{feature_set}-{way}-{number}"
                    row = measure(store, options.threads, way, where)
                    if number:  # the first round warms everything up
                        found.append(row)
            for way, found in rounds.items():
                row = {key: statistics.median(r[key] for r in found) for key in found[0]}
                limit = results.get(f"{feature_set}, {next(iter(WAYS))}", row)
                row["of_memory"] = row["windows_per_second"] / limit["windows_per_second"]
                results[f"{feature_set}, {way}"] = row
                print(
                    f"{f'{feature_set}, {way}':30}{row['windows_per_second']:>10,.0f}"
                    f"{row['of_memory']:>10.3f}{row['waited_share'] * 100:>9.3f}"
                    f"{row['waited_share_after_first'] * 100:>12.3f}{row['first_wait_ms']:>8.1f}"
                    f"{row['wait_ms']:>9.4f}{row['train_ms']:>9.2f}",
                    flush=True,
                )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "windows": options.windows,
        "threads": options.threads,
        "load": os.getloadavg(),
    }
    options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
