"""What policies earn, against curves computed by hand and by plain loops; and no look-ahead."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import StoreMismatchError, UsageError
from grandbatch.evaluation.chance import flip_signs, judge
from grandbatch.evaluation.performance import YEAR_NS, Market, drawdown_of, equity_of, sharpe_of
from grandbatch.evaluation.walking import Tape

MINUTE = 60 * 10**9
PERIODS = YEAR_NS / (5 * MINUTE)
ONE = gb.FeatureSet("one", gb.STRATEGIC.features[:1], sequence_length=2, overlap=1)


def write_closes(path, closes, symbols=1, gap_after=None):
    """Bars every 5 minutes with these closes; an hour passes after bar `gap_after`."""
    lines = ["timestamp,symbol,open,high,low,close,volume"]
    for number in range(symbols):
        for place, close in enumerate(closes):
            late = gap_after is not None and place > gap_after
            time = np.datetime64("2024-01-01", "m") + 5 * place + 60 * late
            lines.append(f"{time},S{number},{close},{close},{close},{close},1")
    path.write_text("\n".join(lines) + "\n")
    return path


def store_of(tmp_path, closes, name="s", overlap=1, max_gap=None, **options):
    bars = write_closes(tmp_path / f"{name}.csv", closes, **options)
    return gb.build_store(
        bars, tmp_path / f"{name}.zarr", feature_set=ONE, overlap=overlap, max_gap=max_gap,
        durable=False, scheduler="sync",
    )  # fmt: skip


def follows_last_change(matrices, exposure):
    """Long after a rise, short after a fall."""
    return np.sign(matrices[:, -1, 0])


CLOSES = [100, 101, 102, 104, 102, 102, 51, 102, 102]
# Decisions come after bars 2 to 7 (the first window holds changes 1 and 2).
TAKEN = [1, 1, -1, 0, -1, 1]
RETURNS = [104 / 102 - 1, 102 / 104 - 1, 0, -0.5, 1, 0]
TRADED = [1, 0, 2, 1, 1, 2 + 1]


def test_a_short_curve_is_what_was_computed_by_hand(tmp_path):
    store = store_of(tmp_path, CLOSES)
    result = gb.evaluate(follows_last_change, store, cost=0.01, draws=10)
    (track,) = result.seeds
    np.testing.assert_array_equal(track.exposure, TAKEN)
    net = [e * r - 0.01 * c for e, r, c in zip(TAKEN, RETURNS, TRADED, strict=True)]
    np.testing.assert_allclose(track.returns, net, rtol=1e-12)
    # the whole capital is lost while the price doubles: nothing comes back
    assert net[4] < -1
    np.testing.assert_allclose(track.equity[:4], np.cumprod(1 + np.array(net[:4])), rtol=1e-12)
    assert (track.equity[4:] == 0).all()
    found = track.performance
    assert found.total_return == -1
    assert found.max_drawdown == 1
    assert found.mean_return == pytest.approx(np.mean(net))
    assert found.turnover == pytest.approx(8 / 6)
    assert found.cost == pytest.approx(0.08)
    assert found.exposure == pytest.approx(5 / 6)
    # with exposure, and moved: up and right, up and wrong, down and wrong
    assert found.hit_rate == pytest.approx(1 / 3)
    assert found.sharpe == pytest.approx(np.mean(net) / np.std(net, ddof=1) * math.sqrt(PERIODS))
    assert result.bars_per_year == pytest.approx(PERIODS)


def test_buy_and_hold_pays_once_to_come_and_once_to_go(tmp_path):
    store = store_of(tmp_path, CLOSES)
    result = gb.evaluate(follows_last_change, store, cost=0.01, draws=10)
    hold = result.buy_and_hold
    assert hold.performance.cost == pytest.approx(0.02)
    growth = (102 / 102) * (1 - 0.01 / (104 / 102)) * (1 - 0.01)
    assert hold.equity[-1] == pytest.approx(growth)
    assert (result.flat.equity == 1).all()
    assert result.flat.performance.sharpe is None
    assert result.flat.performance.hit_rate is None
    free = gb.evaluate(follows_last_change, store, cost=0, draws=10).buy_and_hold
    assert free.equity[-1] == pytest.approx(1.0)


def test_a_segments_end_closes_the_position(tmp_path):
    store = store_of(tmp_path, CLOSES, "gap", gap_after=4, max_gap="30min")
    result = gb.evaluate(lambda m, e: np.ones(len(m)), store, cost=0.01, draws=5)
    # windows end at bars 2, 3, 4 and 7, 8; the last of each segment has no next return
    np.testing.assert_array_equal(result.windows, [0, 1, 3])
    np.testing.assert_allclose(
        result.seeds[0].returns, [104 / 102 - 1.01, 102 / 104 - 1.01, -0.02], rtol=1e-9
    )


def test_symbols_share_the_capital(tmp_path):
    one = gb.evaluate(follows_last_change, store_of(tmp_path, CLOSES), draws=5)
    three = gb.evaluate(follows_last_change, store_of(tmp_path, CLOSES, "m", symbols=3), draws=5)
    np.testing.assert_allclose(three.seeds[0].returns, one.seeds[0].returns, rtol=1e-12)
    assert len(three.windows) == 3 * len(one.windows)
    assert three.bars_per_year == one.bars_per_year


def test_a_first_symbol_that_begins_at_the_last_bar_is_no_obstacle(tmp_path):
    path = write_closes(tmp_path / "late.csv", CLOSES, symbols=2)
    header, *bars = path.read_text().splitlines()
    path.write_text("\n".join([header, *bars[len(CLOSES) - 4 :]]) + "\n")
    store = gb.build_store(path, tmp_path / "late.zarr", feature_set=ONE, scheduler="sync")
    result = gb.evaluate(follows_last_change, store, draws=5)
    assert store.symbol[:].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert len(result.windows) == 1 + len(TAKEN)


def test_windows_that_are_not_traded_are_not_read(make_store, monkeypatch):
    store = make_store(1500, symbols=2, chunk_windows=32, overlap=47, layout="rows")
    split = gb.split_store(store, {"train": 0.9, "test": 0.1})["test"]
    read = []
    read_chunk = gb.MatrixStore.read_chunk

    def heard(self, chunk, *arguments):
        read.append(chunk)
        return read_chunk(self, chunk, *arguments)

    monkeypatch.setattr(gb.MatrixStore, "read_chunk", heard)
    traded = gb.evaluate(lambda m, e: np.ones(len(m)), store, split, draws=1).windows
    assert store.symbol[:][traded[[0, -1]]].tolist() == [0, 1]
    assert read == np.unique(traded // store.chunk_windows).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(0, 0.01))
def test_the_figures_agree_with_plain_loops(seed, n_symbols, cost):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 30))
    n = n_symbols * length
    exposure = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], n)
    returns = rng.choice([0.0, 1.0], n) * rng.normal(0, 0.01, n)
    begins = rng.random(n) < 0.2
    begins[::length] = True
    symbol = np.repeat(np.arange(n_symbols, dtype=np.int32), length)
    time = np.tile(MINUTE * np.arange(length), n_symbols)
    tape = Tape(np.arange(n), time, symbol, returns, begins)
    found = Market([tape], n_symbols, cost).perform(exposure)
    per_bar = [0.0] * length
    changed = right = wrong = 0.0
    for place in range(n):
        before = 0.0 if begins[place] else exposure[place - 1]
        change = abs(exposure[place] - before)
        if place == n - 1 or begins[place + 1]:
            change += abs(exposure[place])
        per_bar[place % length] += (exposure[place] * returns[place] - cost * change) / n_symbols
        changed += change
        right += exposure[place] * returns[place] > 0
        wrong += exposure[place] * returns[place] < 0
    equity, peak, fall = 1.0, 1.0, 0.0
    for one in per_bar:
        equity *= 1 + one
        peak = max(peak, equity)
        fall = max(fall, 1 - equity / peak)
    assert found.total_return == pytest.approx(equity - 1, abs=1e-12)
    assert found.max_drawdown == pytest.approx(fall, abs=1e-12)
    assert found.turnover == pytest.approx(changed / n)
    assert found.hit_rate == (pytest.approx(right / (right + wrong)) if right + wrong else None)
    if found.sharpe is not None:
        frame = pd.Series(per_bar)
        wanted = frame.mean() / frame.std() * math.sqrt(365.25 * 24 * 60)
        assert found.sharpe == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_a_curve_falls_from_its_start_too():
    assert drawdown_of(equity_of(np.array([-0.1, 0.05]))) == pytest.approx(0.1)
    assert drawdown_of(equity_of(np.array([0.1, 0.1]))) == 0
    assert sharpe_of(np.array([0.1, 0.1]), PERIODS) is None


def random_policy(seed, width):
    """A policy that reads all of a window and the exposure it comes with."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=width)

    def decide(matrices, exposure):
        moved = (matrices - matrices.mean(1, keepdims=True)).reshape(len(matrices), -1)
        score = 2 * moved @ weights + exposure
        return np.clip(np.round(2 * score) / 2, -1, 1)

    return decide


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.integers(110, 180))
def test_no_decision_depends_on_later_bars(tmp_path_factory, seed, border):
    folder = tmp_path_factory.mktemp("look-ahead")
    rng = np.random.default_rng(seed)
    changes = rng.normal(0, 0.01, 200)
    closes = np.round(100 * np.exp(np.cumsum(changes)), 4)
    rng.shuffle(changes[border:])
    later = np.round(closes[border - 1] * np.exp(np.cumsum(changes[border:])), 4)
    policy, taken = random_policy(seed, 5 * 13), []
    for name, series in (("a", closes), ("b", np.append(closes[:border], later))):
        bars = write_closes(folder / f"{name}.csv", series)
        store = gb.build_store(
            bars, folder / f"{name}.zarr", sequence_length=5, overlap=4, durable=False,
            scheduler="sync",
        )  # fmt: skip
        result = gb.evaluate(policy, store, draws=1)
        ends = store.end_time[:][result.windows]
        last_common = store.attrs["first_time"] + 5 * MINUTE * (border - 1)
        taken.append(result.seeds[0].exposure[ends <= last_common])
    assert len(taken[0]) == border - 44
    np.testing.assert_array_equal(*taken)
    assert len(np.unique(taken[0])) > 1


