"""One small file for each vendor's form, and each damage: its bars, or its exact error."""

import datetime as dt
import gzip
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from advice import follow

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.errors import InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
NUMBERS = ("open", "high", "low", "close", "volume")
TWO = [(10.5, 12, 9.25, 11, 100), (11, 13, 10, 12.5, 200)]
"""The bars that most files hold, in numbers."""
JAN_2 = "2024-01-02T17:00"
JAN_3 = "2024-01-03T17:00"
DAYS = ("2024-01-02", "2024-01-03")


@dataclass(frozen=True)
class Case:
    """A file, how it is read, and what comes of it."""

    text: str | bytes
    times: tuple[str, ...] = (JAN_2, JAN_3)
    numbers: list = field(default_factory=lambda: TWO)
    symbols: tuple[str, ...] = ("default", "default")
    bad: tuple[tuple[int, str], ...] = ()
    rules: dict = field(default_factory=dict)
    name: str = "x.csv"


def plain(*lines, header="timestamp,open,high,low,close,volume"):
    return "\n".join([header, *lines]) + "\n"


FIRST, SECOND = f"{JAN_2},10.5,12,9.25,11,100", f"{JAN_3},11,13,10,12.5,200"

VENDORS = {
    "histdata": Case("20240102 170000;10.5;12;9.25;11;100\n20240103 170000;11;13;10;12.5;200\n"),
    "histdata with an offset": Case(
        plain(
            "20240102 170000-0500,10.5,12,9.25,11,100",
            "20240103 170000-0500,11,13,10,12.5,200",
        ),
        ("2024-01-02T22:00", "2024-01-03T22:00"),
    ),
    "MetaTrader 4, no header": Case(
        "2024.01.02,17:00,10.5,12,9.25,11,100\r\n2024.01.03,17:00,11,13,10,12.5,200\r\n"
    ),
    "MetaTrader 5": Case(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\n"
        "2024.01.02\t17:00:00\t10.5\t12\t9.25\t11\t100\n"
        "2024.01.03\t17:00:00\t11\t13\t10\t12.5\t200\n"
    ),
    "MetaTrader 5, ticks for volume": Case(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.01.02\t17:00:00\t10.5\t12\t9.25\t11\t100\t0\t2\n"
        "2024.01.03\t17:00:00\t11\t13\t10\t12.5\t200\t0\t2\n",
        rules={"columns": {"volume": "<TICKVOL>"}},
    ),
    "TradeStation": Case(
        '"Date","Time","Open","High","Low","Close","Vol","OI"\n'
        "01/02/2024,17:00,10.5,12,9.25,11,100,0\n01/13/2024,17:00,11,13,10,12.5,200,0\n",
        (JAN_2, "2024-01-13T17:00"),
    ),
    "TradeStation, ticks up and down": Case(
        '"Date","Time","Open","High","Low","Close","Up","Down"\n'
        "01/02/2024,1700,10.5,12,9.25,11,100,7\n01/13/2024,1700,11,13,10,12.5,200,8\n",
        (JAN_2, "2024-01-13T17:00"),
        rules={"columns": {"volume": "Up"}},
    ),
    "NinjaTrader": Case(
        "20240102 170000;10,5;12;9,25;11;100\r\n20240103 170000;11;13;10;12,5;200\r\n"
    ),
    "Binance without a header": Case(
        "1704214800000,10.5,12,9.25,11,100,1704218399999,5.5,7,1.0,2.0,0\n"
        "1704301200000,11,13,10,12.5,200,1704304799999,5.5,7,1.0,2.0,0\n"
    ),
    "Binance in microseconds": Case(
        "1704214800000000,10.5,12,9.25,11,100,1704218399999999,5.5,7,1.0,2.0,0\n"
        "1704301200000000,11,13,10,12.5,200,1704304799999999,5.5,7,1.0,2.0,0\n"
    ),
    "Binance with a header": Case(
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
        "taker_buy_volume,taker_buy_quote_volume,ignore\n"
        "1704214800000,10.5,12,9.25,11,100,1704218399999,5.5,7,1.0,2.0,0\n"
        "1704301200000,11,13,10,12.5,200,1704304799999,5.5,7,1.0,2.0,0\n"
    ),
    "Yahoo": Case(
        "Date,Open,High,Low,Close,Adj Close,Volume\n"
        "2024-01-02,10.5,12,9.25,11,10.9,100\n2024-01-03,11,13,10,12.5,12.4,200\n",
        DAYS,
    ),
    "yfinance with levels": Case(
        "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n"
        "2024-01-02,11,12,9.25,10.5,100\n2024-01-03,12.5,13,10,11,200\n",
        DAYS,
        symbols=("A", "A"),
    ),
    "Kaggle's S&P 500": Case(
        "date,open,high,low,close,volume,Name\n"
        "2024-01-02,10.5,12,9.25,11,100,AAL\n2024-01-02,11,13,10,12.5,200,AAPL\n",
        ("2024-01-02", "2024-01-02"),
        symbols=("AAL", "AAPL"),
    ),
    "TradingView": Case(
        "time,open,high,low,close,VWAP,Volume,Volume MA\n"
        "1704214800,10.5,12,9.25,11,10.7,100,\n1704301200,11,13,10,12.5,12,200,150\n"
    ),
    "TradingView with offsets": Case(
        "time,open,high,low,close,Volume\n"
        "2024-01-02T12:00:00-05:00,10.5,12,9.25,11,100\n"
        "2024-01-03T18:00:00+01:00,11,13,10,12.5,200\n"
    ),
    "Bitstamp": Case(
        "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price\n"
        "1704214800,10.5,12,9.25,11,100,1,10.7\n1704218400,NaN,NaN,NaN,NaN,NaN,NaN,NaN\n"
        "1704301200,11,13,10,12.5,200,1,12\n",
        bad=((3, "not_finite"),),
        rules={"max_bad_fraction": 0.5},
    ),
    "cryptodatadownload, newest first": Case(
        "https://www.CryptoDataDownload.com\n"
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD\n"
        "1704301200,2024-01-03 17:00:00,BTC/USD,11,13,10,12.5,200,9\n"
        "1704214800,2024-01-02 17:00:00,BTC/USD,10.5,12,9.25,11,100,9\n",
        symbols=("BTC/USD", "BTC/USD"),
        rules={"sort": True},
    ),
    "Stooq": Case(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "AAPL.US,60,20240102,170000,10.5,12,9.25,11,100,0\n"
        "AAPL.US,60,20240103,170000,11,13,10,12.5,200,0\n",
        symbols=("AAPL.US", "AAPL.US"),
    ),
    "Polygon": Case(
        "ticker,volume,open,close,high,low,window_start,transactions\n"
        "A,100,10.5,11,12,9.25,1704214800000000000,5\nA,200,11,12.5,13,10,1704301200000000000,5\n",
        symbols=("A", "A"),
    ),
    "Dukascopy": Case(
        "Gmt time,Open,High,Low,Close,Volume\n"
        "02.01.2024 17:00:00.000,10.5,12,9.25,11,100\n13.01.2024 17:00:00.000,11,13,10,12.5,200\n",
        (JAN_2, "2024-01-13T17:00"),
    ),
    "Kraken, seven columns without a header": Case(
        "1704214800,10.5,12,9.25,11,100,3\n1704301200,11,13,10,12.5,200,4\n",
        rules={"names": ["timestamp", *NUMBERS, "trades"]},
    ),
    "Nasdaq.com's names": Case(
        "Date,Close/Last,Volume,Open,High,Low\n"
        "01/02/2024,11,100,10.5,12,9.25\n01/13/2024,12.5,200,11,13,10\n",
        ("2024-01-02", "2024-01-13"),
    ),
    "a form of strptime's": Case(
        plain('"Jan 2, 2024",10.5,12,9.25,11,100', '"Jan 3, 2024",11,13,10,12.5,200'),
        DAYS,
        rules={"timestamp_format": "%b %d, %Y"},
    ),
    "histdata below a title": Case(
        "histdata\n20240102 170000;10.5;12;9.25;11;100\n20240103 170000;11;13;10;12.5;200\n",
        bad=((1, "unparseable"),),
        rules={"max_bad_fraction": 0.5},
    ),
    "an index of pandas without a name": Case(
        plain(FIRST, SECOND, header=",open,high,low,close,volume")
    ),
}

