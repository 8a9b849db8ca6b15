"""Columns that are no part of a bar: those that tell instruments apart, those that choose rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from advice import follow, offers

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.bars.form.instruments import is_text
from grandbatch.errors import ColumnError, InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
CONTRACTS = ("ESH24", "ESM24", "ESU24")


def lines(names, header="contract", start=0, n=40, step=1):
    """Bars a minute, `n` for each value of a column."""
    yield f"timestamp,{header},open,high,low,close,volume"
    times = pd.date_range("2024-01-02", periods=n * len(names) * step, freq="min")[start::step]
    for i, time in enumerate(times[: n * len(names)]):
        yield f"{time:%Y-%m-%d %H:%M},{names[i // n]},{10 + i},{12 + i},{9 + i},{11 + i},{i}"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else "\n".join(text) + "\n")
    return path


def prepare(inputs, tmp_path, block_bytes=None, **rules):
    rules = rules.pop("rules", None) or BarRules(**rules)
    return prepare_bars(inputs, tmp_path / "cache", rules, HERE, block_bytes)


def refused(inputs, tmp_path, **rules):
    with pytest.raises(ColumnError) as caught:
        prepare(inputs, tmp_path, **rules)
    return str(caught.value)


@pytest.mark.parametrize("block_bytes", [None, 100, 1000])
@pytest.mark.parametrize("header", ["contract", "Exchange", "my thing", "a,b"])
def test_a_text_column_that_changes_is_an_error_with_flags_that_work(tmp_path, header, block_bytes):
    named = f'"{header}"' if "," in header else header
    path = write(tmp_path / "x.csv", lines(CONTRACTS, named))
    text = refused(path, tmp_path, block_bytes=block_bytes)
    assert f"the column {header!r} isn't read and changes from 'ESH24' to 'ESM24'" in text
    apart, joined = [prepare(path, tmp_path, rules=rules) for rules in follow(text)]
    assert apart.symbols == CONTRACTS
    assert apart.n_rows == joined.n_rows == 120
    assert joined.symbols == ("default",)


@pytest.mark.parametrize(
    "values",
    [
        ("ESH24",) * 3,
        ("1", "2", "3"),
        ("", "", ""),
        ("", "ESH24", ""),
        ("2024-01-02", "2024-01-03", "2024-01-04"),
        ("Jan 2, 2024", "Jan 3, 2024", "Jan 4, 2024 9:30 AM"),
        ("True", "False", "True"),
        ("1.2M", "3K", "5%"),
        ("nan", "NA", "null"),
    ],
)
def test_a_column_that_is_constant_or_no_text_is_read_over(tmp_path, values):
    path = write(tmp_path / "x.csv", lines([f'"{value}"' for value in values], "thing"))
    assert prepare(path, tmp_path).n_rows == 120


def test_a_column_of_a_telling_name_may_hold_numbers(tmp_path):
    path = write(tmp_path / "x.csv", lines(("202403", "202406"), "Contract"))
    text = refused(path, tmp_path)
    apart, _ = [prepare(path, tmp_path, rules=rules) for rules in follow(text)]
    assert apart.symbols == ("202403", "202406")


@pytest.mark.parametrize(
    "header",
    [
        *("instrument_id", "secid", "Scrip Code", "Stock ID", "token", "strike", "交易代码"),
        *("Expiration Date", "contract month", "lastTradeDateOrContractMonth", "publisher_id"),
    ],
)
def test_numbers_that_stand_for_instruments_are_watched(tmp_path, header):
    path = write(tmp_path / "x.csv", lines(("20240315", "20240621"), header))
    [apart, _] = [prepare(path, tmp_path, rules=rules) for rules in follow(refused(path, tmp_path))]
    assert apart.symbols == ("20240315", "20240621")


@pytest.mark.parametrize("header", ["trade_id", "id", "open_interest", "days_to_expiry", "rtype"])
def test_numbers_that_measure_something_are_read_over(tmp_path, header):
    path = write(tmp_path / "x.csv", lines(("7", "8"), header))
    assert prepare(path, tmp_path).n_rows == 80


def test_a_column_without_a_name_is_not_offered_as_the_symbol(tmp_path):
    path = write(tmp_path / "x.csv", lines(("A", "B"), ""))
    text = refused(path, tmp_path)
    assert "symbol=" not in text
    for rules in follow(text):
        assert prepare(path, tmp_path, rules=rules).n_rows == 80


def test_one_changed_value_is_found_anywhere_also_on_a_line_that_the_fast_reader_leaves(tmp_path):
    for place in (1, 57, 120):
        for text in (",B,", ',"B",', ',"B""",', f",B,{'0' * 25}"):
            rows = list(lines(("A",) * 3, "venue"))
            rows[place] = rows[place].replace(",A,", text)
            path = write(tmp_path / "x.csv", rows)
            assert "'venue'" in refused(path, tmp_path)


