"""Bars made to be awkward: what a kernel meets on them, it will meet in some input one day."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from grandbatch.values.arrays import Float64


def awkward_bars(n: int, seed: int) -> Mapping[str, Float64]:
    """Make a walk on a grid of prices, with a jump, a flat stretch, one without volume, tiny moves.

    Each stretch is an eighth of the bars.

    Returns
    -------
    dict of str to (n,) float64
        open, high, low, close, volume: bars that keep all rules.
    """
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