def test_walking_in_blocks_is_walking_one_by_one(make_store):
    store = make_store(400, overlap=47, symbols=2)
    few = random_policy(3, 48 * 13)

    def many(matrices, exposure):
        return np.tanh(50 * matrices[:, -1, 0] + 0.9 * exposure)

    result = gb.evaluate([few, many], store, draws=1)
    matrices, position = store.matrices[:], dict.fromkeys((0, 1), None)
    for number, policy in enumerate((few, many)):
        held, position = 0.0, -2
        for place, window in enumerate(result.windows):
            held = held if window == position + 1 else 0.0
            held = float(policy(matrices[window : window + 1], np.array([held]))[0])
            assert result.seeds[number].exposure[place] == held
            position = window


def test_a_stride_above_one_is_refused_with_the_reason(make_store):
    with pytest.raises(StoreMismatchError, match=r"a window every 36 bars.* overlap=47"):
        gb.evaluate(follows_last_change, make_store(300))


def test_only_the_windows_of_a_split_are_traded(make_store):
    store = make_store(600, overlap=47)
    splits = gb.split_store(store, {"train": 0.6, "test": 0.4})
    result = gb.evaluate(follows_last_change, store, splits["test"], draws=5)
    loader = gb.SlidingWindowDataLoader(store, subset=splits["test"], shuffle=False)
    wanted = [i for b in loader for i, r in zip(b.index, b.next_return, strict=True) if r == r]
    assert result.windows.tolist() == [int(i) for i in wanted]


