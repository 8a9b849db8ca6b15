"""Microseconds from a bar to a trained team's action, beside recomputing the window in pandas.

A team is trained a little on the first bars of a simulated file; the rest arrive one by one. The
peer is the plain way to serve: pandas over the last bars, each feature over all of them. It
computes four of the strategic features only.

    python benchmarks/live.py [--json PATH] [--bars N]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import grandbatch as gb
from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer

GOAL_US = 1_000.0
HISTORY = 5_000
TEAMS = {"strategic": BatchStrategicTrainer, "tactical": BatchTacticalTrainer}


def trained_team(name: str, source: Path) -> Any:
    feature_set = getattr(gb, name.upper())
    overlap = feature_set.sequence_length - 1
    store = gb.build_store(
        source, source.with_name(f"{name}.zarr"), feature_set=name, overlap=overlap, layout="rows"
    )
    team = TEAMS[name].for_store(store)
    for number, batch in enumerate(gb.SlidingWindowDataLoader(store, run_length=8)):
        if number == 20:
            break
        team.train_batch(batch)
    return team


def by_pandas(bars: pd.DataFrame) -> np.ndarray:
    close, volume = bars["close"], bars["volume"]
    earlier = close.shift(1).rolling(20)
    columns = {
        "price_change": close.pct_change(),
        "volume_ratio": volume / volume.shift(1).rolling(10).mean(),
        "volatility": earlier.std(ddof=0) / earlier.mean(),
        "momentum": close.pct_change(10),
    }
    return pd.DataFrame(columns).to_numpy(np.float32)


def spread(taken: list[float]) -> dict[str, float]:
    return {
        "median_us": round(statistics.median(taken) * 1e6, 1),
        "p99_us": round(float(np.percentile(taken, 99)) * 1e6, 1),
    }


def measure(name: str, source: Path, bars: list[dict[str, Any]]) -> dict[str, Any]:
    team = trained_team(name, source)
    live = gb.LiveFeatures(name)
    taken: dict[str, list[float]] = {"push": [], "push_and_act": []}
    exposure = torch.zeros(1, dtype=torch.float64)
    for bar in bars:
        began = time.perf_counter()
        matrix = live.push(bar)
        pushed = time.perf_counter()
        if matrix is None:
            continue
        exposure = team.act(torch.from_numpy(matrix)[None], exposure).exposure
        taken["push"].append(pushed - began)
        taken["push_and_act"].append(time.perf_counter() - began)
    # the first calls warm the libraries up
    return {"feature_set": name, **{k: spread(v[50:]) for k, v in taken.items()}}


def measure_pandas(bars: list[dict[str, Any]]) -> dict[str, Any]:
    frame, taken = pd.DataFrame(bars), []
    for last in range(100, 400):
        began = time.perf_counter()
        by_pandas(frame.iloc[last - 88 : last])
        taken.append(time.perf_counter() - began)
    return {"feature_set": "pandas, 4 features", "push": spread(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("bench-results/live.json"))
    parser.add_argument("--bars", type=int, default=3_000, help="bars that arrive")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "bars.csv"
        gb.create_large_dataset_simulation(source, HISTORY + options.bars)
        frame = pd.read_csv(source, parse_dates=[0]).iloc[HISTORY:]
        bars = frame.rename(columns=str.lower).to_dict("records")
        results = [measure(name, source, bars) for name in TEAMS]
    results.append(measure_pandas(bars))
    print(f"{'set':<20} {'push: median':>14} {'p99':>8} {'and act: median':>17} {'p99':>8}   us")
    for result in results:
        line = f"{result['feature_set']:<20} {result['push']['median_us']:>14.1f} "
        line += f"{result['push']['p99_us']:>8.1f}"
        if "push_and_act" in result:
            both = result["push_and_act"]
            result["reached"] = both["median_us"] <= GOAL_US
            line += f" {both['median_us']:>17.1f} {both['p99_us']:>8.1f}   "
            line += "reached" if result["reached"] else "MISSED"
        print(line)
    record = {
        "benchmark": "live",
        "unit": "microseconds, one thread",
        "bars": options.bars,
        "goal_us": GOAL_US,
        "machine": {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__},
        "results": results,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
