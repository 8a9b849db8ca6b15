"""The replay market as an environment: a plain loop, what it must not know, TorchRL's checks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from grandbatch.errors import UsageError
from grandbatch.features import STRATEGIC
from grandbatch.features.rows import compute_rows
from grandbatch.mappo import BatchStrategicTrainer, MappoConfig
from grandbatch.mappo.environment import ReplayEnv, ReplayMarket

L = STRATEGIC.sequence_length


def bars(n, seed):
    """Random, consistent bars as columns."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opened = close * (1 + rng.normal(0, 0.003, n))
    return {
        "open": opened,
        "high": np.maximum(opened, close) * 1.001,
        "low": np.minimum(opened, close) * 0.999,
        "close": close,
        "volume": rng.integers(1, 5000, n).astype(float),
    }


def windows_of(make, columns):
    """All windows of one segment of bars at stride 1, as one batch."""
    rows = compute_rows(STRATEGIC, columns, np.zeros(0, np.int64))[STRATEGIC.lookback :]
    matrices = torch.from_numpy(rows).unfold(0, L, 1).transpose(1, 2)
    last = STRATEGIC.lookback + L - 1 + np.arange(len(matrices))
    following = np.append(columns["close"], math.nan)
    returns = torch.from_numpy(following[last + 1] / columns["close"][last] - 1)
    return make(matrices, returns, first_row=torch.arange(len(matrices)))


def walk(batch, actions, stride=1):
    """Every observation and reward of one walk under given actions."""
    market = ReplayMarket([batch], 3, 1e-3, stride=stride)
    market.begin()
    seen, earned = [], []
    for action in actions:
        seen.append((market.matrices.clone(), market.exposure.clone()))
        earned.append(float(market.step(action[None])))
    return seen, earned, bool(market.done)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), t=st.integers(0, 10), data=st.data())
def test_changing_bars_after_the_next_changes_nothing_up_to_now(make, seed, t, data):
    n_windows = 13
    n_bars = STRATEGIC.lookback + L + n_windows
    before = bars(n_bars, seed)
    at = STRATEGIC.lookback + L - 1 + t
    after = {name: values.copy() for name, values in before.items()}
    factor = data.draw(st.floats(0.5, 2.0).filter(lambda f: abs(f - 1) > 0.05))
    for values in after.values():
        values[at + 2 :] *= factor
    actions = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, (n_windows, 3)))
    one, two = (walk(windows_of(make, columns), actions) for columns in (before, after))
    assert one[1][: t + 1] == two[1][: t + 1]
    for (matrix, exposure), (other_matrix, other_exposure) in zip(
        one[0][: t + 2], two[0][: t + 2], strict=True
    ):
        assert torch.equal(matrix, other_matrix)
        assert torch.equal(exposure, other_exposure)
    assert not torch.equal(one[0][t + 2][0], two[0][t + 2][0])