def test_walk_forward_trains_on_the_past_of_each_test(make_store):
    store = make_store(900, overlap=47)
    pairs = gb.walk_forward(store, 3)
    asked = []

    def train(split, seed):
        asked.append((split, seed))
        return random_policy(seed, 48 * 13)

    result = gb.evaluate_walk_forward(train, store, pairs, seeds=(7, 8), draws=20)
    assert asked == [(pair[0], seed) for pair in pairs for seed in (7, 8)]
    ends = store.end_time[:]
    for train_split, test in pairs:
        mine = (result.times >= test.start) & (result.times < test.stop)
        alone = gb.evaluate([random_policy(7, 48 * 13)], store, test, draws=1)
        np.testing.assert_array_equal(result.times[mine], alone.times)
        np.testing.assert_allclose(result.seeds[0].returns[mine], alone.seeds[0].returns)
        assert ends[alone.windows[0]] >= train_split.reads_until
    leaking = [(pairs[1][0], pairs[0][1])]
    with pytest.raises(UsageError, match="pair 0 is not purged: its training reads bars until"):
        gb.evaluate_walk_forward(train, store, leaking)
    with pytest.raises(UsageError, match=r"the test of pair 1 starts .* give them in order"):
        gb.evaluate_walk_forward(train, store, [pairs[0], pairs[0]])


def market_of(returns, cost=0.0):
    n = len(returns)
    begins = np.arange(n) == 0
    tape = Tape(np.arange(n), MINUTE * np.arange(n), np.zeros(n, np.int32), returns, begins)
    return Market([tape], 1, cost)


