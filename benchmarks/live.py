"""Microseconds from a bar to a trained team's action, beside recomputing the window in pandas.

A team is trained a little on the first bars of a simulated file; the rest arrive one by one. The
peer is the plain way to serve: pandas over the last bars, each feature over all of them. It
computes four of the strategic features only.

    python benchmarks/live.py [--json PATH] [--bars N]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import Row, metered, options_of, report

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
        "median_us": statistics.median(taken) * 1e6,
        "p99_us": float(np.percentile(taken, 99)) * 1e6,
    }


def measure(name: str, source: Path, bars: list[dict[str, Any]]) -> dict[str, Any]:
    team = trained_team(name, source)
    live = gb.LiveFeatures(name)
    taken: dict[str, list[float]] = {"push": [], "push and act": []}

    def serve() -> None:
        exposure = torch.zeros(1, dtype=torch.float64)
        for bar in bars:
            began = time.perf_counter()
            matrix = live.push(bar)
            pushed = time.perf_counter()
            if matrix is None:
                continue
            exposure = team.act(torch.from_numpy(matrix)[None], exposure).exposure
            taken["push"].append(pushed - began)
            taken["push and act"].append(time.perf_counter() - began)

    cost = metered(serve)
    # the first calls warm the libraries up
    return {**cost, **{name: spread(times[50:]) for name, times in taken.items()}}


def measure_pandas(bars: list[dict[str, Any]]) -> dict[str, Any]:
    frame, taken = pd.DataFrame(bars), []

    def recompute() -> None:
        for last in range(100, 400):
            began = time.perf_counter()
            by_pandas(frame.iloc[last - 88 : last])
            taken.append(time.perf_counter() - began)

    return {**metered(recompute), "push": spread(taken)}


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=1)
    parser.add_argument("--bars", type=int, default=3_000, help="bars that arrive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "bars.csv"
        gb.create_large_dataset_simulation(source, HISTORY + options.bars)
        frame = pd.read_csv(source, parse_dates=[0]).iloc[HISTORY:]
        bars = frame.rename(columns=str.lower).to_dict("records")
        found = {name: measure(name, source, bars) for name in TEAMS}
    peer = measure_pandas(bars)
    rows = [
        Row(
            f"{name}, {what}, {kind.removesuffix('_us')}",
            run[what][kind],
            "us",
            run,
            goal=GOAL_US if what == "push and act" else None,
            peer=peer["push"][kind] if what == "push" else None,
            is_cost=True,
        )
        for name, run in found.items()
        for what in ("push", "push and act")
        for kind in ("median_us", "p99_us")
    ]
    rows.append(
        Row("pandas, 4 features, median", peer["push"]["median_us"], "us", peer, is_cost=True)
    )
    report(__file__, rows, options, runs={**found, "pandas": peer})


if __name__ == "__main__":
    main()
