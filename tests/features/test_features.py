"""Feature sets check themselves, and rows are the same to the bit however the bars are cut up."""

import json
import pickle
import subprocess
import sys
from itertools import pairwise

import dask
import dask.dataframe as dd
import numpy as np
import oracles
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch.errors import ColumnError, InputError, UsageError
from grandbatch.features import (
    STRATEGIC,
    TACTICAL,
    Feature,
    FeatureSet,
    add_features,
    compute_rows,
    resolve_feature_set,
    segment_starts,
)
from grandbatch.indicators import ema, wilder_rsi

BUILT_IN = pytest.mark.parametrize("feature_set", [STRATEGIC, TACTICAL], ids=lambda s: s.name)
NO_STARTS = np.empty(0, np.int64)


def bar_range(high, low, first, out):
    """A user's kernel: the range of the bar two before, to tell lookbacks apart."""
    out[:] = (high - low)[first - 2 : len(high) - 2]


OWN = FeatureSet(
    "own",
    [
        Feature("bar_range", 2, bar_range, inputs=("high", "low"), version=3),
        STRATEGIC.features[4],
        TACTICAL.features[5],
    ],
    sequence_length=10,
)


def frame_of(segments, gap="7D", unit="ns"):
    """Bars of [(symbol, bars), …] as a frame; segments of one symbol lie `gap` apart."""
    parts, time = [], pd.Timestamp("2024-01-01", tz="UTC")
    for symbol, bars in segments:
        n = len(bars["close"])
        times = pd.date_range(time, periods=n, freq="5min").as_unit(unit)
        parts.append(pd.DataFrame({"timestamp": times, "symbol": symbol, **bars}))
        time = times[-1] + pd.Timedelta(gap) if n else time
    return pd.concat(parts, ignore_index=True).astype({"symbol": "string[pyarrow]"})


def cut_frame(frame, lengths):
    """A Dask frame whose partitions have these lengths."""
    ends = np.cumsum([0, *lengths])
    assert ends[-1] == len(frame)
    parts = [frame.iloc[a:b] for a, b in pairwise(ends)]
    return dd.from_map(lambda k: parts[k], range(len(parts)), meta=frame.iloc[:0])


def same_bits(got, wanted):
    got, wanted = np.ascontiguousarray(got), np.ascontiguousarray(wanted)
    assert got.dtype == wanted.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))


# --- sets ---------------------------------------------------------------------------------------


def test_the_built_in_sets_are_those_of_the_contract():
    assert (STRATEGIC.n_features, STRATEGIC.lookback) == (13, 40)
    assert (STRATEGIC.sequence_length, STRATEGIC.overlap, STRATEGIC.stride) == (48, 12, 36)
    assert (TACTICAL.n_features, TACTICAL.lookback) == (7, 21)
    assert (TACTICAL.sequence_length, TACTICAL.overlap, TACTICAL.stride) == (60, 15, 45)
    assert STRATEGIC.feature_names[3] == "momentum"
    assert TACTICAL.feature_names[4] == "fvg_mitigation_signal"
    assert STRATEGIC.inputs == ("close", "volume")
    assert TACTICAL.inputs == ("high", "low", "close", "volume")
    assert STRATEGIC.feature_versions == (1,) * 13


def test_a_set_is_found_by_its_name_or_is_itself():
    assert resolve_feature_set("strategic") is STRATEGIC
    assert resolve_feature_set("tactical") is TACTICAL
    assert resolve_feature_set(OWN) is OWN


