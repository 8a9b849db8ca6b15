"""Windowed operations are pandas', read their own windows only, and have the same bits anywhere."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch import windows as w
from grandbatch.errors import UsageError
from grandbatch.kernels.windows import plans

LENGTHS = (1, 2, 3, 5, 7, 14, 20, 60, 125, 200)


def walk(n, seed=0, tick=0.01):
    """Prices on a grid, so that ties happen."""
    rng = np.random.default_rng(seed)
    return np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n))) / tick) * tick


OPERATIONS = {
    "sum": w.sum,
    "mean": w.mean,
    "highest": w.highest,
    "lowest": w.lowest,
    "rank": w.rank,
    "quantile": lambda x, n: w.quantile(x, n, 0.8),
    "std": lambda x, n: w.std(x, n, ddof=0),
    "age_of_highest": w.age_of_highest,
    "age_of_lowest": lambda x, n: w.age_of_lowest(x, n, newest=True),
    "slope": lambda x, n: w.slope(x, max(n, 2)),
    "rsquare": lambda x, n: w.rsquare(x, max(n, 2)),
    "correlation": lambda x, n: w.correlation(x, np.roll(x, 3)[::-1].copy() * x, n),
}
EACH = pytest.mark.parametrize("name", OPERATIONS)


def numpy_of(name, windows):
    """The operation over rows of windows, from numpy."""
    n = windows.shape[1]
    numbers = np.arange(n) - (n - 1) / 2
    centred = windows - windows.mean(axis=1, keepdims=True)
    trend, spread = centred @ numbers, (centred**2).sum(axis=1)
    with np.errstate(all="ignore"):
        return {
            "sum": lambda: windows.sum(axis=1),
            "mean": lambda: windows.mean(axis=1),
            "highest": lambda: windows.max(axis=1),
            "lowest": lambda: windows.min(axis=1),
            "rank": lambda: pd.DataFrame(windows.T).rank(pct=True).to_numpy()[-1],
            "quantile": lambda: np.quantile(windows, 0.8, axis=1),
            "std": lambda: windows.std(axis=1),
            "age_of_highest": lambda: n - 1.0 - np.argmax(windows, axis=1),
            "age_of_lowest": lambda: 1.0 * np.argmin(windows[:, ::-1], axis=1),
            "slope": lambda: trend / (numbers @ numbers),
            "rsquare": lambda: np.where(spread > 0, trend**2 / (numbers @ numbers) / spread, 0),
        }[name]()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "correlation"])
@pytest.mark.parametrize("n", LENGTHS)
def test_each_operation_is_that_of_numpy(name, n):
    x = walk(4_700, n)
    n = max(n, 2) if name in ("slope", "rsquare") else n
    got = OPERATIONS[name](x, n)
    assert np.isnan(got[: n - 1]).all()
    wanted = numpy_of(name, np.lib.stride_tricks.sliding_window_view(x, n))
    np.testing.assert_allclose(got[n - 1 :], wanted, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("n", LENGTHS[1:])
def test_a_correlation_is_that_of_pandas(n):
    x, rng = walk(3_000), np.random.default_rng(0)
    y = x + rng.normal(size=3_000)
    wanted = pd.Series(x - 100).rolling(n).corr(pd.Series(y - 100)).fillna(0.0)
    got = w.correlation(x, y, n)[n - 1 :]
    np.testing.assert_allclose(got, wanted[n - 1 :], atol=1e-6)


@pytest.mark.parametrize(("function", "alpha"), [(w.ema, 2 / 13), (w.wilder, 1 / 12)])
def test_an_exponential_average_is_the_infinite_one_once_it_has_forgotten(function, alpha):
    x = walk(4_000)
    look = {w.ema: w.ema_lookback, w.wilder: w.wilder_lookback}[function](12)
    got = function(x, 12)
    wanted = pd.Series(x).ewm(alpha=alpha, adjust=False).mean()
    assert np.isnan(got[:look]).all()
    np.testing.assert_allclose(got[look:], wanted[look:], rtol=1e-9)


def test_an_exponential_average_begins_at_the_oldest_value_it_reads():
    x = walk(400)
    t, look = 300, w.ema_lookback(5)
    average = x[t - look]
    for value in x[t - look + 1 : t + 1]:
        average += (value - average) / 3
    np.testing.assert_allclose(w.ema(x, 5)[t], average, rtol=1e-14)


def test_an_average_over_one_is_the_value():
    x = walk(50)
    for function in (w.ema, w.wilder):
        np.testing.assert_array_equal(function(x, 1)[1:], x[1:])
        assert np.isnan(function(x, 1)[0])


def test_a_change_reads_one_value_more():
    np.testing.assert_array_equal(w.change([1.0, 3.0, 7.0, 8.0], 2), [np.nan, np.nan, 6.0, 5.0])


@EACH
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_same_bits_wherever_an_array_begins_and_ends(name, data):
    n = data.draw(st.sampled_from((2, 7, 20, 60, 113)))
    x = walk(6_000, 1)
    x[2_000:2_200] = 64.1
    begin = data.draw(st.integers(0, 5_800))
    stop = data.draw(st.integers(begin + n, 6_000))

    def operation(values, others):
        if name == "correlation":
            return w.correlation(values, others, n)
        return OPERATIONS[name](values, n)

    other = walk(6_000, 2)
    whole = operation(x, other)[begin + n - 1 : stop]
    part = operation(x[begin:stop], other[begin:stop])[n - 1 :]
    np.testing.assert_array_equal(part.view(np.int64), whole.view(np.int64))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from((w.ema, w.wilder)), st.integers(2, 40), st.integers(0, 5_000))
def test_exponential_averages_have_the_same_bits_anywhere(function, n, begin):
    x = walk(6_000, 3)
    whole, part = function(x, n)[begin:], function(x[begin:], n)
    known = ~np.isnan(part)
    np.testing.assert_array_equal(part[known].view(np.int64), whole[known].view(np.int64))


@EACH
def test_a_nan_is_seen_by_the_windows_that_hold_it_and_no_others(name):
    n, x = 20, walk(5_000, 5)
    with_nan = x.copy()
    with_nan[[700, 2_039, 2_040, 2_500]] = np.nan

    def operation(values):
        if name == "correlation":
            return w.correlation(values, walk(5_000, 6), n)
        return OPERATIONS[name](values, n)

    got, clean = operation(with_nan), operation(x)
    holds = np.isnan(pd.Series(with_nan).rolling(n).sum().to_numpy())
    assert np.isnan(got[holds]).all()
    np.testing.assert_array_equal(got[~holds], clean[~holds])


@pytest.mark.parametrize("value", [0.1, 64.1, 15203.75, 1e-9, -3.3])
@pytest.mark.parametrize("n", [3, 7, 20, 30, 113])
def test_flat_windows_have_exactly_no_spread(value, n):
    x = np.full(500, value)
    np.testing.assert_array_equal(w.mean(x, n)[n - 1 :], value)
    for flat in (w.std(x, n), w.slope(x, n), w.rsquare(x, n), w.correlation(x, walk(500), n)):
        np.testing.assert_array_equal(flat[n - 1 :], 0.0)


def test_prices_that_hardly_move_keep_their_spread():
    x = 100 + 1e-5 * np.random.default_rng(0).normal(size=2_000)
    wanted = pd.Series(x - 100).rolling(30).std()
    np.testing.assert_allclose(w.std(x, 30)[29:], wanted[29:], rtol=1e-8)


def test_zeros_of_both_signs_are_one_number_to_a_quantile():
    x = np.array([0.0, -0.0, 1.0, -0.0, 0.0, 2.0, -1.0] * 30)
    whole = w.quantile(x, 5, 0.4)
    for begin in range(7):
        part = w.quantile(x[begin:], 5, 0.4)[4:]
        np.testing.assert_array_equal(part.view(np.int64), whole[begin + 4 :].view(np.int64))


@EACH
def test_an_array_shorter_than_the_window_gives_no_number(name):
    assert np.isnan(OPERATIONS[name](walk(5), 20)).all()
    assert OPERATIONS[name](walk(0), 20).shape == (0,)


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", True, None])
def test_a_window_must_be_a_whole_number_of_bars(n):
    for operation in (w.mean, w.highest, w.ema, w.change, w.std, w.slope):
        with pytest.raises(UsageError, match="window must be a whole number"):
            operation(walk(9), n)


def test_misshapen_series_are_refused():
    with pytest.raises(UsageError, match="one dimension"):
        w.mean(np.ones((3, 3)), 2)
    with pytest.raises(UsageError, match="equally long"):
        w.correlation(walk(9), walk(8), 3)
    with pytest.raises(UsageError, match=r"0\.\.1"):
        w.quantile(walk(9), 3, 80)
    with pytest.raises(UsageError, match="ddof"):
        w.std(walk(9), 1)


def test_any_numbers_are_taken_and_none_is_changed():
    x = np.arange(9)
    np.testing.assert_array_equal(w.mean(x.astype(np.float32)[::2], 2)[1:], [1, 3, 5, 7])
    np.testing.assert_array_equal(x, np.arange(9))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3_000))
def test_any_window_is_put_together_of_parts_that_are_there(n):
    made = {0: 1}
    for older, newer, to, a, b in plans.window_steps(n).tolist():
        assert to not in (older, newer)
        assert (made[older], made[newer]) == (a, b)
        made[to] = a + b
    assert n == 1 or made[to] == n


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3_000))
def test_any_mean_is_put_together_of_parts_that_are_there(n):
    made = {0: 1}
    for level, newer, to, parts, a, b in plans.window_passes(n).tolist():
        assert to not in (level, newer)
        assert parts in ((1,) if b else (2, 3, 4, 5, 8))
        assert made[level] == a
        assert not b or made[newer] == b
        made[to] = parts * a + b
    assert n == 1 or made[to] == n


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3_000))
def test_any_spread_is_put_together_of_parts_that_are_there(n):
    made = {0: 1}
    for level, newer, to, parts, a, b in plans.moment_passes(n).tolist():
        assert to not in (level, newer)
        assert to < plans.N_LEVELS
        assert parts == 1 if b else parts in (2, 3, 4, 5, 7, 8)
        assert made[level] == a
        assert not b or made[newer] == b
        made[to] = parts * a + b
    assert n == 1 or made[to] == n


@pytest.mark.parametrize("n", [*range(2, 34), 60, 113, 125, 200, 252, 353])
def test_spreads_lines_and_correlations_are_those_of_long_double(n):
    rng = np.random.default_rng(n)
    x, y = (100 + np.cumsum(rng.normal(size=900)) for _ in range(2))
    wide = np.lib.stride_tricks.sliding_window_view
    of_x, of_y = (wide(z.astype(np.longdouble), n) for z in (x, y))
    of_x, of_y = (z - z.mean(axis=1, keepdims=True) for z in (of_x, of_y))
    numbers = np.arange(n) - np.longdouble(n - 1) / 2
    squares, trend = (of_x**2).sum(axis=1), of_x @ numbers
    both = (of_x * of_y).sum(axis=1) / np.sqrt(squares * (of_y**2).sum(axis=1))
    explained = trend**2 / squares / (numbers @ numbers)
    for got, wanted in (
        (w.std(x, n), np.sqrt(squares / (n - 1))),
        (w.slope(x, n), trend / (numbers @ numbers)),
        (w.rsquare(x, n), explained),
        (w.correlation(x, y, n), both),
    ):
        np.testing.assert_allclose(got[n - 1 :], wanted.astype(float), rtol=1e-12, atol=1e-13)


AWKWARD = {
    "on a grid": walk(5_000, 11),
    "all different": np.random.default_rng(12).normal(size=5_000),
    "few far off": np.random.default_rng(13).standard_cauchy(5_000),
    "one far off": np.where(np.arange(5_000) == 2_500, 1e300, walk(5_000, 14)),
    "all equal": np.full(5_000, 64.1),
    "next to each other": 1.0 + np.random.default_rng(15).integers(0, 9, 5_000) * 2.0**-52,
    "below all normal ones": np.random.default_rng(16).integers(-4, 5, 5_000) * 5e-324,
    "zeros of both signs": np.random.default_rng(17).choice([0.0, -0.0, 1.0], 5_000),
    "infinite": np.random.default_rng(18).choice([np.inf, -np.inf, 1.0, 2.0], 5_000),
    "beyond all differences": np.random.default_rng(19).uniform(-1.0, 1.0, 5_000) * 1.7e308,
    "some unknown": np.where(np.arange(5_000) % 997 == 3, np.nan, walk(5_000, 20)),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("n", [39, 40, 61, 200, 2_100])
def test_a_rank_is_exact_whatever_the_numbers(name, n):
    x = AWKWARD[name]
    windows = np.lib.stride_tricks.sliding_window_view(x, n)[:: 41 if n < 1_000 else 211]
    newest = windows[:, -1:]
    below, equal = (windows < newest).sum(axis=1), (windows == newest).sum(axis=1)
    wanted = np.where(np.isnan(windows).any(axis=1), np.nan, (2 * below + equal + 1) * 0.5 / n)
    got = w.rank(x, n)[n - 1 :][:: 41 if n < 1_000 else 211]
    np.testing.assert_array_equal(got, wanted)


def test_a_rank_in_a_window_beyond_small_counts_is_exact():
    x = np.arange(40_000.0) % 20_011
    for n in (16_000, 16_001, 33_000):
        at = 36_000
        window = x[at - n + 1 : at + 1]
        wanted = (2 * (window < x[at]).sum() + (window == x[at]).sum() + 1) * 0.5 / n
        assert w.rank(x, n)[at] == wanted


@pytest.mark.parametrize("n", [*range(2, 42), 64, 113, 125, 144, 200, 252, 500, 1_000])
def test_a_mean_is_that_of_exact_sums(n):
    x = np.random.default_rng(n).normal(size=3_000) * 10.0 ** (np.arange(3_000) % 9)
    wanted = [math.fsum(window) / n for window in np.lib.stride_tricks.sliding_window_view(x, n)]
    largest = np.lib.stride_tricks.sliding_window_view(abs(x), n).max(axis=1)
    assert np.max(np.abs(w.mean(x, n)[n - 1 :] - wanted) / largest) < 1e-15
