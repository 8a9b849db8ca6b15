"""Lines to columns against Python's float and csv, and against pyarrow.csv, bit by bit."""

import csv
import datetime as dt
import random
from fractions import Fraction
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import csv as pa_csv

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.form.columns import ColumnMap
from grandbatch.bars.form.dialect import CsvDialect
from grandbatch.bars.reading import csv_rows as parsing
from grandbatch.bars.reading.odd_lines import NULL_WORDS
from grandbatch.bars.reading.text_blocks import PADDING, find_lines, text_of
from grandbatch.bars.timestamps.evidence import Dates, Evidence
from grandbatch.bars.timestamps.texts import TimeForm
from grandbatch.errors import ColumnError
from grandbatch.kernels.bars.bar_rules import ACCEPTED, MISSING, UNPARSEABLE
from grandbatch.scheduling import Schedule

FORM = TimeForm()
PLAIN = CsvDialect(",", 6, ColumnMap((0,), (1, 2, 3, 4, 5), None), 0, 0)
SYMBOLS = CsvDialect(",", 7, ColumnMap((0,), (2, 3, 4, 5, 6), 1), 0, 0)
EPOCH = dt.datetime(1970, 1, 1)


def parse(text, dialect=PLAIN, symbol="S", tile=8192, form=FORM):
    data = text if isinstance(text, bytes) else text.encode()
    # digits behind a text without an end must not become part of it
    padded = np.frombuffer(bytearray(data + b"9" * PADDING), np.uint8)
    with mock.patch.object(parsing, "_TILE_ROWS", tile):
        return parsing.parse_rows(text_of(padded), dialect, form, symbol)


def numbers_of(fields):
    """Fields as volumes, one a line: their values, and the reasons of the rows."""
    rows = parse("\n".join(f"2024-01-01,1,1,1,1,{field}" for field in fields))
    return rows.numbers[4], rows.reasons


def assert_same_bits(values, expected):
    expected = np.array(expected, np.float64)
    assert values.view(np.int64).tolist() == expected.view(np.int64).tolist()


# numbers


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_every_double_comes_back_from_its_shortest_text(values):
    read, reasons = numbers_of([repr(value) for value in values])
    assert not reasons.any()
    assert_same_bits(read, values)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.from_regex(r"\A[+-]?[0-9]{1,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,3})?\Z"),
        min_size=1,
        max_size=20,
    )
)
@example(["9007199254740993", "9007199254740992.5", "9007199254740993e22", "0e99", "-0"])
@example(["0." + "0" * 60 + "123456789012345678", "0" * 30 + "1.5", "1" * 19, "1e-400", "1e400"])
def test_decimal_numbers_are_rounded_as_python_rounds_them(texts):
    read, reasons = numbers_of(texts)
    assert not reasons.any()
    assert_same_bits(read, [float(text) for text in texts])


def test_numbers_halfway_between_two_doubles_go_to_the_even_one():
    rng = random.Random(0)
    texts = []
    for _ in range(20_000):
        integer = (2**53 + 2 * rng.getrandbits(52) + 1) << rng.randint(0, 5)
        texts.append(str(integer + rng.choice((-1, 0, 0, 1))))
        x = rng.uniform(1, 2) * 2.0 ** rng.randint(-40, 80)
        middle = Fraction(x) + Fraction(float(np.spacing(x))) / 2
        exponent = 0
        while middle >= 10**18:
            middle, exponent = middle / 10, exponent + 1
        while middle < 10**17:
            middle, exponent = middle * 10, exponent - 1
        texts.append(f"{min(int(middle) + rng.choice((0, 0, 1)), 10**18 - 1)}e{exponent}")
    with mock.patch.object(parsing, "read_odd_lines", side_effect=AssertionError):
        read, _ = numbers_of(texts)
    assert_same_bits(read, [float(text) for text in texts])


odd_texts = st.sampled_from(
    [
        *NULL_WORDS, *(" ", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "+inf", "INF", "0x10"),
        *(".5", "5.", ".", "-", "+", "--5", "+-5", "1_0", "1 0", "1e", "1e+", " 10 ", "\t7", "7\t"),
        *('"10"', '" 10 "', '"1""0"', '"10"x', '"10" ', '""', '10"', "a", "\0", "1\0", "1d5"),
        *("\u0661", "1e99999", "1e-99999", "1e123456789", "0x1p3", "1.2.3", "1e5e5", "1e5.5", "+5"),
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(odd_texts, st.text("0123456789.eE+- ", max_size=9)), max_size=12))
def test_what_is_a_number_and_what_is_missing_is_as_arrow_says(texts):
    values, reasons = numbers_of(texts)
    for text, value, reason in zip(texts, values, reasons, strict=True):
        options = pa_csv.ConvertOptions(
            column_types={"x": pa.float64()}, null_values=list(NULL_WORDS), check_utf8=False
        )
        try:
            # a blank number is missing too
            table = pa_csv.read_csv(
                pa.BufferReader(f"x,y\n{text if text.strip() else ''},1\n".encode()),
                convert_options=options,
            )
        except pa.ArrowInvalid:
            assert reason == UNPARSEABLE
            continue
        (expected,) = table["x"].to_pylist()
        assert reason == (MISSING if expected is None else ACCEPTED)
        if expected is not None:
            assert_same_bits(np.array([value]), [expected])