SPREADSHEETS = {
    "byte order mark, semicolons, CR LF, decimal commas": Case(
        "\ufeffDate;Time;Open;High;Low;Close;Volume\r\n"
        "02/01/2024;17:00;10,5;12;9,25;11;100\r\n13/01/2024;17:00;11;13;10;12,5;200\r\n",
        (JAN_2, "2024-01-13T17:00"),
    ),
    "Excel's first line": Case(
        "sep=;\n" + plain(FIRST, SECOND).replace(",", ";"),
    ),
    "comments before the header": Case("# exported, by hand\n#\n\n" + plain(FIRST, SECOND)),
    "all fields quoted": Case(
        '"Timestamp","Open","High","Low","Close","Volume"\n'
        f'"{JAN_2}","10.5","12","9.25","11","100"\n"{JAN_3}","11","13","10","12.5","200"\n'
    ),
    "quotes and delimiters in a note": Case(
        f'note,timestamp,open,high,low,close,volume\n"a, ""b"" c",{FIRST}\n"x\u00e9;y",{SECOND}\n',
        rules={"ignore_columns": ["note"]},
    ),
    "a quote without its end, and a very long note": Case(
        plain(FIRST, f'{FIRST},"a, b', SECOND, header="timestamp,open,high,low,close,volume,note")
        .replace(",", ";")
        .replace("11;100\n", "11;100;a, b\n")
        .replace("200\n", f"200;{'x' * 140_000}\n"),
        bad=((3, "unparseable"),),
        rules={"max_bad_fraction": 0.5, "ignore_columns": ["note"]},
    ),
    "columns in another order, and more of them": Case(
        "Volume|Close|rank|Low|High|Open|Timestamp\n"
        f"100|11|1|9.25|12|10.5|{JAN_2}\n200|12.5|2|10|13|11|{JAN_3}\n"
    ),
    "old Macintosh line ends": Case(plain(FIRST, SECOND).replace("\n", "\r")),
    "blank lines and no last end": Case("\n\n" + plain(FIRST, "", SECOND).rstrip("\n")),
    "gzip": Case(gzip.compress(plain(FIRST, SECOND).encode()), name="x.csv.gz"),
    "a decimal comma in whole thousands, told": Case(
        "timestamp;open;high;low;close;volume\n2024-01-02;1,234;1,234;1,234;1,234;100\n",
        DAYS[:1],
        [(1.234, 1.234, 1.234, 1.234, 100)],
        symbols=("default",),
        rules={"decimal": ","},
    ),
    "names in place of a header's": Case(
        plain(FIRST, SECOND, header="a,b,c,d,e,f"),
        rules={"names": ["timestamp", *NUMBERS], "header": True},
    ),
    "no header, columns in another order": Case(
        f"A,{JAN_2},100,10.5,12,9.25,11\nA,{JAN_3},200,11,13,10,12.5\n",
        symbols=("A", "A"),
        rules={
            "names": ["symbol", "timestamp", "volume", "open", "high", "low", "close"],
            "header": False,
        },
    ),
    "a delimiter that is no usual one": Case(
        plain(FIRST, SECOND).replace(",", "~"), rules={"delimiter": "~"}
    ),
}

