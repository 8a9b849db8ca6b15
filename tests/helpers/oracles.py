"""Naive oracles: plain loops straight from the formulas, calling nothing of the package.

Slow on purpose. Spreads are taken about a window's first value, which changes nothing in exact
arithmetic and keeps the digits of prices that hardly differ.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

STRATEGIC_LOOKBACK = 40
TACTICAL_LOOKBACK = 21


def mean(values):
    return math.fsum(values) / len(values)


def centred(values):
    shifted = [x - values[0] for x in values]
    middle = mean(shifted)
    return [x - middle for x in shifted]


def is_flat(values):
    return max(values) == min(values)


def std(values):
    if is_flat(values):
        return 0.0
    return math.sqrt(mean([x * x for x in centred(values)]))


def pearson(x, y):
    """Correlation, or None where one side is flat."""
    if is_flat(x) or is_flat(y):
        return None
    dx, dy = centred(x), centred(y)
    joint = math.fsum(a * b for a, b in zip(dx, dy, strict=True))
    size = math.sqrt(math.fsum(a * a for a in dx)) * math.sqrt(math.fsum(b * b for b in dy))
    return joint / size


def divided(x, y, otherwise=0.0):
    return x / y if y != 0 else otherwise


def change(x, y):
    return x / y - 1 if y != 0 else 0.0


def simple_returns(values):
    return [change(b, a) for a, b in pairwise(values)]


def exponential_average(values, n):
    alpha = 2 / (n + 1)
    average = values[0]
    for x in values[1:]:
        average = alpha * x + (1 - alpha) * average
    return average


def percentile(values, share):
    place = share * (len(values) - 1)
    ordered = sorted(values)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[low + 1] - ordered[low])


def clip(x, low, high):
    return max(low, min(high, x))


def strategic_row(c, v, t):
    before = 0.0 if not any(v[t - 10 : t]) else mean(v[t - 10 : t])
    w20 = c[t - 20 : t]
    differences = [c[k] - c[k - 1] for k in range(t - 14, t)]
    gain = math.fsum(d for d in differences if d > 0)
    loss = -math.fsum(d for d in differences if d < 0)
    slow = exponential_average(c[t - 26 : t], 26)
    fast = exponential_average(c[t - 26 : t], 12)
    s = std(w20)
    middle = w20[0] + mean([x - w20[0] for x in w20])
    # the distance first, in shifted prices, for the same reason as in `centred`
    above = (c[t] - w20[0]) - mean([x - w20[0] for x in w20])
    ordinary = pearson(v[t - 20 : t], w20)
    break_ = pearson(c[t - 40 : t - 20], w20)
    regime = std(simple_returns(c[t - 30 : t]))
    quantile = percentile(simple_returns(c[t - 15 : t]), 0.05)
    return [
        change(c[t], c[t - 1]),
        divided(v[t], before, 1.0),
        divided(s, middle),
        change(c[t], c[t - 10]),
        gain / (gain + loss) if loss > 0 else 1.0,
        (fast - slow) / slow if slow > 0 else 0.0,
        above / (2 * s) + 0.5 if s != 0 else 0.5,
        math.tanh(10 * mean(simple_returns(c[t - 5 : t]))),
        0.0 if ordinary is None else ordinary,
        1.0 if regime > 0.02 else -1.0 if regime < 0.01 else 0.0,
        clip(-20 * quantile, 0.0, 1.0),
        min(2.0, v[t] / before) / 2 if before != 0 else 0.5,
        0.0 if break_ is None else 1 - break_,
    ]


def gaps_active_at(h, l, t):
    """(age, kind, level) of each gap active at t; kind 0 is bullish, 1 bearish."""
    found = []
    for i in range(t - 19, t + 1):
        if l[i] > h[i - 2] and not any(l[j] < h[i - 2] for j in range(i + 1, t)):
            found.append((t - i, 0, h[i - 2]))
        if h[i] < l[i - 2] and not any(h[j] > l[i - 2] for j in range(i + 1, t)):
            found.append((t - i, 1, l[i - 2]))
    return found


def tactical_row(h, l, c, v, t):
    active = gaps_active_at(h, l, t)
    nearest, age = 0.0, 0.0
    if active:
        years, _, level = min(active, key=lambda gap: (abs(gap[2] - c[t]), gap[0], gap[1]))
        nearest = clip(divided(100 * (level - c[t]), c[t]), -2.0, 2.0) / 2
        age = math.exp(-0.1 * years)
    filled = any(
        gap_age > 0 and (l[t] < level if kind == 0 else h[t] > level)
        for gap_age, kind, level in active
    )
    usual = mean(v[t - 20 : t])
    return [
        1.0 if any(kind == 0 for _, kind, _ in active) else 0.0,
        1.0 if any(kind == 1 for _, kind, _ in active) else 0.0,
        nearest,
        age,
        1.0 if filled else 0.0,
        clip(100 * change(c[t], c[t - 5]) / 5, -1.0, 1.0),
        math.tanh(math.log(v[t] / usual)) if v[t] != 0 and usual != 0 else 0.0,
    ]


def strategic_rows(bars: Mapping[str, Sequence[float]]):
    """(n, 13) float64 of one segment; nan where the lookback is missing."""
    c, v = ([float(x) for x in bars[name]] for name in ("close", "volume"))
    out = np.full((len(c), 13), np.nan)
    for t in range(STRATEGIC_LOOKBACK, len(c)):
        out[t] = strategic_row(c, v, t)
    return out


def tactical_rows(bars: Mapping[str, Sequence[float]]):
    """(n, 7) float64 of one segment; nan where the lookback is missing."""
    h, l, c, v = ([float(x) for x in bars[name]] for name in ("high", "low", "close", "volume"))
    out = np.full((len(c), 7), np.nan)
    for t in range(TACTICAL_LOOKBACK, len(c)):
        out[t] = tactical_row(h, l, c, v, t)
    return out


ROWS = {"strategic": strategic_rows, "tactical": tactical_rows}
LOOKBACKS = {"strategic": STRATEGIC_LOOKBACK, "tactical": TACTICAL_LOOKBACK}


def windows(segments: Sequence[Mapping[str, Sequence[float]]], name, sequence_length, overlap):
    """(N, L, F) float32 matrices of a list of segments, in their order."""
    found = []
    for bars in segments:
        rows = ROWS[name](bars)
        start = LOOKBACKS[name]
        while start + sequence_length <= len(rows):
            found.append(rows[start : start + sequence_length])
            start += sequence_length - overlap
    width = 13 if name == "strategic" else 7
    return np.array(found, np.float32).reshape(-1, sequence_length, width)


def assert_agrees(got, wanted):
    """Within 1e-6 * max(1, |x|), nan where nan is wanted."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    known = ~np.isnan(wanted)
    limit = 1e-6 * np.maximum(1.0, np.abs(wanted[known]))
    difference = np.abs(got[known] - wanted[known])
    if (difference > limit).any():
        worst = np.argmax(difference / limit)
        place = tuple(int(axis[worst]) for axis in np.nonzero(known))
        raise AssertionError(
            f"at {place}: got {got[place]!r}, wanted {wanted[place]!r}, "
            f"{int((difference > limit).sum())} values differ"
        )


