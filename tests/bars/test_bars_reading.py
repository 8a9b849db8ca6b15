"""Bars, quarantine and fingerprint against a plain reading, for any cut into blocks."""

import csv
import datetime as dt
import gzip
import io
import math
import os
import re
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.timestamps.texts import TimeForm, read_times
from grandbatch.kernels.bars.timestamps import ABSOLUTE, NAIVE
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
EXAMPLES = int(os.environ.get("GRANDBATCH_EXAMPLES", "30"))
LENIENT = BarRules(max_bad_fraction=1.0)
HEADER = "timestamp,symbol,open,high,low,close,volume"
START = dt.datetime(2024, 1, 1)
NULL_WORDS = ("", "NA", "N/A", "#N/A", "null", "NULL", "None")


def plain_reading(text, rules=LENIENT):
    """Bars by symbol, and the bad rows with their lines, one line at a time."""
    bars, bad, last = {}, [], {}
    for number, line in enumerate(text.splitlines()[1:], start=2):
        if line:
            fields = without_end(next(csv.reader([line])), line)
            reason, symbol, bar = judge(fields, last, rules)
            if reason:
                bad.append((number, line, reason))
            else:
                bars.setdefault(symbol, []).append(bar)
    return bars, bad


def torn_reading(data):
    """As `plain_reading`, of bytes: a line ends at LF, CR LF or CR, and stands alone."""
    bars, bad, last = {}, [], {}
    for number, line in enumerate(re.split(b"\r\n|\n|\r", data)[1:], start=2):
        if line:
            text = line.decode("utf-8", "surrogateescape")
            fields = next(csv.reader([text.lstrip("\ufeff") + "\n"]), [])
            if fields and fields[-1].endswith("\n"):  # a quote that doesn't close took the end
                fields = []
            fields = without_end(fields, text)
            reason, symbol, bar = judge(fields, last, LENIENT, time_alone)
            if reason:
                bad.append((number, line.decode("utf-8", "replace"), reason))
            else:
                bars.setdefault(symbol, []).append(bar)
    return bars, bad


def without_end(fields, line):
    """Fields of a line; a delimiter more than it needs stands behind the last, and parts none."""
    return fields[:-1] if len(fields) == 8 and line.endswith(",") else fields


def time_alone(text):
    column = pa.chunked_array([pa.array([text.encode("utf-8", "surrogateescape")], pa.binary())])
    times, status, *_ = read_times(column, TimeForm())
    if status[0] not in (NAIVE, ABSOLUTE):
        raise ValueError(text)
    return int(times[0])


def iso_time(text):
    return int((dt.datetime.fromisoformat(text) - dt.datetime(1970, 1, 1)).total_seconds()) * 10**9


def judge(fields, last, rules, read_time=iso_time):
    if len(fields) != 7:
        return "unparseable", None, None
    if any("_" in field for field in fields[2:]):
        return "unparseable", None, None
    missing = any(fields[i] in NULL_WORDS for i in range(2, 7)) or not fields[1].strip()
    try:
        fields[1].encode()
        moment = read_time(fields[0]) if fields[0] else None
        o, h, l, c, v = (0.0 if f in NULL_WORDS else float(f) for f in fields[2:])
    except ValueError:
        return "unparseable", None, None
    if missing or moment is None:
        return "missing", None, None
    if not all(map(math.isfinite, (o, h, l, c, v))):
        return "not_finite", None, None
    if min(o, h, l, c) <= 0 and not rules.allow_non_positive:
        return "non_positive_price", None, None
    top, bottom = max(o, h, l, c), min(o, h, l, c)
    if top - h > 1e-9 * abs(top) or l - bottom > 1e-9 * abs(bottom):
        return "ohlc_inconsistent", None, None
    h, l = top, bottom
    if v < 0:
        return "negative_volume", None, None
    prices = [abs(price) for price in (o, h, l, c) if price]
    if prices and (min(prices) < 1e-18 or max(prices) > 1e18):
        return "out_of_range", None, None
    if v and not 1e-12 <= abs(v) <= 1e24:
        return "out_of_range", None, None
    symbol = fields[1].strip()
    if moment == last.get(symbol):
        return "duplicate_timestamp", None, None
    if moment < last.get(symbol, -math.inf):
        return "out_of_order", None, None
    last[symbol] = moment
    return None, symbol, (moment, o, h, l, c, v)


