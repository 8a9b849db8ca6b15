"""The targets that come with the package, as plain loops over one segment's bars."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def forward_return(bars, t, horizon):
    close = bars["close"]
    return (close[t + horizon] - close[t]) / abs(close[t]) if close[t] else math.nan


def forward_log_return(bars, t, horizon):
    now, then = bars["close"][t], bars["close"][t + horizon]
    return np.log(then / now) if now > 0 and then > 0 else math.nan


def forward_volatility(bars, t, horizon):
    prices = bars["close"][t : t + horizon + 1]
    if min(prices) <= 0:
        return math.nan
    return float(np.std([np.log(b / a) for a, b in pairwise(prices)]))


def forward_drawdown(bars, t, horizon):
    close = bars["close"][t]
    if close == 0:
        return math.nan
    falls = [bars["low"][t + 1 : t + j + 1].min() - close for j in range(1, horizon + 1)]
    return min(0.0, min(falls) / abs(close))


def triple_barrier(bars, t, up, down, horizon):
    close = bars["close"][t]
    for j in range(t + 1, t + horizon + 1):
        if bars["low"][j] <= close * (1 - down):
            return -1.0
        if bars["high"][j] >= close * (1 + up):
            return 1.0
    return 0.0


def expected(bars, starts, value, horizon):
    """`value(segment, t)` of each bar, NaN where fewer follow in the segment; (n,) float64."""
    n = len(bars["close"])
    edges = [0, *(int(start) for start in starts if start > 0), n]
    found = np.full(n, np.nan)
    for begin, stop in pairwise(edges):
        segment = {name: values[begin:stop] for name, values in bars.items()}
        for t in range(stop - begin - horizon):
            found[begin + t] = value(segment, t)
    return found
