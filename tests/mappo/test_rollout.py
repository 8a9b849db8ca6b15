"""Experience against plain loops: sampling, walking, advantages, and no look-ahead."""

from __future__ import annotations

import math

import pytest
import torch

from grandbatch.mappo import BatchStrategicTrainer, MappoConfig
from grandbatch.mappo.networks import build_actor, build_critic, draw_kept
from grandbatch.mappo.rollout import (
    Chance,
    gumbel_noise,
    roll_out,
    to_experience,
)


@pytest.fixture(scope="module")
def networks():
    config = MappoConfig()
    generator = torch.Generator().manual_seed(3)
    actor, critic = build_actor(config, 20, generator), build_critic(config, 20, generator)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(4)  # so that exposure and window really matter
    return config, actor, critic


def trade(networks, batch, chance):
    config, actor, _ = networks
    summary = batch.matrices.flatten(1)[:, :19].contiguous()
    return roll_out(actor, summary, batch, config, stride=36, chance=chance)


def draw(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return Chance(gumbel_noise((n, 3, 5), generator), draw_kept(MappoConfig(), n, generator))


def test_noise_makes_draws_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    noise = gumbel_noise((200_000, 5), torch.Generator().manual_seed(0))
    counts = torch.bincount((logits + noise).argmax(-1), minlength=5) / 200_000
    assert torch.allclose(counts, logits.softmax(-1), atol=0.005)


def test_walking_by_table_is_asking_the_actors_window_by_window(networks, noise):
    config, actor, _ = networks
    batch = noise(24, run_length=6)
    chance = draw(24, 1)
    rollout = trade(networks, batch, chance)
    summary = batch.matrices.flatten(1)[:, :19]
    held = 0.0
    for k in range(24):
        held = 0.0 if k % 6 == 0 else held
        seen = torch.cat([summary[k], torch.tensor([held], dtype=torch.float32)]).expand(3, 20)
        with torch.no_grad():
            logits = actor(seen, chance.kept[k])
        action = (logits + chance.noise[k]).argmax(-1)
        exposure = float((action * 0.5 - 1).mean())
        assert rollout.action[k].tolist() == action.tolist()
        assert float(rollout.exposure[k]) == pytest.approx(exposure, abs=1e-6)
        earned = exposure * float(batch.next_return[k]) - config.cost * abs(exposure - held)
        assert float(rollout.reward[k]) == pytest.approx(earned, abs=1e-9)
        expected = logits.log_softmax(-1)[range(3), action.tolist()]
        assert torch.allclose(rollout.log_prob[k], expected, atol=1e-5)
        held = exposure


def test_windows_alone_are_all_met_flat(networks, noise):
    batch = noise(16, run_length=1, index=torch.arange(16) * 2)
    rollout = trade(networks, batch, None)
    assert torch.equal(rollout.turnover, rollout.exposure.abs())
    assert (rollout.observation[..., -1] == 0).all()


def test_no_decision_knows_a_return_and_no_reward_another_bars(networks, noise, changed):
    batch = noise(24)
    chance = draw(24, 1)
    before = trade(networks, batch, chance)
    returns = batch.next_return.clone()
    place = int(before.exposure.nonzero()[5])
    returns[place] += 0.5
    after = trade(networks, changed(batch, next_return=returns), chance)
    assert torch.equal(before.exposure, after.exposure)
    assert torch.equal(before.observation, after.observation)
    assert torch.nonzero(before.reward != after.reward).flatten().tolist() == [place]


def test_a_later_window_changes_no_earlier_decision(networks, noise, changed):
    batch = noise(24)
    matrices = batch.matrices.clone()
    matrices[12:] += 1.0
    before = trade(networks, batch, None)
    after = trade(networks, changed(batch, matrices=matrices), None)
    assert torch.equal(before.exposure[:12], after.exposure[:12])


def test_advantages_are_those_of_the_textbook_recursion(networks, noise, changed):
    config, _, critic = networks
    weight, returns = torch.ones(20), noise(20).next_return
    weight[4], returns[11] = 0.0, math.nan
    batch = noise(20, run_length=8, weight=weight)
    batch = changed(batch, next_return=returns)
    rollout = trade(networks, batch, draw(20, 2))
    data = to_experience(rollout, critic, config)

    rows = rollout.trajectories.flat_rows.tolist()
    assert rows == [k for k in range(20) if k not in (4, 11)]
    with torch.no_grad():
        value = critic(rollout.observation)[:, 0, 0].tolist()
    advantage, running = [0.0] * len(rows), 0.0
    for i in reversed(range(len(rows))):
        k = rows[i]
        ends = i + 1 == len(rows) or rows[i + 1] != k + 1 or rows[i + 1] % 8 == 0
        following = 0.0 if ends else value[i + 1]
        delta = float(rollout.reward[k]) * config.reward_scale + config.gamma * following - value[i]
        running = delta + (0.0 if ends else config.gamma * config.lambda_ * running)
        advantage[i] = running
    raw = torch.tensor(advantage)
    target = raw + torch.tensor(value)
    normal = (raw - raw.mean()) / raw.std(correction=0)
    assert torch.allclose(data.advantage, normal[:, None, None].expand(-1, 3, 1), atol=1e-4)
    assert torch.allclose(data.value_target, target[:, None, None].expand(-1, 3, 1), atol=1e-4)


def test_the_critic_gives_one_value_for_the_team(networks, noise):
    _, _, critic = networks
    with torch.no_grad():
        value = critic(torch.randn(7, 3, 20, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(value, value[:, :1].expand(-1, 3, 1))


def test_acting_is_the_greedy_rollout(noise):
    trainer = BatchStrategicTrainer(stride=36)
    batch = noise(16, index=torch.arange(16) * 2)
    decision = trainer.act(batch.matrices)
    evaluated = trainer.evaluate([batch])
    assert torch.allclose(decision.actions.mean(1), decision.exposure)
    assert float(decision.exposure.abs().mean()) == pytest.approx(evaluated["exposure"])
    reward = decision.exposure * batch.next_return - 1e-4 * decision.exposure.abs()
    assert float(reward.mean()) == pytest.approx(evaluated["avg_reward"])
    assert float(reward.std(correction=0)) == pytest.approx(evaluated["reward_std"])
