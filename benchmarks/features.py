"""Nanoseconds of processor time per bar on one thread: feature sets, Alpha158, window functions.

The strategic and tactical sets run beside their floor, a copy of the bytes that they read and
write, and a plain loop, the obvious way to write the same features
in numba: for each bar, for each feature, over its window. Alpha158 runs beside polars, KunQuant
where it is installed, and the floor: what it takes to write so many bytes, and to do its additions,
divisions and roots. Window functions run beside TA-Lib and pandas. All of one table run in turns;
medians are told. KunQuant needs a compiler of C++, and may stand in an environment of its own, such
as that of `make peers`: `--python` names its interpreter, which is asked in a process that stays.

    python benchmarks/features.py [--json PATH] [--rounds N] [--python PEERS_PYTHON]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial

import numba
import numpy as np
from measuring import Figures, Row, in_turns, metered, options_of, report
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

Work = Callable[[], object]


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
PEER_GOALS = {"polars, 142 columns": 20.0, "KunQuant, float64": 8.0}
"""How many times as long peers are to take."""
# sums, squares, products, trends: 20 trees of five windows; ranks 120 compares, networks 187; roots
# and divisions 90. Counted for the kernels as they are
OPERATIONS, SLOW_OPERATIONS = 2_000, 90


def per_item(works: dict[str, Work], rounds: int, n: int) -> dict[str, Figures]:
    """Medians of each work's costs, with the ns of processor time an item as `ns`."""

    def run(work: Work) -> Figures:
        found = metered(work)
        return {**found, "ns": found["processor"] / n * 1e9}

    return in_turns({name: partial(run, work) for name, work in works.items()}, rounds, warm=1)


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


def kunquant(bars: dict[str, np.ndarray], python: str | None) -> Work | None:
    """Return KunQuant's call, of this interpreter or of another one that has it."""
    if python is None:
        return peers.kunquant(bars)
    work = peers.Elsewhere(python, "kunquant", bars)
    return work if work.version else None


def alpha158_rows(rounds: int, python: str | None) -> list[Row]:
    """Time Alpha158's whole route from bars to rows, its floor, and peers."""
    n = ALPHA158_ROWS
    bars = simulated_bars(n)
    width = ALPHA158.n_features
    out, copy = np.ones((n, width), np.float32), np.empty((n, width), np.float32)
    x, y = np.ones(1_000), np.ones(1_000)
    floors: dict[str, Work] = {
        "floor: bytes": lambda: np.copyto(copy, out),
        "floor: additions": lambda: arithmetic(x, y, OPERATIONS // 8 * n // 1_000 // 10),
        "floor: divisions and roots": lambda: slow_arithmetic(
            x, y, SLOW_OPERATIONS // 2 * n // 1_000 // 10
        ),
    }
    ours: dict[str, Work] = {
        "grandbatch": lambda: write_run(ALPHA158, bars, ALPHA158.lookback, out),
        "grandbatch, fresh memory": lambda: compute_rows(ALPHA158, bars, NO_STARTS),
    }
    others = dict(zip(PEER_GOALS, (peers.polars(bars), kunquant(bars, python)), strict=True))
    there = {name: work for name, work in others.items() if work is not None}
    found = per_item({**ours, **floors, **there}, rounds, n)
    for name, work in others.items():
        if work is None:
            where = f"{python} hasn't it" if python else "--python names an interpreter that has it"
            print(f"{name}: not installed, not measured; {where}", file=sys.stderr)
        elif isinstance(work, peers.Elsewhere):
            work.close()
    for name in ("floor: additions", "floor: divisions and roots"):
        found[name]["ns"] *= 10
    limit = sum(found[name]["ns"] for name in floors)
    peer = min((found[name]["ns"] for name in there), default=None)
    rows = []
    for name, run in found.items():
        goal = ALPHA158_GOAL_NS if name == "grandbatch" else None
        beside = {"goal": goal, "limit": limit, "peer": peer} if name in ours else {}
        what = f"Alpha158, {width} columns: {name}"
        rows.append(Row(what, run["ns"], "ns a bar", run, is_cost=True, **beside))
    for name in there:
        times = found[name]["ns"] / found["grandbatch"]["ns"]
        rows.append(Row(f"Alpha158: {name} takes", times, "times as long", goal=PEER_GOALS[name]))
    return rows


def window_rows(rounds: int) -> list[Row]:
    """Time window functions beside TA-Lib's, where it has them, else pandas'.

    Means, exponential ones too, are to be no slower than TA-Lib's.
    """
    n = ALPHA158_ROWS
    rows = []
    for name, works in peers.indicators(simulated_bars(n)).items():
        named = dict(zip(("grandbatch", "TA-Lib", "pandas"), works, strict=True))
        found = per_item({k: work for k, work in named.items() if work is not None}, rounds, n)
        run = found.pop("grandbatch")
        note = ", ".join(f"{other}: {figures['ns']:.2f}" for other, figures in found.items())
        peer = next((figures["ns"] for figures in found.values()), None)
        goal = peer if "TA-Lib" in found and name.startswith(("mean", "ema")) else None
        rows.append(Row(name, run["ns"], "ns a value", run, goal, None, peer, True, note))
    return rows


def set_rows(feature_set: FeatureSet, n: int, rounds: int) -> list[Row]:
    """Time the kernel, the route that checks and lays out its arrays, and the plain loop."""
    bars = simulated_bars(n)
    first = feature_set.lookback
    (producer,) = feature_set.production.producers
    arrays = [bars[name] for name in PRICES_AND_VOLUME]
    ours = np.empty((feature_set.n_features, n - first), np.float32)
    loops = np.empty((n - first, feature_set.n_features), np.float32)
    read = np.ones((len(arrays), n))
    sink, written = np.empty_like(read[0]), np.empty_like(ours)

    def touch_bytes() -> None:
        for column in read:
            np.copyto(sink, column)
        np.copyto(written, ours)

    works: dict[str, Work] = {
        "kernel": lambda: producer.write(bars, first, n, ours),
        "compute_rows": lambda: compute_rows(feature_set, bars, NO_STARTS),
        "floor: bytes": touch_bytes,
        "plain loop": lambda: LOOPS[feature_set.name](*arrays, first, loops),
    }
    found = per_item(works, rounds, n)
    np.testing.assert_allclose(ours.T, loops, atol=2e-6, rtol=2e-6)
    beside = {"limit": found["floor: bytes"]["ns"], "peer": found["plain loop"]["ns"]}
    goal = GOALS_NS[feature_set.name]
    return [
        Row(
            f"{feature_set.name}, {n:,} bars: {name}",
            run["ns"],
            "ns a bar",
            run,
            goal=goal if name == "kernel" else None,
            is_cost=True,
            **(beside if name in {"kernel", "compute_rows"} else {}),
        )
        for name, run in found.items()
    ]


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=9)
    parser.add_argument("--python", help="an interpreter that has KunQuant, where this one hasn't")
    options = parser.parse_args()
    rows = []
    for feature_set in (STRATEGIC, TACTICAL):
        for n in ROWS:
            rows += set_rows(feature_set, n, options.rounds)
    rows += alpha158_rows(options.rounds, options.python)
    rows += window_rows(options.rounds)
    report(__file__, rows, options)


if __name__ == "__main__":
    main()
