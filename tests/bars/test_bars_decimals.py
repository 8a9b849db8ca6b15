"""Parquet's decimals are the doubles that their text is read as."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.bars.reading.parquet_rows import decimals_to_floats

EXACT = decimal.Context(prec=80)


@st.composite
def columns(draw):
    """A decimal type, and values that it holds."""
    kind, most = draw(st.sampled_from([(pa.decimal128, 38), (pa.decimal256, 76)]))
    precision = draw(st.integers(1, most))
    scale = draw(st.integers(max(-30, precision - most), precision))
    whole = st.integers(-(10**precision) + 1, 10**precision - 1)
    near = st.integers(-9, 9).map(lambda n: n + 2**53).filter(lambda n: n < 10**precision)
    values = draw(st.lists(st.none() | whole | (near if precision > 15 else whole), max_size=9))
    return kind(precision, scale), [
        None if value is None else decimal.Decimal(value).scaleb(-scale, EXACT) for value in values
    ]


@given(columns(), st.integers(0, 3))
def test_any_decimal_is_the_double_nearest_to_it(column, offset):
    kind, values = column
    found = decimals_to_floats(pa.array(values, kind)[offset:])
    assert found.type == pa.float64()
    # Python's float rounds correctly
    expected = [None if value is None else float(value) for value in values[offset:]]
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    ("prices", "volume"),
    [
        (pa.decimal128(18, 6), pa.int64()),
        (pa.decimal128(38, 20), pa.decimal128(20, 0)),
        (pa.decimal256(60, 30), pa.decimal256(70, 5)),
    ],
)
def test_bars_of_decimals_are_those_of_the_csv(tmp_path, prices, volume):
    rng = np.random.default_rng(1)
    n = 500
    cents = 10_000 + np.cumsum(rng.integers(-40, 41, n))
    rows = {"open": cents, "high": cents + 17, "low": cents - 13, "close": cents + 3}
    times = np.datetime64("2024-01-01", "us") + np.arange(n) * np.timedelta64(60, "s")
    texts = {name: [f"{v // 100}.{v % 100:02d}" for v in values] for name, values in rows.items()}
    texts["volume"] = [f"{v}0" for v in rng.integers(1, 500, n)]
    table = {"timestamp": pa.array(times)}
    for name, values in texts.items():
        kind = volume if name == "volume" else prices
        numbers = [decimal.Decimal(value) for value in values]
        if pa.types.is_integer(kind):
            numbers = [int(number) for number in numbers]
        table[name] = pa.array(numbers, kind)
    pq.write_table(pa.table(table), tmp_path / "bars.parquet", row_group_size=133)
    lines = ["timestamp,open,high,low,close,volume"]
    lines += [",".join(row) for row in zip(map(str, times), *texts.values(), strict=True)]
    (tmp_path / "bars.csv").write_text("\n".join(lines) + "\n")
    ours, same = (gb.read_bars(tmp_path / f"bars.{kind}", cache=tmp_path / kind).compute()
                  for kind in ("parquet", "csv"))  # fmt: skip
    assert len(ours) == n
    assert ours.equals(same)


CENTS = [decimal.Decimal(n).scaleb(-2) for n in range(100_010, 100_070)]


def write(path, close, **others):
    low, high = (pa.array([CENTS[at]] * len(CENTS), pa.decimal128(20, 2)) for at in (0, -1))
    times = np.datetime64("2024-01-01", "us") + np.arange(len(CENTS)) * np.timedelta64(60, "s")
    bar = {"open": low, "high": high, "low": low, "close": close, "volume": np.arange(len(CENTS))}
    pq.write_table(pa.table({"timestamp": times, **bar, **others}), path)
    return path


@pytest.mark.parametrize(
    "close",
    [
        pa.array(CENTS, pa.decimal32(9, 2)),
        pa.array(CENTS, pa.decimal64(18, 2)),
        pa.array(CENTS, pa.decimal256(70, 30)),
        pa.array(CENTS, pa.decimal128(20, 2)).dictionary_encode(),
    ],
    ids=["32 bits", "64 bits", "256 bits", "dictionary"],
)
def test_decimals_of_every_width_are_their_doubles(tmp_path, close):
    bars = gb.read_bars(write(tmp_path / "x.parquet", close), cache=tmp_path / "c").compute()
    assert bars["close"].tolist() == [float(value) for value in CENTS]


def test_a_decimal_that_is_null_is_missing_and_moves_no_other(tmp_path):
    close = pa.array([None, *CENTS[1:30], None, *CENTS[31:]], pa.decimal128(20, 2))
    path = write(tmp_path / "x.parquet", close)
    bars = gb.read_bars(path, cache=tmp_path / "c", max_bad_fraction=0.1).compute()
    assert bars["close"].tolist() == [float(value) for value in CENTS[1:30] + CENTS[31:]]
    assert bars["volume"].tolist() == [*range(1, 30), *range(31, len(CENTS))]


@pytest.mark.parametrize(
    ("kind", "text"), [(pa.decimal128(5, 0), "2"), (pa.decimal64(9, 2), "2.00")]
)
def test_rows_are_chosen_by_a_decimal_as_it_is_written(tmp_path, kind, text):
    wanted = pa.array([decimal.Decimal(2 + n % 3) for n in range(len(CENTS))], kind)
    close = pa.array(CENTS, pa.decimal128(20, 2))
    path = write(tmp_path / "x.parquet", close, publisher=wanted)
    bars = gb.read_bars(path, cache=tmp_path / "c", where={"publisher": [text]}).compute()
    assert bars["close"].tolist() == [float(value) for value in CENTS[::3]]
