"""Paths, headers and settings: what is understood, and what errors say."""

import codecs
import gzip
from functools import partial

import numpy as np
import pytest

from grandbatch.bars import BarRules, input_digests, prepare_bars, read_bars
from grandbatch.bars.form.header import match_columns
from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.errors import BadRowsError, ColumnError, InputError, UsageError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
HEADER = "timestamp,open,high,low,close,volume"


def body(n_rows, day=1, end="\n"):
    return end.join(f"2024-01-{day:02d} 00:{i:02d},10,12,9,11,{i}" for i in range(n_rows)) + end


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def prepare(inputs, tmp_path, **rules):
    return prepare_bars(inputs, tmp_path / "cache", BarRules(**rules), HERE)


def test_a_wrong_path_is_named(tmp_path):
    for wrong in (tmp_path / "none.csv", tmp_path / "none-*.csv", "memory://bucket/none.csv"):
        with pytest.raises(InputError, match="none"):
            prepare(wrong, tmp_path)
    with pytest.raises(InputError, match="no input"):
        prepare([], tmp_path)


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n", f"\n\n{HEADER}\r\n\r\n", "\n\n"])
def test_a_file_without_bars_is_an_error(tmp_path, text):
    with pytest.raises(InputError, match=r"x\.csv"):
        prepare(write(tmp_path / "x.csv", text), tmp_path)


def test_text_that_is_no_utf8_and_a_torn_gzip_are_errors(tmp_path):
    utf16 = write(tmp_path / "a.csv", f"{HEADER}\n{body(3)}".encode("utf-16"))
    with pytest.raises(InputError, match="utf-16"):
        prepare(utf16, tmp_path)
    packed = gzip.compress(f"{HEADER}\n{body(50)}".encode())
    with pytest.raises(InputError, match="not a whole"):
        prepare(write(tmp_path / "b.csv.gz", packed[:-20]), tmp_path)
    with pytest.raises(InputError, match="Parquet"):
        prepare(write(tmp_path / "c.parquet", "no parquet"), tmp_path)


def test_folders_and_patterns_stand_for_their_files_in_order(tmp_path):
    for day in (2, 1, 3):
        write(tmp_path / "in" / f"{day}.csv", f"{HEADER}\n{body(5, day)}")
    write(tmp_path / "in" / "notes.md", "no bars")
    for inputs in (tmp_path / "in", str(tmp_path / "in" / "*.csv")):
        bars = prepare(inputs, tmp_path)
        assert [entry["name"] for entry in bars.source] == ["1.csv", "2.csv", "3.csv"]
        assert bars.n_rows == 15


