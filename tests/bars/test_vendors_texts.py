"""Texts that need a word: no header, no volume, grouped or scaled numbers, other encodings."""

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest
from advice import follow, offers

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.form.texts import ungroup
from grandbatch.errors import InputError, UsageError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
N = 30
DAYS = [f"2024-01-{day:02d}" for day in range(1, N + 1)]
BARS = [(10 + i, 12 + i, 9 + i, 11.25 + i, 1000 * i) for i in range(N)]
PRICES = "open,high,low,close,volume"
HEADER = f"timestamp,{PRICES}"


def lines(form, header=None):
    rows = [
        form.format(*bar, day=day, i=i) for i, (day, bar) in enumerate(zip(DAYS, BARS, strict=True))
    ]
    return "\n".join([*([header] if header else []), *rows, ""])


def write(tmp_path, text, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def prepare(path, tmp_path, rules=None, **given):
    return prepare_bars(path, tmp_path / "cache", rules or BarRules(**given), HERE)


def assert_bars(bars, volume=True):
    rows = bars.read(0, bars.n_rows)
    for place, name in enumerate(("open", "high", "low", "close")):
        np.testing.assert_array_equal(rows[name], [bar[place] for bar in BARS])
    np.testing.assert_array_equal(rows["volume"], [bar[4] * volume for bar in BARS])


def refused(path, tmp_path, **given):
    with pytest.raises(InputError) as caught:
        prepare(path, tmp_path, **given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("{day},{0},{1},{2},{3},{4},25000{i}", "timestamp,open,high,low,close,volume,extra_7"),
        ("{day},{0},{1},{2},{3},{3},{4}", "timestamp,open,high,low,close,extra_6,volume"),
        ("A,{day},{0},{1},{2},{3},{4}", "symbol,timestamp,open,high,low,close,volume"),
        ("{day},A,{0},{1},{2},{3},{4}", "timestamp,symbol,open,high,low,close,volume"),
        ("{day};09:30;{0};{1};{2};{3};{4};7", "date,time,open,high,low,close,volume,extra_8"),
        ("{day},930,{0},{1},{2},{3},{4},7", "date,time,open,high,low,close,volume,extra_8"),
        ("{day},93000000,{0},{1},{2},{3},{4},7", "date,time,open,high,low,close,volume,extra_8"),
        ("A,5,{day},93000,{0},{1},{2},{3},{4}", "symbol,extra_2,date,time," + PRICES),
        ("{day},{2},{1},{0},{3},{4}", "timestamp,low,high,open,close,volume"),  # Coinbase
        ("{day},{0},{3},{1},{2},{4}", "timestamp,open,close,high,low,volume"),  # Bitfinex
        ("{day},{0},{3},{1},{2},{4},7", "timestamp,open,close,high,low,volume,extra_7"),  # KuCoin
    ],
)
def test_rows_without_a_header_name_the_flags_that_read_them(tmp_path, form, names):
    path = write(tmp_path, lines(form))
    text = refused(path, tmp_path)
    assert offers(text) == [f"--no-header --names {names}"]
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules))


@pytest.mark.parametrize("clock", ["{day:%m/%d/%Y},{day:%H:%M}", "{day:%m/%d/%Y},{day:%H%M}"])
def test_rows_without_a_header_may_have_months_first(tmp_path, clock):
    moments = pd.date_range("2024-01-16 09:30", periods=N, freq="1min")
    rows = [
        clock.format(day=moment) + f",{o},{h},{l},{c},{v}"
        for moment, (o, h, l, c, v) in zip(moments, BARS, strict=True)
    ]
    bars = prepare(write(tmp_path, "\n".join(rows)), tmp_path)
    assert_bars(bars)
    assert (bars.read(0, N)["timestamp"].view("M8[ns]") == moments).all()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"timestamp", mtime=0), ".csv.gz"),
        (bz2.compress(b"timestamp"), ".csv.bz2"),
        (lzma.compress(b"timestamp"), ".csv.xz"),
        (b"PAR1" + bytes(99), ".parquet"),
        (b"PK\x03\x04" + bytes(99), "save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "save it as CSV"),
        (b"ARROW1\0\0" + bytes(99), "save it as Parquet"),
        (b"x.csv".ljust(257, b"\0") + b"ustar  \0" + bytes(248), "unpack it first"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"chart": {"result": [1, 2, 3, 4, 5]}}', "JSON"),
        (b"[[1705424400000, 1, 2, 3, 4, 5],", "JSON"),
    ],
)
def test_what_is_no_csv_is_named_whatever_the_file_is_called(tmp_path, content, what):
    text = refused(write(tmp_path, content), tmp_path)
    assert "no CSV but" in text
    assert what in text
    assert len(text) < 300