DAMAGES = {
    "a title in the middle": (f"{FIRST}\n{plain(SECOND)}", ((3, "unparseable"),)),
    "a row cut off": (f"{FIRST}\n2024-01-02T18:00,10.5\n{SECOND}\n", ((3, "unparseable"),)),
    "a row doubled": (f"{FIRST}\n{FIRST}\n{SECOND}\n", ((3, "duplicate_timestamp"),)),
    "a row too late": (f"{FIRST}\n{SECOND}\n{FIRST}\n", ((4, "out_of_order"),)),
    "nothing for a price": (
        f"{FIRST}\n2024-01-02T18:00,,12,9,11,1\n{SECOND}\n",
        ((3, "missing"),),
    ),
    "nothing but commas": (f"{FIRST}\n,,,,,\n{SECOND}\n", ((3, "missing"),)),
    "a spreadsheet's error": (
        f"{FIRST}\n2024-01-02T18:00,#DIV/0!,12,9,11,1\n{SECOND}\n",
        ((3, "unparseable"),),
    ),
    "a dollar sign": (
        f"{FIRST}\n2024-01-02T18:00,$10,12,9,11,1\n{SECOND}\n",
        ((3, "unparseable"),),
    ),
    "a number too large": (
        f"{FIRST}\n2024-01-02T18:00,10,1e400,9,11,1\n{SECOND}\n",
        ((3, "not_finite"),),
    ),
    "a price of zero": (
        f"{FIRST}\n2024-01-02T18:00,10,12,0,11,1\n{SECOND}\n",
        ((3, "non_positive_price"),),
    ),
    "high and low swapped": (
        f"{FIRST}\n2024-01-02T18:00,10,9,12,11,1\n{SECOND}\n",
        ((3, "ohlc_inconsistent"),),
    ),
    "less than nothing traded": (
        f"{FIRST}\n2024-01-02T18:00,10,12,9,11,-1\n{SECOND}\n",
        ((3, "negative_volume"),),
    ),
    "no such day": (f"{FIRST}\n2024-02-30,10,12,9,11,1\n{SECOND}\n", ((3, "unparseable"),)),
    "a quote that doesn't close": (
        f'{FIRST}\n"2024-01-02T18:00,10,12,9,11,1\n{SECOND}\n',
        ((3, "unparseable"),),
    ),
    "a NUL": (
        f"{FIRST}\n2024-01-02T18:00,1\x000,12,9,11,1\n{SECOND}\n",
        ((3, "unparseable"),),
    ),
}
FILES = {
    **VENDORS,
    **SPREADSHEETS,
    **{
        name: Case(plain() + text, bad=bad, rules={"max_bad_fraction": 0.5})
        for name, (text, bad) in DAMAGES.items()
    },
}


