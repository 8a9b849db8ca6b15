"""The kernels agree with the naive oracles, see no future, and don't care where a run begins."""

import os
import pickle
import subprocess
import sys

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grandbatch import kernels
from grandbatch.errors import UsageError

CASES = {
    "strategic": (kernels.strategic_kernel, 40, 13),
    "tactical": (kernels.tactical_kernel, 21, 7),
}
READ = {"strategic": ("close", "volume"), "tactical": ("high", "low", "close", "volume")}
BOTH = pytest.mark.parametrize("name", CASES)


def rows(name, bars, first=None):
    kernel, lookback, width = CASES[name]
    columns = [np.ascontiguousarray(bars[field], np.float64) for field in READ[name]]
    first = lookback if first is None else first
    out = np.full((width, len(columns[0]) - first), 777, np.float32)
    kernel(*columns, first, out)
    return np.ascontiguousarray(out.T)


def cut(bars, begin, stop):
    return {field: values[begin:stop] for field, values in bars.items()}


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_random_bars_agree_with_the_oracle(name, seed):
    bars = oracles.random_bars(1500, seed)
    lookback = CASES[name][1]
    oracles.assert_agrees(rows(name, bars), oracles.ROWS[name](bars)[lookback:])


@BOTH
@pytest.mark.parametrize("kind", oracles.nasty_bars())
@pytest.mark.parametrize("seed", range(2))
def test_nasty_bars_agree_with_the_oracle(name, kind, seed):
    bars = oracles.nasty_bars(seed)[kind]
    lookback = CASES[name][1]
    oracles.assert_agrees(rows(name, bars), oracles.ROWS[name](bars)[lookback:])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)),
        min_size=22,
        max_size=60,
    )
)
def test_gaps_among_few_price_levels_agree_with_the_oracle(ticks):
    one, two, close, volume = (np.array(x, np.float64) for x in zip(*ticks, strict=True))
    high, low = np.maximum(np.maximum(one, two), close), np.minimum(np.minimum(one, two), close)
    columns = (one, high, low, close, volume)
    bars = dict(zip(oracles.NAMES, columns, strict=True))
    oracles.assert_agrees(rows("tactical", bars), oracles.tactical_rows(bars)[21:])


@BOTH
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_run_that_begins_anywhere_gives_the_same_bits(name, data):
    lookback = CASES[name][1]
    bars = oracles.random_bars(900, 3)
    whole = rows(name, bars)
    begin = data.draw(st.integers(0, 900 - lookback))
    stop = data.draw(st.integers(begin + lookback, 900))
    first = data.draw(st.integers(lookback, stop - begin))
    part = rows(name, cut(bars, begin, stop), first)
    wanted = whole[begin + first - lookback : stop - lookback]
    np.testing.assert_array_equal(part.view(np.uint32), wanted.view(np.uint32))


@BOTH
def test_every_length_from_one_row_to_beyond_a_block_gives_the_same_bits(name):
    lookback = CASES[name][1]
    bars = oracles.nasty_bars()["flat stretches"]
    whole = rows(name, bars)
    for n in range(1, len(whole)):
        for first in {lookback, lookback + n - 1}:
            part = rows(name, cut(bars, 0, lookback + n), first)
            wanted = whole[first - lookback : n]
            np.testing.assert_array_equal(part.view(np.uint32), wanted.view(np.uint32))


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 599), st.integers(0, 2**32 - 1))
def test_bars_after_t_change_nothing_at_or_before_t(name, t, seed):
    lookback = CASES[name][1]
    bars = oracles.random_bars(600, 5)
    other = oracles.random_bars(600, seed)
    changed = {
        field: np.concatenate([bars[field][: t + 1], 3 * other[field][t + 1 :]]) for field in bars
    }
    keep = max(0, t + 1 - lookback)
    np.testing.assert_array_equal(rows(name, bars)[:keep], rows(name, changed)[:keep])


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.integers(41, 599), st.integers(0, 2**32 - 1))
def test_bars_before_the_lookback_change_nothing(name, t, seed):
    lookback = CASES[name][1]
    bars = oracles.random_bars(600, 5)
    other = oracles.random_bars(600, seed)
    changed = {
        field: np.concatenate([7 * other[field][: t - lookback], bars[field][t - lookback :]])
        for field in bars
    }
    np.testing.assert_array_equal(
        rows(name, bars)[t - lookback :], rows(name, changed)[t - lookback :]
    )


