"""Realistic bars of any length, for trials, tests and benchmarks."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np

from grandbatch.errors import DiskFullError, UsageError
from grandbatch.files.locations import as_location, is_remote
from grandbatch.files.refusals import refuse_url
from grandbatch.files.verbs import is_in_objects
from grandbatch.files.whole import written_aside
from grandbatch.kernels.simulation import (
    RING,
    SLOW_LAG,
    SLOW_STATE,
    TICKS_PER_UNIT,
    simulate_bars,
    write_lines,
)

START_SECOND = 1_577_836_800
"""2020-01-01 00:00 UTC."""

_LAST_SECOND = 9_214_646_400  # 2262-01-01: nanoseconds in int64 end soon after
_BLOCK_ROWS = 65_536
_LINE_BYTES = 160
_FAST_REACH = 81  # bars that a tactical window reaches back: 60, and 21 of lookback
_FIRST_PRICE = 10_000
_FIRST_VARIANCE = 1.0e-6
_OTHER_FORMS = (".gz", ".bz2", ".xz", ".zst", ".zip", ".parquet")
_LEAST_SLOWNESS = -(-_FAST_REACH // (SLOW_LAG - 1))
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def create_large_dataset_simulation(
    output_path: str | os.PathLike[str],
    num_rows: int = 100_000,
    *,
    symbols: int = 1,
    freq: str = "5min",
    seed: int = 0,
    signal: float = 0.0,
    signal_timeframe: str | None = None,
) -> dict[str, int]:
    """Write simulated bars as CSV, in bounded memory.

    Returns cluster in volatility (GARCH), volume has a daily shape and follows the size of
    returns, prices are multiples of 0.25 and positive. Time starts at 2020-01-01 00:00 UTC and has
    no gaps. The same arguments give the same bytes.

    Parameters
    ----------
    output_path : path
        The file; it is replaced when the new one is whole. At the URL of an object store it lies in
        the temporary folder until then.
    num_rows : int
        Bars of all symbols together.
    symbols : int
        Symbols, interleaved by time in a column `symbol`; with one there is no such column.
    freq : str
        Time between bars: whole seconds, such as ``"30s"``, ``"5min"``, ``"1h"``, ``"1d"``.
    seed : int
        Seed of the random numbers.
    signal : float
        From 0 to below 1: how far the next return can be told from the strategic feature
        `momentum`. Returns then revert: the expected next return is
        ``-signal * s * tanh(momentum / (s * sqrt(10)))`` with s the bar's volatility, and the rest
        shrinks so that the scale of returns stays about the same. At 0 the past tells nothing but
        volatility.
    signal_timeframe : str, optional
        A coarser time between bars, such as ``"30min"``, that alone shows the signal. Each bar of
        that length drifts to where the one 24 such bars before it went, less what its own fast
        bars tell of that already: of strategic windows of that timeframe the next return can be
        told, of the last 80 fast bars it can't. By default the signal is that of `momentum`.

    Returns
    -------
    dict
        ``rows`` and ``bytes`` written.

    Raises
    ------
    UsageError
        If an argument makes no sense, or time would leave the years up to 2261.
    DiskFullError
        If the file doesn't fit on its disk.
    """
    step = _seconds(freq)
    _check(num_rows, symbols, seed, signal)
    fast_per_slow = _slowness(freq, step, signal, signal_timeframe)
    if START_SECOND + (num_rows // symbols) * step >= _LAST_SECOND:
        raise UsageError(
            f"{num_rows:,} bars of {symbols} symbols every {freq} reach beyond the year 2261; "
            "take fewer rows, more symbols or a shorter freq"
        )
    refuse_url(output_path, "simulated bars", but=is_in_objects)
    target = as_location(output_path)
    if not is_remote(target):
        _check_place(target)
    if target.suffix.lower() in _OTHER_FORMS:
        raise UsageError(f"{target}: what is written is plain CSV; give a name that ends in .csv")
    try:
        with written_aside(target, shared=True) as aside:
            size = _write(aside, num_rows, symbols, step, seed, signal, fast_per_slow)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError(
            f"{target}: no room; {num_rows:,} bars need about {num_rows * 62:,} bytes"
        ) from error
    return {"rows": num_rows, "bytes": size}


def _check_place(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; give the path of a file")


def _write(
    path: Path,
    num_rows: int,
    symbols: int,
    step: int,
    seed: int,
    signal: float,
    fast_per_slow: int,
) -> int:
    start = np.arange(symbols, dtype=np.int64) % 50 * 200 + _FIRST_PRICE
    start *= TICKS_PER_UNIT
    variance = np.full(symbols, _FIRST_VARIANCE)
    closes = np.repeat(start[:, np.newaxis], RING, axis=1)
    slow = np.zeros(symbols, SLOW_STATE)
    names = _names(symbols)
    # One stream per column: how many numbers are drawn at once then changes none of them.
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    out = np.empty(_BLOCK_ROWS * _LINE_BYTES, np.uint8)
    header = "timestamp,symbol," if names.size else "timestamp,"
    with path.open("wb") as file:
        size = file.write(f"{header}open,high,low,close,volume\n".encode())
        for first in range(0, num_rows, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, num_rows - first)
            shocks = np.stack([stream.standard_normal(count) for stream in streams], axis=1)
            bars = np.empty((count, 5), np.int64)
            simulate_bars(
                first, step, signal, shocks, start, variance, closes, fast_per_slow, slow, bars
            )
            end = write_lines(first, START_SECOND, step, names, bars, out)
            size += file.write(out[:end].data)
    return size


def _names(symbols: int) -> np.typing.NDArray[np.uint8]:
    """Names S0, S1, … of equal width, as (S, W) bytes; without width for a single symbol."""
    if symbols == 1:
        return np.empty((1, 0), np.uint8)
    width = len(str(symbols - 1))
    text = "".join(f"S{number:0{width}d}" for number in range(symbols))
    return np.frombuffer(text.encode(), np.uint8).reshape(symbols, width + 1)


def _seconds(freq: str, name: str = "freq") -> int:
    match = re.fullmatch(r"(\d*)\s*(s|min|h|d)", freq.strip().lower())
    seconds = int(match[1] or 1) * _UNITS[match[2]] if match else 0
    if seconds < 1:
        raise UsageError(f"{name} must be whole seconds such as 30s, 5min, 1h or 1d, got {freq!r}")
    return seconds


def _slowness(freq: str, step: int, signal: float, timeframe: str | None) -> int:
    """Return how many bars one of the signal's timeframe has; 0 without a timeframe."""
    if timeframe is None:
        return 0
    seconds = _seconds(timeframe, "signal_timeframe")
    if signal == 0:
        raise UsageError(
            f"signal_timeframe {timeframe} says where a signal shows: give signal, too, such as 0.5"
        )
    if seconds % step or seconds // step < _LEAST_SLOWNESS or _UNITS["d"] % seconds:
        raise UsageError(
            f"signal_timeframe must be at least {_LEAST_SLOWNESS} times freq ({freq}), a multiple "
            f"of it, and go into a day without a rest, got {timeframe}; such as 30min for 5min"
        )
    return seconds // step


def _check(num_rows: int, symbols: int, seed: int, signal: float) -> None:
    if num_rows < 1:
        raise UsageError(f"num_rows must be at least 1, got {num_rows}")
    if not 1 <= symbols <= 100_000:
        raise UsageError(f"symbols must be from 1 to 100,000, got {symbols}")
    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}")
    if not 0 <= signal < 1:
        raise UsageError(f"signal must be from 0 to below 1, got {signal}")
