"""Live bars with extra columns and times: the rows of a whole segment, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import BadRowsError, ColumnError, UsageError
from grandbatch.features import compute_rows
from grandbatch.features.awkward import awkward_bars

NO_STARTS = np.empty(0, np.int64)


def premium(close, vwap, first, out):
    out[:] = close[first:] - vwap[first - 1 : -1]


MINE = gb.FeatureSet(
    "mine",
    [
        gb.column("funding"),
        gb.Feature("premium", 1, premium, ("close", "vwap")),
        *gb.time_of_day("America/New_York"),
        gb.indicators.sma(3, "vwap"),
    ],
    sequence_length=3,
)


def columns_of(n, seed=1):
    return awkward_bars(n, seed, ("timestamp", *gb.ALPHA158.inputs, "vwap", "funding"))


def bars_of(columns):
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def bar(**changes):
    return {**bars_of(columns_of(2))[0], **changes}


def without(name):
    return {key: value for key, value in bar().items() if key != name}


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 60), st.integers(0, 1_000))
def test_live_matrices_are_rows_of_the_whole_to_the_bit(n, seed):
    columns = columns_of(n, seed % 7)
    rows = compute_rows(MINE, columns, NO_STARTS)
    live = gb.LiveFeatures(MINE)
    begin = seed % n
    for place, each in enumerate(bars_of({k: v[begin:] for k, v in columns.items()}), begin):
        matrix = live.push(each)
        if place - begin >= MINE.lookback + 2:
            assert matrix.tobytes() == rows[place - 2 : place + 1].tobytes()
        else:
            assert matrix is None


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), "n/a", pd.NA])
def test_what_stands_where_an_extra_column_has_no_value(wrong):
    for how, value in (("zero", 0.0), ("last", 0.5)):
        live = gb.LiveFeatures(MINE.with_window(1), fill={"funding": how})
        first, *bars = bars_of(columns_of(6))
        live.push({**first, "funding": 0.25})
        live.push({**bars[0], "funding": 0.5})
        assert live.push({**bars[1], "funding": wrong})[0, 0] == value
        live.push({**bars[2], "funding": 0.75})
        assert live.push({**bars[3], "funding": wrong})[0, 0] == (0.75 if how == "last" else 0)


def test_the_last_value_is_that_of_the_symbols_last_bar_across_gaps():
    live = gb.LiveFeatures(MINE.with_window(1), fill={"funding": "last"}, max_gap="1h")
    bars = bars_of(columns_of(40))
    for place, each in enumerate(bars):
        live.push({**each, "symbol": "A", "funding": 0.5 if place == 3 else (place < 3) or None})
        live.push({**each, "symbol": "B", "funding": 0.125})
        with pytest.raises(BadRowsError, match="duplicate_timestamp"):
            live.push({**each, "symbol": "A", "funding": 9.0})
    later = [dict(each, timestamp=each["timestamp"] + 10**15) for each in bars[:4]]
    rows = [live.push({**each, "symbol": "A", "funding": None}) for each in later]
    assert rows[:2] == [None, None]
    assert rows[3][0, 0] == 0.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (without("vwap"), r"missing \(vwap\): .* vwap None;"),
        (bar(vwap="x"), r"unparseable \(vwap\)"),
        (bar(vwap=float("inf")), r"not_finite \(vwap\)"),
    ],
)
def test_a_bar_without_a_required_value_is_refused_and_changes_nothing(given, words):
    live = gb.LiveFeatures(MINE)
    with pytest.raises(BadRowsError, match=words):
        live.push(given)
    live.push(bar())


def test_bars_before_a_columns_first_value_are_refused_but_count_for_the_other_columns():
    live = gb.LiveFeatures(MINE.with_window(1), fill={"funding": "last", "vwap": "last"})
    bars = bars_of(columns_of(5))
    for wrong in (None, float("nan")):
        with pytest.raises(BadRowsError, match=r"missing \(vwap\).*values are remembered"):
            live.push({**bars[0], "vwap": wrong, "funding": 0.5, "symbol": str(wrong)})
    with pytest.raises(BadRowsError, match="duplicate_timestamp"):
        live.push({**bars[0], "symbol": "None"})
    for each in bars[1:4]:
        row = live.push({**each, "funding": None, "symbol": "None"})
    assert row[0, 0] == 0.5


def test_columns_that_a_build_requires_are_required_though_no_feature_reads_them():
    live = gb.LiveFeatures("strategic", extra=("trades",))
    with pytest.raises(BadRowsError, match=r"missing \(trades\)"):
        live.push(bar())
    live.push(bar(trades=3))
    with pytest.raises(UsageError, match="fill has 'spread', which extra doesn't name"):
        gb.LiveFeatures(MINE, fill={"spread": "zero"})


def test_a_history_may_have_its_times_as_its_index():
    columns = columns_of(9)
    frame = pd.DataFrame({**columns, "timestamp": pd.to_datetime(columns["timestamp"], utc=True)})
    rows = compute_rows(MINE, columns, NO_STARTS)
    for history in (frame[:8], frame[:8].set_index("timestamp")):
        live = gb.LiveFeatures.from_bars(MINE, history)
        assert live.push(frame.iloc[8].to_dict()).tobytes() == rows[6:].tobytes()
    with pytest.raises(ColumnError, match="reads 'vwap', which the bars of the history don't have"):
        gb.LiveFeatures.from_bars(MINE, frame.drop(columns="vwap"))
