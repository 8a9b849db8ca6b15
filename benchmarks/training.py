"""How long a trainer waits for its batches: MAPPO on both feature sets.

One epoch of simulated bars at the sets' own settings, by `BatchProcessor`, with batches prepared
ahead and without. A wait is the time between asking for a batch and having it; the first, which
opens the store's files, is among them. Beside it, what a loop that does nothing takes per batch.

    python benchmarks/training.py [--json PATH] [--windows N] [--rounds R]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import grandbatch as gb
from grandbatch.cli.training import make_config, make_trainer

SETS = ("strategic", "tactical")


def build(folder: Path, feature_set: str, windows: int) -> gb.MatrixStore:
    chosen = gb.STRATEGIC if feature_set == "strategic" else gb.TACTICAL
    rows = windows * (chosen.sequence_length - chosen.overlap) + 2 * chosen.sequence_length
    source = folder / f"{feature_set}.csv"
    gb.create_large_dataset_simulation(source, rows)
    return gb.build_store(source, folder / f"{feature_set}.zarr", feature_set=feature_set)


def train(
    store: gb.MatrixStore, feature_set: str, prefetch: int, checkpoints: Path
) -> dict[str, float]:
    config = make_config(feature_set, store, None, None, 0)
    config = dataclasses.replace(config, prefetch_batches=prefetch, adaptive=False)
    processor = gb.BatchProcessor(store, config, checkpoints, resume=False, run_length=8)
    waited, trained = [], []
    with closing(processor.process_batches(make_trainer(feature_set, store, 0))) as results:
        for result in results:
            waited.append(result["wait_time"])
            trained.append(result["batch_time"])
    return {
        "waited_share": sum(waited) / (sum(waited) + sum(trained)),
        "waited_share_after_first": sum(waited[1:]) / (sum(waited[1:]) + sum(trained[1:])),
        "first_wait_ms": waited[0] * 1e3,
        "wait_ms": statistics.median(waited[1:]) * 1e3,
        "train_ms": statistics.median(trained) * 1e3,
        "batches": len(waited),
        "batch_size": processor.loader.batch_size,
    }


def idle_ms(store: gb.MatrixStore, feature_set: str) -> float:
    """Milliseconds per batch of a loop that does nothing."""
    loader = gb.SlidingWindowDataLoader(store, make_config(feature_set, store, None, None, 0))
    begin = time.perf_counter()
    batches = sum(1 for _ in loader)
    return (time.perf_counter() - begin) / batches * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench-results/training.json"))
    parser.add_argument("--windows", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    print(
        f"{'':34}{'waits %':>9}{'after 1st %':>12}{'1st ms':>8}{'wait ms':>9}{'train ms':>9}"
        f"{'idle ms':>9}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for feature_set in SETS:
            store = build(folder, feature_set, options.windows)
            for prefetch in (2, 0):
                rounds = [
                    train(store, feature_set, prefetch, folder / f"{feature_set}-{prefetch}-{n}")
                    for n in range(options.rounds)
                ]
                row = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                row["idle_ms"] = idle_ms(store, feature_set)
                name = f"{feature_set}, {prefetch} batches ahead"
                results[name] = row
                print(
                    f"{name:34}{row['waited_share'] * 100:>9.3f}"
                    f"{row['waited_share_after_first'] * 100:>12.3f}{row['first_wait_ms']:>8.1f}"
                    f"{row['wait_ms']:>9.4f}{row['train_ms']:>9.2f}{row['idle_ms']:>9.4f}"
                )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "windows": options.windows}
    options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
