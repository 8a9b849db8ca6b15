"""Simulated bars: prices in ticks from a GARCH process, and their lines of CSV."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TICKS_PER_UNIT = 4
RING = 11
"""Closes that the momentum over 10 bars spans."""
SLOW_LAG = 24
"""Slow bars after which the direction of one comes back: half a strategic window."""
SLOW_STATE = np.dtype(
    [
        ("start", np.int64),
        ("drift", np.float64),
        ("log_odds", np.float64),
        ("directions", np.float64, SLOW_LAG),
    ]
)
"""What a symbol's slow signal goes on from: the price in ticks that its slow bar began at, the
direction that this bar drifts to, what its own fast bars tell of that, and past directions."""

_GARCH_NEWS, _GARCH_MEMORY = 0.06, 0.92
_LONG_VARIANCE = 1.0e-6  # returns of 0.1 % a bar
_PULL = 1.0e-4  # back to the first price, so that a path of any length stays in range
_LEAST_TICKS = 4


@compiled
def _slow_surprise(state: Any, bar: int, fast_per_slow: int, last: int) -> float:
    """Return what the slow scale tells of a bar beyond what the fast bars before it tell.

    Slow bar s drifts to g, the direction (-1, 0 or 1) of slow bar s - SLOW_LAG. A plain drift
    would show in the fast bars themselves, as a trend since the slow bar began. So what these
    tell, E[g | fast bars of s so far], is taken off it: who doesn't know the direction that long
    ago expects nothing of the next bar, whatever else he has seen.
    """
    if bar % fast_per_slow == 0:
        number = bar // fast_per_slow
        at = number % SLOW_LAG
        if number:
            risen = last - state.start
            state.directions[(number - 1) % SLOW_LAG] = (risen > 0) - (risen < 0)
        state.drift = state.directions[at]
        state.start = last
        state.log_odds = 0.0
    if state.drift == 0.0:
        return 0.0
    surprise: float = state.drift - math.tanh(0.5 * state.log_odds)
    return surprise


@compiled
def _learn_drift(state: Any, signal: float, shock: float) -> None:
    """Update the log-odds of a rise, of who sees the slow bar's fast bars, by Bayes' rule.

    With G = E[g] a shock has the mean d (g - G) and the variance 1 - d**2, so that it changes
    them by ``2 d (shock + d G) / (1 - d**2)``.
    """
    known = math.tanh(0.5 * state.log_odds)
    state.log_odds += 2.0 * signal * (shock + signal * known) / (1.0 - signal * signal)


@compiled
def simulate_bars(
    first_row: int,
    step_seconds: int,
    signal: float,
    shocks: Floats,
    start_ticks: Int64,
    variance: Floats,
    closes: Int64,
    fast_per_slow: int,
    slow: Any,
    out: Int64,
) -> None:
    """Simulate the bars of the rows from `first_row`, interleaved by symbol.

    A bar's log return is ``sqrt(h) * (sqrt(1 - signal**2) * z - signal * tanh(m / sqrt(10 h)))``
    less a weak pull to the first price, where m is the momentum ``c[t] / c[t - 10] - 1`` at the bar
    before and h the variance of a GARCH(1, 1) process (Bollerslev 1986,
    https://doi.org/10.1016/0304-4076(86)90063-1): ``h' = w + 0.06 e**2 + 0.92 h``.

    With `fast_per_slow` the signal is that of `_slow_surprise` instead of the momentum's.

    Parameters
    ----------
    first_row : int
        Number of the first row; row r is bar ``r // S`` of symbol ``r % S``.
    step_seconds : int
        Seconds between bars.
    signal : float
        How much of the return's scale the momentum before it tells, 0 to 1.
    shocks : (n, 4) float64
        Standard normal numbers: return, upper wick, lower wick, volume.
    start_ticks : (S,) int64
        First price of each symbol, in ticks.
    variance : (S,) float64
        State: h of each symbol.
    closes : (S, 11) int64
        State: last closes of each symbol in ticks, in a ring; the first price before the first bar.
    fast_per_slow : int
        Bars of a slow bar, counted from bar 0; 0 where the signal is the momentum's.
    slow : (S,) SLOW_STATE
        State of the slow signal.
    out : (n, 5) int64
        Open, high, low, close in ticks, and volume.
    """
    n_symbols = len(start_ticks)
    plain = math.sqrt(1.0 - signal * signal)
    base = _LONG_VARIANCE * (1.0 - _GARCH_NEWS - _GARCH_MEMORY)
    for i in range(len(shocks)):
        row = first_row + i
        symbol, bar = row % n_symbols, row // n_symbols
        h = variance[symbol]
        scale = math.sqrt(h)
        last = closes[symbol, (bar + RING - 1) % RING]
        momentum = last / closes[symbol, bar % RING] - 1.0
        if fast_per_slow:
            told = _slow_surprise(slow[symbol], bar, fast_per_slow, last)
        else:
            told = -math.tanh(momentum / (scale * math.sqrt(10.0)))
        shock = plain * shocks[i, 0] + signal * told
        if fast_per_slow:
            _learn_drift(slow[symbol], signal, shock)
        pull = _PULL * math.log(last / start_ticks[symbol])
        close = max(round(last * math.exp(scale * shock - pull)), _LEAST_TICKS)
        wick = 0.5 * scale * last
        high = max(last, close) + int(abs(shocks[i, 1]) * wick)
        low = max(min(last, close) - int(abs(shocks[i, 2]) * wick), 1)
        day = (bar * step_seconds % 86400) / 86400.0
        shape = 1.0 + 0.7 * math.cos(4.0 * math.pi * (day - 0.6))  # busy at open and close
        volume = 800.0 * shape * math.exp(0.4 * shocks[i, 3]) * (1.0 + 0.5 * abs(shock))
        variance[symbol] = base + _GARCH_NEWS * h * shock * shock + _GARCH_MEMORY * h
        closes[symbol, bar % RING] = close
        out[i, 0] = last
        out[i, 1] = high
        out[i, 2] = low
        out[i, 3] = close
        out[i, 4] = 1 + int(volume)


@compiled
def _put_number(out: npt.NDArray[np.uint8], at: int, value: int, width: int) -> int:
    """Write a number of at least `width` digits; return where it ends."""
    digits = 1
    rest = value // 10
    while rest > 0:
        rest //= 10
        digits += 1
    digits = max(digits, width)
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = 48 + value % 10
        value //= 10
    return at + digits


@compiled
def _put_time(out: npt.NDArray[np.uint8], at: int, seconds: int) -> int:
    """Write `YYYY-MM-DD HH:MM:SS`.

    http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    """
    days = seconds // 86400 + 719468
    era = days // 146097
    of_era = days - era * 146097
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    at = _put_number(out, at, year, 4)
    out[at] = 45
    at = _put_number(out, at + 1, month, 2)
    out[at] = 45
    at = _put_number(out, at + 1, of_year - (153 * shifted + 2) // 5 + 1, 2)
    out[at] = 32
    clock = seconds % 86400
    at = _put_number(out, at + 1, clock // 3600, 2)
    out[at] = 58
    at = _put_number(out, at + 1, clock // 60 % 60, 2)
    out[at] = 58
    return _put_number(out, at + 1, clock % 60, 2)


@compiled
def write_lines(
    first_row: int,
    first_second: int,
    step_seconds: int,
    names: npt.NDArray[np.uint8],
    bars: Int64,
    out: npt.NDArray[np.uint8],
) -> int:
    """Write bars as lines `time[,symbol],open,high,low,close,volume`; return the bytes.

    Parameters
    ----------
    first_row : int
        Number of the first row, as in `simulate_bars`.
    first_second, step_seconds : int
        Time of bar 0 in seconds since 1970, and between bars.
    names : (S, W) uint8
        Each symbol's name; W = 0 leaves the column out.
    bars : (n, 5) int64
        As `simulate_bars` writes them.
    out : (B,) uint8
        Room for the lines.
    """
    at = 0
    n_symbols, width = names.shape
    for i in range(len(bars)):
        row = first_row + i
        at = _put_time(out, at, first_second + row // n_symbols * step_seconds)
        out[at] = 44
        at += 1
        if width:
            for place in range(width):
                out[at] = names[row % n_symbols, place]
                at += 1
            out[at] = 44
            at += 1
        for column in range(4):
            ticks = bars[i, column]
            at = _put_number(out, at, ticks // TICKS_PER_UNIT, 1)
            out[at] = 46
            at = _put_number(out, at + 1, ticks % TICKS_PER_UNIT * 25, 2)
            out[at] = 44
            at += 1
        at = _put_number(out, at, bars[i, 4], 1)
        out[at] = 10
        at += 1
    return at