def contents(bars):
    """Bars by symbol, in the form of the plain reading."""
    rows = bars.read(0, bars.n_rows)
    out = {}
    for at in range(bars.n_rows):
        values = tuple(rows[n][at].item() for n in ("timestamp", *HEADER.split(",")[2:]))
        out.setdefault(bars.symbols[rows["symbol"][at]], []).append(values)
    return out


def quarantine(bars):
    rows = pq.read_table(bars.quarantine_path).to_pylist()
    return [(row["line"], row["text"], row["reason"]) for row in rows]


def line_of(minute, symbol="A", values="10,12,9,11,100"):
    return f"{START + dt.timedelta(minutes=minute)},{symbol},{values}"


def good_text(n_rows, symbols=("A",)):
    lines = [line_of(minute, symbol) for minute in range(n_rows) for symbol in symbols]
    return "\n".join([HEADER, *lines]) + "\n"


bad_values = st.sampled_from(
    [
        "10,12,9,11",
        "10,12,9,11,100,7",
        "10,12,9,x,100",
        "10,,9,11,100",
        "10,NA,9,11,100",
        "nan,12,9,11,100",
        "10,inf,9,11,100",
        "0,12,0,11,100",
        "-1,12,-2,11,100",
        "10,9,9,11,100",
        "10,12,11,11,100",
        "10,12,9,11,-1",
        "10,12,9,12.00000001,100",
        "10,12,9,12.0000001,100",
        "8.999999999,12,9,11,100",
        "10,12,1e-19,11,100",
        "10,1e19,9,11,100",
        "10,12,9,11,1e25",
        "10,12,9,11,1e-13",
        "1_0,12,9,11,100",
        " 10 ,12,9,11,100",
        '"10",12,9,11,100',
        "1e1,12,9,+11,100",
        "10,12,9,11,",
    ]
)
lines = st.one_of(
    st.builds(line_of, st.integers(0, 60), st.sampled_from(["A", "B", "c/d", ""])),
    st.builds(line_of, st.integers(0, 60), st.sampled_from(["A", "B"]), bad_values),
    st.sampled_from(["", "nonsense", "2024-13-01,A,10,12,9,11,100", ",A,10,12,9,11,100"]),
)


@pytest.mark.slow
@settings(max_examples=70, deadline=None)
@given(
    st.lists(lines, min_size=1, max_size=25),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(40, 400),
    st.booleans(),
)
def test_any_block_size_gives_the_bars_and_the_quarantine_of_a_plain_reading(
    body, line_end, block_bytes, ends
):
    body = [line_of(0, "Z"), *body]
    text = line_end.join([HEADER, *body]) + (line_end if ends else "")
    expected_bars, expected_bad = plain_reading(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(text.encode())
        bars = prepare_bars(path, f"{folder}/one", LENIENT, HERE, block_bytes)
        whole = prepare_bars(path, f"{folder}/two", LENIENT, HERE)
        assert contents(bars) == contents(whole) == expected_bars
        assert list(bars.symbols) == sorted(expected_bars)
        assert quarantine(bars) == quarantine(whole) == expected_bad
        assert bars.fingerprint == whole.fingerprint


MARK = b"\xef\xbb\xbf"
torn_pieces = st.sampled_from(
    [
        *(MARK, b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b'"a\nb"', b'"a\r\nb"', b'"1"', b'x"y"'),
        *(b"12345678901234567890.5", b"0.12345678901234567890", b"\n" + HEADER.encode() + b"\n"),
        *(b"\n" + MARK + HEADER.encode() + b"\r\n", b"\n" + MARK, MARK + MARK, b",", b"\xff"),
    ]
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), torn_pieces), min_size=1, max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from(["10,12,9,11,100", "10.00000000000000000001,12,9,11,100", '"10",12,9,11,"1"']),
    st.integers(20, 200),
)
def test_any_bytes_give_the_bars_of_a_plain_reading_for_any_block_size(
    cuts, line_end, values, block_bytes
):
    body = line_end.join(line_of(minute, "AB"[minute % 2], values).encode() for minute in range(12))
    for place, piece in cuts:
        at = int(place * len(body))
        body = body[:at] + piece + body[at:]
    data = HEADER.encode() + line_end + line_of(0, "Z").encode() + line_end + body
    expected_bars, expected_bad = torn_reading(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(data)
        bars = prepare_bars(path, f"{folder}/one", LENIENT, HERE, block_bytes)
        whole = prepare_bars(path, f"{folder}/two", LENIENT, HERE)
        assert quarantine(bars) == quarantine(whole) == expected_bad
        assert contents(bars) == contents(whole) == expected_bars


def test_exports_with_marks_that_were_joined_are_read_as_one(tmp_path):
    exports = [
        "".join(f"202401{day:02d} 17{m:02d}00;10.{'0' * digits}1;12;9;11;5\r\n" for m in range(40))
        for day, digits in ((2, 1), (3, 20), (4, 1))
    ]
    path = tmp_path / "joined.csv"
    path.write_bytes(b"".join(MARK + text.encode() for text in exports))
    for block_bytes in (None, 700, 64):
        bars = prepare_bars(path, tmp_path / f"c{block_bytes}", BarRules(), HERE, block_bytes)
        assert (bars.n_rows, bars.quarantined) == (120, {})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["{}", '"{}"', " {}"], ids=["plain", "quoted", "blank before"])
