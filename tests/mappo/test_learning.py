"""Trainers find a signal that is there, and none where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss

from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.learning import losses_of
from grandbatch.mappo.market import team_reward
from grandbatch.mappo.networks import build_actor, build_critic, draw_kept
from grandbatch.mappo.rollout import Experience

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


def some_experience(config, actor, n_windows, seed):
    """Windows whose choices the actors would make otherwise by now."""
    generator = torch.Generator().manual_seed(seed)
    n = len(config.agents)
    seen = torch.randn(n_windows, 1, 20, generator=generator).expand(-1, n, -1).contiguous()
    kept = draw_kept(config, n_windows, generator)
    action = torch.randint(0, 5, (n_windows, n), generator=generator)
    with torch.no_grad():
        now = actor(seen, kept).log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    drift = 0.3 * torch.randn(now.shape, generator=generator)
    judged = torch.randn(2, n_windows, 1, 1, generator=generator).expand(-1, -1, n, -1)
    return Experience(seen, action, now + drift, kept, judged[0], judged[1])


def by_torchrl(data, actor, critic, config):
    """Loss and entropy as TorchRL computes them; gradients are left with the networks."""
    policy = ProbabilisticActor(
        TensorDictModule(actor, in_keys=["observation", "kept"], out_keys=["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
        log_prob_key="sample_log_prob",
    )
    values = TensorDictModule(critic, in_keys=["observation"], out_keys=["state_value"])
    found = ClipPPOLoss(
        policy,
        values,
        clip_epsilon=config.clip_epsilon,
        entropy_coeff=1.0,
        critic_coeff=config.critic_coefficient,
        functional=False,
    )(TensorDict({**data._asdict(), "sample_log_prob": data.log_prob}, [data.n_windows]))
    loss = found["loss_objective"] + found["loss_entropy"] * 0.01 + found["loss_critic"]
    loss.backward()
    return loss, found["entropy"]


@pytest.mark.parametrize(("n_windows", "coefficient"), [(1, 0.5), (32, 0.7), (257, 0.3)])
def test_losses_and_gradients_are_torchrls_to_the_bit(n_windows, coefficient):
    config = MappoConfig.strategic(critic_coefficient=coefficient, clip_epsilon=0.13)
    generator = torch.Generator().manual_seed(n_windows)
    actor, critic = build_actor(config, 20, generator), build_critic(config, 20, generator)
    parameters = [*actor.parameters(), *critic.parameters()]
    data = some_experience(config, actor, n_windows, seed=n_windows)
    wanted, entropy = by_torchrl(data, actor, critic, config)
    gradients = [parameter.grad.clone() for parameter in parameters]
    assert all(gradient.any() for gradient in gradients)
    for parameter in parameters:
        parameter.grad = None
    found = losses_of(data, actor(data.observation, data.kept), critic(data.observation), config)
    loss = found.objective + -found.entropy * 0.01 + found.critic
    loss.backward()
    assert torch.equal(loss, wanted)
    assert torch.equal(found.entropy, entropy)
    assert all(
        torch.equal(parameter.grad, gradient)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    )