def test_links_in_a_folder_lead_to_files_or_are_passed_over(tmp_path):
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.csv").write_text("x")
    (folder / "b.csv").write_text("xy")
    (folder / "linked.csv").symlink_to(elsewhere / "a.csv")
    (folder / "symbol=NQ").symlink_to(elsewhere)
    (folder / "gone.csv").symlink_to(elsewhere / "gone.csv")
    (folder / "circle.csv").symlink_to(folder / "circle.csv")
    (folder / "symbol=ES").symlink_to(folder / "symbol=ES")
    found = [(file.name, file.size) for file in resolve_inputs(folder)]
    assert found == [("b.csv", 2), ("linked.csv", 1), ("symbol=NQ/a.csv", 1)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_delimiter_line_end_and_byte_order_mark_make_no_difference(tmp_path, delimiter, end, mark):
    text = f"{HEADER}{end}{body(20, end=end)}".replace(",", delimiter)
    bars = prepare(write(tmp_path / "x.csv", mark + text.encode()), tmp_path)
    np.testing.assert_array_equal(bars.read(0, 20, ("volume",))["volume"], np.arange(20))


def test_lines_may_end_in_carriage_returns_alone(tmp_path):
    bars = prepare(write(tmp_path / "x.csv", f"{HEADER}\r{body(20, end=chr(13))}"), tmp_path)
    assert bars.n_rows == 20


def test_quoted_fields_are_read_as_plain_ones(tmp_path):
    text = '"Timestamp","Note","Open","High","Low","Close","Volume"\n'
    text += "\n".join(
        f'"2024-01-01 00:{i:02d}","a, ""b""","10","12","9","11","5"' for i in range(9)
    )
    assert prepare(write(tmp_path / "x.csv", text), tmp_path).n_rows == 9


@pytest.mark.parametrize(
    ("headers", "timestamp", "numbers"),
    [
        ("Date,Time,O,H,L,C,V", (0, 1), (2, 3, 4, 5, 6)),
        ("unix_timestamp,timestamp,Open,High,Low,Close,Volume", (1,), (2, 3, 4, 5, 6)),
        ("Datetime,open,high,low,close,Vol", (0,), (1, 2, 3, 4, 5)),
        ("time, OPEN ,High,Low,Last,Vol.", (0,), (1, 2, 3, 4, 5)),
        ("Unix,Date,Open,High,Low,Close,Volume", (1,), (2, 3, 4, 5, 6)),
        ("<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>,<VOL>", (0, 1), (2, 3, 4, 5, 7)),
        ("Close,close_price,Low,High,Open,Volume,Timestamp", (6,), (4, 3, 2, 0, 5)),
    ],
)
def test_usual_headers_are_understood_and_exact_ones_come_first(headers, timestamp, numbers):
    found = match_columns(headers.split(","), BarRules(), "x.csv")
    assert (found.timestamp, found.numbers) == (timestamp, numbers)


def test_a_close_header_is_an_error_that_names_the_flag(tmp_path):
    text = f"{HEADER}\n{body(5)}".replace("low", "Llow")
    path = write(tmp_path / "x.csv", text)
    with pytest.raises(ColumnError, match=r"--columns low=Llow"):
        prepare(path, tmp_path)
    assert prepare(path, tmp_path, columns={"low": "llow"}).n_rows == 5
    with pytest.raises(ColumnError, match="isn't there"):
        prepare(path, tmp_path, columns={"low": "lowest"})


def test_a_header_that_stands_there_twice_is_an_error():
    with pytest.raises(ColumnError, match="2 columns"):
        match_columns(
            ["timestamp", "open", "Open", "high", "low", "close", "volume"], BarRules(), "x.csv"
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": {"lo": "Llow"}},
        {"delimiter": ",,"},
        {"max_bad_fraction": 1.5},
        {"on_bad_rows": "ignore"},
        {"symbol": "A", "symbol_from": "filename"},
        {"symbol": " "},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../etc"},
        {"timestamp_format": "day"},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        BarRules(**fields)


def test_read_bars_refuses_unknown_options(tmp_path):
    with pytest.raises(UsageError, match="day_first"):
        read_bars(tmp_path, day_first=True)


def test_too_many_bad_rows_are_an_error_with_counts_lines_and_remedy(tmp_path):
    late = body(3, day=2) + body(60, day=1)
    path = write(tmp_path / "x.csv", f"{HEADER}\n{late}2024-01-03 00:00,10,x,9,11,1\n")
    with pytest.raises(BadRowsError) as caught:
        prepare(path, tmp_path)
    text = str(caught.value)
    assert "61 of 64 rows" in text
    assert "unparseable 1, out_of_order 60" in text
    assert "x.csv:5: out_of_order: 2024-01-01 00:00,10,12,9,11,0" in text
    assert "--sort" in text
    assert prepare(path, tmp_path, max_bad_fraction=0.99).n_rows == 3
    with pytest.raises(BadRowsError):  # although a cache of the same bars is there now
        prepare(path, tmp_path)


def test_raise_stops_at_the_first_bad_row(tmp_path):
    text = f"{HEADER}\n{body(200 % 60)}\nrubbish\n"
    path = write(tmp_path / "x.csv", text)
    with pytest.raises(BadRowsError, match=r"x\.csv:23: unparseable: rubbish"):
        prepare(path, tmp_path, on_bad_rows="raise", max_bad_fraction=1.0)


@pytest.mark.parametrize("on_bad_rows", ["raise", "quarantine"])
@pytest.mark.parametrize("workers", [1, 2])
def test_reading_stops_where_no_rows_to_come_can_help(tmp_path, on_bad_rows, workers):
    # so many that a thread that is held up for a second is not overtaken by half of the file
    lines = [
        f"2024-01-{day:02d} {hour:02d}:{i:02d},10,12,9,11,1"
        for day in range(1, 32) for hour in range(24) for i in range(60)
    ]  # fmt: skip
    lines[300:3000] = ["rubbish"] * 2700
    path = write(tmp_path / "x.csv", "\n".join([HEADER, *lines]))
    read = []
    with pytest.raises(BadRowsError, match=r"x\.csv:302: unparseable: rubbish"):
        prepare_bars(
            path,
            tmp_path / "cache",
            BarRules(on_bad_rows=on_bad_rows),
            Schedule.local("threads", workers),
            1000,
            lambda done, _: read.append(done),
        )
    assert read[-1] < path.stat().st_size / 2


def test_where_dates_may_be_the_other_way_round_reading_goes_on(tmp_path):
    # read month-first at first, by one row, almost all of the first rows are no dates
    days = ["01/13/2024", *(f"{d:02d}/01/2024" for d in range(14, 32))]
    late = [f"{d:02d}/{m:02d}/2024" for m in range(2, 13) for d in range(1, 29)]
    path = write(tmp_path / "x.csv", "\n".join(["date,open,high,low,close,volume"]))
    path.write_text(path.read_text() + "\n" + "\n".join(f"{d},1,1,1,1,1" for d in [*days, *late]))
    bars = prepare_bars(path, tmp_path / "c", BarRules(), HERE, 200)
    assert bars.quarantined == {"unparseable": 1}


def test_symbols_come_from_a_column_a_file_name_or_the_caller(tmp_path):
    first = write(tmp_path / "NQ.csv", f"{HEADER}\n{body(5)}")
    other = write(tmp_path / "ES.csv.gz", gzip.compress(f"{HEADER}\n{body(7)}".encode()))
    assert prepare(first, tmp_path).symbols == ("default",)
    assert prepare(first, tmp_path, symbol="X/..").symbols == ("X/..",)
    both = prepare([first, other], tmp_path, symbol_from="filename")
    assert both.symbols == ("ES", "NQ")
    assert both.symbol_bounds.tolist() == [0, 7, 12]


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "a%2Fb", "ä € 中", ".hidden", "A=B"])
def test_hostile_symbols_stay_inside_the_cache(tmp_path, name):
    path = write(tmp_path / "x.csv", f"{HEADER}\n{body(5)}")
    bars = prepare(path, tmp_path, symbol=name)
    assert bars.symbols == (name,)
    inside = bars.path.resolve()
    assert all((bars.path / part.path).resolve().parent == inside for part in bars.parts)
    assert bars.read(0, 5)["close"].tolist() == [11.0] * 5


