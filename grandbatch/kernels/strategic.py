"""The strategic features: 13 numbers per bar from the 41 bars up to it.

Each value is computed from its own lookback rows only, its terms added oldest first. Bars go in
blocks so that what features share stays in the nearest caches. Inside a block each step is a loop
over bars around a loop of fixed length over the lag; the compiler unrolls the inner one and
vectorises the outer one, so the lengths must stand there as literals. Where a block begins changes
no bits: every bar has sums of its own.

Spreads are found in two passes, the second corrected for the rounding of the mean (Chan, Golub,
LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7), so prices that differ in
their last digit only still have the right spread.

Prices and volumes from 1e-150 to 1e150 in size give the values of the formulas; beyond that
squares leave the range of float64, and a value is limited or 0, never infinite or nan.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled
from grandbatch.kernels.singles import single

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

N_FEATURES = 13
LOOKBACK = 40
BLOCK = 248
"""Bars done together. No power of two: columns 4 KiB apart would fall on the same cache lines."""

ALPHA_12 = 2.0 / 13.0
ALPHA_26 = 2.0 / 27.0


@compiled
def strategic_columns(close: F64, volume: F64, first: int, out: F32) -> None:
    """Write the features of bars `first` to the last into `out`, (13, n - first)."""
    columns = np.empty((N_FEATURES, BLOCK))
    scratch = np.empty((4, BLOCK + LOOKBACK))
    for t in range(first, close.size, BLOCK):
        m = min(BLOCK, close.size - t)
        c = close[t - LOOKBACK : t + m]
        v = volume[t - LOOKBACK : t + m]
        _volumes(v[LOOKBACK - 10 :], m, columns[1], columns[11])
        _returns(c[LOOKBACK - 30 :], m, scratch[0], columns)
        _ratio_less_one(c[LOOKBACK:], c[LOOKBACK - 10 :], m, columns[3])
        _rsi(c[LOOKBACK - 15 :], m, columns[4])
        _macd(c[LOOKBACK - 26 :], m, columns[5])
        _spreads(c, v, m, scratch, columns)
        _store(columns, m, t - first, out)


@compiled
def _ratio_less_one(x: F64, base: F64, m: int, out: F64) -> None:
    """Write x / base - 1, and 0 where the base is 0."""
    for i in range(m):
        out[i] = x[i] / base[i] - 1.0 if base[i] != 0.0 else 0.0


@compiled
def _volumes(v: F64, m: int, ratio: F64, liquidity: F64) -> None:
    """volume_ratio and liquidity_index; v starts 10 bars before the block."""
    for i in range(m):
        total = 0.0
        for j in range(10):
            total += v[i + j]
        mean = total / 10.0
        value = v[i + 10] / mean if mean != 0.0 else 1.0
        ratio[i] = value
        liquidity[i] = (value if value < 2.0 else 2.0) / 2.0


@compiled
def _returns(c: F64, m: int, returns: F64, columns: F64) -> None:
    """price_change, market_sentiment, regime_indicator and risk_score; c starts 30 bars before.

    `returns[k]` is the simple return of bar t - 29 + k for the block's first t.
    """
    _ratio_less_one(c[1:], c, m + 29, returns)
    for i in range(m):
        columns[0, i] = returns[29 + i]
    _sentiment(returns[25:], m, columns[7])
    _regime(returns, m, columns[9])
    _risk(returns[15:], m, columns[10])


@compiled
def _sentiment(returns: F64, m: int, out: F64) -> None:
    """tanh(10 * mean of 4 returns).

    From exp(-2|y|) = exp(-|y| / 32)**64 and 13 terms of exp's series: plain arithmetic, because it
    vectorises, and because the last bits of libm's tanh change between its versions.
    """
    for i in range(m):
        total = 0.0
        for j in range(4):
            total += returns[i + j]
        y = 2.5 * total
        size = abs(y)
        z = (size if size < 20.0 else 20.0) / -32.0
        e = 1.0
        for k in range(13):
            e = 1.0 + z * e / (13.0 - k)
        for _ in range(6):
            e *= e
        value = (1.0 - e) / (1.0 + e)
        out[i] = value if y >= 0.0 else -value


@compiled
def _regime(returns: F64, m: int, out: F64) -> None:
    """1, 0 or -1 for a standard deviation of 29 returns above 0.02, between, or below 0.01."""
    for i in range(m):
        total = 0.0
        for j in range(29):
            total += returns[i + j]
        mean = total / 29.0
        squared = 0.0
        for j in range(29):
            deviation = returns[i + j] - mean
            squared += deviation * deviation
        spread = math.sqrt(squared / 29.0)
        out[i] = 1.0 if spread > 0.02 else (-1.0 if spread < 0.01 else 0.0)


@compiled
def _risk(returns: F64, m: int, out: F64) -> None:
    """clip(-20 q, 0, 1) for the 5th percentile q of 14 returns: between the two least."""
    for i in range(m):
        least = np.inf
        second = np.inf
        for j in range(14):
            value = returns[i + j]
            greater = value if value > least else least
            least = least if value > least else value
            second = greater if greater < second else second
        quantile = least + 0.65 * (second - least)  # 0.05 * 13 steps up the sorted returns
        value = -20.0 * quantile
        value = value if value > 0.0 else 0.0
        out[i] = value if value < 1.0 else 1.0


@compiled
def _rsi(c: F64, m: int, out: F64) -> None:
    """Cutler's RSI, gains / (gains + losses), over 14 differences; c starts 15 bars before."""
    for i in range(m):
        gain = 0.0
        loss = 0.0
        for j in range(14):
            rise = c[i + j + 1] - c[i + j]
            gain += rise if rise > 0.0 else 0.0
            loss -= rise if rise < 0.0 else 0.0
        out[i] = gain / (gain + loss) if loss > 0.0 else 1.0


