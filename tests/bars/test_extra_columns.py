"""Extra columns: the same bars as pandas gives, however inputs are written and cut."""

from __future__ import annotations

import gzip
import itertools
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from advice import offers, rules_of
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building.parts.gaps import fill_part
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.cache.parts import write_part
from grandbatch.errors import BadRowsError, ColumnError, InputError
from grandbatch.report.sections import made_of
from grandbatch.scheduling import Schedule

EXTRA = ("vwap", "trades", "funding", "spread", "depth")
FILL = {"trades": "zero", "funding": "last", "spread": "last"}
HEADERS = ("timestamp", "symbol", "open", "high", "low", "close", "volume", *EXTRA)
START = np.datetime64("2024-01-01T00:00")

GAPS = {"": "missing", "NA": "missing", "abc": "unparseable", "1,5": "unparseable"}
NOT_FINITE = ("nan", "NaN", "inf", "-Infinity", "1e400")
REASONS = ("unparseable", "missing", "not_finite")


def value_of(text):
    """The number that a text is, or the reason why it is none."""
    if text in GAPS:
        return GAPS[text]
    return float(text) if math.isfinite(float(text)) else "not_finite"


def bars_of(rows, *, keep, is_sorted):
    """Bars as pandas fills them, bad rows in order, and how many values were filled."""
    bad, values, standing = {}, {}, {}
    for number, (minute, symbol, *texts) in enumerate(rows):
        values[number] = dict(zip(EXTRA, map(value_of, texts), strict=True))
        wrong = [
            (REASONS.index(value), place, value)
            for place, (name, value) in enumerate(values[number].items())
            if isinstance(value, str) and name not in FILL
        ]
        if wrong:
            bad[number] = min(wrong)[2], EXTRA[min(wrong)[1]]
            continue
        of_symbol = standing.setdefault(symbol, {})
        if not is_sorted and of_symbol and minute < max(of_symbol):
            bad[number] = "out_of_order", ""
        elif minute in of_symbol:
            loser = of_symbol[minute] if keep == "last" else number
            bad[loser] = "duplicate_timestamp", ""
            of_symbol[minute] = number if keep == "last" else of_symbol[minute]
        else:
            of_symbol[minute] = number
    table = [
        {"symbol": symbol, "row": number, "minute": minute, **values[number]}
        for symbol, of in sorted(standing.items())
        for minute, number in sorted(of.items())
    ]
    frame = pd.DataFrame(table, columns=["symbol", "row", "minute", *EXTRA])
    gaps = frame[list(EXTRA)].map(lambda value: isinstance(value, str))
    numbers = frame[list(EXTRA)].mask(gaps).astype(float)
    zero, last = (["trades"], ["funding", "spread"])
    numbers[zero] = numbers[zero].fillna(0.0)
    numbers[last] = numbers.groupby(frame["symbol"])[last].ffill()
    for place, row in frame["row"].items():
        empty = [name for name in last if np.isnan(numbers[name][place])]
        if empty:
            bad[row] = "missing", empty[0]
    whole = numbers.notna().all(axis=1)
    frame[list(EXTRA)] = numbers
    counts = {name: int(gaps[whole][name].sum()) for name in FILL}
    return frame[whole], sorted(bad.items()), counts


def write_file(path, rows, first, headers, kind):
    """Write rows with columns in some order; `first` is the number of the first row."""
    columns = {header: [] for header in HEADERS}
    for number, (minute, symbol, *texts) in enumerate(rows, start=first):
        price = 100 + number
        prices = (f"{price + above}.5" for above in (0, 1, -1, 0))
        bar = (START + minute, symbol, *prices, number, *texts)
        for header, value in zip(HEADERS, bar, strict=True):
            columns[header].append(str(value))
    columns = {header: columns[header] for header in headers}
    quoted = ([f'"{text}"' if "," in text else text for text in of] for of in columns.values())
    lines = [",".join(headers), *(",".join(row) for row in zip(*quoted, strict=True))]
    text = ("\n".join(lines) + "\n").encode()
    if kind == "parquet":
        pq.write_table(pa.table(columns), path, row_group_size=5)
    else:
        path.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)