def test_the_reward_is_that_of_the_bar_after(make):
    columns = bars(STRATEGIC.lookback + L + 3, seed=1)
    last = STRATEGIC.lookback + L - 1
    _, (first, second, third), done = walk(
        windows_of(make, columns), torch.tensor([[4, 4, 4], [4, 4, 4], [0, 0, 0]])
    )
    moves = columns["close"][last + 1 :] / columns["close"][last:-1] - 1
    assert first == pytest.approx(moves[0] - 1e-3)
    assert second == pytest.approx(moves[1])
    assert third == pytest.approx(-moves[2] - 2e-3)
    assert done  # the window of the last bar has no next return


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    n_walks=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_many_walks_at_once_are_plain_loops_one_by_one(noise, lengths, n_walks, seed):
    index = [at + 9 * run for run, n in enumerate(lengths) for at in range(sum(lengths))[-n:]]
    index = sorted(index)
    batch = noise(len(index), 2, 1, seed=seed, index=torch.tensor(index))
    runs, start = [], 0
    for k in range(1, len(index) + 1):
        if k == len(index) or index[k] != index[k - 1] + 1:
            runs.append(range(start, k))
            start = k
    market = ReplayMarket([batch], 2, 1e-3, n_walks, stride=36)
    assert bool(market.done.all())
    market.begin()
    rng = np.random.default_rng(seed)
    on = [runs[k % len(runs)] for k in range(n_walks)]
    given_out, place, held = n_walks, [0] * n_walks, [0.0] * n_walks
    for _ in range(12):
        rows = [on[k][min(place[k], len(on[k]) - 1)] for k in range(n_walks)]
        assert torch.equal(market.matrices, batch.matrices[rows])
        action = rng.integers(0, 5, (n_walks, 2))
        found = market.step(torch.from_numpy(action)).tolist()
        for k in range(n_walks):
            if place[k] == len(on[k]):
                assert found[k] == 0
                continue
            new = float(np.mean(action[k] * 0.5 - 1))
            wanted = new * float(batch.next_return[rows[k]]) - 1e-3 * abs(new - held[k])
            assert found[k] == pytest.approx(wanted, abs=1e-12)
            held[k], place[k] = new, place[k] + 1
        ended = [place[k] == len(on[k]) for k in range(n_walks)]
        assert market.done.tolist() == ended
        assert market.exposure.tolist() == pytest.approx(held)
        again = [done and bool(rng.integers(0, 2)) for done in ended]
        market.begin(torch.tensor(again))
        for k in (k for k in range(n_walks) if again[k]):
            on[k], place[k], held[k] = runs[given_out % len(runs)], 0, 0.0
            given_out += 1


def test_a_missing_return_ends_the_episode(noise, changed):
    batch = noise(6, 2, 1)
    returns = batch.next_return.clone()
    returns[2] = math.nan
    market = ReplayMarket([changed(batch, next_return=returns)], 1, 0.0, stride=36)
    market.begin()
    action = torch.tensor([[4]])
    assert [float(market.step(action)) for _ in range(3)] == [*returns[:2].tolist(), 0.0]
    assert bool(market.done)
    market.begin(torch.tensor([True]))
    assert torch.equal(market.matrices[0], batch.matrices[3])


def test_it_earns_what_the_trainers_rollout_earns(noise):
    trainer = BatchStrategicTrainer(stride=36)
    batch = noise(32, run_length=8)
    env = ReplayEnv([batch], trainer.config, n_trajectories=4, stride=36)
    state, rewards = env.reset(), []
    for _ in range(8):
        decision = trainer.act(state["matrix"], state["exposure"][:, 0].double())
        state["action"] = ((decision.actions + 1) * 2).long()
        state = env.step(state)["next"]
        rewards.append(state["reward"])
    assert bool(state["done"].all())
    wanted = trainer.evaluate([batch])["avg_reward"]
    assert float(torch.stack(rewards).mean()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("n_trajectories", [1, 3])
def test_torchrl_finds_nothing_wrong_with_it(noise, n_trajectories):
    batches = [noise(16, run_length=4, seed=seed) for seed in (0, 1)]
    env = ReplayEnv(batches, MappoConfig(), n_trajectories=n_trajectories, stride=36)
    check_env_specs(env)
    rolled = env.rollout(10, break_when_any_done=False)
    assert rolled["next", "done"].sum() == 2 * n_trajectories  # after 4 and 8 steps
    assert rolled["exposure"][:, [0, 4, 8]].abs().sum() == 0


def test_what_can_be_gone_through_only_once_is_refused(noise):
    with pytest.raises(UsageError, match="only once"):
        ReplayMarket(iter([noise(4)]), 3, 0.0)


def test_batches_with_nothing_to_trade_are_refused(noise, changed):
    dead = changed(noise(4), weight=torch.zeros(4))
    for source in ([], [dead]):
        with pytest.raises(UsageError, match="nothing to trade"):
            ReplayMarket(source, 3, 0.0).begin()
    with pytest.raises(UsageError, match="at least 1 walk"):
        ReplayMarket([noise(4)], 3, 0.0, 0)