@pytest.mark.parametrize("encoding", [None, "utf-16"])
def test_a_mark_between_joined_exports_hides_no_bar(tmp_path, end, first, encoding):
    rows = [
        f"{first.format(f'2024-01-02 17:{minute:02d}')};10,5;12;9;11;{minute}{end}"
        for minute in range(60)
    ]
    header = f"time;open;high;low;close;volume{end}"
    exports = header + "".join(rows[:20]), "".join(rows[20:40]), "".join(rows[40:])
    path = tmp_path / "joined.csv"
    path.write_bytes(b"".join(text.encode(encoding or "utf-8-sig") for text in exports))
    rules = BarRules(encoding=encoding)
    for block_bytes in (None, 300):
        bars = prepare_bars(path, tmp_path / f"c{block_bytes}", rules, HERE, block_bytes)
        assert bars.quarantined == {}
        assert bars.read(0, 60, ("volume",))["volume"].tolist() == [*range(60)]


def test_lines_that_end_in_returns_alone_may_fill_files_of_any_size(tmp_path):
    n_rows = 40_000  # 1.6 MB: more than a line may be long
    path = tmp_path / "x.csv"
    path.write_bytes(good_text(n_rows).replace("\n", "\r").encode())
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 300_000)
    assert (bars.n_rows, bars.quarantined) == (n_rows, {})


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.data(), st.lists(lines, min_size=2, max_size=25), st.integers(40, 400))
def test_any_cut_into_files_gives_the_same_bars_and_the_same_bad_rows(data, body, block_bytes):
    body = [line_of(0, "Z"), *(line for line in body if line), line_of(61, "Z")]
    expected_bars, expected_bad = plain_reading("\n".join([HEADER, *body]))
    cuts = data.draw(st.sets(st.integers(1, len(body) - 1), max_size=4))
    bounds = [0, *sorted(cuts), len(body)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{start:02d}.csv" for start in bounds[:-1]]
        for path, (start, stop) in zip(paths, pairwise(bounds), strict=True):
            path.write_text("\n".join([HEADER, *body[start:stop]]))
        bars = prepare_bars(paths, f"{folder}/cache", LENIENT, HERE, block_bytes)
        assert contents(bars) == expected_bars
        rows = pq.read_table(bars.quarantine_path).to_pylist()
        found = [(row["line"] + int(row["file"][:2]), row["text"], row["reason"]) for row in rows]
        assert found == expected_bad


def test_a_bad_row_leaves_the_numbers_of_its_block_bit_identical(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.uniform(1, 1000, 500)
    rows = [
        line_of(i, values=f"{x!r},{x!r},{x!r},{x!r},1e-3") for i, x in enumerate(values.tolist())
    ]
    clean, dirty = tmp_path / "clean.csv", tmp_path / "dirty.csv"
    clean.write_text("\n".join([HEADER, *rows]))
    dirty.write_text("\n".join([HEADER, *rows, "rubbish"]))
    read = [prepare_bars(path, tmp_path / "c", LENIENT, HERE) for path in (clean, dirty)]
    assert contents(read[0]) == contents(read[1])
    assert [row[1] for row in contents(read[0])["A"]] == values.tolist()
    assert read[1].quarantined == {"unparseable": 1}


@pytest.mark.parametrize("block_bytes", [64, 1000, None])
def test_an_unclosed_quote_swallows_no_line_but_its_own(tmp_path, block_bytes):
    rows = [line_of(i) for i in range(30)]
    rows[10] = '"' + rows[10]
    rows[20] = '"' + rows[20]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *rows]))
    bars = prepare_bars(path, tmp_path / "c", LENIENT, HERE, block_bytes)
    assert bars.n_rows == 28
    assert [bad[0] for bad in quarantine(bars)] == [12, 22]


