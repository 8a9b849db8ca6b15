"""What kernels read: times and extra columns reach them whatever way the bars take."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import oracles
import pandas as pd
import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import ColumnError, InputError, KernelError
from grandbatch.features import compute_rows
from grandbatch.features.awkward import awkward_bars
from grandbatch.features.costs import costs_of
from grandbatch.features.inputs import BAR_INPUTS, arrays_of, require_inputs


def premium(close, vwap, first, out):
    out[:] = (close - vwap)[first:] / close[first:]


def minutes_since_the_bar_before(timestamp, first, out):
    assert timestamp.dtype == np.int64
    out[:] = np.diff(timestamp)[first - 1 :] / 60e9


def trades_of_two_bars(trades, first, out):
    out[:] = trades[first:] + trades[first - 1 : -1]


MIXED = gb.FeatureSet(
    "mixed",
    [
        gb.Feature("premium", 0, premium, ("close", "vwap")),
        gb.STRATEGIC.features[0],
        gb.Feature("minutes", 1, minutes_since_the_bar_before, ("timestamp",)),
        gb.Feature("two", 1, trades_of_two_bars, ("trades",)),
        *gb.STRATEGIC.features[4:6],
    ],
    sequence_length=4,
)


def bars_frame(n=300):
    """Two symbols' bars with two columns of their own, and a break in time."""
    parts = []
    for place, symbol in enumerate("AB"):
        rng = np.random.default_rng(place)
        times = pd.date_range("2024-03-08 22:00", periods=n, freq="5min", tz="UTC")
        times = times.to_series(index=range(n)).where(
            np.arange(n) < 120, times + pd.Timedelta("2D")
        )
        columns = oracles.random_bars(n, seed=place)
        extra = {"vwap": columns["close"] * 1.01, "trades": rng.integers(0, 9, n).astype(float)}
        parts.append(pd.DataFrame({"symbol": symbol, "timestamp": times, **columns, **extra}))
    return pd.concat(parts, ignore_index=True)


def expected(frame):
    """The columns that aren't built in, by pandas, where all lookbacks are there."""
    by_symbol = frame.groupby("symbol")
    return pd.DataFrame(
        {
            "premium": (frame["close"] - frame["vwap"]) / frame["close"],
            "minutes": by_symbol["timestamp"].diff().dt.total_seconds() / 60,
            "two": by_symbol["trades"].rolling(2).sum().to_numpy(),
        }
    )[by_symbol.cumcount() >= MIXED.lookback].astype("float32")


def test_inputs_are_read_in_one_order_and_extra_ones_last():
    assert MIXED.inputs == ("timestamp", "close", "vwap", "trades")
    assert gb.FeatureSet("x", gb.STRATEGIC.features[:2], 3).inputs == ("close", "volume")


def test_a_frame_gives_what_pandas_does_and_the_built_in_ones_as_ever():
    frame = bars_frame()
    found = gb.add_features(dd.from_pandas(frame, npartitions=5), MIXED).compute(scheduler="sync")
    want = expected(frame)
    got = found.loc[want.index, list(want)]
    pd.testing.assert_frame_equal(got, want, rtol=1e-6, check_dtype=True)
    alone = gb.add_features(dd.from_pandas(frame, npartitions=2), "strategic")
    alone = alone.compute(scheduler="sync")["rsi"]
    both = found["rsi"].notna() & alone.notna()
    assert both.sum() == 2 * (300 - gb.STRATEGIC.lookback)
    assert found["rsi"][both].equals(alone[both])


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", None])
def test_the_timestamp_may_be_the_index_of_any_unit_and_zone(unit, zone):
    frame = bars_frame(80)
    want = gb.add_features(dd.from_pandas(frame, npartitions=1), MIXED, keep_bars=False)
    times = (
        frame["timestamp"]
        .dt.tz_convert(zone)
        .astype(f"datetime64[{unit}, {zone}]" if zone else f"datetime64[{unit}]")
    )
    moved = frame.drop(columns="timestamp").set_index(pd.Index(times))
    for keep_bars in (True, False):
        got = gb.add_features(
            dd.from_pandas(moved, npartitions=1, sort=False),
            MIXED,
            keep_bars=keep_bars,
            max_gap="10000D",
        ).compute(scheduler="sync")
        values = got[list(MIXED.feature_names)].to_numpy()
        np.testing.assert_array_equal(values, want.compute(scheduler="sync").to_numpy())


