"""Regimes of windows, and what was earned in each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.mappo import BatchStrategicTrainer, Regime, RegimeRules

VALUES = st.floats(-0.1, 0.1) | st.sampled_from([0.05, 0.02, -0.02, 0.0])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20))
def test_regimes_are_decided_in_order(pairs):
    def plain(volatility, momentum):
        if volatility > 0.05:
            return Regime.VOLATILE
        if momentum > 0.02:
            return Regime.BULL
        return Regime.BEAR if momentum < -0.02 else Regime.SIDEWAYS

    columns = torch.tensor(pairs, dtype=torch.float64).T
    assert RegimeRules().classify(*columns).tolist() == [plain(*pair) for pair in pairs]


def test_thresholds_are_settings():
    rules = RegimeRules(volatile=1.0, bull=0.5, bear=-0.1)
    volatility = torch.tensor([0.9, 1.1, 0.9, 0.9])
    momentum = torch.tensor([0.4, 0.9, 0.6, -0.2])
    found = [Regime(k).name for k in rules.classify(volatility, momentum).tolist()]
    assert found == ["SIDEWAYS", "VOLATILE", "BULL", "BEAR"]


@pytest.mark.parametrize("changes", [{"bull": float("nan")}, {"bear": 0.3}, {"source": "other"}])
def test_thresholds_that_make_no_sense_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        RegimeRules(**changes)


def test_shares_that_make_no_sense_are_refused(noise):
    for shares in ({"volatile": 1.0}, {"trend": 0.6}):
        with pytest.raises(UsageError, match="trend above 0 and at most"):
            RegimeRules.adaptive([noise(8)], **shares)
    with pytest.raises(UsageError, match="no window"):
        RegimeRules.adaptive([])


def test_tactical_regimes_come_from_five_bar_returns():
    matrices = torch.zeros(2, 60, 7)
    matrices[0, :, 5] = torch.linspace(-0.5, 0.5, 60)  # up to 2.5 % in 5 bars
    matrices[1, ::2, 5], matrices[1, 1::2, 5] = 1.0, -1.0  # 5 % up, 5 % down
    rules = RegimeRules(volatile=0.04, source="tactical")
    assert [Regime(k).name for k in rules.label(matrices).tolist()] == ["BULL", "VOLATILE"]


def test_on_half_hour_bars_fixed_thresholds_hardly_ever_fire(tmp_path):
    gb.create_large_dataset_simulation(tmp_path / "bars.csv", 20_000, freq="30min")
    store = gb.build_store(tmp_path / "bars.csv", tmp_path / "s.zarr", overlap=36, durable=False)
    splits = gb.split_store(store, {"train": 0.7, "test": 0.3})
    train, test = (
        gb.SlidingWindowDataLoader(store, subset=s, shuffle=False) for s in splits.values()
    )

    def shares(rules, loader):
        labels = torch.cat([rules.label(batch.matrices) for batch in loader])
        return {regime.name: float((labels == regime).double().mean()) for regime in Regime}

    assert shares(RegimeRules(), train)["SIDEWAYS"] > 0.98
    rules = RegimeRules.adaptive(train)
    learnt = shares(rules, train)
    assert learnt["VOLATILE"] == pytest.approx(0.1, abs=0.01)
    assert learnt["BULL"] + learnt["VOLATILE"] >= 0.29
    assert learnt["BEAR"] + learnt["VOLATILE"] >= 0.29
    assert min(shares(rules, test).values()) > 0.02


def test_what_the_regimes_earned_adds_up_to_the_whole(noise):
    trainer = BatchStrategicTrainer(stride=36)
    batches = [noise(40, seed=seed, run_length=4) for seed in (0, 1)]
    rules = RegimeRules.adaptive(batches, volatile=0.8)
    found = trainer.evaluate(batches, rules)
    names = [regime.name.lower() for regime in Regime]
    assert sum(found[f"{name}_windows"] for name in names) == found["windows"] == 80
    for metric in ("avg_reward", "turnover", "exposure"):
        parts = (found[f"{name}_{metric}"] * found[f"{name}_windows"] for name in names)
        assert sum(parts) == pytest.approx(80 * found[metric])
    assert min(found[f"{name}_windows"] for name in names) > 0
    assert "bull_windows" not in trainer.evaluate(batches)
