"""Nanoseconds of processor time per bar on one thread: feature sets, Alpha158, window functions.

The strategic and tactical sets run beside a plain loop, the obvious way to write the same features
in numba: for each bar, for each feature, over its window. Alpha158 runs beside polars, KunQuant
where it is installed, and the floor: what it takes to write so many bytes, and to do its additions,
divisions and roots. Window functions run beside TA-Lib and pandas. All of one table run in one
process, in turns; medians are told.

    python benchmarks/features.py [--json PATH] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from peers import features as peers

from grandbatch.features import (
    ALPHA158,
    PRICES_AND_VOLUME,
    STRATEGIC,
    TACTICAL,
    FeatureSet,
    compute_rows,
)
from grandbatch.features.rows import _write_run as write_run

ROWS = (65_536, 262_144)
GOALS_NS = {"strategic": 80.0, "tactical": 40.0}
NO_STARTS = np.empty(0, np.int64)


def simulated_bars(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
    open_ = np.concatenate([close[:1], close[:-1]])
    room = 0.05 * np.abs(rng.normal(size=(2, n)))
    high, low = np.maximum(open_, close) + room[0], np.minimum(open_, close) - room[1]
    volume = rng.integers(1, 10_000, n).astype(float)
    return dict(zip(PRICES_AND_VOLUME, (open_, high, low, close, volume), strict=True))


@numba.njit(nogil=True, error_model="numpy")
def change(x, y):
    return x / y - 1.0 if y != 0.0 else 0.0


@numba.njit(nogil=True, error_model="numpy")
def moments(x, begin, stop):
    mean = 0.0
    for k in range(begin, stop):
        mean += x[k]
    mean /= stop - begin
    squares = 0.0
    for k in range(begin, stop):
        squares += (x[k] - mean) * (x[k] - mean)
    return mean, math.sqrt(squares / (stop - begin))


@numba.njit(nogil=True, error_model="numpy")
def is_flat(x, begin, stop):
    flat = True
    for k in range(begin + 1, stop):
        flat &= x[k] == x[begin]
    return flat


@numba.njit(nogil=True, error_model="numpy")
def pearson(x, x_begin, y, y_begin):
    if is_flat(x, x_begin, x_begin + 20) or is_flat(y, y_begin, y_begin + 20):
        return 0.0, False
    x_mean, x_std = moments(x, x_begin, x_begin + 20)
    y_mean, y_std = moments(y, y_begin, y_begin + 20)
    joint = 0.0
    for k in range(20):
        joint += (x[x_begin + k] - x_mean) * (y[y_begin + k] - y_mean)
    return joint / 20.0 / (x_std * y_std), True


@numba.njit(nogil=True, error_model="numpy")
def loop_strategic(open_, high, low, c, v, first, out):
    returns = np.empty(29)
    for t in range(first, c.size):
        row = t - first
        volume, _ = moments(v, t - 10, t)
        mean, std = moments(c, t - 20, t)
        out[row, 0] = change(c[t], c[t - 1])
        out[row, 1] = v[t] / volume if volume != 0.0 else 1.0
        out[row, 2] = std / mean
        out[row, 3] = change(c[t], c[t - 10])
        gain = loss = 0.0
        for k in range(t - 14, t):
            rise = c[k] - c[k - 1]
            gain += max(rise, 0.0)
            loss += max(-rise, 0.0)
        out[row, 4] = gain / (gain + loss) if loss > 0.0 else 1.0
        fast = slow = c[t - 26]
        for k in range(t - 25, t):
            fast += 2.0 / 13.0 * (c[k] - fast)
            slow += 2.0 / 27.0 * (c[k] - slow)
        out[row, 5] = (fast - slow) / slow
        out[row, 6] = 0.5 if is_flat(c, t - 20, t) else (c[t] - mean) / (2.0 * std) + 0.5
        least = second = np.inf
        for k in range(29):
            value = change(c[t - 29 + k], c[t - 30 + k])
            returns[k] = value
            if k >= 15:
                if value < least:
                    least, second = value, least
                elif value < second:
                    second = value
        recent, _ = moments(returns, 25, 29)
        out[row, 7] = math.tanh(10.0 * recent)
        out[row, 8], _ = pearson(v, t - 20, c, t - 20)
        _, std = moments(returns, 0, 29)
        out[row, 9] = 1.0 if std > 0.02 else (-1.0 if std < 0.01 else 0.0)
        out[row, 10] = min(1.0, max(0.0, -20.0 * (least + 0.65 * (second - least))))
        out[row, 11] = min(2.0, v[t] / volume) / 2.0 if volume != 0.0 else 0.5
        together, defined = pearson(c, t - 40, c, t - 20)
        out[row, 12] = 1.0 - together if defined else 0.0


@numba.njit(nogil=True, error_model="numpy")
def loop_tactical(open_, high, low, c, v, first, out):
    for t in range(first, c.size):
        row = t - first
        for f in range(5):
            out[row, f] = 0.0
        nearest = np.inf
        lowest, highest = np.inf, -np.inf
        for age in range(20):
            i = t - age
            for bullish in (True, False):
                level = high[i - 2] if bullish else low[i - 2]
                if bullish:
                    live = low[i] > level and lowest >= level
                    filled = low[t] < level
                else:
                    live = high[i] < level and highest <= level
                    filled = high[t] > level
                if not live:
                    continue
                out[row, 0 if bullish else 1] = 1.0
                if filled:
                    out[row, 4] = 1.0
                if abs(level - c[t]) < nearest:
                    nearest = abs(level - c[t])
                    away = 100.0 * (level - c[t]) / c[t]
                    out[row, 2] = min(2.0, max(-2.0, away)) / 2.0
                    out[row, 3] = math.exp(-0.1 * age)
            if age > 0:
                lowest = min(lowest, low[i])
                highest = max(highest, high[i])
        out[row, 5] = min(1.0, max(-1.0, 100.0 * change(c[t], c[t - 5]) / 5.0))
        usual, _ = moments(v, t - 20, t)
        out[row, 6] = math.tanh(math.log(v[t] / usual)) if v[t] > 0.0 and usual > 0.0 else 0.0


LOOPS = {"strategic": loop_strategic, "tactical": loop_tactical}


ALPHA158_ROWS = 100_000
ALPHA158_GOAL_NS = 240.0
# sums, squares, products, trends: 20 trees of five windows; ranks 120 compares, networks 187; roots
# and divisions 90. Counted for the kernels as they are
OPERATIONS, SLOW_OPERATIONS = 2_000, 90


def seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def process_seconds(work: Callable[[], object]) -> float:
    """Of all threads: what peers start counts too."""
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turns(
    works: dict[str, Callable[[], object]], rounds: int, n: int, clock: Any = process_seconds
) -> dict[str, float]:
    """Return the median ns an item of each work."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(clock(work) / n * 1e9)
    return {name: round(statistics.median(values), 2) for name, values in taken.items()}