def test_rows_that_are_no_bars_at_all_are_refused_without_advice(tmp_path):
    swapped = lines("{day},{1},{0},{3},{2},{4},1,2,3").split("\n")
    swapped[1::2] = lines("{day},{0},{2},{1},{3},{4},1,2,3").split("\n")[1::2]
    path = write(tmp_path, "\n".join(swapped))
    assert not offers(refused(path, tmp_path))


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ("{day},{0},{1},{2},{3}", "DATE,OPEN,HIGH,LOW,CLOSE"),
        ("{day},{0},{1},{2},{3}", None),
        ("{day},09:30,{0},{1},{2},{3}", None),
    ],
)
def test_without_volume_the_flag_is_named_and_it_is_zero(tmp_path, form, header):
    path = write(tmp_path, lines(form, header))
    text = refused(path, tmp_path)
    assert "--no-volume" in text
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules), volume=False)
    assert_bars(prepare(path, tmp_path, no_volume=True), volume=False)


def test_a_volume_that_there_is_can_be_passed_over(tmp_path):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER))
    assert_bars(prepare(path, tmp_path, no_volume=True), volume=False)


def test_scaled_prices_are_those_that_a_point_would_give(tmp_path):
    random = np.random.default_rng(3)
    prices = random.integers(1, 10**15, 500)
    rows = [f"{1_700_000_000 + 60 * i},{p},{p},{p},{p},7" for i, p in enumerate(prices)]
    path = write(tmp_path, "\n".join([HEADER, *rows, ""]))
    for scale in (1e-9, 0.01, 0.25, 5e-5, 10):
        close = prepare(path, tmp_path, price_scale=scale).read(0, 500)["close"]
        digits, _, exponent = f"{scale:e}".partition("e")
        factor = round(float(digits) * 100)
        expected = [float(f"{int(p) * factor}e{int(exponent) - 2}") for p in prices]
        np.testing.assert_array_equal(close, expected)
    assert set(prepare(path, tmp_path, price_scale=0.01).read(0, 500)["volume"]) == {7}
    with pytest.raises(UsageError, match="price_scale"):
        BarRules(price_scale=0)


@pytest.mark.parametrize(
    ("text", "decimal", "plain"),
    [
        ("1,234.5", ".", "1234.5"),
        ("1,234,567", ".", "1234567"),
        ("12,34,567.8", ".", "1234567.8"),
        ("1.234,5", ",", "1234,5"),
        ("1'234.50", ".", "1234.50"),
        ("1 234", ".", "1234"),
        ("-1,234", ".", "-1234"),
        ("1.2M", ".", "1.2e6"),
        ("350k", ".", "350e3"),
        ("1,5 B", ",", "1,5e9"),
        ("1,234.5K", ".", "1234.5e3"),
        ("2T", ".", "2e12"),
    ],
)
def test_grouped_numbers_are_written_plainly(text, decimal, plain):
    assert ungroup(text, decimal) == plain