def test_a_row_that_is_no_bar_changes_no_column(tmp_path):
    text = list(lines(("A",) * 3, "venue"))
    text[30] = "timestamp,venue,open,high,low,close,volume"
    path = write(tmp_path / "x.csv", text)
    assert prepare(path, tmp_path, max_bad_fraction=0.1).n_rows == 119


def test_a_column_may_change_from_symbol_to_symbol_but_not_within_one(tmp_path):
    rows = ["timestamp,symbol,exchange,open,high,low,close,volume"]
    for i in range(60):
        rows += [
            f"2024-01-02 {i // 60:02d}:{i % 60:02d},{symbol},{where},10,12,9,11,5"
            for symbol, where in (("A", "XNYS"), ("B", "XNAS"))
        ]
    path = write(tmp_path / "x.csv", rows)
    assert prepare(path, tmp_path).symbols == ("A", "B")
    rows[-1] = rows[-1].replace("XNAS", "XLON")
    text = refused(write(tmp_path / "y.csv", rows), tmp_path)
    assert "'exchange' isn't read and changes for B from 'XNAS' to 'XLON'" in text
    for rules in follow(text):
        assert prepare(tmp_path / "y.csv", tmp_path, rules=rules).n_rows == 120


def test_where_joined_rows_are_out_of_order_one_series_isnt_offered(tmp_path):
    rows = ["timestamp,symbol,exchange,open,high,low,close,volume"]
    for i in range(60):
        rows += [f"2024-01-02 00:{i:02d},A,{where},10,12,9,11,5" for where in ("XNYS", "XNAS")]
    path = write(tmp_path / "x.csv", rows)
    text = refused(path, tmp_path)
    assert offers(text) == ["--where exchange=XNYS"]
    [bars] = [prepare(path, tmp_path, rules=rules) for rules in follow(text)]
    assert (bars.n_rows, bars.left_out, bars.quarantined) == (60, 60, {})


def test_several_changing_columns_are_named_with_flags_for_all(tmp_path):
    rows = list(lines(CONTRACTS, "note,Contract"))
    rows = [
        rows[0],
        *(f"{r.split(',')[0]},n{i},{r.split(',', 1)[1]}" for i, r in enumerate(rows[1:])),
    ]
    path = write(tmp_path / "x.csv", rows)
    text = refused(path, tmp_path)
    apart, joined = [prepare(path, tmp_path, rules=rules) for rules in follow(text)]
    assert (apart.symbols, joined.symbols) == (CONTRACTS, ("default",))


def test_a_column_that_changes_from_file_to_file_is_found_too(tmp_path):
    for i, name in enumerate(CONTRACTS):
        write(
            tmp_path / "in" / f"{i}.csv",
            list(lines(CONTRACTS))[:1] + list(lines(CONTRACTS))[1 + 40 * i : 41 + 40 * i],
        )
        assert name
    text = refused(tmp_path / "in", tmp_path)
    apart, joined = [prepare(tmp_path / "in", tmp_path, rules=rules) for rules in follow(text)]
    assert (apart.symbols, joined.symbols) == (CONTRACTS, ("default",))