def test_a_decimal_comma_is_read_and_a_point_beside_it_is_refused():
    dialect = CsvDialect(";", 6, PLAIN.columns, 0, 0, ",")
    lines = [
        "1;2,5;-0,125;1e3;1,5e-3",
        "1.5;1;1;1;1",
        "1.000,5;1;1;1;1",
        "NA;1;1;1;1",
        "1;1,;1;1;1",
    ]
    rows = parse("\n".join(f"2024-01-01;{line}" for line in lines), dialect)
    assert rows.reasons.tolist() == [ACCEPTED, UNPARSEABLE, UNPARSEABLE, MISSING, ACCEPTED]
    assert [values[0] for values in rows.numbers] == [1, 2.5, -0.125, 1000, 0.0015]
    assert [values[4] for values in rows.numbers] == [1, 1, 1, 1, 1]


# lines and fields


def plain_reading(text, delimiter, dates):
    """Symbol, minute and volume of each good row, and the reason of each row."""
    rows, reasons = [], []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            continue
        fields = next(csv.reader([line + "\n"], delimiter=delimiter))
        unclosed = any("\n" in field for field in fields)
        if len(fields) == 7 + dates and line.endswith(delimiter):
            fields.pop()  # a delimiter behind the last field
        if unclosed or len(fields) != 6 + dates:
            reasons.append(UNPARSEABLE)
            continue
        moment = " ".join(fields[:dates]).strip(" \t")
        symbol, numbers = fields[dates].strip(), [text.strip(" \t") for text in fields[dates + 1 :]]
        try:
            minute = moment and (dt.datetime.fromisoformat(moment) - EPOCH) // dt.timedelta(0, 60)
            read = [0.0 if text in NULL_WORDS else float(text) for text in numbers]
        except ValueError:
            reasons.append(UNPARSEABLE)
            continue
        is_missing = not moment or not symbol or any(text in NULL_WORDS for text in numbers)
        reasons.append(MISSING if is_missing else ACCEPTED)
        if not is_missing:
            rows.append((symbol, minute, read[-1]))
    return rows, reasons


moments = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2040, 1, 1)).map(
    lambda moment: moment.strftime("%Y-%m-%d %H:%M")
)
words = st.one_of(
    st.sampled_from(
        ["A", "B", " A ", "long name", '"A"', '"x,y;z"', '"q""q"', '"', 'a"b', "", "Ω"]
    ),
    st.text('ab" ,;', max_size=5),
)
volumes = st.sampled_from(["1", "2.5", "", " ", "NA", '"7"', '"1', "x", "1e3", "inf", ' "7"', '""'])


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(moments, words, volumes), max_size=10),
    st.sampled_from([",", ";", "\t"]),
    st.integers(1, 2),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from([1, 3, 8192]),
    st.booleans(),
)
def test_lines_are_read_as_the_csv_module_reads_them(cases, delimiter, dates, end, tile, ends):
    lines = []
    for moment, word, volume in cases:
        times = moment.split() if dates == 2 else [moment]
        lines.append(delimiter.join([*times, word, "1", "1", "1", "1", volume]))
    text = end.join(lines) + (end if ends else "")
    numbers = tuple(range(dates + 1, dates + 6))
    dialect = CsvDialect(delimiter, dates + 6, ColumnMap(tuple(range(dates)), numbers, dates), 0, 0)
    rows = parse(text, dialect, None, tile)
    expected, reasons = plain_reading(text, delimiter, dates)
    assert rows.reasons.tolist() == reasons
    good = np.flatnonzero(rows.reasons == ACCEPTED)
    assert [
        (rows.symbols[rows.codes[i]], rows.times[i] // 60_000_000_000, rows.numbers[4][i])
        for i in good
    ] == expected
    assert list(rows.symbols) == sorted(rows.symbols)


def test_symbols_are_numbered_by_their_sorted_names_however_many_there_are():
    names = [f"s{i * 7919 % 5000}" for i in range(5000)] * 2
    rows = parse("\n".join(f"2024-01-01,{name},1,1,1,1,1" for name in names), SYMBOLS, None, 700)
    assert rows.symbols == tuple(sorted(set(names)))
    assert [rows.symbols[code] for code in rows.codes] == names


def test_a_symbol_that_is_no_text_is_unparseable_and_a_blank_one_missing():
    lines = [b"2024-01-01,\xff,1,1,1,1,1", b"2024-01-01, ,1,1,1,1,1", b"2024-01-01,A,NA,1,1,1,1"]
    rows = parse(b"\n".join(lines), SYMBOLS, None)
    assert rows.reasons.tolist() == [UNPARSEABLE, MISSING, MISSING]


def test_lines_that_only_arrow_can_read_count_as_evidence_once():
    rows = parse("13/1/2024,1,1,1,1,NA\n13/1/2024,1,1,1,1,1\n13/1/2024,1,1,1\n")
    assert rows.evidence == Evidence(Dates(day_first=2, rows=2))


def test_one_column_may_be_all_prices_but_no_text_besides(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time,price,volume\n2024-01-01,10,1\n2024-01-02,11,2\n")
    prices = dict.fromkeys(("open", "high", "low", "close"), "price")
    bars = prepare_bars(path, tmp_path / "c", BarRules(columns=prices), Schedule.local("sync"))
    rows = bars.read(0, 2, ("open", "close", "volume"))
    assert [rows[name].tolist() for name in rows] == [[10, 11], [10, 11], [1, 2]]
    with pytest.raises(ColumnError, match="'time'"):
        prepare_bars(path, tmp_path / "c", BarRules(columns={**prices, "open": "time"}))


def test_rows_are_found_again_by_their_number():
    text = text_of(np.frombuffer(bytearray(b"\n\na\r\n\rbb\n\n\nccc" + b"0" * PADDING), np.uint8))
    lines = find_lines(text, np.array([0, 2]))
    assert [text.data[a:b].tobytes() for a, b in zip(lines.starts, lines.stops, strict=True)] == [
        b"a",
        b"ccc",
    ]
    assert lines.numbers.tolist() == [2, 7]
    assert text.n_lines == 8
