"""What isn't known at a window's decision time changes nothing in its batch, nor in its context."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timeframes import gappy_bars, write_bars

import grandbatch as gb

FAST, SLOW = pd.Timedelta("5min"), pd.Timedelta("30min")
BARS = gappy_bars(["B", "A"], 400)
WINDOWS = {"durable": False, "scheduler": "sync", "sequence_length": 4, "chunk_windows": 16}


def coarser(bars: pd.DataFrame) -> pd.DataFrame:
    """Gather bars in half hours, by their openings."""
    groups = bars.groupby(["symbol", bars["timestamp"].dt.floor("30min")])
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return groups.agg(how).reset_index()


COARSER = coarser(BARS)


def changed(bars: pd.DataFrame, duration: pd.Timedelta, time: pd.Timestamp, seed: int):
    """Change bars that are not complete at a time, all their prices, and leave some of them out."""
    random = np.random.default_rng(seed)
    unknown = (bars["timestamp"] + duration > time).to_numpy()
    other = bars.copy()
    factor = np.where(unknown, np.exp(random.normal(0, 0.2, len(bars))), 1.0)
    for name in ("open", "high", "low", "close"):
        other[name] *= factor
    other["volume"] = np.where(unknown, random.integers(1, 1000, len(bars)), bars["volume"])
    return other[~unknown | (random.random(len(bars)) < 0.9)]


def batches(folder: Path, bars, slow_bars, until: int, resample: bool, bar_time: str):
    """Of each window decided until a time all that it shows of the bars so far."""
    folder.mkdir()
    source = write_bars(folder / "fast.csv", bars)
    fast = gb.build_store(source, folder / "fast.zarr", overlap=3, bar_duration="5min", **WINDOWS)
    if resample:
        slow = gb.build_store(source, folder / "slow.zarr", overlap=3, resample="30min", **WINDOWS)
    else:
        times = {"bar_duration": "30min", "bar_time": bar_time}
        source = write_bars(folder / "slow.csv", slow_bars)
        slow = gb.build_store(source, folder / "slow.zarr", overlap=3, **times, **WINDOWS)
    found = {}
    for batch in gb.SlidingWindowDataLoader(fast, context={"slow": slow}, seed=1):
        context = batch.context["slow"]
        for n, end in enumerate(batch.end_time.tolist()):
            if end + FAST.value <= until:
                found[fast.symbols[batch.symbol[n]], end] = (
                    batch.matrices[n].numpy().tobytes(),
                    float(batch.close_price[n]),
                    context.matrices[n].numpy().tobytes(),
                    int(context.end_time[n]),
                )
    return found


def look(seed: int, share: float, *, resample: bool, bar_time: str = "open"):
    """Give the batches decided until some time, of the bars and of those that differ from then."""
    first, last = BARS["timestamp"].min(), BARS["timestamp"].max()
    time = (first + share * (last - first)).floor("5min")
    with tempfile.TemporaryDirectory() as folder:
        how = time.value, resample, bar_time
        before = batches(Path(folder, "a"), BARS, COARSER, *how)
        fast, slow = changed(BARS, FAST, time, seed), changed(COARSER, SLOW, time, seed + 1)
        return before, batches(Path(folder, "b"), fast, slow, *how)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**31), st.floats(0.7, 0.95), st.booleans())
def test_bars_not_known_yet_change_nothing(seed, share, resample):
    before, after = look(seed, share, resample=resample)
    assert len(before) > 20
    assert set(before) == set(after)
    assert [key for key in before if before[key] != after[key]] == []


def test_bars_said_to_be_known_too_early_are_found_out():
    before, after = look(0, 0.7, resample=False, bar_time="close")
    assert set(before) == set(after)
    wrong = [key for key in before if before[key] != after[key]]
    assert wrong
    # and no window but those that were decided last shows them
    assert all(key[1] > sorted(before, key=lambda k: k[1])[-40][1] for key in wrong)


@pytest.mark.parametrize("resample", [True, False])
def test_what_is_known_is_shown(resample):
    """A change behind the last but one decision shows in the windows behind it."""
    with tempfile.TemporaryDirectory() as folder:
        how = BARS["timestamp"].max().value + SLOW.value, resample, "open"
        before = batches(Path(folder, "a"), BARS, COARSER, *how)
        early = BARS["timestamp"].quantile(0.6)
        other = changed(BARS, FAST, early, 1), changed(COARSER, SLOW, early, 2)
        after = batches(Path(folder, "b"), *other, *how)
    both = set(before) & set(after)
    assert any(before[key][2] != after[key][2] for key in both)