def prepare(case, tmp_path, block_bytes=None):
    path = tmp_path / case.name
    path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    rules = case.rules if isinstance(case.rules, BarRules) else BarRules(**case.rules)
    return prepare_bars(path, tmp_path / "cache", rules, HERE, block_bytes)


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_these_bars_and_these_bad_rows(name, tmp_path):
    case = FILES[name]
    bars = prepare(case, tmp_path)
    rows = bars.read(0, bars.n_rows)
    times = np.array([dt.datetime.fromisoformat(time) for time in case.times], "datetime64[ns]")
    assert rows["timestamp"].tolist() == times.astype(np.int64).tolist()
    assert [tuple(rows[n][i] for n in NUMBERS) for i in range(bars.n_rows)] == case.numbers
    assert tuple(bars.symbols[code] for code in rows["symbol"]) == case.symbols
    assert tuple((bad.line, bad.reason) for bad in iter_bad_rows(bars.path)) == case.bad


ERRORS = {
    "a header misspelt": (
        Case(plain(FIRST, header="timestamp,open,high,Llow,close,volume")),
        "x.csv: no column low among the headers timestamp, open, high, Llow, close, volume; "
        "'Llow' looks like low. If so, add --columns low=Llow",
    ),
    "no volume": (
        Case("date,open,high,low,close\n2024-01-02,1,1,1,1\n"),
        "x.csv: no column volume among the headers date, open, high, low, close; nothing looks "
        "like a volume. If so, add --no-volume",
    ),
    "a first line without fields": (
        Case("x" * 200_000 + ",1\n1,2\n"),
        "x.csv: its first line is one of 200,002 letters; is it CSV?",
    ),
    "a row for a header": (
        Case("A,2024-01-02,1,1,1,1,1\n"),
        "x.csv: without a header, 7 columns (A, 2024-01-02, 1, 1, 1, 1, 1) are of no usual form. "
        "If they are those, add --no-header --names symbol,timestamp,open,high,low,close,volume",
    ),
    "a number of columns that says nothing": (
        Case("2024-01-02,1,1,1,1,1,1,1\n", rules={"header": False}),
        "x.csv: without a header, 8 columns (2024-01-02, 1, 1, 1, 1, 1, 1, 1) are of no usual "
        "form. If they are those, add --no-header --names "
        "timestamp,open,high,low,close,volume,extra_7,extra_8",
    ),
    "a name too few": (
        Case("2024-01-02,1,1,1,1,1,1\n", rules={"names": ["timestamp", *NUMBERS]}),
        "x.csv: there are 6 names and the first line 7 fields",
    ),
    "commas that group or part": (
        Case("timestamp;open;high;low;close;volume\n2024-01-02;1,234;1,234;1,234;1,234;100\n"),
        "x.csv: numbers such as 1,234 have decimals after the comma or grouped thousands? "
        "The first 1 rows don't tell. Add --decimal , if these are decimals, or --grouped if they "
        "are thousands",
    ),
    "a comma for both": (
        Case(plain(FIRST), rules={"decimal": ","}),
        "x.csv: commas part its fields, so they can't stand before decimals; "
        "check the settings of decimal and delimiter",
    ),
    "days or months": (
        Case(plain("01/02/2024,1,1,1,1,1", "01/03/2024,1,1,1,1,1")),
        "x.csv: days or months first? none of its 2 dates that could be either has a day above 12. "
        "Add --dayfirst for days, or --no-dayfirst for months",
    ),
    "days and months": (
        Case(plain("13/02/2024,1,1,1,1,1", "02/13/2024,1,1,1,1,1")),
        "x.csv: days or months first? 1 rows can only be day-first and as many only month-first",
    ),
    "newest first": (
        Case(plain(SECOND, FIRST)),
        "1 of 2 rows are no bars (50.00%; allowed are 1.00%): out_of_order 1. The first:\n"
        f"  x.csv:3: out_of_order: {FIRST}\n"
        "Remedy: --sort sorts rows by time; check first that symbols are told apart",
    ),
    "dollars and words for numbers": (
        Case(plain("2024-01-02,$1,$1,$1,$1,1.2M")),
        "1 of 1 rows are no bars (100.00%; allowed are 1.00%): unparseable 1",
    ),
    "two columns of one name": (
        Case("date,open,Open,high,low,close,volume\n2024-01-02,1,1,1,1,1,1\n"),
        "x.csv: 2 columns are named 'open'; for the first of them, add --columns open=open",
    ),
    "UTF-16": (
        Case(plain(FIRST).encode("utf-16")),
        "x.csv: not UTF-8 text; it looks like utf-16. If so, add --encoding utf-16",
    ),
    "nothing": (Case(""), "x.csv: the file is empty; it needs a header and bars"),
    "blank lines": (Case("\n\r\n\n"), "the file holds blank lines only"),
    "a header alone": (Case(plain()), "the file has a header and no bars after it"),
    "a torn gzip": (
        Case(gzip.compress(plain(FIRST).encode())[:-9], name="x.csv.gz"),
        "x.csv.gz: not a whole .gz file",
    ),
    "no Parquet": (Case("PAR1", name="x.parquet"), "x.parquet: not a Parquet file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_file_is_refused_with_this_error(name, tmp_path):
    case, text = ERRORS[name]
    with pytest.raises(InputError) as caught:
        prepare(case, tmp_path)
    assert text in str(caught.value)
    for rules in follow(str(caught.value), BarRules(**case.rules)):
        assert prepare(replace(case, rules=rules), tmp_path).n_rows


def moments(*texts, zone=None, unit="us"):
    values = pa.array([dt.datetime.fromisoformat(text) for text in texts])
    return values.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, tz=zone))


