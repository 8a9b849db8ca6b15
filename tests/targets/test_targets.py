"""Targets are what plain loops give, know nothing beyond their horizon, and NaN says "unknown"."""

from __future__ import annotations

import pickle
import re
from functools import partial

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import target_oracle as oracle
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import ColumnError, InputError, KernelError, UsageError
from grandbatch.targets import compute_targets, resolve_targets

NONE = np.empty(0, np.int64)
PLAIN = ("forward_return", "forward_log_return", "forward_volatility", "forward_drawdown")


def bars_of(rng, n, kind):
    """Return random bars: a walk, one that stands still, ones at and below zero, wild ones."""
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 2)
    if kind == "flat":
        close[n // 3 :] = 64.0
    elif kind == "below zero":
        close = np.round(close - close.mean(), 0)
    elif kind == "wild":
        close = 10.0 ** rng.integers(-300, 300, n)
    room = np.round(rng.random((2, n)), 2) * (kind not in ("wild", "flat"))
    return {
        "open": np.concatenate([close[:1], close[:-1]]),
        "high": close + room[0],
        "low": close - room[1],
        "close": close,
        "volume": rng.integers(0, 9, n).astype(np.float64),
    }


def made(horizon, up=0.01, down=0.02):
    """Every target that comes with the package, with its loop."""
    plain = [
        (getattr(gb, name)(horizon), partial(getattr(oracle, name), horizon=horizon))
        for name in PLAIN
    ]
    loop = partial(oracle.triple_barrier, up=up, down=down, horizon=horizon)
    return [*plain, (gb.triple_barrier(up, down, horizon), loop)]


def stored(values):
    """As a store has it: float32, and NaN for what is not finite."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return values


@pytest.mark.parametrize("kind", ["walk", "flat", "below zero", "wild"])
@pytest.mark.parametrize("horizon", [1, 2, 7, 40])
def test_each_target_is_what_a_plain_loop_gives_within_its_segment(kind, horizon):
    rng = np.random.default_rng(horizon)
    bars = bars_of(rng, 150, kind)
    starts = np.array([0, 3, 44, 45, 101])
    targets, loops = zip(*made(horizon), strict=True)
    found = compute_targets(targets, bars, starts)
    for k, loop in enumerate(loops):
        with np.errstate(all="ignore"):
            wanted = stored(oracle.expected(bars, starts, loop, horizon))
        np.testing.assert_allclose(
            found[:, k], wanted, rtol=1e-6, atol=1e-6, err_msg=targets[k].name
        )


def test_a_value_is_nan_exactly_where_fewer_bars_than_the_horizon_follow_in_the_segment():
    bars = bars_of(np.random.default_rng(0), 100, "walk")
    starts = np.array([30, 33, 60])
    found = compute_targets([target for target, _ in made(5)], bars, starts)
    left = np.concatenate([np.arange(n)[::-1] for n in (30, 3, 27, 40)])
    np.testing.assert_array_equal(np.isnan(found), np.repeat((left < 5)[:, None], 5, axis=1))


def test_of_two_barriers_in_one_bar_the_lower_counts():
    bars = {"close": np.array([100.0, 100, 100]), "high": np.array([100.0, 100.5, 102])}
    bars["low"] = np.array([100.0, 99.5, 98])
    found = compute_targets([gb.triple_barrier(0.01, 0.01, 2)], bars, NONE)
    np.testing.assert_array_equal(found[:, 0], np.float32([-1, np.nan, np.nan]))


@pytest.mark.parametrize("horizon", [1, 3, 64])
def test_no_bits_depend_on_where_the_bars_begin_or_on_bars_beyond_the_horizon(horizon):
    rng = np.random.default_rng(1)
    bars = bars_of(rng, 400, "walk")
    targets = [target for target, _ in made(horizon)]
    whole = compute_targets(targets, bars, NONE)
    for begin, stop in rng.integers(0, 400 - horizon, (20, 2)):
        if begin < stop:
            cut = {name: x[begin : stop + horizon].copy() for name, x in bars.items()}
            part = compute_targets(targets, cut, NONE)[: stop - begin]
            np.testing.assert_array_equal(part.view(np.int32), whole[begin:stop].view(np.int32))


def test_the_targets_that_come_with_the_package_pass_the_check():
    gb.check([target for target, _ in made(20)])
    gb.check(gb.triple_barrier(0.001, 0.5, 300))


def peeks(close, first, out):
    m = len(out)
    later = np.append(close, close[-1])[first + 6 : first + 6 + m]
    out[:] = later / close[first : first + m] - 1


def looks_back(close, first, out):
    m = len(out)
    before = np.concatenate([close[:1], close])[first : first + m]
    out[:] = close[first + 5 : first + 5 + m] / before - 1


def scaled(close, first, out):
    m = len(out)
    out[:] = (close[first + 5 : first + 5 + m] - close[first : first + m]) / close.std()


def summed_from_the_end(close, first, out):
    total = np.cumsum(close[::-1])[::-1]
    m = len(out)
    out[:] = total[first : first + m] - total[first + 5 : first + 5 + m]


def writes_half(close, first, out):
    out[::2] = 0.5


def at_random(close, first, out):
    out[:] = np.random.default_rng().random(len(out))


def raises(close, first, out):
    raise ValueError("no")


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (peeks, "reads bars beyond its horizon of 5"),
        (looks_back, "reads bars before its own"),
        (scaled, "reads bars beyond its horizon of 5"),
        (summed_from_the_end, "reads bars beyond its horizon of 5"),
        (writes_half, "is not written"),
        (at_random, "is not the same in two runs"),
        (raises, "raised ValueError"),
    ],
)
def test_a_wrong_kernel_is_refused_with_its_reason(kernel, reason):
    with pytest.raises(KernelError, match=f"target 'mine' {re.escape(reason)}"):
        gb.check(gb.Target("mine", 5, kernel))


@pytest.mark.parametrize("value", [gb.Target, gb.forward_return, [], [gb.forward_return(1), 3]])
def test_what_has_no_kernel_is_no_thing_to_check(value):
    with pytest.raises(UsageError, match="a feature, a target, a set or a list of them can be"):
        gb.check(value)


def jump(high, low, close, first, out):
    m = len(out)
    with np.errstate(all="ignore"):
        out[:] = (high[first + 1 : first + 1 + m] - low[first + 1 : first + 1 + m]) / (
            close[first + 1 : first + 1 + m] - close[first : first + m]
        )


def test_a_target_of_ones_own_may_be_unknown_here_and_there():
    mine = gb.Target("jump", 1, jump, ("high", "low", "close"))
    gb.check(mine)
    bars = {"close": np.array([1.0, 1, 2]), "high": np.array([1.0, 2, 3]), "low": np.zeros(3)}
    found = compute_targets([mine], bars, NONE)
    np.testing.assert_array_equal(found[:, 0], np.float32([np.nan, 3, np.nan]))


def test_a_kernel_that_raises_is_reported_with_its_name():
    with pytest.raises(KernelError, match=r"target mine raised ValueError \(no\) on 9 bars"):
        compute_targets([gb.Target("mine", 2, raises)], {"close": np.ones(9)}, NONE)


def test_bars_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="close is nan at row 1 of 2; features and targets need"):
        compute_targets([gb.forward_return(1)], {"close": np.array([1.0, np.nan])}, NONE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("close", 1, peeks), "a target's name must be text unlike the columns of bars"),
        (("", 1, peeks), "a target's name must be text"),
        (("x", 0, peeks), "the horizon of target 'x' must be a whole number of at least 1, got 0"),
        (("x", 10**20, peeks), "the horizon of target 'x' must be at most 100,000,000, got 1000"),
        (("x", 1.5, peeks), "the horizon of target 'x' must be a whole number"),
        (("x", 1, None), "the kernel of target 'x' must be callable"),
        (("x", 1, peeks, ("symbol",)), "the inputs of target 'x' can't have symbol"),
        (("x", 1, peeks, ("close",), 0), "the version of target 'x' must be a whole number"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        gb.Target(*arguments)


def test_barriers_and_horizons_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="up must be above 0, got 0"):
        gb.triple_barrier(0, 0.1, 5)
    with pytest.raises(UsageError, match="down must be above 0"):
        gb.triple_barrier(0.1, -0.1, 5)
    with pytest.raises(UsageError, match="horizon must be a whole number of at least 1, got 0"):
        gb.forward_return(0)


def test_targets_are_equal_by_their_numbers_and_survive_pickling():
    assert gb.triple_barrier(0.01, 0.02, 60) == gb.triple_barrier(0.01, 0.02, 60)
    assert gb.forward_return(5) != gb.forward_return(6)
    assert pickle.loads(pickle.dumps(gb.forward_return(5))) == gb.forward_return(5)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("forward_return:5", [gb.forward_return(5)]),
        (
            "forward_drawdown:3, triple_barrier:0.01:0.02:60",
            [gb.forward_drawdown(3), gb.triple_barrier(0.01, 0.02, 60)],
        ),
        (["forward_log_return:2", gb.forward_volatility(9)],
         [gb.forward_log_return(2), gb.forward_volatility(9)]),
        (gb.forward_return(1), [gb.forward_return(1)]),
        (None, []),
        ((), []),
    ],
)  # fmt: skip
def test_what_names_a_target(text, wanted):
    assert list(resolve_targets(text)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forward_retrun:5", r"'forward_retrun:5' \(did you mean forward_return\?\)"),
        ("forward_return", "'forward_return' is no target: write forward_return:HORIZON"),
        ("forward_return:five", "write forward_return:HORIZON, with a number in each place"),
        ("forward_return:5:6", "write forward_return:HORIZON"),
        ("triple_barrier:1:60", "write triple_barrier:UP:DOWN:HORIZON"),
        ("forward_return:0", "horizon must be a whole number of at least 1"),
        ("forward_return:5,forward_return:5", "two targets are named forward_return_5"),
        ("", "unknown target ''"),
        (5, "targets must be a Target, a text such as forward_return:5"),
        ([gb.forward_return], "a target must be a Target .*: call it with its horizon"),
        ("nowhere.py:MINE", "nowhere.py: there is no such file"),
    ],
)  # fmt: skip
def test_what_names_no_target_is_refused_with_the_form(text, message):
    with pytest.raises(UsageError, match=message):
        resolve_targets(text)


def test_targets_of_ones_own_are_named_by_their_file(tmp_path, monkeypatch):
    (tmp_path / "own_targets_here.py").write_text(
        "import grandbatch as gb\n"
        "BOTH = [gb.forward_return(2), gb.forward_return(3)]\n"
        "ONE = gb.forward_drawdown(4)\n"
        "NUMBER = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = [t.name for t in resolve_targets("own_targets_here.py:BOTH,own_targets_here:ONE")]
    assert names == ["forward_return_2", "forward_return_3", "forward_drawdown_4"]
    gb.check("own_targets_here:BOTH")
    with pytest.raises(UsageError, match="must be a Target, or a list of them, got int"):
        resolve_targets("own_targets_here:NUMBER")
    with pytest.raises(UsageError, match="can be checked, got 'own_targets_here:NUMBER', which"):
        gb.check("own_targets_here:NUMBER")


@pytest.mark.parametrize("npartitions", [1, 3, 40])
def test_add_targets_gives_the_same_bits_for_any_partitioning(tmp_path, npartitions):
    frame = gb.read_bars(write_bars(tmp_path / "b.csv", 300, symbols=2), cache=tmp_path / "c")
    bars = frame.compute().reset_index(drop=True)
    bars.loc[100:, "timestamp"] += pd.Timedelta("3D")
    targets = [target for target, _ in made(12)]
    cut = dd.from_pandas(bars, npartitions=npartitions)
    found = gb.add_targets(cut, targets, max_gap="1D").compute()
    names = [target.name for target in targets]
    assert list(found.columns) == [*bars.columns, *names]
    assert (found[names].dtypes == np.float32).all()
    symbols = bars["symbol"].astype(str).to_numpy()
    breaks = bars["timestamp"].diff() > pd.Timedelta("1D")
    starts = np.flatnonzero((symbols[1:] != symbols[:-1]) | breaks.to_numpy()[1:]) + 1
    assert len(starts) == 2
    columns = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    wanted = compute_targets(targets, columns, starts)
    np.testing.assert_array_equal(found[names].to_numpy().view(np.int32), wanted.view(np.int32))


def test_add_targets_alone_and_by_name(tmp_path):
    frame = gb.read_bars(write_bars(tmp_path / "b.csv", 50), cache=tmp_path / "c")
    found = gb.add_targets(frame, "forward_return:5", keep_bars=False).compute()
    assert list(found.columns) == ["forward_return_5"]
    assert found["forward_return_5"].isna().sum() == 5


def test_frames_without_what_a_target_reads_are_refused(tmp_path):
    frame = gb.read_bars(write_bars(tmp_path / "b.csv", 50), cache=tmp_path / "c")
    with pytest.raises(ColumnError, match="target 'forward_drawdown_5' reads 'low', which"):
        gb.add_targets(frame[["symbol", "close"]], gb.forward_drawdown(5))
    with pytest.raises(UsageError, match="add_targets needs a dask DataFrame, got a list"):
        gb.add_targets([], gb.forward_drawdown(5))
    with pytest.raises(UsageError, match="at least one target"):
        gb.add_targets(frame, [])
    with pytest.raises(UsageError, match="columns named like the targets forward_return_5"):
        gb.add_targets(gb.add_targets(frame, gb.forward_return(5)), gb.forward_return(5))


def hours_on(timestamp, spread, first, out):
    m = len(out)
    out[:] = (timestamp[first + 2 : first + 2 + m] - timestamp[first : first + m]) / 3.6e12
    out += spread[first + 1 : first + 1 + m]


def test_a_target_reads_times_and_extra_columns_by_name():
    mine = gb.Target("hours", 2, hours_on, ("timestamp", "spread"))
    gb.check(mine)
    times = pd.date_range("2024-01-01", periods=4, freq="1h")
    frame = pd.DataFrame({"symbol": "A", "timestamp": times, "spread": [0.0, 1, 2, 3]})
    found = gb.add_targets(dd.from_pandas(frame, npartitions=2), mine, keep_bars=False).compute()
    np.testing.assert_array_equal(found["hours"], np.float32([3, 4, np.nan, np.nan]))
    with pytest.raises(ColumnError, match=r"target 'hours' reads 'spread'.*--extra spread"):
        gb.add_targets(dd.from_pandas(frame[["symbol", "timestamp"]], npartitions=1), mine)
