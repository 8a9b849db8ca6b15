"""Trainers find a signal that is there, and none where there is none."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss

from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.learning import Learner, losses_of
from grandbatch.mappo.market import team_reward
from grandbatch.mappo.networks import build_actor, build_critic, draw_kept
from grandbatch.mappo.rollout import Experience
from grandbatch.ranks import Ranks

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


@pytest.mark.parametrize(("n_windows", "most"), [(1, 1.0), (27, 0.01), (64, 0.1)])
def test_weights_in_one_memory_learn_as_weights_apart_to_the_bit(n_windows, most):
    config = MappoConfig.strategic(max_grad_norm=most, hidden_sizes=(33, 9))
    generator = torch.Generator().manual_seed(0)
    actor, critic = build_actor(config, 20, generator), build_critic(config, 20, generator)
    apart = deepcopy(actor), deepcopy(critic)
    learner = Learner(config, actor, critic, Ranks())
    parameters = [*apart[0].parameters(), *apart[1].parameters()]
    adam = torch.optim.Adam(parameters, lr=config.learning_rate, foreach=True)
    for seed in range(5):
        data = some_experience(config, actor, n_windows, seed)
        learner._step(data, n_windows, 0)
        adam.zero_grad()
        losses = losses_of(data, apart[0](data.observation, data.kept), apart[1](data.observation),
                           config)  # fmt: skip
        (losses.objective - config.entropy_coefficient * losses.entropy + losses.critic).backward()
        torch.nn.utils.clip_grad_norm_(parameters, most)
        adam.step()
    together = [*actor.parameters(), *critic.parameters()]
    assert all(map(torch.equal, together, parameters))
    state = learner.optimizer_state()
    for number, parameter in enumerate(parameters):
        assert all(torch.equal(state[str(number)][k], v) for k, v in adam.state[parameter].items())


@pytest.mark.parametrize(
    ("leading", "of_kept"),
    [
        ((), None),
        ((), ()),
        ((), (4,)),
        ((5,), (5,)),
        ((5, 4), (5, 1)),
        ((5, 1), (4,)),
        ((4,), (5, 1)),
    ],
)
def test_networks_of_all_agents_at_once_are_each_agents_own(leading, of_kept):
    config = MappoConfig.strategic(hidden_sizes=(8, 6))
    generator = torch.Generator().manual_seed(1)
    actor = build_actor(config, 7, generator)
    seen = torch.randn(*leading, 3, 7, generator=generator)
    kept = None
    if of_kept is not None:
        kept = draw_kept(config, math.prod(of_kept), generator).view(*of_kept, 3, 14)
    found = actor(seen, kept)
    for agent in range(3):
        hidden = seen[..., agent, :]
        for layer, (weight, bias) in enumerate(zip(actor.weights, actor.biases, strict=True)):
            hidden = hidden @ weight[agent] + bias[agent]
            if layer < 2:
                hidden = hidden.tanh()
                if kept is not None:
                    hidden = hidden * kept[..., agent, :].split([8, 6], -1)[layer]
        torch.testing.assert_close(found[..., agent, :], hidden)
