"""Bars made to be awkward: what a kernel meets on them, it will meet in some input one day."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from grandbatch.features.inputs import BAR_INPUTS
from grandbatch.values.arrays import Array, Float64, Int64
from grandbatch.values.columns import PRICES_AND_VOLUME, TIMESTAMP

_FIVE_MINUTES, _WEEKEND = 300_000_000_000, 172_800_000_000_000


def awkward_bars(n: int, seed: int, names: Sequence[str] = PRICES_AND_VOLUME) -> dict[str, Array]:
    """Make a walk on a grid of prices, with a jump, a flat stretch, one without volume, tiny moves.

    Each stretch is an eighth of the bars. Times have a weekend and a change of clocks in them.

    Parameters
    ----------
    n, seed : int
    names : sequence of str
        What is wanted: names that no bar has are taken for extra columns. Nothing is known of
        those, so they hold what makes sense for most quantities: numbers between 0 and 1, with a
        jump, a flat stretch and tiny moves.

    Returns
    -------
    dict of str to (n,) array
        In the order of `names`: bars that keep all rules; `timestamp` int64, others float64.
    """
    bars: dict[str, Array] = {**_prices_and_volume(n, seed), TIMESTAMP: _times(n, seed)}
    extra = {name: _shares(n, seed, name) for name in names if name not in BAR_INPUTS}
    return {name: (bars | extra)[name] for name in names}


def _times(n: int, seed: int) -> Int64:
    first = np.datetime64(f"{2023 + seed}-03-08T22:00", "ns").astype(np.int64)
    steps = np.full(n, _FIVE_MINUTES)
    steps[n // 2] = _WEEKEND
    return np.asarray(first + np.cumsum(steps), np.int64)


def _shares(n: int, seed: int, name: str) -> Float64:
    # other numbers for each name, and the same ones in each process
    rng, eighth = np.random.default_rng([seed, zlib.crc32(name.encode())]), max(1, n // 8)
    walk = np.cumsum(rng.normal(0, 0.2, n))
    walk[2 * eighth :] += 0.5
    values = np.round(0.5 + 0.3 * np.sin(walk) + rng.uniform(-0.1, 0.1, n), 3)
    values[4 * eighth : 5 * eighth] = 0.25
    values[n - eighth :] = values[n - eighth] + 1e-9 * np.arange(eighth)
    return np.asarray(values, np.float64)


def _prices_and_volume(n: int, seed: int) -> dict[str, Float64]:
    rng, eighth = np.random.default_rng(seed), max(1, n // 8)
    steps = rng.normal(0, 0.002, n)
    steps[2 * eighth : 2 * eighth + 1] = 0.4
    close = np.maximum(np.round(100 * np.exp(np.cumsum(steps)), 2), 0.01)
    close[4 * eighth : 5 * eighth] = 64.0
    close[n - eighth :] = close[n - eighth] + 1e-9 * np.arange(eighth)
    opened = np.concatenate([close[:1], close[:-1]])
    room = np.round(np.abs(rng.normal(0, 0.05, (2, n))), 2) * (close != 64.0)
    bottom = np.minimum(opened, close)
    volume = rng.integers(0, 10_000, n).astype(np.float64)
    volume[eighth : 2 * eighth] = 0.0
    return {
        "open": opened,
        "high": np.maximum(opened, close) + room[0],
        "low": np.minimum(np.maximum(bottom - room[1], 0.01), bottom),
        "close": close,
        "volume": volume,
    }
