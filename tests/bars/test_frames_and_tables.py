"""Frames of several symbols with flat names; Parquet whose dates, clocks and numbers are texts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from advice import follow

import grandbatch as gb
from grandbatch.errors import ColumnError, InputError

PRICES = ["open", "high", "low", "close"]


def bars_of(seed, rows=40):
    rng = np.random.default_rng(seed)
    low = (100 + rng.random(rows)).round(2)
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2024-01-02 09:30", periods=rows, freq="h", tz="UTC"),
            "open": (low + 0.25).round(2),
            "high": (low + 1.5).round(2),
            "low": low,
            "close": (low + 0.75).round(2),
            "volume": rng.integers(1, 500, rows).astype(float),
        }
    )


def read(path, tmp_path, **rules):
    frame = gb.read_bars(path, cache=tmp_path / "cache", **rules).compute()
    frame["timestamp"] = frame["timestamp"].astype("datetime64[ns, UTC]")
    return frame.reset_index(drop=True)


def assert_bars(found, wanted):
    wanted = wanted.astype({"timestamp": "datetime64[ns, UTC]"})
    pd.testing.assert_frame_equal(
        found[["timestamp", *PRICES, "volume"]].reset_index(drop=True), wanted, check_exact=True
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("field_first", [True, False])
@pytest.mark.parametrize("mark", ["_", " ", ".", "-", ":", "/", ", "])
def test_flat_names_of_several_symbols_are_read_as_bars_of_each(
    tmp_path, mark, field_first, suffix
):
    bars = {"AAPL": bars_of(1), "BRK-B": bars_of(2)}
    wide = pd.DataFrame({"Date": bars["AAPL"]["timestamp"].dt.tz_localize(None)})
    for symbol, frame in bars.items():
        for field in (*PRICES, "volume"):
            pair = (field.title(), symbol)
            wide[mark.join(pair if field_first else pair[::-1])] = frame[field]
        pair = ("Adj Close", symbol)
        wide[mark.join(pair if field_first else pair[::-1])] = frame["close"] / 2
    path = tmp_path / f"wide.{suffix}"
    wide.to_csv(path, index=False) if suffix == "csv" else wide.to_parquet(path)
    found = read(path, tmp_path)
    for symbol, frame in bars.items():
        assert_bars(found[found["symbol"] == symbol], frame)


def test_one_of_several_flat_symbols_is_read_where_columns_name_it(tmp_path):
    bars = bars_of(1)
    wide = pd.DataFrame({"Date": bars["timestamp"].dt.tz_localize(None)})
    for symbol in ("AAPL", "MSFT"):
        for field in (*PRICES, "volume"):
            wide[f"{field.title()}_{symbol}"] = bars[field] * (1 + (symbol == "MSFT"))
    wide.to_csv(tmp_path / "wide.csv", index=False)
    columns = {field: f"{field.title()}_AAPL" for field in (*PRICES, "volume")}
    assert_bars(read(tmp_path / "wide.csv", tmp_path, columns=columns), bars)


def test_bids_and_asks_are_no_symbols(tmp_path):
    bars = bars_of(1)
    wide = pd.DataFrame({"Date": bars["timestamp"].dt.tz_localize(None)})
    for side in ("bid", "ask"):
        for field in PRICES:
            wide[f"{side}_{field}"] = bars[field]
    wide.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(ColumnError, match="more like it would be left out"):
        read(tmp_path / "wide.csv", tmp_path, no_volume=True)


@pytest.mark.parametrize("clock", ["text", "time", "duration"])
def test_dates_as_timestamps_are_joined_with_times_of_day(tmp_path, clock):
    bars = bars_of(3)
    wall = bars["timestamp"].dt.tz_localize(None)
    day = wall.dt.normalize()
    clocks = {"text": wall.dt.strftime("%H:%M"), "time": wall.dt.time, "duration": wall - day}
    table = bars.drop(columns="timestamp").assign(date=day, time=clocks[clock])
    table.to_parquet(tmp_path / "bars.parquet")
    assert_bars(read(tmp_path / "bars.parquet", tmp_path), bars)


@pytest.mark.parametrize("rules", [{}, {"decimal": ","}])
def test_numbers_of_parquet_that_are_texts_may_have_decimal_commas(tmp_path, rules):
    bars = bars_of(4)
    texts = {name: [f"{value:.2f}".replace(".", ",") for value in bars[name]] for name in PRICES}
    columns = {"timestamp": pa.array(bars["timestamp"]), **texts, "volume": bars["volume"]}
    pq.write_table(pa.table(columns), tmp_path / "bars.parquet")
    assert_bars(read(tmp_path / "bars.parquet", tmp_path, **rules), bars)


@pytest.mark.parametrize("nothing", [None, float("nan"), "", "-"])
def test_a_volume_of_parquet_that_is_empty_is_offered_its_flag(tmp_path, nothing):
    bars = bars_of(6).assign(volume=[nothing] * 40)
    bars.to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(InputError, match="empty in all of the first rows") as caught:
        read(tmp_path / "bars.parquet", tmp_path)
    assert next(follow(str(caught.value))).no_volume
    found = read(tmp_path / "bars.parquet", tmp_path, no_volume=True)
    assert_bars(found, bars.assign(volume=0.0))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_number_that_stands_for_no_price_is_none_whatever_its_scale(tmp_path, suffix):
    bars, path = bars_of(7), tmp_path / f"x.{suffix}"
    whole = bars.copy()
    for name in PRICES:
        whole[name] = (bars[name] * 100).round().astype("int64") * 10**7
        whole.loc[5, name] = 2**63 - 1
    whole.to_csv(path, index=False) if suffix == "csv" else whole.to_parquet(path)
    found = read(path, tmp_path, price_scale=1e-9, max_bad_fraction=0.1)
    assert_bars(found, bars.drop(index=5).reset_index(drop=True))


def test_grouped_numbers_of_parquet_that_are_texts_are_offered_their_flag(tmp_path):
    bars = bars_of(5)
    for name in PRICES:
        bars[name] *= 1000
    texts = {name: [f"{value:,.1f}" for value in bars[name]] for name in PRICES}
    columns = {"timestamp": pa.array(bars["timestamp"]), **texts, "volume": bars["volume"]}
    pq.write_table(pa.table(columns), tmp_path / "bars.parquet")
    with pytest.raises(InputError, match="add --grouped"):
        read(tmp_path / "bars.parquet", tmp_path)
    rounded = bars.round(dict.fromkeys(PRICES, 1))
    assert_bars(read(tmp_path / "bars.parquet", tmp_path, grouped=True), rounded)