@pytest.mark.parametrize("kind", ["texts", "categories"])
def test_parquet_columns_are_watched_like_those_of_csv(tmp_path, kind):
    frame = pd.read_csv(write(tmp_path / "x.csv", lines(CONTRACTS)))
    frame["weight"] = np.arange(len(frame))
    if kind == "categories":
        frame["contract"] = frame["contract"].astype("category")
    path = tmp_path / "x.parquet"
    frame.to_parquet(path)
    text = refused(path, tmp_path)
    apart, joined = [prepare(path, tmp_path, rules=rules) for rules in follow(text)]
    assert (apart.symbols, joined.symbols) == (CONTRACTS, ("default",))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("key", ["symbol", "Ticker"])
def test_hive_folders_are_columns(tmp_path, suffix, key):
    frame = pd.read_csv(write(tmp_path / "x.csv", lines(CONTRACTS)))
    root = tmp_path / "hive"
    for name, part in frame.groupby("contract"):
        folder = root / f"{key}={name}%2FX" / "year=2024"
        folder.mkdir(parents=True)
        bars = part.drop(columns="contract")
        getattr(bars, f"to_{suffix}")(folder / f"part-0.{suffix}", index=False)
    bars = prepare(root, tmp_path)
    assert bars.symbols == tuple(f"{name}/X" for name in CONTRACTS)
    assert bars.n_rows == 120
    one = prepare(root / f"{key}=ESM24%2FX" / "year=2024" / f"part-0.{suffix}", tmp_path)
    assert one.symbols == ("ESM24/X",)


def test_a_hive_folder_of_another_name_is_watched_and_can_be_the_symbol(tmp_path):
    frame = pd.read_csv(write(tmp_path / "x.csv", lines(CONTRACTS)))
    for name, part in frame.groupby("contract"):
        write(
            tmp_path / "hive" / f"root={name}" / "a.csv",
            part.drop(columns="contract").to_csv(index=False),
        )
    text = refused(tmp_path / "hive", tmp_path)
    apart, joined = [prepare(tmp_path / "hive", tmp_path, rules=rules) for rules in follow(text)]
    assert (apart.symbols, joined.symbols) == (CONTRACTS, ("default",))
    chosen = prepare(tmp_path / "hive", tmp_path, where={"root": "ESM24"})
    assert (chosen.n_rows, chosen.left_out) == (40, 80)


def test_a_renamed_hive_folder_is_another_input(tmp_path):
    write(tmp_path / "hive" / "symbol=A" / "x.csv", lines(("1",), "n"))
    assert prepare(tmp_path / "hive", tmp_path).symbols == ("A",)
    (tmp_path / "hive" / "symbol=A").rename(tmp_path / "hive" / "symbol=B")
    assert prepare(tmp_path / "hive", tmp_path).symbols == ("B",)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("([A-Z]+)-1m-", ("BTCUSDT", "ETHUSDT")),
        ("^([A-Z]+?)USDT", ("BTC", "ETH")),
        (r"in/(?:\w+)-1m-(\d{4})", ("2024",)),
    ],
)
def test_symbols_come_from_a_pattern_over_the_path(tmp_path, pattern, names):
    rows = list(lines(("x", "x"), "n"))
    for name in ("BTCUSDT", "ETHUSDT"):
        for month in (0, 1):
            part = [rows[0], *rows[1 + 40 * month : 41 + 40 * month]]
            write(tmp_path / "in" / f"{name}-1m-2024-0{month + 1}.csv", part)
    inputs = tmp_path / "in" if len(names) == 2 else tmp_path / "in" / "BTCUSDT-1m-2024-01.csv"
    assert prepare(inputs, tmp_path, symbol_from=pattern).symbols == names


def test_a_pattern_that_finds_nothing_is_an_error_and_a_renamed_folder_another_input(tmp_path):
    write(tmp_path / "AA" / "x.csv", lines(("1",), "n"))
    pattern = "/([A-Z]{2})/"
    assert prepare(tmp_path / "AA", tmp_path, symbol_from=pattern).symbols == ("AA",)
    (tmp_path / "AA").rename(tmp_path / "BB")
    assert prepare(tmp_path / "BB", tmp_path, symbol_from=pattern).symbols == ("BB",)
    with pytest.raises(InputError, match="finds no symbol"):
        prepare(tmp_path / "BB", tmp_path, symbol_from="([0-9]+)USD")