@pytest.mark.parametrize(
    "text", ["1,23", "1,2345", ",123", "1,234,56", "1.2X", "M", "", "12.5", "1,234.5.6"]
)
def test_what_is_no_grouped_number_stays(text):
    assert ungroup(text, ".") == text


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ('"{day}","{0:,}","{1:,}","{2:,}","{3:,}","{4:,}"', HEADER),
        ("{day};{0};{1};{2};{3};{4:,}", HEADER.replace(",", ";")),
        ("{day},{0},{1},{2},{3},{i}K", HEADER),
        ('{day},{0},{1},{2},{3},"{4:,}.0"', HEADER),
    ],
)
def test_grouped_numbers_name_the_flag_that_reads_them(tmp_path, form, header):
    path = write(tmp_path, lines(form, header))
    text = refused(path, tmp_path)
    rules = list(follow(text))
    assert "--grouped" in offers(text)
    assert_bars(prepare(path, tmp_path, rules[-1]))


def test_decimal_commas_with_points_between_thousands(tmp_path):
    german = lines("{day};{0};{1};{2};{3};{4:,}", HEADER.replace(",", ";"))
    path = write(tmp_path, german.translate(str.maketrans(",.", ".,")))
    assert_bars(prepare(path, tmp_path, grouped=True))


def test_a_delimiter_at_the_end_of_rows_only_or_of_the_header_only_is_passed_over(tmp_path):
    plain = "{day},{0},{1},{2},{3},{4}"
    for name, form, header in (
        ("rows", plain + ",", HEADER),
        ("header", plain, HEADER + ","),
        ("both", plain + ",", HEADER + ","),
        ("no header", plain + ",", None),
        ("odd", "{day},{0}.{i:025d},{1},{2},{3},{4},", None),
    ):
        bars = prepare(write(tmp_path, lines(form, header), f"{name}.csv"), tmp_path)
        assert bars.n_rows == N, name
        if name != "odd":
            assert_bars(bars)


GERMAN = "Datum;Eröffnung;Hoch;Tief;Schluss;Stück"
ENCODED = {
    "gbk": ("日期,开盘,最高,最低,收盘,成交量", "{day},{0},{1},{2},{3},{4}"),
    "big5": ("日期,開盤價,最高價,最低價,收盤價,成交量", "{day},{0},{1},{2},{3},{4}"),
    "shift_jis": ("日付,始値,高値,安値,終値,出来高", "{day},{0},{1},{2},{3},{4}"),
    "euc_kr": ("날짜,시가,고가,저가,종가,거래량", "{day},{0},{1},{2},{3},{4}"),
    "cp1252": (GERMAN, "{day};{0};{1};{2};{3};{4}"),
    "cp1251": ("Дата;Открытие;Макс;Мин;Закрытие;Объём", "{day};{0};{1};{2};{3};{4}"),
    "utf-16": (HEADER, "{day},{0},{1},{2},{3},{4}"),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_text_of_another_encoding_names_it_and_is_read_as_it(tmp_path, encoding):
    header, form = ENCODED[encoding]
    path = write(tmp_path, lines(form, header).encode(encoding))
    text = refused(path, tmp_path)
    assert offers(text) == [f"--encoding {encoding}"]
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules))


def test_names_of_symbols_in_another_encoding(tmp_path):
    text = lines(
        "{day},贵州茅台,{0},{1},{2},{3},{4}", "timestamp,symbol,open,high,low,close,volume"
    )
    path = write(tmp_path, text.encode("gbk"))
    [rules] = follow(refused(path, tmp_path))
    assert prepare(path, tmp_path, rules).symbols == ("贵州茅台",)


def test_latin_names_with_accents_are_not_taken_for_cyrillic(tmp_path):
    text = lines("{day},Société Générale,{0},{1},{2},{3},{4}", "timestamp,symbol," + PRICES)
    text = refused(write(tmp_path, text.encode("cp1252")), tmp_path)
    assert offers(text) == ["--encoding cp1252"]


def test_a_note_in_another_encoding_doesnt_matter(tmp_path):
    text = lines("{day},{0},{1},{2},{3},{4},é", HEADER + ",note")
    assert_bars(prepare(write(tmp_path, text.encode("latin-1")), tmp_path))


def test_a_wrong_encoding_is_an_error(tmp_path):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER)[:-2].encode("utf-16"))
    with pytest.raises(InputError):
        prepare(path, tmp_path, encoding="gbk")
    with pytest.raises(UsageError, match="encoding 'nothing' is unknown"):
        BarRules(encoding="nothing")