def test_a_symbol_too_long_for_a_folder_is_refused(tmp_path):
    path = write(tmp_path / "x.csv", f"{HEADER}\n{body(5)}")
    with pytest.raises(InputError, match="has 300 bytes"):
        prepare(path, tmp_path, symbol="x" * 300)


@pytest.mark.parametrize("block_bytes", [2**18, 700_001, 2**22])
def test_a_line_of_more_than_a_mebibyte_is_an_error_however_blocks_are_cut(tmp_path, block_bytes):
    lines = [f"{1_700_000_000 + 60 * i},10,12,9,11,{i}" for i in range(3000)]
    for n_bytes in (2**20, 2**20 + 1):
        lines[1200] = "x" * n_bytes
        path = write(tmp_path / f"{n_bytes}.csv", "\n".join([HEADER, *lines, ""]))
        parsed = partial(prepare_bars, path, tmp_path / "cache", BarRules(), HERE, block_bytes)
        if n_bytes > 2**20:
            with pytest.raises(InputError, match="no line ends in 1,048,576 bytes after byte"):
                parsed()
        else:
            assert parsed().n_rows == 2999


def test_digests_depend_on_the_content_alone(tmp_path):
    text = f"{HEADER}\n{body(5)}"
    paths = [write(tmp_path / name, text) for name in ("a.csv", "b.csv")]
    paths.append(write(tmp_path / "c.csv", text + "\n"))
    a, b, c = (entry["digest"] for entry in input_digests(paths, tmp_path / "cache"))
    assert a == b != c