def check(folder, paths, rows, options, block_bytes, scheduler="sync"):
    frame, bad, counts = bars_of(rows, **options)
    rules = BarRules(
        extra=EXTRA,
        fill=FILL,
        max_bad_fraction=1.0,
        sort=options["is_sorted"],
        duplicates=options["keep"],
    )
    schedule = Schedule.local(scheduler, 2)
    if frame.empty:
        with pytest.raises(InputError, match="is a bar"):
            prepare_bars(paths, folder, rules, schedule, block_bytes)
        return None
    bars = prepare_bars(paths, folder, rules, schedule, block_bytes)
    assert bars.extra == EXTRA
    assert list(bars.problems()) == []
    found = bars.read(0, bars.n_rows)
    assert list(found) == list(HEADERS)
    assert [bars.symbols[code] for code in found["symbol"]] == frame["symbol"].tolist()
    assert found["volume"].tolist() == frame["row"].tolist()
    for name in EXTRA:
        assert found[name].tobytes() == frame[name].to_numpy().tobytes()
    kept = pq.read_table(bars.quarantine_path).to_pylist()
    assert [(row["reason"], row["column"]) for row in kept] == [why for _, why in bad]
    assert bars.filled == counts
    return {name: values.tobytes() for name, values in found.items()}


TEXTS = st.sampled_from(["1.5", "2", "-3", "1e3", "0.1", "", "", "NA", "abc", *NOT_FINITE, "1,5"])
MOSTLY = st.one_of(st.just("7.25"), st.just("7.25"), st.just("3"), TEXTS)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from("AB"), MOSTLY, TEXTS, TEXTS, TEXTS, st.just("1") | MOSTLY
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    rises=st.booleans(),
    cuts=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    orders=st.tuples(*[st.permutations(HEADERS)] * 3),
    kinds=st.tuples(*[st.sampled_from(["csv", "csv", "csv.gz", "parquet"])] * 3),
    block_bytes=st.integers(30, 700),
    keep=st.sampled_from(["first", "last"]),
    is_sorted=st.booleans(),
)
def test_bars_are_those_that_pandas_fills(
    tmp_path_factory, rows, rises, cuts, orders, kinds, block_bytes, keep, is_sorted
):
    if rises:
        rows = sorted(rows, key=lambda row: row[0])
    folder = tmp_path_factory.mktemp("extra")
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    paths = []
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if start < stop:
            paths.append(folder / f"{number}.{kinds[number]}")
            write_file(paths[-1], rows[start:stop], start, orders[number], kinds[number])
    check(folder / "cache", paths, rows, {"keep": keep, "is_sorted": is_sorted}, block_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("is_sorted", [False, True])
def test_blocks_of_any_size_on_threads_give_the_same_bytes(tmp_path, is_sorted):
    rng = np.random.default_rng(5)
    texts = np.array(["1.5", "2", "", "NA", "abc", "nan", "-7e-3"])
    n = 3_000
    columns = [texts[rng.choice(7, n, p=[0.01, 0.01, 0.9, 0.02, 0.02, 0.02, 0.02])] for _ in "zll"]
    minutes = np.sort(rng.integers(0, n, n)) + (rng.integers(0, 9, n) - 8) * (rng.random(n) < 0.1)
    rows = [
        (int(minute), "ABC"[code], "7.25", *of, "3" if code else "1e2")
        for minute, code, *of in zip(minutes, rng.integers(0, 3, n), *columns, strict=True)
    ]
    paths = []
    for number, part in enumerate((rows[:1_100], rows[1_100:1_130], rows[1_130:])):
        paths.append(tmp_path / f"{number}.csv")
        order = [*HEADERS[number:], *HEADERS[:number]]
        write_file(paths[-1], part, (0, 1_100, 1_130)[number], order, "csv")
    options = {"keep": "last", "is_sorted": is_sorted}
    found = [
        check(tmp_path / f"{size}{way}", paths, rows, options, size, way)
        for size, way in ((700, "threads"), (9_000, "sync"), (10**6, "threads"))
    ]
    assert found[0] == found[1] == found[2]


def write_text(path, *lines, header="timestamp,open,high,low,close,volume,vwap,rate"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def line_of(minute, *extra):
    return f"{START + minute},10,11,9,10,5,{','.join(extra)}"


def test_headers_are_found_as_those_of_bars_are(tmp_path):
    header = "Timestamp,Open,High,Low,Close,Volume,VWAP price,<RATE>"
    path = write_text(tmp_path / "a.csv", line_of(0, "1", "2"), line_of(1, "3", "4"), header=header)
    frame = gb.read_bars(
        path, cache=tmp_path / "c", extra=["rate", "vwap"], columns={"vwap": "VWAP price"}
    ).compute()
    assert list(frame.columns)[-2:] == ["rate", "vwap"]
    assert frame[["rate", "vwap"]].to_numpy().tolist() == [[2, 1], [4, 3]]
    with pytest.raises(ColumnError, match=r"'VWAP price' looks like vwap.*--columns 'vwap=VWA"):
        gb.read_bars(path, cache=tmp_path / "c", extra=["vwap"])
    with pytest.raises(ColumnError, match="no column funding among the headers"):
        gb.read_bars(path, cache=tmp_path / "c", extra=["funding"])
    with pytest.raises(ColumnError, match="'Close' is close already, and can't be the extra"):
        gb.read_bars(path, cache=tmp_path / "c", extra=["vwap"], columns={"vwap": "Close"})


def test_files_without_a_header_have_extra_columns_by_their_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(line_of(minute, "7", str(minute)) for minute in range(3)) + "\n")
    names = ["timestamp", "open", "high", "low", "close", "volume", "vwap", "rate"]
    frame = gb.read_bars(path, cache=tmp_path / "c", header=False, names=names, extra=["rate"])
    assert frame.compute()["rate"].tolist() == [0, 1, 2]


def test_symbols_side_by_side_have_extra_columns_of_their_own(tmp_path):
    fields = ["Open", "High", "Low", "Close", "Volume", "Adj Close"]
    path = tmp_path / "a.csv"
    path.write_text(
        f"Price,{','.join(fields * 2)}\nTicker,{','.join(['A'] * 6 + ['B'] * 6)}\nDate{',' * 12}\n"
        "2024-01-01,10,11,9,10,5,8.5,20,21,19,20,5,18.5\n"
        "2024-01-02,10,11,9,10,5,8.25,,,,,,\n"
    )
    frame = gb.read_bars(
        path, cache=tmp_path / "c", extra=["adj"], columns={"adj": "Adj Close"}
    ).compute()
    assert list(zip(frame["symbol"], frame["adj"], strict=True)) == [
        ("A", 8.5), ("A", 8.25), ("B", 18.5)
    ]  # fmt: skip


def test_symbols_in_flat_names_have_extra_columns_of_their_own(tmp_path):
    fields = ["Open", "High", "Low", "Close", "Volume", "VWAP"]
    path = tmp_path / "a.csv"
    path.write_text(
        f"Date,{','.join(f'{field}_{symbol}' for symbol in 'AB' for field in fields)}\n"
        "2024-01-01,10,11,9,10,5,8.5,20,21,19,20,5,18.5\n"
    )
    frame = gb.read_bars(path, cache=tmp_path / "c", extra=["vwap"]).compute()
    assert frame["vwap"].tolist() == [8.5, 18.5]


def test_numbers_of_typed_parquet_are_taken_as_they_are(tmp_path):
    times = pd.date_range("2024-01-01", periods=4, freq="1min", tz="UTC")
    table = pa.table(
        {
            "timestamp": pa.array(times),
            **{name: pa.array([10.0] * 4) for name in ("open", "high", "low", "close", "volume")},
            "trades": pa.array([1, None, 3, 4], pa.int32()),
            "rate": pa.array([None, 0.5, float("nan"), 0.25], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    frame = gb.read_bars(
        tmp_path / "a.parquet",
        cache=tmp_path / "c",
        extra=["trades", "rate"],
        fill={"trades": "zero", "rate": "last"},
        max_bad_fraction=1.0,
    ).compute()
    assert frame["trades"].tolist() == [0, 3, 4]
    assert frame["rate"].tolist() == [0.5, 0.5, 0.25]


def test_a_spike_gives_its_value_to_no_other_bar(tmp_path):
    path = write_text(
        tmp_path / "a.csv",
        line_of(0, "1", "1"),
        f"{START + 1},100,110,90,100,5,1,2",
        line_of(2, "1", ""),
        line_of(3, "1", "3"),
    )
    options = {"extra": ["rate"], "fill": {"rate": "last"}, "max_bad_fraction": 1.0}
    frame = gb.read_bars(path, cache=tmp_path / "c", max_jump=0.5, **options).compute()
    assert frame["rate"].tolist() == [1, 1, 3]


def test_a_symbol_without_any_value_has_no_bars(tmp_path):
    lines = [f"{line_of(minute, '1', rate)},{name}" for name, rate in (("A", ""), ("B", "2"))
             for minute in range(3)]  # fmt: skip
    header = "timestamp,open,high,low,close,volume,vwap,rate,symbol"
    path = write_text(tmp_path / "a.csv", *lines, header=header)
    rules = BarRules(extra=["rate"], fill={"rate": "last"}, max_bad_fraction=1.0)
    bars = prepare_bars(path, tmp_path / "c", rules, Schedule.local("sync"))
    assert bars.symbols == ("B",)
    assert bars.n_rows == 3
    assert bars.quarantined == {"missing": 3}
    assert [path.name for path in bars.path.rglob("part-*")] == [part.path for part in bars.parts]


def test_bad_rows_name_the_column_and_what_to_type(tmp_path):
    path = write_text(tmp_path / "a.csv", line_of(0, "1", ""), line_of(1, "1", "x"))
    options = {"cache": tmp_path / "c", "extra": ["rate"], "max_bad_fraction": 0.1}
    with pytest.raises(BadRowsError, match=r"(?s)a.csv:2: missing \(rate\): .*") as caught:
        gb.read_bars(path, **options)
    last, zero = offers(str(caught.value))
    assert rules_of(f"--extra rate {last}").fill == {"rate": "last"}
    with pytest.raises(BadRowsError, match="have no value of rate before them") as caught:
        gb.read_bars(path, fill={"rate": "last"}, **options)
    assert offers(str(caught.value))[0] == zero
    rules = rules_of(f"--extra rate {zero}")
    assert gb.read_bars(path, rules=rules, cache=tmp_path / "c").compute()["rate"].tolist() == [
        0,
        0,
    ]


def test_a_part_is_filled_again_where_a_cluster_runs_a_task_twice(tmp_path):
    values = np.array([[1.0, 1.0, 1.0]] * 5 + [[np.nan, 2.0, np.nan]])
    digests = write_part(tmp_path / "part-00000.parquet", np.arange(3), values, ["rate"])
    part = Part(0, "part-00000.parquet", 0, 2, digests)
    done = [fill_part(str(tmp_path), part, ("rate",), (), (np.nan,), 1) for _ in range(2)]
    assert done[0] == done[1]
    assert (done[0][0].first_time, done[0][0].rows, done[0][1]) == (1, 2, (1,))


def test_twins_differ_where_an_extra_value_does(tmp_path):
    path = write_text(
        tmp_path / "a.csv",
        line_of(0, "1", "1"),
        line_of(0, "1", "1"),
        line_of(1, "1", "1"),
        line_of(1, "2", "1"),
        line_of(2, "1", ""),
        line_of(2, "1", "abc"),
    )
    for way in (False, True):
        rules = BarRules(
            extra=["vwap", "rate"], fill={"rate": "last"}, sort=way, max_bad_fraction=1.0
        )
        bars = prepare_bars(path, tmp_path / f"{way}", rules, Schedule.local("sync"), 60)
        assert bars.quarantined == {"duplicate_timestamp": 3}
        assert bars.differing_duplicates == 1


def test_columns_of_numbers_that_are_read_over_are_named_once(tmp_path, caplog):
    header = "timestamp,open,high,low,close,volume,vwap,rate,unix,note"
    for number in range(2):
        lines = [line_of(minute + 3 * number, "1.5", "", "17040672", "a") for minute in range(3)]
        write_text(tmp_path / f"{number}.csv", *lines, header=header)
    paths = sorted(tmp_path.glob("*.csv"))

    def told(name, **options):
        caplog.clear()
        gb.read_bars(paths, cache=tmp_path / name, **options)
        return [line for line in caplog.messages if "read over" in line]

    assert len(told("a")) == 1
    assert "numbers that are read over: vwap. To keep some, add --extra vwap;" in told("b")[0]
    keep, pass_over = offers(told("b2")[0])
    assert rules_of(keep).extra == ("vwap",)
    assert rules_of(pass_over).ignore_columns == ("vwap",)
    assert told("c", ignore_columns=["VWAP"]) == told("d", ignore_columns=["all"]) == []
    assert told("e", extra=["vwap"]) == []


def test_stores_say_which_extra_columns_their_bars_have_and_grow_by_them(tmp_path):
    def lines(start, stop):
        return [
            f"{START + minute},{100 + minute % 7},{120 + minute % 5},90,{99 + minute % 11},5,1,"
            f"{minute if minute % 40 == 3 else ''}"
            for minute in range(start, stop)
        ]

    rules = BarRules(extra=["rate"], fill={"rate": "last"}, ignore_columns=["vwap"])
    old, new = (write_text(tmp_path / name, *of) for name, of in
                (("a.csv", lines(0, 500)), ("b.csv", lines(500, 900))))  # fmt: skip
    options = {"rules": rules, "chunk_windows": 4, "durable": False}
    gb.build_store(old, tmp_path / "grown.zarr", cache=tmp_path / "c1", **options)
    grown = gb.build_store([old, new], tmp_path / "grown.zarr", cache=tmp_path / "c1", **options)
    whole = gb.build_store([old, new], tmp_path / "whole.zarr", cache=tmp_path / "c2", **options)
    assert whole.attrs["extra"] == ["rate"]
    assert whole.attrs["fill"] == {"rate": "last"}
    assert whole.attrs["filled"] == {"rate": 900 - 3 - 23}
    assert whole.attrs["quarantined"] == {"missing": 3}
    page = made_of(whole)
    assert "rate (last, 874 times)" in page
    files = {
        store: {
            file.relative_to(store.path): file.read_bytes()
            for file in store.path.rglob("*")
            if file.is_file()
        }
        for store in (grown, whole)
    }
    assert files[grown] == files[whole]