@pytest.mark.parametrize("header", ["the low", "a,low", "low'; rm -rf x", '"low"', "$low", "low %"])
def test_a_headers_name_is_quoted_for_the_shell(tmp_path, header):
    quoted = '"' + header.replace('"', '""') + '"'
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER.replace("low", quoted)))
    text = refused(path, tmp_path) if header != '"low"' else ""
    for rules in follow(text):
        assert_bars(prepare(path, tmp_path, rules))
    assert header == '"low"' or offers(text)


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ("{i},{day},{0},{1},{2},{3},{4}", ",when,open,high,low,close,volume"),
        ("{i},{0},{1},{2},{3},{4},{day}", "t,open,high,low,close,volume,my day"),
        ("{day},09:30,{0},{1},{2},{3},{4}", "session,time,open,high,low,close,volume"),
    ],
)
def test_a_column_that_holds_no_times_names_the_one_that_does(tmp_path, form, header):
    path = write(tmp_path, lines(form, header))
    [rules] = follow(refused(path, tmp_path))
    assert_bars(prepare(path, tmp_path, rules))


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("%m/%d/%y %H:%M", "%m/%d/%y %H:%M"),  # thinkorswim
        ("%d.%m.%y", "%d.%m.%y"),
        ("%d-%b-%Y", "%d-%b-%Y"),  # NSE
        ("%d-%B-%Y %I:%M:%S %p", "%d-%B-%Y %I:%M:%S %p"),
        ("%d%b%Y", "%d%b%Y"),
        ('"%b %d, %Y"', "%b %d, %Y"),
        ('"%b %d, %Y","%H:%M"', "%b %d, %Y %H:%M"),
        ("%d-%b-%y,%H:%M:%S.%f", "%d-%b-%y %H:%M:%S.%f"),
        ("%Y-%b-%dT%H:%M", "%Y-%b-%dT%H:%M"),
    ],
)
def test_times_of_a_form_of_their_own_name_it(tmp_path, form, shown):
    moments = pd.date_range("2024-10-16", periods=N, freq="D")
    rows = [
        moment.strftime(form) + f",{o},{h},{l},{c},{v}"
        for moment, (o, h, l, c, v) in zip(moments, BARS, strict=True)
    ]
    times = "date,time" if rows[0].count(",") - form.count(", ") > 5 else "date"
    path = write(tmp_path, "\n".join([f"{times},{PRICES}", *rows]))
    text = refused(path, tmp_path)
    assert f"'{shown}'" in text or f"--timestamp-format {shown}" in text
    bars = prepare(path, tmp_path, next(follow(text)))
    assert_bars(bars)
    assert (bars.read(0, N)["timestamp"].view("M8[ns]") == moments).all()


def test_a_volume_below_zero_everywhere_is_none(tmp_path):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},-1", HEADER))  # IB, of currencies
    [rules] = follow(refused(path, tmp_path))
    assert_bars(prepare(path, tmp_path, rules), volume=False)


@pytest.mark.parametrize("mark", ["^", "#", "~", "!"])
def test_a_mark_that_parts_fields_is_named_where_it_is_no_usual_one(tmp_path, mark):
    form = mark.join(["{day}", *(f"{{{number}}}" for number in range(5))])
    path = write(tmp_path, lines(form, HEADER.replace(",", mark)))
    text = refused(path, tmp_path)
    assert len(offers(text)) == 1
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules))


def test_lines_of_one_field_offer_no_mark_that_parts_them_unevenly(tmp_path):
    path = write(tmp_path, "date open high low close volume\n2024-01-16 09:30 1 2 1 2 3\n" * 9)
    text = refused(path, tmp_path)
    assert "one field only" in text
    assert not offers(text)


