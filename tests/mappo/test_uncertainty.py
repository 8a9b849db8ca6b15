"""How sure a team is, against plain loops and outcomes whose odds are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from grandbatch.errors import UsageError
from grandbatch.mappo import BatchTacticalTrainer, MappoConfig, uncertainty
from grandbatch.mappo.networks import build_actor, draw_kept


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_samples_at_once_are_thinned_networks_one_by_one():
    config = MappoConfig(dropout=0.4, hidden_sizes=(6, 5))
    actor = build_actor(config, 4, seeded(0))
    kept = draw_kept(config, 3, seeded(1))
    seen = torch.randn(2, 3, 4, generator=seeded(2))
    found = uncertainty.sample_probabilities(actor, seen, kept)
    weights = [w.detach().numpy() for w in actor.weights]
    biases = [b.detach().numpy() for b in actor.biases]
    for window in range(2):
        for sample in range(3):
            for agent in range(3):
                factors = np.split(kept[sample, agent].numpy(), [6])
                hidden = seen[window, agent].numpy()
                for layer in range(2):
                    hidden = np.tanh(hidden @ weights[layer][agent] + biases[layer][agent])
                    hidden = hidden * factors[layer]
                logits = hidden @ weights[2][agent] + biases[2][agent]
                wanted = np.exp(logits) / np.exp(logits).sum()
                assert np.allclose(found[window, sample, agent], wanted, atol=1e-6)


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    kept = draw_kept(MappoConfig(dropout=0.3), 2000, seeded(0))
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert bool((draw_kept(MappoConfig(dropout=0.0), 5, seeded(0)) == 1).all())


def test_mutual_information_is_entropy_less_the_samples_entropies():
    samples = torch.rand(4, 7, 2, 5, generator=seeded(0)).double().square()
    samples = samples / samples.sum(-1, keepdim=True)
    found = uncertainty.mutual_information(samples)
    for window in range(4):
        for agent in range(2):
            each = samples[window, :, agent].numpy()
            wanted = entropy(each.mean(0)) - np.mean([entropy(p) for p in each])
            assert float(found[window, agent]) == pytest.approx(wanted)
    certain = torch.eye(5, dtype=torch.float64)[None, :, None]
    assert float(uncertainty.mutual_information(certain)) == pytest.approx(math.log(5))
    assert float(uncertainty.mutual_information(samples[:, :1]).max()) < 1e-12


def test_levels_are_those_promised():
    confidence = [1.0, 0.81, 0.8, 0.61, 0.6, 0.5]
    levels = ["HIGH", "HIGH", "MEDIUM", "MEDIUM", "LOW", "LOW"]
    assert [uncertainty.level_of(value) for value in confidence] == levels


def outcomes(true_sharpness, n=20_000, seed=0):
    """Log-odds, and returns whose signs come up with `true_sharpness` times these odds."""
    log_odds = 2 * torch.randn(n, generator=seeded(seed), dtype=torch.float64)
    chance = torch.rand(n, generator=seeded(seed + 1), dtype=torch.float64)
    return log_odds, torch.where(chance < (true_sharpness * log_odds).sigmoid(), 0.01, -0.01)


@pytest.mark.parametrize("true_sharpness", [0.25, 1.0, 3.0])
def test_the_sharpness_of_the_odds_is_found(true_sharpness):
    found = uncertainty.calibrate(*outcomes(true_sharpness))
    assert found.sharpness == pytest.approx(true_sharpness, rel=0.06)
    assert found.ece_after < 0.015
    if true_sharpness != 1:
        assert found.ece_after < found.ece_before / 3
        assert found.log_loss_after < found.log_loss_before
    log_odds, returns = outcomes(true_sharpness, seed=7)
    confidence = uncertainty.confidence_of(log_odds, found.sharpness)
    right = (log_odds >= 0) == (returns > 0)
    assert uncertainty.expected_error(uncertainty.reliability(confidence, right)) < 0.02
    sure = confidence > 0.8
    assert float(right[sure].double().mean()) == pytest.approx(
        float(confidence[sure].mean()), abs=0.02
    )


def test_a_leaning_that_tells_nothing_is_never_trusted():
    log_odds, returns = outcomes(-0.5)
    found = uncertainty.calibrate(log_odds, returns)
    assert found.sharpness == 0
    assert set(uncertainty.confidence_of(log_odds, 0.0).tolist()) == {0.5}


def test_the_error_is_that_of_a_plain_loop_over_bins():
    log_odds, returns = outcomes(0.5, n=500)
    found = uncertainty.calibrate(log_odds, returns)
    confidence = (1 / (1 + np.exp(-np.abs(log_odds.numpy())))).tolist()
    right = ((log_odds >= 0) == (returns > 0)).tolist()
    wanted = 0.0
    for k in range(10):
        low, high = 0.5 + k * 0.05, 0.5 + (k + 1) * 0.05
        inside = [(c, r) for c, r in zip(confidence, right, strict=True) if low <= c < high]
        if inside:
            sure, hit = np.mean([c for c, _ in inside]), np.mean([r for _, r in inside])
            wanted += abs(sure - hit) * len(inside) / 500
    assert found.ece_before == pytest.approx(wanted)
    assert sum(b.windows for b in found.reliability_before) == found.windows == 500
    assert json.loads(json.dumps(found.to_plain())) == found.to_plain()


def test_returns_of_zero_say_nothing_about_direction():
    log_odds, returns = outcomes(1.0, n=100)
    padded = uncertainty.calibrate(
        torch.cat([log_odds, torch.full((50,), 9.0)]), torch.cat([returns, torch.zeros(50)])
    )
    assert padded == uncertainty.calibrate(log_odds, returns)
    with pytest.raises(UsageError, match="calibrate on"):
        uncertainty.calibrate(torch.zeros(3), torch.zeros(3))


@pytest.fixture
def trainer(noise):
    made = BatchTacticalTrainer(BatchTacticalTrainer.default_config(dropout=0.2), stride=36)
    made.train_batch(noise(64, 60, 7, run_length=8))
    return made


def test_predictions_are_the_same_whenever_they_are_asked_for(trainer, noise):
    matrices = noise(600, 60, 7, seed=5).matrices
    before = trainer.state_dict()
    first = trainer.predict(matrices)
    alone = trainer.predict(matrices[590:])
    for whole, part in zip(first, alone, strict=True):
        assert torch.allclose(whole[590:], part, atol=1e-6)
    again = trainer.predict(matrices)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    after = trainer.state_dict()
    assert torch.equal(before["generator"], after["generator"])
    assert len(first.levels) == 600


def test_predictions_keep_their_bounds(trainer, noise):
    found = trainer.predict(noise(50, 60, 7, seed=5).matrices, torch.full((50,), 0.5).double())
    assert torch.allclose(found.probabilities.sum(-1), torch.ones(50, 3).double())
    assert bool((found.entropy <= math.log(5) + 1e-9).all())
    assert bool((found.mutual_information <= found.entropy).all())
    assert bool((found.mutual_information > 0).all())
    assert bool(((found.confidence >= 0.5) & (found.confidence <= 1)).all())
    assert torch.allclose(found.actions.mean(1), found.exposure)
    with pytest.raises(UsageError, match="samples"):
        trainer.predict(noise(2, 60, 7).matrices, samples=0)


def test_without_dropout_all_samples_agree_with_the_greedy_choice(noise):
    config = BatchTacticalTrainer.default_config(dropout=0.0)
    trainer = BatchTacticalTrainer(config, stride=36)
    matrices = noise(30, 60, 7).matrices
    found = trainer.predict(matrices, samples=4)
    assert float(found.mutual_information.max()) < 1e-9
    assert torch.equal(found.actions, trainer.act(matrices).actions)


def test_a_calibration_is_kept_until_the_next_batch_is_learnt(trainer, noise, changed):
    batch = noise(200, 60, 7, seed=3, run_length=8)
    raw = trainer.predict(batch.matrices)
    lean = uncertainty.leaning(raw.probabilities)
    returns = torch.where(torch.rand(200, generator=seeded(4)) < 0.9, lean, -lean) * 0.01
    known = changed(batch, next_return=returns)
    found = trainer.calibrate([known])
    assert found.windows == 200
    assert found.ece_after < found.ece_before
    sharp = trainer.predict(batch.matrices)
    assert torch.allclose(sharp.confidence, (lean.abs() * found.sharpness).sigmoid())
    other = BatchTacticalTrainer(trainer.config, stride=36)
    other.load_state_dict(trainer.state_dict())
    assert torch.equal(other.predict(batch.matrices).confidence, sharp.confidence)
    trainer.train_batch(batch)
    assert trainer.state_dict()["sharpness"] is None


def test_windows_unlike_those_trained_on_are_less_certain(market):
    planted = market(1.0, 4000, 60, 7, seed=0)
    config = BatchTacticalTrainer.default_config(dropout=0.2, feature_clip=50.0)
    trainer = BatchTacticalTrainer(config, stride=1)
    for batch in planted.batches(0, 3000, count=40, runs=8, run_length=8, seed=0):
        trainer.train_batch(batch)
    usual = planted.batch(torch.tensor([3200]), 400).matrices
    strange = usual + 4 * torch.randn(400, 1, 7, generator=seeded(0))
    known, unknown = (trainer.predict(m).mutual_information.mean() for m in (usual, strange))
    assert unknown > known