TIMES = {
    "timestamps": {"timestamp": moments(JAN_2, JAN_3)},
    "timestamps in a zone": {"Datetime": moments(JAN_2, JAN_3, zone="America/Chicago", unit="ns")},
    "texts": {"date": pa.array([JAN_2, JAN_3])},
    "dates and times": {
        "date": moments(JAN_2, JAN_3).cast(pa.date32()),
        "time": pa.array([dt.time(17), dt.time(17)]),
    },
    "epoch seconds": {"ts": pa.array([1704214800, 1704301200])},
    "epoch milliseconds as floats": {"ts": pa.array([1704214800000.0, 1704301200000.0])},
    "an index without a name": {"__index_level_0__": moments(JAN_2, JAN_3)},
    "repeated texts": {"time": pa.array([JAN_2, JAN_3]).dictionary_encode()},
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(12, 4), pa.string()])
def test_columns_of_parquet_may_have_any_sensible_type(name, kind, tmp_path):
    columns = {
        number.title(): pa.array([bar[i] for bar in TWO], pa.float64()).cast(kind)
        for i, number in enumerate(NUMBERS)
    }
    pq.write_table(pa.table({**columns, **TIMES[name]}), tmp_path / "x.parquet")
    bars = prepare_bars(tmp_path / "x.parquet", tmp_path / "cache", BarRules(), HERE)
    rows = bars.read(0, 2)
    times = np.array([JAN_2, JAN_3], "datetime64[ns]")
    assert rows["timestamp"].tolist() == times.astype(np.int64).tolist()
    assert [tuple(rows[number][i] for number in NUMBERS) for i in range(2)] == TWO


def test_a_text_in_parquet_that_is_no_number_is_a_bad_row(tmp_path):
    columns = {"timestamp": moments(JAN_2, JAN_3), **{n: pa.array(["1", "x"]) for n in NUMBERS}}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    rules = BarRules(max_bad_fraction=0.5)
    bars = prepare_bars(tmp_path / "x.parquet", tmp_path / "cache", rules, HERE)
    assert [(bad.line, bad.reason) for bad in iter_bad_rows(bars.path)] == [(2, "unparseable")]