@pytest.mark.parametrize("wrong", ["Strategic", "", None, 3, ["strategic"]])
def test_an_unknown_set_is_an_error_that_names_the_known_ones(wrong):
    with pytest.raises(UsageError, match="strategic or tactical or alpha158"):
        resolve_feature_set(wrong)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "close"}, "columns of bars"),
        ({"lookback": -1}, "lookback"),
        ({"lookback": 1.5}, "lookback"),
        ({"version": 0}, "version"),
        ({"kernel": None}, "callable"),
        ({"inputs": ()}, "inputs"),
        ({"inputs": ("close", "symbol")}, "symbol, which is a text"),
        ({"inputs": (" ",)}, "inputs"),
        ({"inputs": ("close", "close")}, "inputs"),
    ],
)
def test_a_feature_that_makes_no_sense_is_refused(change, words):
    fields = {"name": "x", "lookback": 2, "kernel": bar_range, "inputs": ("high", "low")}
    with pytest.raises(UsageError, match=words):
        Feature(**{**fields, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name"),
        ({"features": []}, "at least one"),
        ({"features": ["rsi"]}, "at least one"),
        ({"features": [OWN.features[0], OWN.features[0]]}, "two features named bar_range"),
        ({"sequence_length": 0}, "sequence_length"),
        ({"overlap": -1}, "overlap"),
        ({"overlap": 10}, "smaller than"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(change, words):
    fields = {"name": "x", "features": OWN.features, "sequence_length": 10, "overlap": 0}
    with pytest.raises(UsageError, match=words):
        FeatureSet(**{**fields, **change})


def test_other_windows_change_nothing_else():
    other = STRATEGIC.with_window(overlap=47)
    assert (other.sequence_length, other.stride) == (48, 1)
    assert STRATEGIC.with_window(96).sequence_length == 96
    assert other.describe() == STRATEGIC.describe()
    assert STRATEGIC.with_window() == STRATEGIC
    with pytest.raises(UsageError, match="smaller than"):
        STRATEGIC.with_window(sequence_length=12)


def test_a_description_goes_through_json_and_tells_sets_and_versions_apart():
    for each in (STRATEGIC, TACTICAL, OWN):
        assert json.loads(json.dumps(each.describe())) == each.describe()
    newer = FeatureSet("own", [Feature("bar_range", 2, bar_range, ("high", "low"), 4)], 10)
    older = FeatureSet("own", [Feature("bar_range", 2, bar_range, ("high", "low"), 3)], 10)
    assert newer.describe() != older.describe()


@pytest.mark.parametrize("feature_set", [STRATEGIC, TACTICAL, OWN], ids=lambda s: s.name)
def test_sets_pickle(feature_set):
    assert pickle.loads(pickle.dumps(feature_set)) == feature_set


def test_importing_the_features_loads_neither_dask_nor_pandas_nor_numba():
    code = (
        "import grandbatch.features, sys;"
        "raise SystemExit(bool({'dask', 'pandas', 'numba', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- rows over arrays ---------------------------------------------------------------------------


@pytest.mark.slow
@BUILT_IN
def test_rows_are_the_oracles_within_each_segment(feature_set):
    segments = [oracles.random_bars(n, n) for n in (200, 1, 41, 40, 22, 21, 3, 120)]
    joined = {name: np.concatenate([bars[name] for bars in segments]) for name in oracles.NAMES}
    starts = np.cumsum([len(bars["close"]) for bars in segments])[:-1]
    got = compute_rows(feature_set, joined, starts, 0)
    wanted = [oracles.ROWS[feature_set.name](bars) for bars in segments]
    oracles.assert_agrees(got, np.concatenate(wanted))
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


@pytest.mark.parametrize("feature_set", [STRATEGIC, TACTICAL, OWN], ids=lambda s: s.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_after_context_are_those_of_the_whole(feature_set, data):
    bars = oracles.random_bars(500, 1)
    drawn = data.draw(st.sets(st.integers(1, 499), max_size=6))
    starts = np.array(sorted(drawn), np.int64)
    whole = compute_rows(feature_set, bars, starts)
    first = data.draw(st.integers(0, 500))
    begin = max(0, first - feature_set.lookback)
    part = compute_rows(
        feature_set,
        {name: values[begin:] for name, values in bars.items()},
        starts[starts >= begin] - begin,
        first - begin,
    )
    same_bits(part, whole[first:])


@BUILT_IN
def test_windows_cut_from_rows_are_the_oracles(feature_set):
    segments = [oracles.random_bars(n, n) for n in (200, 80, 150)]
    length, stride = feature_set.sequence_length, feature_set.stride
    cut = []
    for bars in segments:
        rows = compute_rows(feature_set, bars, NO_STARTS)
        begins = range(feature_set.lookback, len(rows) - length + 1, stride)
        cut += [rows[begin : begin + length] for begin in begins]
    wanted = oracles.windows(segments, feature_set.name, length, feature_set.overlap)
    assert len(cut) > 4
    oracles.assert_agrees(np.array(cut), wanted)


def test_a_start_at_row_0_changes_nothing():
    bars = oracles.random_bars(100)
    same_bits(
        compute_rows(TACTICAL, bars, np.array([0, 50])),
        compute_rows(TACTICAL, bars, np.array([50])),
    )


def test_no_bars_give_no_rows():
    bars = {name: np.empty(0) for name in oracles.NAMES}
    assert compute_rows(STRATEGIC, bars, NO_STARTS).shape == (0, 13)


@BUILT_IN
def test_only_the_declared_inputs_are_needed(feature_set):
    bars = oracles.random_bars(100)
    needed = {name: bars[name] for name in feature_set.inputs}
    same_bits(
        compute_rows(feature_set, needed, NO_STARTS), compute_rows(feature_set, bars, NO_STARTS)
    )


@BUILT_IN
def test_a_feature_alone_has_the_bits_it_has_in_its_set_and_more_rows(feature_set):
    bars = oracles.random_bars(150, 2)
    whole = compute_rows(feature_set, bars, NO_STARTS)
    for place, feature in enumerate(feature_set.features):
        alone = FeatureSet("alone", [feature], 1)
        column = compute_rows(alone, {n: bars[n] for n in feature.inputs}, NO_STARTS)[:, 0]
        same_bits(column[feature_set.lookback :], whole[feature_set.lookback :, place])
        assert np.isnan(column[: feature.lookback]).all()
        assert not np.isnan(column[feature.lookback :]).any()


@BUILT_IN
def test_a_declared_lookback_is_exactly_what_a_feature_reads(feature_set):
    bars = oracles.random_bars(1500, 4)
    rng = np.random.default_rng(0)
    for feature in feature_set.features:
        alone = FeatureSet("alone", [feature], 1)
        whole = compute_rows(alone, bars, NO_STARTS)
        oldest_counts = 0
        for t in range(feature.lookback, 1500):
            begin = t - feature.lookback
            own = {name: values[begin : t + 1].copy() for name, values in bars.items()}
            same_bits(compute_rows(alone, own, NO_STARTS)[-1], whole[t])
            for name in feature.inputs:
                own[name][0] *= rng.uniform(0.97, 1.03)
            oldest_counts += bool((compute_rows(alone, own, NO_STARTS)[-1] != whole[t]).any())
            if oldest_counts and t > 150:
                break
        assert oldest_counts, feature.name


def test_a_users_set_mixes_its_own_kernels_with_built_in_ones():
    bars = oracles.random_bars(200, 7)
    got = compute_rows(OWN, bars, np.array([120]))
    assert OWN.lookback == 15
    assert np.isnan(got[:15]).all()
    assert np.isnan(got[120:135]).all()
    wanted = (bars["high"] - bars["low"]).astype(np.float32)
    same_bits(got[15:120, 0], wanted[13:118])
    same_bits(got[135:, 0], wanted[133:198])
    same_bits(got[40:120, 1], compute_rows(STRATEGIC, bars, np.array([120]))[40:120, 4])
    same_bits(got[21:120, 2], compute_rows(TACTICAL, bars, np.array([120]))[21:120, 5])


def test_reordered_built_in_features_keep_their_own_values():
    bars = oracles.random_bars(120)
    backwards = FeatureSet("backwards", STRATEGIC.features[::-1], 48)
    same_bits(
        compute_rows(backwards, bars, NO_STARTS), compute_rows(STRATEGIC, bars, NO_STARTS)[:, ::-1]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bar_that_is_not_finite_is_an_error_that_names_it(value):
    bars = oracles.random_bars(100)
    bars["volume"] = bars["volume"].copy()
    bars["volume"][57] = value
    with pytest.raises(InputError, match=r"volume is .* at row 57"):
        compute_rows(STRATEGIC, bars, NO_STARTS)


def test_a_segment_begins_where_the_symbol_changes_or_the_gap_is_too_large():
    time = np.array([0, 10, 20, 40, 5, 15], np.int64)
    symbol = np.array([0, 0, 0, 0, 1, 1], np.int8)
    assert segment_starts(time, symbol).tolist() == [4]
    assert segment_starts(time, symbol, 10).tolist() == [3, 4]
    assert segment_starts(time, symbol, 20).tolist() == [4]
    assert segment_starts(time, symbol, 9).tolist() == [1, 2, 3, 4, 5]
    assert segment_starts(time[:0], symbol[:0], 9).tolist() == []


# --- recursive indicators -----------------------------------------------------------------------


def endless(close, period):
    """Recursions over all history, in plain floats: EMA, and Wilder's RSI in 0..1."""
    average, gain, loss = close[0], 0.0, 0.0
    averages, rsis = [average], [1.0]
    for before, now in pairwise(close):
        average += 2 / (period + 1) * (now - average)
        gain += (max(now - before, 0.0) - gain) / period
        loss += (max(before - now, 0.0) - loss) / period
        averages.append(average)
        rsis.append(gain / (gain + loss) if loss > 0 else 1.0)
    return np.array([averages, rsis]).T


@pytest.mark.parametrize("period", [5, 12, 14, 26])
def test_the_finite_form_of_a_recursion_is_the_infinite_one_to_float32(period):
    bars = oracles.random_bars(1500, period)
    both = FeatureSet("recursive", [ema(period), wilder_rsi(period)], 10)
    got = compute_rows(both, bars, NO_STARTS)[both.lookback :]
    wanted = endless(bars["close"].tolist(), period)[both.lookback :]
    np.testing.assert_allclose(got, wanted.astype(np.float32), rtol=1.3e-7, atol=6e-8)


def test_the_stated_lookbacks_of_recursions_hold():
    assert [ema(12).lookback, ema(26).lookback, wilder_rsi(14).lookback] == [125, 270, 280]


@pytest.mark.parametrize("period", [1, 0, 2.5, "14", True])
def test_a_recursion_needs_a_period_of_at_least_two(period):
    for indicator in (ema, wilder_rsi):
        with pytest.raises(UsageError, match="period"):
            indicator(period)


def test_recursions_pickle_and_do_not_depend_on_where_a_run_begins():
    both = pickle.loads(pickle.dumps(FeatureSet("recursive", [ema(5), wilder_rsi(5)], 10)))
    bars = oracles.random_bars(700)
    whole = compute_rows(both, bars, NO_STARTS)
    part = compute_rows(both, {n: x[301:] for n, x in bars.items()}, NO_STARTS)
    same_bits(part[both.lookback :], whole[301 + both.lookback :])


# --- the route over a Dask frame ----------------------------------------------------------------


def many_segments():
    lengths = [("A", 300), ("A", 30), ("B", 250), ("B", 41), ("C", 5), ("D", 170)]
    return [(symbol, oracles.random_bars(n, n)) for symbol, n in lengths]


def wanted_rows(feature_set, segments):
    return np.concatenate([compute_rows(feature_set, bars, NO_STARTS) for _, bars in segments])


@pytest.mark.slow
@BUILT_IN
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("keep_bars", [True, False])
@pytest.mark.parametrize(
    "lengths", [[796], [200, 300, 296], [1, 0, 39, 41, 500, 0, 210, 5], [4] * 199]
)
def test_any_partitioning_gives_the_bits_of_one(feature_set, scheduler, keep_bars, lengths):
    segments = many_segments()
    frame = frame_of(segments)
    result = add_features(
        cut_frame(frame, lengths),
        feature_set.name,
        max_gap="1D",
        keep_bars=keep_bars,
        partition_rows=lengths,
    )
    got = result.compute(scheduler=scheduler)
    names = list(feature_set.feature_names)
    assert list(got.columns) == (list(frame.columns) + names if keep_bars else names)
    same_bits(got[names].to_numpy(), wanted_rows(feature_set, segments))
    pd.testing.assert_frame_equal(result._meta.iloc[:0], got.iloc[:0], check_index_type=False)
    if keep_bars:
        pd.testing.assert_frame_equal(got[list(frame.columns)], frame)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_partitionings_with_unknown_lengths_give_the_bits_of_one(data):
    segments = many_segments()
    cuts = sorted(data.draw(st.lists(st.integers(0, 796), max_size=8)))
    lengths = np.diff([0, *cuts, 796]).tolist()
    result = add_features(
        cut_frame(frame_of(segments), lengths), OWN, max_gap="1D", keep_bars=False
    )
    got = result.compute(scheduler="sync")
    same_bits(got.to_numpy(), wanted_rows(OWN, segments))


def test_without_max_gap_only_a_new_symbol_begins_a_segment():
    one, two, three = (oracles.random_bars(n, n) for n in (100, 90, 80))
    frame = frame_of([("A", one), ("A", two), ("B", three)])
    joined = {name: np.concatenate([one[name], two[name]]) for name in one}
    got = add_features(cut_frame(frame, [150, 120]), TACTICAL).compute(scheduler="sync")
    wanted = wanted_rows(TACTICAL, [("A", joined), ("B", three)])
    same_bits(got[list(TACTICAL.feature_names)[:6]].to_numpy(), wanted[:, :6])


def test_a_gap_of_exactly_max_gap_is_none():
    segments = [("A", oracles.random_bars(50, 1)), ("A", oracles.random_bars(60, 2))]
    frame = frame_of(segments, gap="2h")
    for gap, lacking in (("2h", 21), (pd.Timedelta("119min"), 42), (np.timedelta64(2, "h"), 21)):
        result = add_features(cut_frame(frame, [45, 65]), TACTICAL, max_gap=gap, keep_bars=False)
        assert int(result.isna().all(axis=1).sum().compute(scheduler="sync")) == lacking


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_of_any_unit_are_measured_alike(unit):
    segments = many_segments()
    source = cut_frame(frame_of(segments, unit=unit), [398, 398])
    got = add_features(source, TACTICAL, max_gap="1D", keep_bars=False).compute(scheduler="sync")
    same_bits(got.to_numpy(), wanted_rows(TACTICAL, segments))


@pytest.mark.parametrize("dtype", ["category", "string[pyarrow]", "object"])
def test_symbols_of_any_type_are_told_apart(dtype):
    segments = many_segments()
    frame = frame_of(segments)
    frame["symbol"] = frame["symbol"].astype(dtype)
    with dask.config.set({"dataframe.convert-string": False}):
        source = cut_frame(frame, [298, 300, 198])
        result = add_features(source, STRATEGIC, max_gap="1D", keep_bars=False)
        same_bits(result.compute(scheduler="sync").to_numpy(), wanted_rows(STRATEGIC, segments))


def test_columns_picked_from_the_result_are_those_columns():
    segments = many_segments()
    result = add_features(cut_frame(frame_of(segments), [398, 398]), STRATEGIC, max_gap="1D")
    with dask.config.set(scheduler="sync"):
        whole = result.compute()
        pd.testing.assert_series_equal(result["rsi"].compute(), whole["rsi"])
        pd.testing.assert_frame_equal(result[["macd", "close"]].compute(), whole[["macd", "close"]])
        risky = result[result["risk_score"] > 0.1]
        pd.testing.assert_frame_equal(risky.compute(), whole[whole["risk_score"] > 0.1])
        assert len(result) == len(whole)
        assert result["rsi"].count().compute() == whole["rsi"].count()


def test_the_features_leave_as_one_block_of_memory():
    frame = frame_of([("A", oracles.random_bars(300))])
    result = add_features(cut_frame(frame, [150, 150]), STRATEGIC, keep_bars=False)
    for part in dask.compute(*result.to_delayed(), scheduler="sync"):
        assert part.to_numpy().shape == (150, 13)
        assert part.to_numpy().flags.c_contiguous
        assert np.shares_memory(part.to_numpy(), part["rsi"].to_numpy())


def test_one_map_overlap_carries_the_tails():
    frame = cut_frame(frame_of([("A", oracles.random_bars(300))]), [100] * 3)
    result = add_features(frame, STRATEGIC, partition_rows=[100] * 3)
    kinds = [type(node).__name__ for node in result.expr.walk()]
    assert kinds.count("MapOverlap") == 1


def test_a_frame_shorter_than_the_lookback_has_rows_of_nan():
    frame = frame_of([("A", oracles.random_bars(30))])
    got = add_features(cut_frame(frame, [10, 20]), STRATEGIC, keep_bars=False)
    assert got.compute(scheduler="sync").isna().all(axis=None)


def test_frames_that_lack_something_are_refused_before_anything_runs():
    frame = frame_of([("A", oracles.random_bars(100))])
    with pytest.raises(ColumnError, match="volume"):
        add_features(cut_frame(frame.drop(columns="volume"), [100]), STRATEGIC)
    with pytest.raises(ColumnError, match=r"close.*float64"):
        add_features(cut_frame(frame.astype({"close": "float32"}), [100]), STRATEGIC)
    timeless = frame.drop(columns="timestamp")
    with pytest.raises(ColumnError, match="timestamp"):
        add_features(cut_frame(timeless, [100]), STRATEGIC, max_gap="1D")
    with pytest.raises(ColumnError, match="datetimes"):
        add_features(cut_frame(frame.assign(timestamp=1), [100]), STRATEGIC, max_gap="1D")
    with pytest.raises(UsageError, match="features rsi"):
        add_features(cut_frame(frame.assign(rsi=1.0), [100]), STRATEGIC)
    with pytest.raises(UsageError, match="partition_rows"):
        add_features(cut_frame(frame, [50, 50]), STRATEGIC, partition_rows=[100])
    with pytest.raises(UsageError, match="needs a dask DataFrame, got a DataFrame"):
        add_features(frame, STRATEGIC)
    for gap in ("soon", "-1D", 0, "NaT"):
        with pytest.raises(UsageError, match="max_gap"):
            add_features(cut_frame(frame, [100]), STRATEGIC, max_gap=gap)


def test_partition_rows_that_are_wrong_do_not_give_wrong_numbers():
    frame = cut_frame(frame_of([("A", oracles.random_bars(100))]), [10, 20, 70])
    result = add_features(frame, STRATEGIC, partition_rows=[50, 50, 0])
    with pytest.raises(NotImplementedError, match="Partition size is less than"):
        result.compute(scheduler="sync")


@pytest.mark.slow
def test_worker_processes_give_the_bits_of_one_partition():
    distributed = pytest.importorskip("distributed")
    segments = many_segments()
    frame = dd.from_pandas(frame_of(segments), npartitions=5, sort=False)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for feature_set in (STRATEGIC, TACTICAL):
            result = add_features(frame, feature_set, max_gap="1D", keep_bars=False)
            got = client.compute(result).result()
            same_bits(got.to_numpy(), wanted_rows(feature_set, segments))
