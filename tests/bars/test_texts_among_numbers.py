"""Texts in the middle of a file, in columns that hold numbers where it was looked at."""

import numpy as np
import pandas as pd
import pytest
from advice import follow
from hypothesis import example, given
from hypothesis import strategies as st

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.building.planning import plan_reading
from grandbatch.bars.form.instruments import is_text
from grandbatch.bars.inputs.files import resolve_inputs
from grandbatch.bars.reading.csv_rows import parse_rows
from grandbatch.bars.reading.text_blocks import read_text
from grandbatch.errors import ColumnError
from grandbatch.kernels.bars.words import has_words
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
ROWS = 9000
"""More than are looked at first and last: their text is above 256 KiB."""


def bars(rows=ROWS, start="2020-01-01", **beside):
    low = 100 + 5 * np.sin(np.arange(rows))
    prices = {"open": low + 0.25, "high": low + 2, "low": low, "close": low + 1.5}
    return pd.DataFrame(
        {
            "timestamp": pd.date_range(start, periods=rows, freq="min"),
            **{name: values.round(3) for name, values in prices.items()},
            "volume": 100 + np.arange(rows),
            **beside,
        }
    )


def among(numbers, *texts, at=6000):
    """Numbers with texts in the middle, each of ten rows."""
    values = np.array(numbers, dtype=object)
    for place, text in enumerate(texts):
        values[at + 10 * place : at + 10 * place + 10] = text
    return values


def write(tmp_path, name="x.csv", **beside):
    bars(**beside).to_csv(tmp_path / name, index=False)
    return tmp_path / name


def prepare(path, tmp_path, block_bytes=None, rules=None):
    return prepare_bars(path, tmp_path / "cache", rules or BarRules(), HERE, block_bytes)


def refused(path, tmp_path, block_bytes=None):
    with pytest.raises(ColumnError) as caught:
        prepare(path, tmp_path, block_bytes)
    return str(caught.value)


def turned(path):
    """Names of the columns in which texts turn up as a file is read."""
    folder = path.parent / "staging"
    (folder / "pieces").mkdir(parents=True, exist_ok=True)
    _, tasks = plan_reading(resolve_inputs(path), BarRules(), HERE, folder, 2**16)
    read = (read_text(task.block, hashed=False) for task in tasks)
    return {
        name
        for text, task in zip(read, tasks, strict=True)
        for name in parse_rows(text, task.dialect, task.form, task.symbol).turned
    }


