"""Highs and lows that miss the other prices by a rounding, and magnitudes that mean nothing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from advice import follow
from simulated import write_rows

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.errors import BadRowsError, UsageError


def read(path, folder, **options):
    return prepare_bars(path, folder, BarRules(max_bad_fraction=1.0, **options))


def test_adjusted_prices_an_ulp_outside_are_bars(tmp_path):
    rng = np.random.default_rng(5)
    prices = rng.uniform(10, 500, (400, 4))
    low, first, second, high = np.sort(prices, axis=1).T
    factor = 0.98765432109
    rows = [(o * factor, h * factor, l * factor, h * factor * (1 + 2.3e-16), 5)
            for o, h, l in zip(first, high, low, strict=True)]  # fmt: skip
    rows += [(o * factor, h * factor, o * factor * (1 + 2.3e-16), o * factor, 5)
             for o, h in zip(second, high, strict=True)]  # fmt: skip
    n_off = sum(c > h or l > o for o, h, l, c, _ in rows)
    rows += [(10, 12, 9, 11, 5)] * 3
    assert n_off > 300
    bars = read(write_rows(tmp_path / "b.csv", rows), tmp_path / "cache")
    assert (bars.quarantined, bars.widened, len(bars)) == ({}, n_off, 803)
    found = bars.read(0, 803)
    expected = np.array(rows)
    np.testing.assert_array_equal(found["high"], expected[:, :4].max(axis=1))
    np.testing.assert_array_equal(found["low"], expected[:, :4].min(axis=1))
    for name, column in (("open", 0), ("close", 3)):
        np.testing.assert_array_equal(found[name], expected[:, column])
    strict = read(tmp_path / "b.csv", tmp_path / "cache", ohlc_tolerance=0)
    assert (strict.quarantined, strict.widened) == ({"ohlc_inconsistent": n_off}, 0)


@pytest.mark.parametrize(
    ("row", "tolerance", "is_bar"),
    [
        ((100, 101, 99, 101 * (1 + 0.9e-9), 1), 1e-9, True),
        ((100, 101, 99, 101 * (1 + 1.1e-9), 1), 1e-9, False),
        ((100, 101, 99, 101.4, 1), 0.005, True),
        ((100, 101, 99, 101.6, 1), 0.005, False),
        ((100, 101, 100.4, 100.5, 1), 0.005, True),
        ((100, 100, 100.4, 100, 1), 0.005, True),  # the low above the high
        ((-100, -99, -101, -98.6, 1), 0.005, True),
        ((-100, -99, -101, -98.4, 1), 0.005, False),
        ((0, 0, 0, 1e-12, 1), 1e-9, False),
    ],
)
def test_the_tolerance_is_a_share_of_the_price(tmp_path, row, tolerance, is_bar):
    path = write_rows(tmp_path / "b.csv", [(100, 101, 99, 100, 1), row, (100, 101, 99, 100, 1)])
    bars = read(path, tmp_path / "c", ohlc_tolerance=tolerance, allow_non_positive=True)
    assert (len(bars), bars.widened) == ((3, 1) if is_bar else (2, 0))


@pytest.mark.parametrize("every", [5, 200])
def test_single_precision_is_told_with_the_flag_that_takes_it(tmp_path, every):
    rng = np.random.default_rng(8)
    low, o, c, high = np.sort(rng.uniform(10, 500, (400, 4)).astype(np.float32)).T
    c[::every] = np.nextafter(high[::every], np.float32(1e9))
    frame = pd.DataFrame({"open": o, "high": high, "low": low, "close": c, "volume": 5.0})
    frame.insert(0, "timestamp", pd.date_range("2024-01-01", periods=400))
    frame.to_parquet(tmp_path / "x.parquet")
    if every == 5:
        with pytest.raises(BadRowsError) as caught:
            prepare_bars(tmp_path / "x.parquet", tmp_path / "c")
        text = str(caught.value)
    else:
        text = prepare_bars(tmp_path / "x.parquet", tmp_path / "c").worth_a_look[0]
    assert f"highs and lows of {400 // every} rows miss" in text
    bars = prepare_bars(tmp_path / "x.parquet", tmp_path / "d", next(follow(text)))
    assert bars.n_rows == 400
    np.testing.assert_array_equal(bars.read(0, 400, ("high",))["high"], np.maximum(high, c))


@pytest.mark.parametrize("value", [-1e-9, 1, math.nan, math.inf])
def test_a_tolerance_that_is_no_share_is_refused(value):
    with pytest.raises(UsageError, match="ohlc_tolerance must be a share"):
        BarRules(ohlc_tolerance=value)


GOOD = (10, 12, 9, 11, 100)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((1e-300,) * 4 + (1,), "out_of_range"),
        ((1e300,) * 4 + (1,), "out_of_range"),
        ((0.99e-18,) * 4 + (1,), "out_of_range"),
        ((1e-18,) * 4 + (1,), None),
        ((1e18,) * 4 + (1,), None),
        ((1.01e18,) * 4 + (1,), "out_of_range"),
        ((10, 1e200, 9, 11, 100), "out_of_range"),
        ((10, 12, 1e-155, 11, 100), "out_of_range"),
        ((-1e-40,) * 4 + (1,), "out_of_range"),
        ((10, 12, 9, 11, 1e-151), "out_of_range"),
        ((10, 12, 9, 11, 1e25), "out_of_range"),
        ((10, 12, 9, 11, 1e24), None),
        ((10, 12, 9, 11, 1e-12), None),
        ((10, 12, 9, 11, 0), None),
        ((0, 12, 0, 11, 0), None),
        ((10, math.inf, 9, 11, 100), "not_finite"),
    ],
)
def test_magnitudes_beyond_the_stated_range_are_no_bars(tmp_path, row, reason):
    path = write_rows(tmp_path / "b.csv", [GOOD, row, GOOD])
    bars = read(path, tmp_path / "cache", allow_non_positive=True)
    assert bars.quarantined == ({reason: 1} if reason else {})
    live = gb.LiveFeatures("tactical", allow_non_positive=True)
    names = ("open", "high", "low", "close", "volume")
    bar = {"timestamp": "2024-01-01", **dict(zip(names, row, strict=True))}
    if reason is None:
        live.push(bar)
    else:
        with pytest.raises(BadRowsError, match=reason):
            live.push(bar)


@pytest.mark.parametrize("feature_set", ["strategic", "tactical"])
def test_within_the_range_everything_in_a_store_is_finite(tmp_path, feature_set):
    """Prices and volumes that leap between the ends of the range, flat stretches among them."""
    rng = np.random.default_rng(0)
    ends = np.array([1e-18, 1e-17, 1.0, 1e17, 1e18])
    close = np.repeat(ends[rng.integers(0, 5, 400)], rng.integers(1, 30, 400))[:3000]
    volume = rng.choice([0, 1e-12, 1e-11, 5, 1e23, 1e24], len(close))
    path = write_rows(tmp_path / "b.csv", np.array([close, close, close, close, volume]).T)
    store = gb.build_store(path, tmp_path / "s.zarr", feature_set=feature_set)
    assert len(store) > 50
    assert np.isfinite(store.matrices[:]).all()
    assert np.isfinite(store.next_return[: len(store) - 1]).all()
    assert np.abs(store.matrices[:]).max() < 1e38


def test_a_live_bar_an_ulp_outside_is_that_of_a_build(tmp_path):
    close = [100 + 0.1 * (number % 9) for number in range(90)]
    rows = [(c, c, c - 1, math.nextafter(c, 200), 5) for c in close]
    path = write_rows(tmp_path / "b.csv", rows)
    store = gb.build_store(path, tmp_path / "s.zarr", feature_set="tactical", overlap=59)
    frame = gb.read_bars(path, cache=tmp_path / "c").compute()
    live = gb.LiveFeatures("tactical")
    names = ("open", "high", "low", "close", "volume")
    for time, row in zip(frame["timestamp"], rows, strict=True):
        window = live.push({"timestamp": time, **dict(zip(names, row, strict=True))})
    np.testing.assert_array_equal(window, store.matrices[len(store) - 1])
    with pytest.raises(BadRowsError, match="ohlc_inconsistent"):
        gb.LiveFeatures("tactical", ohlc_tolerance=0).push(
            {"timestamp": 1, **dict(zip(names, rows[0], strict=True))}
        )