NAMES = ("open", "high", "low", "close", "volume")


def bars_from_close(close, rng, spread=0.05, volume=None):
    """Consistent bars around a series of closes."""
    close = np.asarray(close, np.float64)
    n = len(close)
    open_ = np.concatenate([close[:1], close[:-1]])
    room = spread * np.abs(rng.normal(size=(2, n)))
    high = np.maximum(open_, close) + room[0]
    low = np.minimum(open_, close) - room[1]
    if volume is None:
        volume = rng.integers(0, 5000, n)
    columns = (open_, high, low, close, np.asarray(volume, np.float64))
    return dict(zip(NAMES, columns, strict=True))


def random_bars(n, seed=0):
    """A random walk in steps of a tick, with fair value gaps and quiet stretches."""
    rng = np.random.default_rng(seed)
    ticks = np.round(rng.standard_t(3, n) * rng.choice([0.0, 1.0, 4.0], n, p=[0.2, 0.6, 0.2]))
    return bars_from_close(np.maximum(1.0, 400 + np.cumsum(ticks)) / 4, rng, spread=0.1)


def nasty_bars(seed=0):
    """Runs of bars of one segment each, by name, whose features agree with the formulas."""
    rng = np.random.default_rng(seed)
    n = 300
    quiet = np.zeros(n)
    flat = np.repeat(rng.uniform(1, 5, 15), 20)
    levels = rng.integers(95, 106, (4, n)).astype(float)
    grid = dict(zip(NAMES[:4], (levels[0], levels.max(0), levels.min(0), levels[3]), strict=True))
    loose = dict(zip(NAMES[:4], levels, strict=True))
    volume = rng.integers(0, 2, n).astype(float)
    tiny = random_bars(n, seed)
    return {
        "flat": bars_from_close(np.full(n, 0.1), rng, 0.0),
        "flat stretches": bars_from_close(flat, rng, 0.0, np.repeat(rng.uniform(1, 9, 10), 30)),
        "last digit": bars_from_close(100 + rng.integers(0, 2, n) * 2.0**-46, rng, 0.0),
        "no volume": bars_from_close(100 + rng.normal(size=n), rng, volume=quiet),
        "alternating": bars_from_close(100 + (np.arange(n) % 2), rng, volume=np.arange(n) % 2),
        "jumps": bars_from_close(10.0 ** rng.integers(-6, 7, n), rng, 0.0),
        "volumes": bars_from_close(flat, rng, volume=10.0 ** rng.integers(-9, 16, n)),
        "negative": bars_from_close(-37 + np.cumsum(rng.normal(size=n)) / 10, rng),
        "zeros": bars_from_close(rng.integers(0, 3, n), rng, 1.0),
        "ties": {**grid, "volume": volume},
        "inconsistent": {**loose, "volume": volume},
        "tiny": {k: x if k == "volume" else x * 1e-12 for k, x in tiny.items()},
        "huge": {k: x * 1e120 for k, x in tiny.items()},
        "minute": {k: x * 1e-120 for k, x in tiny.items()},
        "rising": bars_from_close(np.linspace(1, 2, n), rng, 0.0),
    }
