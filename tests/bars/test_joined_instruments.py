"""Instruments that may have been joined into one series are told: by names of files, by numbers."""

import numpy as np
import pandas as pd
import pytest
from advice import follow, offers

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.errors import ColumnError

ROWS = 120


def bars(start="2024-01-02", rows=ROWS, scale=1, **beside):
    """Bars of a day each, with columns beside them."""
    number = np.arange(rows)
    low = 100 + 5 * np.sin(number)
    prices = {"open": low + 0.25, "high": low + 2, "low": low, "close": low + 1.5}
    frame = {name: (values * scale).round(2) for name, values in prices.items()}
    return pd.DataFrame(
        {"timestamp": pd.date_range(start, periods=rows), **frame, "volume": 100 + number, **beside}
    )


def looks(path, tmp_path, **rules):
    return prepare_bars(path, tmp_path / "cache", BarRules(**rules)).worth_a_look


def write(folder, *names):
    folder.mkdir()
    for number, name in enumerate(names):
        bars(f"{2001 + number}-01-01").to_csv(folder / name, index=False)
    return folder


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (("AAPL.csv", "MSFT.csv"), ("AAPL", "MSFT")),
        (("aapl.us.txt", "msft.us.txt"), ("aapl.us", "msft.us")),
        (("ESH24.csv", "ESM24.csv", "ESU24.csv"), ("ESH24", "ESM24", "ESU24")),
        (("BTCUSDT-1d-2001.csv", "ETHUSDT-1d-2002.csv"), ("BTCUSDT", "ETHUSDT")),
        (("GC_daily.csv", "SI_daily.csv"), ("GC", "SI")),
        (("平安.csv", "茅台.csv"), ("平安", "茅台")),
    ],
)
def test_files_named_by_symbols_are_told_with_the_flag_that_parts_them(tmp_path, names, symbols):
    folder = write(tmp_path / "in", *names)
    [line] = looks(folder, tmp_path)
    [rules] = follow(line)
    again = prepare_bars(folder, tmp_path / "again", rules)
    assert again.symbols == symbols
    assert not again.worth_a_look


@pytest.mark.parametrize(
    "names",
    [
        ("BTCUSDT-1m-2024-01a.csv", "BTCUSDT-1m-2024-01b.csv"),
        ("2001.csv", "2002.csv"),
        ("day1.csv", "day2_appended.csv"),
        ("NQ_01_January.csv", "NQ_02_February.csv"),
        ("NQ Jan01.csv", "NQ Jan02.csv"),
        ("train.csv", "valid.csv"),
        ("a.csv", "b.csv"),
    ],
)
def test_names_that_tell_parts_of_a_series_apart_are_nothing_to_look_at(tmp_path, names):
    assert not looks(write(tmp_path / "in", *names), tmp_path)


def test_whoever_names_one_symbol_is_told_nothing(tmp_path):
    folder = write(tmp_path / "in", "AAPL.csv", "MSFT.csv")
    assert not looks(folder, tmp_path, symbol="ALL")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("codes", [(101, 202), (2403, 2406, 2409), (11001, 11002)])
def test_few_numbers_that_change_along_a_file_may_be_instruments(tmp_path, codes, suffix):
    code = np.repeat(codes, ROWS // len(codes))
    frame = bars(which=code)
    path = tmp_path / f"x.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    [line] = looks(path, tmp_path)
    assert f"changes from {codes[0]} to {codes[1]}" in line
    [rules] = follow(line)
    assert len(prepare_bars(path, tmp_path / "again", rules).symbols) == len(codes)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("open_interest", np.repeat(np.arange(1000, 1012), 10)),
        ("year", np.repeat([2023, 2024], 60)),
        ("trading_day", np.repeat([20240102, 20240103], 60)),
        ("spread", np.repeat([20, 30], 60)),
        ("factor", np.repeat([1.5, 3.25], 60)),
        ("dividends", np.repeat([0, 250], 60)),
        ("week", np.repeat([202401, 202402], 60)),
    ],
)
def test_other_numbers_that_change_are_nothing_to_look_at(tmp_path, name, values):
    bars(**{name: values}).to_csv(tmp_path / "x.csv", index=False)
    assert not looks(tmp_path / "x.csv", tmp_path)


@pytest.mark.parametrize("rows", [ROWS, 12_000])
def test_texts_that_turn_up_further_down_are_watched(tmp_path, rows):
    late = np.where(np.arange(rows) < rows // 2, "0", "ESH4")
    late[-40:] = "ESM4"
    bars("1990-01-01", rows, which=late).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ColumnError, match="'which' isn't read and changes") as caught:
        looks(tmp_path / "x.csv", tmp_path)
    assert any("symbol=which" in flags for flags in offers(str(caught.value)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_prices_in_billionths_are_told_with_their_flag(tmp_path, suffix):
    frame, path = bars(), tmp_path / f"x.{suffix}"
    for name in ("open", "high", "low", "close"):
        frame[name] = (frame[name] * 10**9).round().astype("int64")
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    [line] = looks(path, tmp_path)
    [rules] = follow(line)
    again = prepare_bars(path, tmp_path / "again", rules)
    assert not again.worth_a_look
    np.testing.assert_array_equal(again.read(0, ROWS, ("close",))["close"], bars()["close"])