def test_skill_is_told_from_random_and_luck_is_not():
    """By design a test at 5 % finds something in a twentieth of what is nothing."""
    rng = np.random.default_rng(0)
    false_alarms = 0
    for trial in range(40):
        returns = rng.normal(0, 0.01, 300)
        guesses = rng.choice([-1.0, 0.0, 1.0], (5, 300))
        verdict, _ = judge(market_of(returns), guesses, 99, trial, 0.05)
        false_alarms += verdict.beats_random
    assert false_alarms <= 6
    skilled = np.where(rng.random((5, 300)) < 0.3, np.sign(returns), guesses)
    verdict, random = judge(market_of(returns), skilled, 199, 0, 0.05)
    assert verdict.beats_random
    assert verdict.timing_p == 1 / 200
    assert verdict.seeds_p == 1 / 32
    assert verdict.mean_return > verdict.random_high > verdict.random_low
    assert random.mean_return == pytest.approx(0, abs=1e-3)
    assert str(verdict).startswith("better than random at the 5% level")


def test_holding_through_a_boom_is_no_skill():
    returns = np.random.default_rng(1).normal(0.01, 0.01, 200)
    verdict, random = judge(market_of(returns), np.ones((6, 200)), 99, 0, 0.05)
    assert verdict.timing_p == verdict.seeds_p == 1
    assert random.mean_return == pytest.approx(verdict.mean_return)
    assert "CAN'T BE TOLD FROM RANDOM" in str(verdict)


def test_few_seeds_are_said_to_be_too_few():
    returns = np.random.default_rng(2).normal(0, 0.01, 200)
    one, _ = judge(market_of(returns), np.sign(returns)[None], 99, 0, 0.05)
    assert one.beats_random
    assert one.seeds_p is None
    assert "tells nothing of other seeds" in str(one)
    two, _ = judge(market_of(returns), np.sign(returns) * np.ones((2, 1)), 99, 0, 0.05)
    assert not two.beats_random
    assert "which can't be below 0.25: train more" in str(two)


def test_sign_flips_are_counted_exactly_while_they_are_few():
    generator = np.random.default_rng(0)
    assert flip_signs(np.array([1.0, 2.0, 3.0]), generator) == 1 / 8
    assert flip_signs(np.array([1.0, -1.0]), generator) == 3 / 4
    assert flip_signs(np.ones(20), generator) == 1 / 4096
    assert flip_signs(np.zeros(20), generator) == 1


def test_an_evaluation_goes_to_json_and_prints_its_units(make_store):
    store = make_store(700, overlap=47)
    result = gb.evaluate([follows_last_change] * 2, store, cost=2e-4, draws=20)
    again = gb.evaluate([follows_last_change] * 2, store, cost=2e-4, draws=20)
    plain = result.to_json()
    assert json.loads(json.dumps(plain)) == plain == again.to_json()
    assert len(plain["times"]) == 500 < plain["n_bars"]
    assert plain["equity"]["seed 0"][-1] == result.seeds[0].equity[-1]
    assert set(plain["performance"]) >= {"seed 1", "mean", "buy and hold", "flat", "random"}
    text = str(result)
    assert "cost 2 bp per unit of exposure changed" in text
    assert "bars a year" in text


def test_a_trainer_is_a_policy(make_store):
    torch = pytest.importorskip("torch")
    store = make_store(300, overlap=47)

    class Holder:
        def act(self, matrices, exposure):
            assert matrices.dtype == torch.float32
            return SimpleNamespace(exposure=torch.where(exposure == 0, 0.5, exposure))

    result = gb.evaluate(Holder(), store, draws=5)
    assert (result.seeds[0].exposure == 0.5).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": []}, "no policy"),
        ({"policies": 3}, "must be a trainer or a function"),
        ({"policies": lambda m, e: 2 * np.ones(len(m))}, "an exposure from -1 to 1"),
        ({"policies": lambda m, e: np.full(len(m), np.nan)}, "an exposure from -1 to 1"),
        ({"policies": lambda m, e: np.zeros(len(m) + 1)}, "an exposure from -1 to 1"),
        ({"cost": -1.0}, "cost must be a number of at least 0"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"level": 1.0}, "level above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    arguments = {"policies": follows_last_change, **changes}
    with pytest.raises(UsageError, match=message):
        gb.evaluate(store=store_of(tmp_path, CLOSES), **arguments)
    with pytest.raises(UsageError, match="no period to evaluate"):
        gb.evaluate(follows_last_change, store_of(tmp_path, CLOSES[:4], "short"))
