"""Frames in which bars of several symbols stand side by side, as pandas and yfinance write them."""

import numpy as np
import pandas as pd
import pytest

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.errors import ColumnError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
NUMBERS = ["Open", "High", "Low", "Close", "Volume"]


def frame(tickers=("MSFT", "AAPL"), n=50, order=("Price", "Ticker"), index="Date"):
    """Return a frame with columns of fields and tickers, and an adjusted close."""
    random = np.random.default_rng(7)
    parts = {}
    for ticker in tickers:
        close = 100 + random.normal(size=n).cumsum().round(2)
        values = {"Open": close, "High": close + 1, "Low": close - 1, "Close": close}
        values |= {"Adj Close": close / 2, "Volume": random.integers(1, 99, n).astype(float)}
        parts |= {(field, ticker): column for field, column in values.items()}
    found = pd.DataFrame(parts, index=pd.date_range("2024-01-01", periods=n, name=index))
    found.columns = found.columns.set_names(["Price", "Ticker"])
    return found.reorder_levels(list(order), axis=1).sort_index(axis=1)


def prepare(path, tmp_path, block_bytes=None, **rules):
    return prepare_bars(path, tmp_path / "cache", BarRules(**rules), HERE, block_bytes)


def assert_bars(bars, expected):
    """Compare bars with a frame of fields and tickers."""
    found = bars.frame().compute()
    assert sorted(expected.columns.unique("Ticker")) == list(bars.symbols)
    for ticker in bars.symbols:
        of_one = expected.xs(ticker, axis=1, level="Ticker").dropna()
        rows = found[found["symbol"] == ticker]
        np.testing.assert_array_equal(rows["timestamp"].dt.tz_localize(None), of_one.index)
        for name in NUMBERS:
            np.testing.assert_array_equal(rows[name.lower()], of_one[name])


@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
@pytest.mark.parametrize("tickers", [("MSFT", "AAPL"), ("AAPL",), ("A.B", "^GSPC", "BRK-B")])
@pytest.mark.parametrize("index", ["Date", None])
@pytest.mark.parametrize("block_bytes", [None, 700])
def test_a_csv_with_several_lines_of_header_is_read(tmp_path, order, tickers, index, block_bytes):
    expected = frame(tickers, order=order, index=index)
    expected.to_csv(tmp_path / "x.csv")
    assert_bars(prepare(tmp_path / "x.csv", tmp_path, block_bytes), expected)


@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
@pytest.mark.parametrize("tickers", [("MSFT", "AAPL"), ("AAPL",)])
def test_a_parquet_with_pairs_for_names_is_read(tmp_path, order, tickers):
    expected = frame(tickers, order=order)
    expected.to_parquet(tmp_path / "x.parquet")
    assert_bars(prepare(tmp_path / "x.parquet", tmp_path), expected)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
def test_a_frame_whose_time_is_a_column_is_read(tmp_path, index, order):
    expected = frame(order=order)
    expected.reset_index().to_csv(tmp_path / "x.csv", index=index)
    assert_bars(prepare(tmp_path / "x.csv", tmp_path), expected)


@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
@pytest.mark.parametrize("tickers", [("MSFT", "AAPL"), ("AAPL",)])
def test_names_that_pandas_numbered_are_read(tmp_path, order, tickers):
    expected = frame(tickers, order=order)
    expected.to_csv(tmp_path / "first.csv")
    pd.read_csv(tmp_path / "first.csv", dtype=str).to_csv(tmp_path / "x.csv", index=False)
    assert_bars(prepare(tmp_path / "x.csv", tmp_path), expected)


@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
def test_a_symbol_may_be_called_as_if_it_were_numbered(tmp_path, order):
    expected = frame(("A", "A.1"), order=order)
    expected.to_csv(tmp_path / "x.csv")
    assert_bars(prepare(tmp_path / "x.csv", tmp_path), expected)


def test_pairs_for_names_are_read_in_csv_too_and_with_the_time_as_a_column(tmp_path):
    expected = frame()
    flat = expected.reset_index()
    flat.columns = [str(name) for name in flat.columns]
    flat.to_csv(tmp_path / "x.csv", index=False)
    flat.to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        assert_bars(prepare(tmp_path / name, tmp_path), expected)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_days_without_bars_of_a_symbol_are_left_out_and_counted(tmp_path, suffix):
    expected = frame()
    expected.loc[expected.index[:20], (slice(None), "MSFT")] = np.nan
    getattr(expected, f"to_{suffix}")(tmp_path / f"x.{suffix}")
    bars = prepare(tmp_path / f"x.{suffix}", tmp_path)
    assert_bars(bars, expected)
    assert (bars.left_out, bars.quarantined) == (20, {})


def test_bad_rows_have_the_lines_of_the_file(tmp_path):
    expected = frame(n=200)
    text = expected.to_csv().splitlines()
    text[150] = "rubbish"
    (tmp_path / "x.csv").write_text("\n".join(text) + "\n")
    for block_bytes in (None, 1000):
        bars = prepare(tmp_path / "x.csv", tmp_path, block_bytes)
        assert [bad.line for bad in iter_bad_rows(bars.path)] == [151, 151]
        assert bars.n_rows == 398


def test_several_symbols_cant_get_one_name(tmp_path):
    frame().to_csv(tmp_path / "x.csv")
    with pytest.raises(ColumnError, match="2 symbols side by side"):
        prepare(tmp_path / "x.csv", tmp_path, symbol="X")
    frame(("AAPL",)).to_csv(tmp_path / "y.csv")
    assert prepare(tmp_path / "y.csv", tmp_path, symbol="X").symbols == ("X",)