@pytest.mark.slow
@BOTH
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_finite_bars_give_finite_rows_in_range(name, data):
    lookback = CASES[name][1]
    finite = st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, -0.0, 5e-324, 1e-310, 1e300, -1e300, 1.7e308, -1.7e308, 1.0]),
    )
    few = data.draw(st.lists(finite, min_size=1, max_size=6))
    places = st.lists(st.integers(0, len(few) - 1), min_size=60, max_size=60)
    bars = {
        field: np.array([few[k] for k in data.draw(places)]) for field in ("high", "low", "close")
    }
    bars["open"] = bars["close"]
    bars["volume"] = np.abs(np.array([few[k] for k in data.draw(places)]))
    out = rows(name, bars)
    assert np.isfinite(out).all()
    assert out.shape == (60 - lookback, CASES[name][2])
    if name == "tactical":
        assert (np.abs(out) <= 1).all()
    else:
        bounded = out[:, [4, 7, 8, 9, 10, 11, 12]]  # of those, liquidity_index from above only
        assert (bounded <= [1, 1, 1, 1, 1, 1, 2]).all()
        assert (bounded >= [0, -1, -1, -1, 0, 0, 0]).all()


@pytest.mark.parametrize("price", [0.1, 0.3, 1.1, 15203.75, 1e-9])
def test_a_flat_window_has_no_spread(price):
    bars = oracles.bars_from_close(np.full(80, price), np.random.default_rng(0), 0.0)
    out = rows("strategic", bars)
    wanted = [0, None, 0, 0, 1, 0, 0.5, 0, 0, -1, 0, None, 0]
    for column, value in enumerate(wanted):
        if value is not None:
            assert (out[:, column] == np.float32(value)).all()


def gap_bars(n=60):
    """Bars without gaps: highs at 101, lows at 99, closes at 100."""
    return {
        "open": np.full(n, 100.0),
        "high": np.full(n, 101.0),
        "low": np.full(n, 99.0),
        "close": np.full(n, 100.0),
        "volume": np.ones(n),
    }


def test_a_gap_lives_for_twenty_bars():
    bars = gap_bars()
    for field in bars:
        if field != "volume":
            bars[field][30:] += 10  # lows at 109 over highs at 101, at bars 30 and 31
    out = rows("tactical", bars)[:, 0]
    assert list(np.flatnonzero(out) + 21) == list(range(30, 51))
    ages = rows("tactical", bars)[:, 3]
    np.testing.assert_allclose(ages[30 - 21 : 51 - 21][[0, 1, 2, 20]], np.exp([0, 0, -0.1, -1.9]))


def test_the_bar_that_fills_a_gap_still_counts_and_signals():
    bars = gap_bars()
    for field in bars:
        if field != "volume":
            bars[field][30:] += 10
    bars["low"][35] = 100.5  # below the level, 101
    out = rows("tactical", bars)
    assert list(np.flatnonzero(out[:, 0]) + 21) == list(range(30, 36))
    assert list(np.flatnonzero(out[:, 4]) + 21) == [35]


def test_touching_a_level_does_not_fill_it():
    bars = gap_bars()
    for field in bars:
        if field != "volume":
            bars[field][30:] += 10
    bars["low"][35] = 101.0
    out = rows("tactical", bars)
    assert not out[:, 4].any()
    assert out[40 - 21, 0] == 1


def test_a_run_of_exactly_the_lookback_has_no_rows_and_one_more_bar_has_one():
    for name, (_, lookback, width) in CASES.items():
        assert rows(name, oracles.random_bars(lookback)).shape == (0, width)
        assert rows(name, oracles.random_bars(lookback + 1)).shape == (1, width)


@BOTH
def test_misshapen_calls_are_refused(name):
    kernel, lookback, width = CASES[name]
    bars = oracles.random_bars(100)
    columns = [bars[field] for field in READ[name]]
    out = np.zeros((width, 100 - lookback), np.float32)
    with pytest.raises(UsageError, match="first bar"):
        kernel(*columns, lookback - 1, out)
    with pytest.raises(UsageError, match="first bar"):
        kernel(*columns, 101, out)
    for bad in (out[:, :-1], out[:-1], out.astype(np.float64), np.asfortranarray(out)):
        with pytest.raises(UsageError, match="out must be"):
            kernel(*columns, lookback, bad)
    for bad in (bars["volume"][:-1], bars["volume"].astype(np.float32), np.ones(200)[::2]):
        with pytest.raises(UsageError, match="bars must be"):
            kernel(*columns[:-1], bad, lookback, out)


@BOTH
def test_read_only_bars_are_taken(name):
    bars = {field: values.copy() for field, values in oracles.random_bars(100).items()}
    wanted = rows(name, bars)
    for values in bars.values():
        values.flags.writeable = False
    np.testing.assert_array_equal(rows(name, bars), wanted)


@BOTH
def test_kernels_pickle(name):
    assert pickle.loads(pickle.dumps(CASES[name][0])) is CASES[name][0]


def test_importing_the_kernels_loads_no_numba():
    code = "import grandbatch.kernels, sys; raise SystemExit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_many_processes_may_compile_into_one_empty_cache(tmp_path):
    code = (
        "import numpy as np; from grandbatch.kernels import strategic_kernel;"
        "x = np.arange(1.0, 61.0); out = np.empty((13, 20), np.float32);"
        "strategic_kernel(x, x, 40, out); print(out.sum())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    answers = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(answers) == 1
    assert list(tmp_path.rglob("*.nbi"))