def test_a_name_that_bars_lack_is_told_with_feature_column_and_flag_before_any_work(tmp_path):
    words = (
        r"feature 'premium' reads 'vwap', feature 'two' reads 'trades', which the bars don't have; "
        r"they have timestamp, .*volume\. .*--extra vwap,trades .*extra=\('vwap', 'trades'\)"
    )
    with pytest.raises(ColumnError, match=words):
        gb.build_store("nowhere.csv", tmp_path / "s.zarr", feature_set=MIXED)
    frame = bars_frame(60)[["symbol", "timestamp", "close", "volume", "trades"]]
    with pytest.raises(ColumnError, match="'premium' reads 'vwap', which the bars of the frame"):
        gb.add_features(dd.from_pandas(frame, npartitions=1), MIXED)
    with pytest.raises(ColumnError, match="'premium' reads 'vwap'"):
        gb.check(MIXED, frame)
    near = gb.Feature("x", 0, premium, ("close", "volumes"))
    with pytest.raises(ColumnError, match="did you mean 'volume'"):
        require_inputs([near], BAR_INPUTS)
    spaced = gb.Feature("x", 0, premium, ("close", "VWAP price"))
    with pytest.raises(ColumnError, match="--extra 'VWAP price' "):
        require_inputs([spaced], BAR_INPUTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("timestamp", "2024-01-01", "must hold times, .*to_datetime"),
        ("timestamp", 1.7e18, "must hold times, .* got float64"),
        ("vwap", "n/a", "'vwap' must hold numbers"),
    ],
)
def test_columns_of_another_type_are_named(name, values, words):
    with pytest.raises(ColumnError, match=words):
        gb.check(MIXED, bars_frame(60).assign(**{name: values}))


def test_a_time_that_is_none_is_refused_with_its_row():
    columns = arrays_of(bars_frame(60)[:60].assign(symbol="A"), MIXED.inputs)
    columns["timestamp"][7] = np.datetime64("NaT", "ns").astype(np.int64)
    with pytest.raises(InputError, match="timestamp is no time at row 7 of 60"):
        compute_rows(MIXED, columns, np.zeros(1, np.int64))


def test_simulated_bars_have_any_column_and_a_change_of_clocks():
    names = ("vwap", "timestamp", "close", "trades")
    bars = awkward_bars(2_000, 1, names)
    assert tuple(bars) == names
    assert bars["timestamp"].dtype == np.int64
    for name in ("vwap", "trades"):
        assert ((bars[name] >= 0) & (bars[name] <= 1)).all()
        assert (np.diff(bars[name]) == 0).sum() > 200
    assert not np.array_equal(bars["vwap"], bars["trades"])
    assert np.array_equal(bars["vwap"], awkward_bars(2_000, 1, ("vwap",))["vwap"])
    local = pd.DatetimeIndex(bars["timestamp"], tz="UTC").tz_convert("America/New_York")
    assert len({moment.utcoffset() for moment in local}) == 2


def tomorrow(column, first, out):
    out[:] = np.concatenate([column[1:], column[-1:]])[first:]


def all_of_it(column, first, out):
    out[:] = (column - column.mean())[first:] % 1e4


def sum_of_all_before(column, first, out):
    out[:] = np.cumsum(np.diff(column, prepend=column[:1]) % 7)[first:]


def two_bars_back(column, first, out):
    out[:] = (column - np.roll(column, 2))[first:] * 1e-9


@pytest.mark.parametrize("name", ["timestamp", "vwap"])
@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (tomorrow, "looks ahead"),
        (all_of_it, "looks ahead"),
        (sum_of_all_before, "carries|before its lookback|where the run begins"),
        (two_bars_back, "before its lookback.*give lookback=2"),
    ],
)
def test_kernels_that_misread_times_and_extra_columns_are_found(name, kernel, words):
    with pytest.raises(KernelError, match=words):
        gb.check(gb.Feature("wrong", 1, kernel, (name,)))


def test_kernels_that_read_times_and_extra_columns_rightly_are_left_alone():
    gb.check(MIXED)
    frame = bars_frame()
    gb.check(MIXED, frame)
    gb.check(MIXED, frame.set_index("timestamp"))


def test_features_that_read_the_time_are_listed_with_what_they_cost():
    assert len(costs_of(MIXED.features)) == 6


def test_a_store_holds_what_kernels_make_of_times(tmp_path):
    mine = gb.FeatureSet("times", [MIXED.features[2], *gb.STRATEGIC.features[:1]], 4, 3)
    source = write_bars(tmp_path / "b.csv", 400, symbols=2)
    rows = {}
    for engine in ("overlap", "direct"):
        for partition_bars in (37, None):
            store = gb.build_store(
                source,
                tmp_path / f"{engine}{partition_bars}.zarr",
                feature_set=mine,
                engine=engine,
                partition_bars=partition_bars,
            )
            rows[engine, partition_bars] = store.matrices[:]
    first = rows["overlap", None]
    assert all(np.array_equal(first, other) for other in rows.values())
    np.testing.assert_array_equal(first[:, -1, 0], first[0, -1, 0])  # bars of one length
