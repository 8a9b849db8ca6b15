"""The tactical features: 7 numbers per bar from the 22 bars up to it.

Built like the strategic kernel: blocks of bars, and loops of literal length over the lag inside
loops over bars. No gap is carried along from bar to bar: for each bar the 20 bars that could have
made an active gap are looked at anew, youngest first.

A bearish gap is a bullish one of the bars turned upside down (high' = -low, low' = -high), so one
loop finds both.

Prices up to 1e300 in size give the values of the formulas; beyond that distances leave the range
of float64, and a value is limited or 0, never infinite or nan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

N_FEATURES = 7
LOOKBACK = 21
BLOCK = 248
"""Bars done together. No power of two: columns 4 KiB apart would fall on the same cache lines."""

DECAY = np.append(np.exp(-0.1 * np.arange(20.0)), 0.0)
"""What an age of 0 to 19 bars is worth; the last item stands for no gap at all."""


@compiled
def tactical_columns(high: F64, low: F64, close: F64, volume: F64, first: int, out: F32) -> None:
    """Write the features of bars `first` to the last into `out`, (7, n - first)."""
    columns = np.empty((N_FEATURES, BLOCK))
    turned = np.empty((3, BLOCK + LOOKBACK))
    bullish = np.empty((5, BLOCK))
    bearish = np.empty((5, BLOCK))
    for t in range(first, close.size, BLOCK):
        m = min(BLOCK, close.size - t)
        h = high[t - LOOKBACK : t + m]
        l = low[t - LOOKBACK : t + m]
        c = close[t - LOOKBACK : t + m]
        for i in range(m + LOOKBACK):
            turned[0, i] = -l[i]
            turned[1, i] = -h[i]
            turned[2, i] = -c[i]
        _gaps(h, l, c, m, bullish)
        _gaps(turned[0], turned[1], turned[2], m, bearish)
        _nearest(bullish, bearish, h[LOOKBACK:], l[LOOKBACK:], c[LOOKBACK:], m, columns)
        _momentum(c[LOOKBACK - 5 :], m, columns[5])
        _volume_ratio(volume[t - 20 : t + m], m, columns[6])
        for f in range(N_FEATURES):
            column, to = columns[f], out[f, t - first : t - first + m]
            for i in range(m):
                to[i] = column[i]


@compiled
def _gaps(high: F64, low: F64, close: F64, m: int, state: F64) -> None:
    """Find each bar's active bullish gaps; the arrays start 21 bars before the block.

    Rows of `state`: 0 the nearest gap's distance (inf if there is none), 1 its level, 2 its age
    (20 if none), 3 the highest level (-inf if none), 4 the lowest low between the gap looked at
    and this bar, both left out.
    """
    state[0, :m] = np.inf
    state[1, :m] = 0.0
    state[2, :m] = 20.0
    state[3, :m] = -np.inf
    state[4, :m] = np.inf
    for age in range(0, 20, 4):
        lag = 18 - age
        _four_ages(high[lag - 2 :], low[lag:], close[LOOKBACK:], float(age), m, state)


@compiled
def _four_ages(level: F64, made: F64, close: F64, youngest: float, m: int, state: F64) -> None:
    """Look at the gaps of four ages: as many as the compiler still unrolls and vectorises.

    Item i + 3 of `level` and `made` belongs to the youngest gap of bar i, item i to the oldest.
    """
    for i in range(m):
        distance, nearest, nearest_age = state[0, i], state[1, i], state[2, i]
        highest, lowest = state[3, i], state[4, i]
        for k in range(4):
            age = youngest + k
            low_then = made[i + 3 - k]
            active = (low_then > level[i + 3 - k]) & (lowest >= level[i + 3 - k])
            gap = level[i + 3 - k] if active else -np.inf
            away = abs(gap - close[i])
            nearer = away < distance
            distance = away if nearer else distance
            nearest = gap if nearer else nearest
            nearest_age = age if nearer else nearest_age
            highest = gap if gap > highest else highest
            lowest = low_then if (low_then < lowest) & (age > 0.0) else lowest
        state[0, i], state[1, i], state[2, i] = distance, nearest, nearest_age
        state[3, i], state[4, i] = highest, lowest


@compiled
def _nearest(
    bullish: F64, bearish: F64, high: F64, low: F64, close: F64, m: int, columns: F64
) -> None:
    """Write the five features of gaps; a tie goes to the younger gap, then to the bullish one.

    A gap is filled at a bar whose low is below the highest bullish level, or whose high is above
    the lowest bearish one. The bar that makes a gap can't fill it.
    """
    for i in range(m):
        closer = bearish[0, i] < bullish[0, i]
        younger = (bearish[0, i] == bullish[0, i]) & (bearish[2, i] < bullish[2, i])
        bear = closer | younger
        level = -bearish[1, i] if bear else bullish[1, i]
        age = bearish[2, i] if bear else bullish[2, i]
        away = 100.0 * (level - close[i]) / close[i]
        away = away if away < 2.0 else 2.0
        away = away if away > -2.0 else -2.0
        filled = (low[i] < bullish[3, i]) | (high[i] > -bearish[3, i])
        columns[0, i] = 1.0 if bullish[3, i] > -np.inf else 0.0
        columns[1, i] = 1.0 if bearish[3, i] > -np.inf else 0.0
        columns[2, i] = away / 2.0 if (age < 20.0) & (close[i] != 0.0) else 0.0
        columns[3, i] = age
        columns[4, i] = 1.0 if filled else 0.0
    for i in range(m):
        columns[3, i] = DECAY[int(columns[3, i])]


@compiled
def _momentum(c: F64, m: int, out: F64) -> None:
    """clip(100 * (c[t] / c[t-5] - 1) / 5, -1, 1); c starts 5 bars before."""
    for i in range(m):
        value = 100.0 * (c[i + 5] / c[i] - 1.0) / 5.0
        value = value if value < 1.0 else 1.0
        value = value if value > -1.0 else -1.0
        out[i] = value if c[i] != 0.0 else 0.0


@compiled
def _volume_ratio(v: F64, m: int, out: F64) -> None:
    """tanh(ln r) = (r**2 - 1) / (r**2 + 1) for r = v / mean of the 20 before, where v starts.

    Of r and 1/r the one up to 1 is squared, so nothing overflows.
    """
    for i in range(m):
        total = 0.0
        for j in range(20):
            total += v[i + j]
        mean = total / 20.0
        now = v[i + 20]
        rising = now > mean
        ratio = mean / now if rising else now / mean
        size = (1.0 - ratio) * (1.0 + ratio) / (1.0 + ratio * ratio)
        value = size if rising else -size
        out[i] = value if (now > 0.0) & (mean > 0.0) else 0.0