@numba.njit(nogil=True, error_model="numpy")
def arithmetic(x, y, rounds):
    """Add 8 times to each number between reading and writing it, in the nearest cache."""
    for _ in range(rounds):
        for i in range(len(x)):
            total, term = x[i], y[i]
            for _ in range(8):
                total += term
            x[i] = total


@numba.njit(nogil=True, error_model="numpy")
def slow_arithmetic(x, y, rounds):
    for _ in range(rounds):
        for i in range(len(x)):
            y[i] = math.sqrt(x[i]) / 3.7


def measure_alpha158(rounds: int) -> dict[str, Any]:
    """Time Alpha158's whole route from bars to rows, its floor, and peers."""
    n = ALPHA158_ROWS
    bars = simulated_bars(n)
    width = ALPHA158.n_features
    out, copy = np.ones((n, width), np.float32), np.empty((n, width), np.float32)
    x, y = np.ones(1_000), np.ones(1_000)
    works: dict[str, Callable[[], object]] = {
        "grandbatch": lambda: write_run(ALPHA158, bars, ALPHA158.lookback, out),
        "grandbatch, fresh memory": lambda: compute_rows(ALPHA158, bars, NO_STARTS),
        "floor: bytes": lambda: np.copyto(copy, out),
        "floor: additions": lambda: arithmetic(x, y, OPERATIONS // 8 * n // 1_000 // 10),
        "floor: divisions and roots": lambda: slow_arithmetic(
            x, y, SLOW_OPERATIONS // 2 * n // 1_000 // 10
        ),
        "polars, 142 columns": peers.polars(bars),
        "KunQuant, float64": peers.kunquant(bars),
    }
    present = {name: work for name, work in works.items() if work is not None}
    found = in_turns(present, rounds, n)
    for name in ("floor: additions", "floor: divisions and roots"):
        found[name] = round(found[name] * 10, 2)
    return {
        "rows": n, "columns": width, "goal_ns": ALPHA158_GOAL_NS, "ns_per_bar": found,
        "absent": sorted(set(works) - set(present)),
        "reached": found["grandbatch"] <= ALPHA158_GOAL_NS,
    }  # fmt: skip


def measure_windows(rounds: int) -> list[dict[str, Any]]:
    """Time window functions beside TA-Lib's and pandas'."""
    n = ALPHA158_ROWS
    results = []
    for name, works in peers.indicators(simulated_bars(n)).items():
        ours, talib, pandas = works
        present = {"grandbatch": ours, "TA-Lib": talib, "pandas": pandas}
        found = in_turns({k: work for k, work in present.items() if work is not None}, rounds, n)
        results.append({"operation": name, "ns_per_value": found})
    return results


def measure(feature_set: FeatureSet, n: int, rounds: int) -> dict[str, Any]:
    """Time the kernel, the route that checks and lays out its arrays, and the plain loop."""
    bars = simulated_bars(n)
    first = feature_set.lookback
    (producer,) = feature_set.production.producers
    arrays = [bars[name] for name in PRICES_AND_VOLUME]
    ours = np.empty((feature_set.n_features, n - first), np.float32)
    loops = np.empty((n - first, feature_set.n_features), np.float32)
    works: dict[str, Callable[[], object]] = {
        "kernel_ns": lambda: producer.write(bars, first, n, ours),
        "compute_rows_ns": lambda: compute_rows(feature_set, bars, NO_STARTS),
        "plain_loop_ns": lambda: LOOPS[feature_set.name](*arrays, first, loops),
    }
    for work in works.values():
        work()
    np.testing.assert_allclose(ours.T, loops, atol=2e-6, rtol=2e-6)
    goal = GOALS_NS[feature_set.name]
    result: dict[str, Any] = {"feature_set": feature_set.name, "rows": n, "goal_ns": goal}
    result |= in_turns(works, rounds, n, seconds)
    result["reached"] = result["kernel_ns"] <= goal
    result["times_plain_loop"] = round(result["plain_loop_ns"] / result["kernel_ns"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("bench-results/features.json"))
    parser.add_argument("--rounds", type=int, default=9, help="the median of so many is reported")
    options = parser.parse_args()
    results = []
    print(
        f"{'set':<10} {'rows':>8} {'kernel':>8} {'rows()':>8} {'loop':>8} {'goal':>6}   ns per bar"
    )
    for feature_set in (STRATEGIC, TACTICAL):
        for n in ROWS:
            result = measure(feature_set, n, options.rounds)
            results.append(result)
            print(
                f"{result['feature_set']:<10} {n:>8} {result['kernel_ns']:>8.1f} "
                f"{result['compute_rows_ns']:>8.1f} {result['plain_loop_ns']:>8.1f} "
                f"{result['goal_ns']:>6.0f}   {'reached' if result['reached'] else 'MISSED'}"
            )
    alpha = measure_alpha158(options.rounds)
    print(f"\nAlpha158, {alpha['columns']} columns, {alpha['rows']:,} bars     ns per bar   ratio")
    ours = alpha["ns_per_bar"]["grandbatch"]
    for name, taken in alpha["ns_per_bar"].items():
        print(f"  {name:<32} {taken:>10.1f} {taken / ours:>7.2f}")
    for name in alpha["absent"]:
        print(f"  {name:<32} not installed")
    print(f"  goal: {ALPHA158_GOAL_NS:.0f}: {'reached' if alpha['reached'] else 'MISSED'}")
    windows = measure_windows(options.rounds)
    print("\nwindow            grandbatch   TA-Lib   pandas   ns per value")
    for result in windows:
        taken = result["ns_per_value"]
        shown = (f"{taken[k]:>8.2f}" if k in taken else f"{'-':>8}" for k in ("TA-Lib", "pandas"))
        print(f"{result['operation']:<17} {taken['grandbatch']:>10.2f} {' '.join(shown)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "features",
        "unit": "ns of processor time per bar, one thread, median",
        "rounds": options.rounds,
        "machine": {"cpu": platform.processor() or platform.machine(), "numba": numba.__version__},
        "results": results,
        "alpha158": alpha,
        "windows": windows,
    }
    options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
