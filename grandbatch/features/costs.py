"""What features cost, measured here and now, on one thread."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from grandbatch.features.fused import Production
from grandbatch.features.sets import Feature
from grandbatch.values.columns import PRICES_AND_VOLUME, TIMESTAMP

_BARS, _ROUNDS = 8_000, 15
"""As many as are computed together: arrays that outgrow the caches cost more."""


def costs_of(features: Sequence[Feature]) -> list[float]:
    """Measure nanoseconds of processor time a bar, for each feature.

    Features that are computed together share what that takes equally. The bars are a random walk.
    """
    production = Production.of(features)
    lookback = production.lookback
    n = lookback + max(_BARS, lookback)
    rng = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    spread = 0.05 * np.abs(rng.normal(size=(3, n)))
    walk = (close - 0.01, close + spread[0], close - spread[1], close, 1e5 * spread[2])
    read = {name for producer in production.producers for name in producer.inputs}
    bars = dict.fromkeys(read, close) | dict(zip(PRICES_AND_VOLUME, walk, strict=True))
    bars[TIMESTAMP] = np.arange(n, dtype=np.int64) * 300_000_000_000
    out = np.empty((production.width, n - lookback), np.float32)
    seconds: list[float] = []
    owners: list[int] = []
    for number, producer in enumerate(production.producers):
        own = out[: producer.width]
        taken = []
        for _ in range(_ROUNDS):
            began = time.thread_time()
            producer.write(bars, lookback, n, own)
            taken.append(time.thread_time() - began)
        seconds.append(min(taken))
        owners += [number] * producer.width
    producers = [owners[place] for place in production.order.tolist()]
    sharing = Counter(producers)
    return [seconds[k] / sharing[k] * 1e9 / (n - lookback) for k in producers]