@pytest.mark.parametrize("nothing", ["", "-", "NaN", "null"])
def test_a_volume_that_is_nowhere_is_none(tmp_path, nothing):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3}," + nothing, HEADER))
    text = refused(path, tmp_path)
    assert offers(text) == ["--no-volume"]
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules), volume=False)
    rows = lines("{day},{0},{1},{2},{3},{4}", HEADER).replace(",0\n", f",{nothing}\n")
    assert prepare(write(tmp_path, rows), tmp_path, max_bad_fraction=0.1).n_rows == N - 1


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f"])
def test_thousands_parted_by_blanks_may_have_decimal_commas(tmp_path, blank):
    rows = [
        ";".join([day, *(f"1{blank}{price:03d},50" for price in (10, 12, 9, 11)), "7"])
        for day in DAYS
    ]
    path = write(tmp_path, "\n".join([HEADER.replace(",", ";"), *rows]))
    [rules] = follow(refused(path, tmp_path))
    closes = prepare(path, tmp_path, rules).read(0, N, ("close",))["close"]
    assert set(closes.tolist()) == {1011.5}


@pytest.mark.parametrize("name", ["Contracts", "TotalTraded", "Vlm", "Units", "KonTrakte"])
def test_a_volume_of_another_name_is_offered_before_none(tmp_path, name):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER.replace("volume", name)))
    text = refused(path, tmp_path)
    assert offers(text)[0] == f"--columns volume={name}"
    rules = next(follow(text))
    assert_bars(prepare(path, tmp_path, rules))


@pytest.mark.parametrize("name", ["Adj Close", "Change %", "Bid", "VWAP", "Number of trades"])
def test_what_is_no_volume_is_not_offered_as_one(tmp_path, name):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER.replace("volume", name)))
    assert offers(refused(path, tmp_path)) == ["--no-volume"]


def test_a_mistyped_header_is_told_what_was_meant(tmp_path):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER))
    wrong = BarRules(columns={"volume": "Volum"})
    text = refused(path, tmp_path, rules=wrong)
    assert offers(text) == ["--columns volume=volume"]
    [rules] = follow(text, wrong)
    assert_bars(prepare(path, tmp_path, rules))


def test_columns_without_a_header_are_told_once_until_they_are_named(tmp_path, caplog):
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", None))
    assert_bars(prepare(path, tmp_path))
    (said,) = [one.getMessage() for one in caplog.records if "no header" in one.getMessage()]
    assert "columns read as timestamp, open, high, low, close, volume" in said
    caplog.clear()
    [rules] = follow(said)
    assert_bars(prepare(path, tmp_path, rules))
    assert "no header" not in caplog.text


def test_a_header_without_a_name_for_the_rows_is_told_what_to_call_them(tmp_path):
    path = write(tmp_path, lines('"{i}",{day},{0},{1},{2},{3},{4}', HEADER))  # as R writes it
    text = refused(path, tmp_path)
    assert "its header has 6 names" in text
    assert offers(text) == [f"--names row,{HEADER}"]
    [rules] = follow(text)
    assert_bars(prepare(path, tmp_path, rules))


def test_rows_with_more_fields_than_names_are_told_apart_from_bad_ones(tmp_path):
    path = write(tmp_path, lines("{day},{0},5,{1},5,{2},5,{3},5,{4}", HEADER))
    text = refused(path, tmp_path)
    assert "6 names" in text
    assert "10 fields" in text
    assert not offers(text)
    # a title is told as one
    text = refused(write(tmp_path, "My bars, 2024\n" + lines("{day},{0}", HEADER)), tmp_path)
    assert "among the headers My bars" in text
    # some of them alone are quarantined
    path = write(tmp_path, lines("{day},{0},{1},{2},{3},{4}", HEADER) + "2024-02-01,1,1,1,1,1,x\n")
    assert prepare(path, tmp_path, max_bad_fraction=0.1).quarantined == {"unparseable": 1}


def test_rows_of_another_form_are_not_offered_to_go_without(tmp_path):
    rows = [f"20240102,{60 * (i // 12) + 5 * (i % 12)},10,12,9,11,1" for i in range(288)]
    text = "\n".join([f"date,time,{PRICES}", *rows])  # minutes of the day
    assert not offers(refused(write(tmp_path, text), tmp_path))
