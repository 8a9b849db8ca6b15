"""Bars pushed one by one give what a store of the same file holds, and refuse what it refuses."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import BadRowsError, ColumnError, KernelError, UsageError
from grandbatch.features import PRICES_AND_VOLUME, compute_rows, segment_starts

MINUTE = 60 * 10**9
START = pd.Timestamp("2024-01-01", tz="UTC").value
SHORT = {name: one.with_window(5, 4) for name, one in (("s", gb.STRATEGIC), ("t", gb.TACTICAL))}
OWN = gb.FeatureSet(
    "own", [gb.STRATEGIC.features[4], gb.ema(2), gb.TACTICAL.features[5]], sequence_length=3
)
SPOILED = {
    "unparseable": {"close": "none"},
    "missing": {"volume": None},
    "not_finite": {"high": float("inf")},
    "non_positive_price": {"low": -1.0},
    "ohlc_inconsistent": {"low": 1e6},
    "negative_volume": {"volume": -1.0},
    "duplicate_timestamp": {"timestamp": 0},
    "out_of_order": {"timestamp": -MINUTE},
}


def some_bars(n, seed, *, symbols=1, gaps=0.0, spoiled=0.0):
    """Bars of symbols that take turns at random, some after a gap, some bad; with what is wrong."""
    rng = np.random.default_rng(seed)
    time, price, found = [START] * symbols, [100.0] * symbols, []
    for _ in range(n):
        which = int(rng.integers(symbols))
        step = MINUTE * int(rng.integers(30, 300) if rng.random() < gaps else rng.integers(1, 4))
        opened = price[which]
        close = round(opened * float(np.exp(rng.normal(0, 0.01))), 4)
        bar = {
            "timestamp": time[which] + step,
            "symbol": f"S{which}",
            "open": opened,
            "high": round(max(opened, close) * (1 + 0.01 * rng.random()), 4),
            "low": round(min(opened, close) * (1 - 0.01 * rng.random()), 4),
            "close": close,
            "volume": float(rng.integers(0, 50)),
        }
        has_last = time[which] > START
        if has_last and rng.random() < spoiled:
            reason = str(rng.choice(list(SPOILED)))
            change = dict(SPOILED[reason])
            if "timestamp" in change:
                change["timestamp"] += time[which]
            found.append(({**bar, **change}, reason))
            continue
        time[which], price[which] = bar["timestamp"], close
        found.append((bar, None))
    return found


def push_all(live, bars):
    """Matrices by symbol and time, and how often each reason was given."""
    matrices, refused = {}, Counter()
    for bar, reason in bars:
        if reason is None:
            matrix = live.push(bar)
            if matrix is not None:
                matrices[bar["symbol"], bar["timestamp"]] = matrix
        else:
            with pytest.raises(BadRowsError, match=f"'{bar['symbol']}': {reason}"):
                live.push(bar)
            refused[reason] += 1
    return matrices, refused


def stored(bars, folder, feature_set, overlap, max_gap):
    source = Path(folder) / "bars.csv"
    frame = pd.DataFrame([bar for bar, _ in bars])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"]).dt.strftime("%Y-%m-%dT%H:%M:%S")
    frame.to_csv(source, index=False)
    return gb.build_store(
        source,
        Path(folder) / f"{overlap}.zarr",
        feature_set=feature_set,
        overlap=overlap,
        max_gap=max_gap,
        durable=False,
        scheduler="sync",
        rules=gb.BarRules(max_bad_fraction=1.0),
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([*SHORT.values(), OWN]),
    st.integers(1, 3),
    st.sampled_from([None, "20min"]),
    st.integers(0, 2**32),
)
def test_pushed_bars_give_the_windows_of_a_store_to_the_bit(feature_set, symbols, max_gap, seed):
    bars = some_bars(150 * symbols, seed, symbols=symbols, gaps=0.01, spoiled=0.05)
    live = gb.LiveFeatures(feature_set, max_gap=max_gap)
    matrices, refused = push_all(live, bars)
    with tempfile.TemporaryDirectory() as folder:
        every = stored(bars, folder, feature_set, feature_set.sequence_length - 1, max_gap)
        some = stored(bars, folder, feature_set, 0, max_gap)
        assert {k: v for k, v in every.attrs["quarantined"].items() if v} == dict(refused)
        assert len(every) == len(matrices)
        for store in (every, some):
            for window in range(len(store)):
                key = store.symbols[store.symbol[window]], int(store.end_time[window])
                assert matrices[key].tobytes() == store.matrices[window].tobytes()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([*SHORT.values(), OWN]), st.integers(0, 2**32), st.integers(46, 250))
def test_pushed_bars_give_the_rows_of_arrays_to_the_bit(feature_set, seed, n):
    bars = [bar for bar, _ in some_bars(n, seed, gaps=0.02)]
    columns = {name: np.array([bar[name] for bar in bars]) for name in PRICES_AND_VOLUME}
    times = np.array([bar["timestamp"] for bar in bars])
    starts = segment_starts(times, np.zeros(n, np.int32), 20 * MINUTE)
    rows = compute_rows(feature_set, columns, starts)
    live = gb.LiveFeatures(feature_set, max_gap="20min")
    L = feature_set.sequence_length
    for place, bar in enumerate(bars):
        matrix = live.push(bar)
        wanted = rows[max(0, place - L + 1) : place + 1]
        if matrix is None:
            # nan, too, where a segment began less than a window and its lookback ago
            assert len(wanted) < L or np.isnan(wanted).any()
        else:
            assert matrix.dtype == np.float32
            assert matrix.tobytes() == wanted.tobytes()


def test_the_built_in_sets_give_a_matrix_with_the_bar_that_completes_it():
    for name, needed in (("strategic", 88), ("tactical", 81)):
        live = gb.LiveFeatures(name)
        assert live.bars_needed == needed
        given_ = [live.push(bar) is not None for bar, _ in some_bars(needed + 2, 0)]
        assert given_ == [False] * (needed - 1) + [True] * 3


def test_a_matrix_is_the_callers_own():
    live = gb.LiveFeatures(SHORT["s"])
    bars = [bar for bar, _ in some_bars(60, 1)]
    first = [live.push(bar) for bar in bars[:50]][-1]
    kept = first.copy()
    first[:] = 7
    second = live.push(bars[50])
    np.testing.assert_array_equal(second[:-1], kept[1:])


def test_what_is_kept_does_not_grow_and_goes_through_pickle():
    live = gb.LiveFeatures("strategic")
    bars = [bar for bar, _ in some_bars(1_000, 2)]
    for bar in bars[:200]:
        live.push(bar)
    size = len(pickle.dumps(live))
    for bar in bars[200:-1]:
        live.push(bar)
    copy = pickle.loads(pickle.dumps(live))
    assert len(pickle.dumps(copy)) == size < 10_000
    assert copy.push(bars[-1]).tobytes() == live.push(bars[-1]).tobytes()


@pytest.mark.parametrize("max_gap", [None, "20min"])
def test_a_history_warms_up_to_the_same_matrices(max_gap, tmp_path):
    bars = some_bars(700, 3, symbols=3, gaps=0.004)
    live = gb.LiveFeatures(SHORT["s"], max_gap=max_gap)
    push_all(live, bars[:600])
    store_bars = pd.DataFrame([bar for bar, _ in bars[:600]])
    store_bars["timestamp"] = pd.to_datetime(store_bars["timestamp"], utc=True)
    warm = gb.LiveFeatures.from_bars(SHORT["s"], store_bars, max_gap=max_gap)
    wanted, _ = push_all(live, bars[600:])
    got, _ = push_all(warm, bars[600:])
    assert wanted
    assert {key: m.tobytes() for key, m in got.items()} == {
        key: m.tobytes() for key, m in wanted.items()
    }


def test_clean_bars_are_a_history(tmp_path):
    gb.create_large_dataset_simulation(tmp_path / "bars.csv", 300)
    frame = gb.read_bars(tmp_path / "bars.csv", cache=tmp_path / "cache").compute()
    live = gb.LiveFeatures.from_bars("strategic", frame.iloc[:-1])
    store = gb.build_store(tmp_path / "bars.csv", tmp_path / "s.zarr", overlap=47, durable=False)
    symbol = frame["symbol"].iloc[-1]
    matrix = live.push({**frame.iloc[-1].to_dict(), "symbol": symbol})
    assert matrix.tobytes() == store.matrices[len(store) - 1].tobytes()
    with pytest.raises(ColumnError, match=r"'volume_ratio' reads 'volume', .* they have timestamp"):
        gb.LiveFeatures.from_bars("strategic", frame.drop(columns="volume"))


def test_a_kernel_that_fails_leaves_the_bar_out():
    failing = []

    def kernel(close, first, out):
        if failing:
            raise ZeroDivisionError
        out[:] = close[first:] - close[first - 1 : -1]

    live = gb.LiveFeatures(gb.FeatureSet("own", [gb.Feature("change", 1, kernel)], 2))
    bars = [bar for bar, _ in some_bars(9, 4)]
    for bar in bars[:5]:
        live.push(bar)
    failing.append(True)
    with pytest.raises(KernelError, match="feature change raised ZeroDivisionError"):
        live.push(bars[5])
    failing.clear()
    close = [bar["close"] for bar in (*bars[3:5], *bars[6:])]
    live.push(bars[6])
    np.testing.assert_allclose(live.push(bars[7])[:, 0], np.diff(close[1:4]), rtol=1e-5)


@pytest.mark.parametrize("time", [None, pd.NaT, "soon", 2**70, 1.5, -(2**63)])
def test_a_bar_needs_a_time(time):
    bar = {**some_bars(1, 0)[0][0], "timestamp": time}
    with pytest.raises(BadRowsError, match=r"timestamp .*; it has none yet"):
        gb.LiveFeatures("strategic").push(bar)


@pytest.mark.parametrize("time", ["1/7/2024 10:00", "26/06/2024", "01-07-24 10:00", "1.7.2024"])
def test_a_date_whose_day_and_month_one_bar_cannot_tell_is_refused_not_guessed(time):
    live, bar = gb.LiveFeatures("strategic"), some_bars(1, 0)[0][0]
    with pytest.raises(BadRowsError, match=r"unparseable: .*its year first") as caught:
        live.push({**bar, "timestamp": time})
    assert caught.value.reason == "unparseable"
    assert "would quarantine" not in str(caught.value)  # it would read it, by the file's evidence
    live.push({**bar, "timestamp": "2024-07-01 10:00"})
    with pytest.raises(BadRowsError, match=r"its last one is of 2024-07-01T10:00:00Z"):
        live.push({**bar, "timestamp": "2024-07-01 09:30"})


@pytest.mark.parametrize("symbol", [None, "", " "])
def test_a_symbol_has_a_name_and_blanks_around_it_do_not_count(symbol):
    live = gb.LiveFeatures("strategic")
    bar = some_bars(1, 0)[0][0]
    with pytest.raises(BadRowsError, match="missing"):
        live.push({**bar, "symbol": symbol})
    live.push(bar)
    with pytest.raises(BadRowsError, match="duplicate_timestamp"):
        live.push({**bar, "symbol": " S0 "})


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="unknown feature set 'strategy'"):
        gb.LiveFeatures("strategy")
    with pytest.raises(UsageError, match="max_gap must be positive"):
        gb.LiveFeatures("strategic", max_gap=0)
    bar = {**some_bars(1, 0)[0][0], "low": -3.0}
    gb.LiveFeatures("strategic", allow_non_positive=True).push(bar)
