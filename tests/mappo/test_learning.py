"""Trainers find a signal that is there, and none where there is none."""

from __future__ import annotations

import math

import pytest
import torch

from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer
from grandbatch.mappo.market import team_reward

TRAIN, TEST = (0, 14_000), (15_000, 19_000)
COST = 1e-4


def trained(market, kind, seed, count):
    config = kind.default_config(seed=seed, cost=COST)
    trainer = kind(config, feature_mean=None, stride=1)
    for batch in market.batches(*TRAIN, count=count, runs=8, run_length=16, seed=seed):
        trainer.train_batch(batch)
    return trainer.evaluate([market.batch(torch.tensor([TEST[0]]), TEST[1] - TEST[0])])


def random_reward(market, seed):
    generator = torch.Generator().manual_seed(seed)
    last = torch.arange(*TEST) + market.length - 1
    choices = torch.randint(0, 5, (len(last), 3), generator=generator).double() / 2 - 1
    exposure = choices.mean(1)
    previous = torch.cat([exposure.new_zeros(1), exposure[:-1]])
    return float(team_reward(exposure, previous, market.next_return[last], COST).mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [BatchStrategicTrainer, BatchTacticalTrainer])
def test_a_planted_signal_is_found_on_bars_never_trained_on(market, kind, seed):
    config = kind.default_config()
    planted = market(0.3, 20_000, config.sequence_length, config.n_features, seed)
    result = trained(planted, kind, seed, count=160)
    t_statistic = result["avg_reward"] / result["reward_std"] * math.sqrt(result["windows"])
    assert t_statistic > 5
    assert result["avg_reward"] > 0.5 * planted.oracle_reward(*TEST, COST)
    assert result["avg_reward"] > random_reward(planted, seed) + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", [BatchStrategicTrainer, BatchTacticalTrainer])
def test_pure_noise_is_not_beaten(market, kind, seed):
    config = kind.default_config()
    noise = market(0.0, 20_000, config.sequence_length, config.n_features, seed)
    result = trained(noise, kind, seed, count=60)
    t_statistic = result["avg_reward"] / max(result["reward_std"], 1e-12)
    assert t_statistic * math.sqrt(result["windows"]) < 2