def test_threads_and_this_thread_give_the_same_files(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(good_text(3000, ("A", "B")))
    for scheduler in ("sync", "threads"):
        prepare_bars(path, tmp_path / scheduler, LENIENT, Schedule.local(scheduler, 3), 4096)
    one, other = (
        {
            file.relative_to(tmp_path / scheduler): file.read_bytes()
            for file in (tmp_path / scheduler).rglob("*.parquet")
        }
        for scheduler in ("sync", "threads")
    )
    assert one == other


def test_a_late_row_is_out_of_order_across_files_too(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join([HEADER, line_of(0), line_of(5)]))
    (tmp_path / "b.csv").write_text("\n".join([HEADER, line_of(5), line_of(4), line_of(6)]))
    bars = prepare_bars([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "c", LENIENT, HERE)
    rows = pq.read_table(bars.quarantine_path).to_pylist()
    assert [(row["file"], row["line"], row["reason"]) for row in rows] == [
        ("b.csv", 2, "duplicate_timestamp"),
        ("b.csv", 3, "out_of_order"),
    ]
    assert bars.n_rows == 3


def test_gzip_and_parquet_hold_the_same_bars_as_csv(tmp_path):
    text = good_text(200, ("A", "B"))
    (tmp_path / "x.csv").write_text(text)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text.encode()))
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(io.StringIO(text), parse_dates=["timestamp"])
    frame.to_parquet(tmp_path / "x.parquet")
    expected = plain_reading(text)[0]
    for name in ("x.csv", "x.csv.gz", "x.parquet"):
        for block_bytes in (500, None):
            folder = tmp_path / f"{name}-{block_bytes}"
            bars = prepare_bars(tmp_path / name, folder, BarRules(), HERE, block_bytes)
            assert contents(bars) == expected


@pytest.mark.slow
def test_null_and_nan_in_parquet_have_their_reasons(tmp_path):
    pandas = pytest.importorskip("pandas")
    import pyarrow as pa

    frame = pandas.read_csv(io.StringIO(good_text(4)), parse_dates=["timestamp"])
    table = pa.Table.from_pandas(frame, preserve_index=False)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    columns["open"] = [10.0, None, math.nan, 10.0]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    bars = prepare_bars(tmp_path / "x.parquet", tmp_path / "c", LENIENT, HERE)
    assert [bad[0::2] for bad in quarantine(bars)] == [(2, "missing"), (3, "not_finite")]


def test_large_blocks_become_parts_as_they_are_and_read_back_in_any_range(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(good_text(90_000))
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 1024 * 1024)
    assert len(bars.parts) > 1
    every = bars.read(0, bars.n_rows, ("timestamp", "close"))
    assert np.all(np.diff(every["timestamp"]) == 60 * 10**9)
    for start, stop in [(0, 1), (65_535, 65_537), (10_000, 89_999), (5, 5)]:
        some = bars.read(start, stop, ("close", "timestamp"))
        np.testing.assert_array_equal(some["timestamp"], every["timestamp"][start:stop])
        np.testing.assert_array_equal(some["close"], every["close"][start:stop])


def test_progress_counts_every_byte_once(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(good_text(100))
    seen = []
    prepare_bars(path, tmp_path / "c", BarRules(), HERE, 256, lambda *done: seen.append(done))
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert all(a < b for (a, _), (b, _) in pairwise(seen))
