"""Instruments that may have been joined into one series are told: by names of files, by numbers."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from advice import follow, offers

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.errors import ColumnError, InputError

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
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        bars(f"{2001 + number}-01-01").to_csv(path, index=False)
    return paths


APART = "files with names apart would be read as one series"


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (("AAPL/bars.csv", "MSFT/bars.csv"), ("AAPL", "MSFT")),
        (("AAPL/2024.csv", "MSFT/2024.csv", "AAPL/2025.csv"), ("AAPL", "MSFT")),
        (("btc/2024/01.csv", "eth/2024/02.csv"), ("btc", "eth")),
        (("x/ES/1min/a.csv", "x/NQ/1min/b.csv"), ("ES", "NQ")),
        (("AAPL/bars.csv", "F/bars.csv"), ("AAPL", "F")),
        (("ES/H24/bars.csv", "ES/M24/bars.csv"), ("H24", "M24")),
        (("MARA.csv", "RIOT.csv"), ("MARA", "RIOT")),
        (("bars_AAPL.csv", "bars_MSFT.csv"), ("AAPL", "MSFT")),
        (("NQ_H24.csv", "NQ_M24.csv"), ("H24", "M24")),
        (("AAPL.csv", "MSFT.csv"), ("AAPL", "MSFT")),
        (("aapl.us.txt", "msft.us.txt"), ("aapl.us", "msft.us")),
        (("ESH24.csv", "ESM24.csv", "ESU24.csv"), ("ESH24", "ESM24", "ESU24")),
        (("BTCUSDT-1d-2001.csv", "ETHUSDT-1d-2002.csv"), ("BTCUSDT", "ETHUSDT")),
        (("GC_daily.csv", "SI_daily.csv"), ("GC", "SI")),
        (("平安.csv", "茅台.csv"), ("平安", "茅台")),
    ],
)
def test_files_named_by_symbols_are_refused_with_the_flags_that_read_them(tmp_path, names, symbols):
    paths = write(tmp_path / "in", *names)
    with pytest.raises(InputError, match=APART) as caught:
        looks(paths, tmp_path)
    apart, joined = follow(str(caught.value))
    found = prepare_bars(paths, tmp_path / "apart", apart)
    assert (found.symbols, found.worth_a_look) == (symbols, ())
    assert found.n_rows == len(names) * ROWS
    assert prepare_bars(paths, tmp_path / "joined", joined).n_rows == len(names) * ROWS


def test_files_apart_are_refused_where_others_were_read_before(tmp_path):
    paths = write(tmp_path / "in", "AAPL/2023.csv", "AAPL/2024.csv", "MSFT/2024.csv")
    prepare_bars(paths[:2], tmp_path / "cache")
    with pytest.raises(InputError, match=APART):
        prepare_bars(paths, tmp_path / "cache")


def test_folders_in_a_zip_tell_symbols_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("AAPL/2024.csv", bars("2001-01-01").to_csv(index=False))
        archive.writestr("MSFT/2024.csv", bars("2002-01-01").to_csv(index=False))
    with pytest.raises(InputError, match=APART) as caught:
        looks(tmp_path / "all.zip", tmp_path)
    apart, _ = follow(str(caught.value))
    assert prepare_bars(tmp_path / "all.zip", tmp_path / "again", apart).symbols == ("AAPL", "MSFT")


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (("600519.csv", "000858.csv"), ("000858", "600519")),
        (("7203/2024.csv", "6758/2024.csv"), ("6758", "7203")),
    ],
)
def test_numbers_that_may_be_symbols_are_told(tmp_path, names, symbols):
    paths = write(tmp_path / "in", *names)
    [line] = looks(paths, tmp_path)
    [rules] = follow(line)
    again = prepare_bars(paths, tmp_path / "again", rules)
    assert (again.symbols, again.worth_a_look) == (symbols, ())


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
        ("A.csv", "B.csv"),
        ("one.csv", "two.csv"),
        ("0001.csv", "0002.csv"),
        ("2024/01.csv", "2024/02.csv"),
        ("2023/bars.csv", "2024/bars.csv"),
        ("202311/bars.csv", "202401/bars.csv"),
        ("20231130.csv", "20240102.csv"),
        ("NQ/2023.csv", "NQ/2024.csv"),
        ("archive/2023.csv", "live/2024.csv"),
        ("2023.csv", "backfill/2024.csv"),
        ("January/bars.csv", "February/bars.csv"),
        ("2024Q1/bars.csv", "2024Q2/bars.csv"),
        ("2024H1.csv", "2024H2.csv"),
        ("part-00000-c3d1.csv", "part-00001-a0fe.csv"),
    ],
)
def test_names_that_tell_parts_of_a_series_apart_are_nothing_to_look_at(tmp_path, names):
    assert not looks(write(tmp_path / "in", *names), tmp_path)


def of_days(folder, spans):
    """Files of a bar a day, by the first and the last day of each."""
    paths = [folder / f"{name}.csv" for name in spans]
    for path, (start, stop) in zip(paths, spans.values(), strict=True):
        bars(start, len(pd.date_range(start, stop))).to_csv(path, index=False)
    return paths


QUARTERS = ("2023-12-14", "2024-03-14"), ("2024-03-15", "2024-06-20"), ("2024-06-21", "2024-07-05")


@pytest.mark.parametrize(
    ("names", "spans"),
    [
        (("ESH24", "ESH25"), (("2023-12-15", "2024-03-14"), ("2024-12-13", "2025-03-20"))),
        (("CLZ3", "CLZ4"), (("2023-10-21", "2023-11-17"), ("2024-10-22", "2024-11-19"))),
        (("rb2405", "rb2410"), (("2023-12-01", "2024-03-31"), ("2024-04-01", "2024-09-05"))),
        (("ES_202403", "ES_202406", "ES_202409"), QUARTERS),
        (("FESX 20240315", "FESX 20240621"), QUARTERS[:2]),
        (("ES 03-24", "ES 06-24"), QUARTERS[:2]),
        (("ES_MAR24", "ES_JUN24"), QUARTERS[:2]),
        (
            ("vx-2024-03", "vx-2024-04"),
            (("2024-02-14", "2024-03-19"), ("2024-03-20", "2024-04-16")),
        ),
    ],
)
def test_contracts_that_follow_each_other_are_told_with_the_flag_that_parts_them(
    tmp_path, names, spans
):
    paths = of_days(tmp_path, dict(zip(names, spans, strict=True)))
    [line] = looks(paths, tmp_path)
    assert "as contracts do" in line
    [rules] = follow(line)
    parted = prepare_bars(paths, tmp_path / "again", rules)
    assert (len(parted.symbols), parted.worth_a_look) == (len(names), ())
    assert not prepare_bars(paths, tmp_path / "one", BarRules(symbol="default")).worth_a_look


def test_a_contract_that_is_added_to_others_is_told_too(tmp_path):
    paths = of_days(tmp_path, dict(zip(("rb2405", "rb2410"), QUARTERS[:2], strict=True)))
    assert looks(paths[:1], tmp_path) == ()
    assert "as contracts do" in looks(paths, tmp_path)[0]


@pytest.mark.parametrize(
    "spans",
    [
        {"bars-2024-01-30": ("2024-01-30",) * 2, "bars-2024-02-01": ("2024-02-01",) * 2},
        {"NQ_202401": ("2024-01-01", "2024-01-31"), "NQ_202402": ("2024-02-01", "2024-02-29")},
        {"NQ2401": ("2023-12-31", "2024-01-31"), "NQ2402": ("2024-02-01", "2024-03-01")},
        {"NQ 02-24": ("2024-02-01", "2024-02-28"), "NQ 03-24": ("2024-02-29", "2024-03-05")},
        {"NQ2023": ("2023-01-02", "2023-12-29"), "NQ2024": ("2024-01-02", "2024-12-31")},
        {"NQ23": ("2023-01-02", "2023-12-29"), "NQ24": ("2024-01-02", "2024-06-28")},
        {"of_2024-02": ("2024-01-01", "2024-01-31"), "of_2024-03": ("2024-02-01", "2024-02-29")},
        {"all-202401": ("2019-01-01", "2024-01-31"), "new-202402": ("2024-02-01", "2024-02-29")},
    ],
    ids=lambda spans: next(iter(spans)),
)
def test_files_named_by_the_time_that_they_hold_are_nothing_to_look_at(tmp_path, spans):
    paths = of_days(tmp_path, spans)
    assert not looks(paths, tmp_path)
    for number in (1, 2):
        grown = prepare_bars(paths[:number], tmp_path / "grown")
        assert not grown.worth_a_look


def test_whoever_names_one_symbol_is_told_nothing(tmp_path):
    paths = write(tmp_path / "in", "AAPL.csv", "MSFT.csv")
    assert not looks(paths, tmp_path, symbol="ALL")


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


@pytest.mark.slow
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