PUBLISHERS = ["ts_event,publisher_id,open,high,low,close,volume,symbol"]
for _i in range(60):
    PUBLISHERS += [
        f"2024-03-04T14:{_i:02d}:00Z,{p},10,12,9,11,{100 * p},{s}" for p in (2, 39) for s in "AB"
    ]


def test_rows_are_chosen_by_a_columns_text_and_counted(tmp_path):
    path = write(tmp_path / "x.csv", PUBLISHERS)
    [rules] = follow(refused(path, tmp_path))
    assert rules == BarRules(where={"publisher_id": "2"})
    bars = prepare(path, tmp_path, rules=rules)
    assert (bars.n_rows, bars.left_out, bars.quarantined) == (120, 120, {})
    assert set(bars.read(0, 120, ("volume",))["volume"]) == {200}
    both = prepare(path, tmp_path, 500, where={"Publisher_ID": ["39"], "symbol": ["B", "C"]})
    assert (both.symbols, both.n_rows, both.left_out) == (("B",), 60, 180)
    sort = prepare(path, tmp_path, where={"publisher_id": 39}, sort=True)
    assert set(sort.read(0, 120, ("volume",))["volume"]) == {3900}


def test_rows_are_chosen_in_parquet_as_in_csv(tmp_path):
    frame = pd.read_csv(write(tmp_path / "x.csv", PUBLISHERS))
    frame.to_parquet(tmp_path / "x.parquet")
    bars = prepare(tmp_path / "x.parquet", tmp_path, where={"publisher_id": "2"})
    assert (bars.n_rows, bars.left_out) == (120, 120)


def test_torn_rows_are_quarantined_and_bad_rows_of_others_left_out(tmp_path):
    rows = [*PUBLISHERS]
    rows[5] = "torn"
    rows[7] = rows[7].replace(",10,12,", ",10,,") if ",39," in rows[7] else rows[7]
    path = write(tmp_path / "x.csv", rows)
    bars = prepare(path, tmp_path, where={"publisher_id": "2"}, max_bad_fraction=0.1)
    assert [(bad.line, bad.reason) for bad in iter_bad_rows(bars.path)] == [(6, "unparseable")]


@pytest.mark.parametrize(("name", "text"), [("venue", "no column"), ("close", "time or a number")])
def test_a_column_that_rows_cant_be_chosen_by_is_an_error(tmp_path, name, text):
    path = write(tmp_path / "x.csv", PUBLISHERS)
    assert text in refused(path, tmp_path, where={name: "2"})


def test_rows_of_which_none_is_chosen_are_an_error(tmp_path):
    path = write(tmp_path / "x.csv", PUBLISHERS)
    with pytest.raises(InputError, match="none of 240 rows has publisher_id=7"):
        prepare(path, tmp_path, where={"publisher_id": "7"})


def test_lists_beside_the_bars_are_passed_over_and_lists_for_prices_an_error(tmp_path):
    frame = pd.read_csv(write(tmp_path / "x.csv", lines(("A",))))
    table = pa.Table.from_pandas(frame.drop(columns="contract"))
    lists = pa.array([[1.0, 2.0]] * len(frame))
    pq.write_table(table.append_column("book", lists), tmp_path / "beside.parquet")
    assert prepare(tmp_path / "beside.parquet", tmp_path).n_rows == 40
    at = table.schema.get_field_index("open")
    pq.write_table(table.set_column(at, "open", lists), tmp_path / "price.parquet")
    assert "'open' holds list<" in refused(tmp_path / "price.parquet", tmp_path)


@pytest.mark.parametrize("text", ["ESH24", "XNYS", "B", "Z24", "DEC24", "Dec 2024", "note", "Ω"])
def test_words_are_texts(text):
    assert is_text(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.5e3", "$1,200.50", "-3%", "09:30", "2024-01-02T09:30Z", "Jan 2, 2024", "n/a"],
)
def test_amounts_times_and_gaps_are_no_texts(text):
    assert not is_text(text)