@pytest.mark.parametrize("numbers", [np.full(ROWS, 7), np.repeat([1, 2, 3], ROWS // 3)])
@pytest.mark.parametrize("texts", [("ESZ4",), ("ESH4", "ESM4"), ("平安",)])
def test_texts_among_numbers_are_refused_with_flags_that_work(tmp_path, numbers, texts):
    path = write(tmp_path, which=among(numbers, *texts))
    text = refused(path, tmp_path)
    assert "the column 'which' isn't read and changes from" in text
    assert repr(texts[0]) in text
    apart, joined = (prepare(path, tmp_path, rules=rules) for rules in follow(text))
    assert set(apart.symbols) == {*map(str, numbers), *texts}
    assert (joined.n_rows, joined.symbols) == (ROWS, ("default",))


def test_neither_switches_nor_dates_hide_a_text_and_gaps_are_none(tmp_path):
    for value in ("True", "2024-03-15", "1.5%"):
        path = write(tmp_path, which=among(np.full(ROWS, value), "ESZ4"))
        assert f"changes from {value!r} to 'ESZ4'" in refused(path, tmp_path)
    for gap in ("nan", "N/A", ""):
        path = write(tmp_path, which=among(np.full(ROWS, gap), "ESZ4"))
        assert prepare(path, tmp_path).n_rows == ROWS


def test_a_column_without_a_name_can_be_ignored(tmp_path):
    path = write(tmp_path, **{"": among(np.full(ROWS, 7), "ESZ4")})
    [rules] = follow(refused(path, tmp_path))
    assert prepare(path, tmp_path, rules=rules).n_rows == ROWS


@pytest.mark.parametrize("block_bytes", [5_000, 70_000])
def test_it_makes_no_difference_how_a_file_is_cut(tmp_path, block_bytes):
    path = write(tmp_path, which=among(np.full(ROWS, 7), "ESZ4"))
    assert refused(path, tmp_path, block_bytes) == refused(path, tmp_path)


def test_each_symbol_is_looked_at_by_itself(tmp_path):
    symbol = np.repeat(["A", "B"], ROWS // 2)
    path = write(tmp_path, symbol=symbol, which=among(np.full(ROWS, 7), "ESZ4", at=4600))
    assert "changes for B from '7' to 'ESZ4'" in refused(path, tmp_path)
    only_b = np.where(symbol == "B", "ESZ4", "7")
    assert prepare(write(tmp_path, symbol=symbol, which=only_b), tmp_path).n_rows == ROWS


def test_a_text_among_many_numbers_is_worth_a_look(tmp_path):
    path = write(tmp_path, funding=among(np.arange(ROWS) / 4, "halted"))
    [line] = prepare(path, tmp_path).worth_a_look
    assert line == "the column 'funding' isn't read and has the text 'halted' among numbers"
    assert "changes from 'halted' to 'resumed'" in refused(
        write(tmp_path, funding=among(np.arange(ROWS) / 4, "halted", "resumed")), tmp_path
    )


@pytest.mark.parametrize("form", ['"{}"', " {} ", '"{}""s"'])
def test_quotes_and_blanks_hide_no_text(tmp_path, form):
    text = bars(which=among(np.full(ROWS, 7), "ESZ4")).to_csv(index=False)
    (tmp_path / "x.csv").write_text(text.replace("ESZ4", form.format("ESZ4")))
    assert "from '7' to 'ESZ4" in refused(tmp_path / "x.csv", tmp_path)


def test_a_text_in_a_line_that_is_read_slowly_is_seen(tmp_path):
    text = bars(which=among(np.full(ROWS, 7), "ESZ4", at=6000))
    text["volume"] = text["volume"].astype(str) + np.where(text["which"] == "ESZ4", "e00000", "")
    text.to_csv(tmp_path / "x.csv", index=False)
    assert "from '7' to 'ESZ4'" in refused(tmp_path / "x.csv", tmp_path)


def test_lines_that_are_no_bars_tell_nothing(tmp_path):
    lines = bars(which=7, when="2024-01-02T10:00:00Z").to_csv(index=False).splitlines()
    lines[5000:5000] = [lines[0], lines[100].replace(",7,", ",ESZ4,") + ",too,many"]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    assert turned(tmp_path / "x.csv") == set()
    assert prepare(tmp_path / "x.csv", tmp_path).quarantined == {"unparseable": 2}


def test_numbers_times_and_gaps_need_no_second_look(tmp_path):
    names = {
        "power": "1.5e-7",
        "iso": "2024-01-02T10:00:00Z",
        "day": "Tue, 2 Jan 2024 10:00 PM",
        "flag": "True",
        "gap": "N/A",
        "amount": "$1.2M",
        "share": "1.5%",
    }
    path = write(tmp_path, **{name: among(np.full(ROWS, 7), of) for name, of in names.items()})
    assert turned(path) == set()
    assert prepare(path, tmp_path).n_rows == ROWS


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_in_one_file_and_texts_in_another_are_one_column(tmp_path, suffix):
    frames = bars(200, which=7), bars(200, "2021-01-01", which="ESZ4")
    for number, frame in enumerate(frames):
        path = tmp_path / "in" / f"{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    for files in (tmp_path / "in", [path, tmp_path / "in" / f"0.{suffix}"]):
        with pytest.raises(ColumnError, match=r"changes from '(7|ESZ4)' to '(7|ESZ4)'"):
            prepare_bars(files, tmp_path / "cache", BarRules(sort=True), HERE)
    prepare_bars(tmp_path / "in" / f"0.{suffix}", tmp_path / "cache", BarRules(), HERE)
    with pytest.raises(ColumnError, match="changes from '7' to 'ESZ4'"):
        prepare_bars(tmp_path / "in", tmp_path / "cache", BarRules(), HERE)


def test_what_is_ignored_may_hold_anything(tmp_path):
    path = write(tmp_path, which=among(np.full(ROWS, 7), "ESZ4"))
    assert prepare(path, tmp_path, rules=BarRules(ignore_columns=("which",))).n_rows == ROWS


ANY = st.text(st.sampled_from("0123456789.,:-+ eEtTzZkKmMaApPnNfFjJuU/#%$é"), max_size=12)


@given(st.lists(ANY, min_size=1, max_size=4))
@example(["4Z"])
@example(["91+30M"])
@example(["1E4T88,"])
@example(["+.t"])
@example(["0-9E+"])
@example(["4T4", "4Z4"])
@example(["1E5", "2E7", "2F7"])
@example(["Mar 24"])
@example(["4M4"])
@example(["2024-01-02T10:00:00Z", "2024-01-02T10:00:0éZ"])
@example(["True", "False", "True", "Tral"])
def test_no_word_is_passed_over_for_a_number(texts):
    written = [text.encode() for text in texts]
    stops = np.cumsum([len(text) for text in written])
    places = np.array([stops - [len(text) for text in written], stops], np.int64)
    data = np.frombuffer(b"".join(written) + bytes(8), np.uint8).copy()
    assert has_words(data, places, len(texts)) or not any(map(is_text, texts))