@compiled
def _macd(c: F64, m: int, out: F64) -> None:
    """(E12 - E26) / E26; c starts 26 bars before, and both averages at the first of them."""
    for i in range(m):
        fast = c[i]
        slow = c[i]
        for j in range(25):
            fast += ALPHA_12 * (c[i + j + 1] - fast)
            slow += ALPHA_26 * (c[i + j + 1] - slow)
        out[i] = (fast - slow) / slow if slow > 0.0 else 0.0


@compiled
def _spreads(c: F64, v: F64, m: int, scratch: F64, columns: F64) -> None:
    """volatility, bollinger_position, correlation_strength and structural_break.

    c and v start 40 bars before. Item i of the close's statistics is over c[t - 40 + i .. t - 21
    + i] for the block's first t: items 0.. are the older windows of structural_break, items 20..
    the 20 bars before each t.
    """
    mean, root, v_mean, v_root = scratch[0], scratch[1], scratch[2], scratch[3]
    _statistics(c, m + 20, mean, root)
    _statistics(v[20:], m, v_mean, v_root)
    for i in range(m):
        average = mean[i + 20]
        deviation = root[i + 20] / math.sqrt(20.0)
        columns[2, i] = deviation / average if average != 0.0 else 0.0
    _bollinger(c[20:], mean[20:], root[20:], m, columns[6])
    _pearson(v[20:], v_mean, v_root, c[20:], mean[20:], root[20:], m, columns[8], 0.0, 1.0)
    _pearson(c, mean, root, c[20:], mean[20:], root[20:], m, columns[12], 1.0, -1.0)


@compiled
def _statistics(x: F64, m: int, mean: F64, root: F64) -> None:
    """Of each i's 20 values: the mean, and the root of the summed squared deviations.

    The root of a flat window is 0 by comparison, not by luck: the mean of 20 equal prices is
    rounded, and their computed deviations are often not 0.
    """
    for i in range(m):
        total = 0.0
        differs = False
        for j in range(20):
            total += x[i + j]
            differs |= x[i + j] != x[i]
        average = total / 20.0
        plain = 0.0
        squared = 0.0
        for j in range(20):
            deviation = x[i + j] - average
            plain += deviation
            squared += deviation * deviation
        squared -= plain * plain / 20.0
        mean[i] = average
        root[i] = math.sqrt(squared) if differs & (squared > 0.0) else 0.0


@compiled
def _bollinger(c: F64, mean: F64, root: F64, m: int, out: F64) -> None:
    """(c[t] - mean) / (2 std) + 0.5; c starts 20 bars before, the statistics are over them."""
    for i in range(m):
        plain = 0.0
        for j in range(20):
            plain += c[i + j] - mean[i]
        above = (c[i + 20] - mean[i]) - plain / 20.0
        deviation = root[i] / math.sqrt(20.0)
        out[i] = above / (2.0 * deviation) + 0.5 if deviation != 0.0 else 0.5


@compiled
def _pearson(
    x: F64,
    x_mean: F64,
    x_root: F64,
    y: F64,
    y_mean: F64,
    y_root: F64,
    m: int,
    out: F64,
    offset: float,
    factor: float,
) -> None:
    """Write offset + factor * correlation of 20 pairs, and 0 where one side is flat."""
    for i in range(m):
        x_plain = 0.0
        y_plain = 0.0
        joint = 0.0
        for j in range(20):
            dx = x[i + j] - x_mean[i]
            dy = y[i + j] - y_mean[i]
            x_plain += dx
            y_plain += dy
            joint += dx * dy
        size = x_root[i] * y_root[i]
        value = (joint - x_plain * y_plain / 20.0) / size
        value = value if value < 1.0 else 1.0
        value = value if value > -1.0 else -1.0
        out[i] = offset + factor * value if (size > 0.0) & (size < np.inf) else 0.0


@compiled
def _store(columns: F64, m: int, at: int, out: F32) -> None:
    """Write a block from bar `at` on, limited to float32's range, and 0 for what is undefined."""
    for f in range(N_FEATURES):
        column, to = columns[f], out[f, at : at + m]
        for i in range(m):
            to[i] = single(column[i])
