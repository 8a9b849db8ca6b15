"""The replay market against a plain loop, and what it must not know."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grandbatch.mappo.market import (
    cut_trajectories,
    exposure_of,
    flat_level,
    n_levels,
    replay,
    team_reward,
)


def as_lists(trajectories):
    pairs = zip(trajectories.row, trajectories.valid, strict=True)
    return [row[valid].tolist() for row, valid in pairs]


def cut(make, **columns):
    stride = columns.pop("stride", 36)
    returns = columns.pop("next_return")
    batch = make(torch.zeros(len(returns), 48, 13), returns, **columns)
    return as_lists(cut_trajectories(batch, stride))


def test_consecutive_windows_form_one_trajectory(make):
    assert cut(make, next_return=[0.1] * 4) == [[0, 1, 2, 3]]


def test_scattered_windows_are_trajectories_of_one_step(make):
    assert cut(make, next_return=[0.1] * 3, index=[5, 3, 4]) == [[0], [1, 2]]
    assert cut(make, next_return=[0.1] * 3, index=[9, 7, 5]) == [[0], [1], [2]]


@pytest.mark.parametrize("stride", [36, None])
def test_a_segments_border_ends_a_trajectory(make, stride):
    rows = [0, 36, 36 + 88, 36 + 88 + 36]
    assert cut(make, next_return=[0.1] * 4, first_row=rows, stride=stride) == [[0, 1], [2, 3]]


def test_another_symbol_starts_another_trajectory(make):
    assert cut(make, next_return=[0.1] * 3, symbol=[0, 0, 1]) == [[0, 1], [2]]


def test_a_missing_return_ends_the_trajectory_before_it(make):
    assert cut(make, next_return=[0.1, math.nan, 0.1]) == [[0], [2]]
    assert cut(make, next_return=[math.nan]) == []


def test_padding_is_in_no_trajectory(make):
    found = cut(make, next_return=[0.1] * 4, weight=[1, 0, 1, 1])
    assert found == [[0], [2, 3]]


def test_levels_are_all_the_means_of_the_agents_exposures():
    exposures = [-1, -0.5, 0, 0.5, 1]
    means = sorted({(a + b + c) / 3 for a in exposures for b in exposures for c in exposures})
    levels = exposure_of(torch.arange(n_levels(3)), 3)
    assert torch.allclose(levels, torch.tensor(sorted(means), dtype=torch.float64), atol=1e-15)
    assert levels[flat_level(3)] == 0


def test_reward_is_return_earned_less_cost_of_change():
    reward = team_reward(torch.tensor(0.5), torch.tensor(-0.5), torch.tensor(0.02), cost=0.001)
    assert reward == pytest.approx(0.5 * 0.02 - 0.001 * 1.0)


@st.composite
def batches(draw):
    n = draw(st.integers(1, 12))
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    gaps, dead, padded = draw(flags), draw(flags), draw(flags)
    index, at = [], 0
    for gap in gaps:
        at += 3 if gap else 1
        index.append(at)
    return {
        "next_return": [math.nan if d else 0.01 * (k + 1) for k, d in enumerate(dead)],
        "index": index,
        "weight": [0.0 if p else 1.0 for p in padded],
        "seed": draw(st.integers(0, 1000)),
    }


@given(batches())
def test_the_walk_is_that_of_a_plain_loop(make, case):
    levels = n_levels(3)
    n = len(case["index"])
    generator = torch.Generator().manual_seed(case["seed"])
    response = torch.randint(0, levels, (n, levels), generator=generator)
    batch = make(
        torch.zeros(n, 48, 13), case["next_return"], index=case["index"], weight=case["weight"]
    )
    trajectories = cut_trajectories(batch, 36)
    walked = replay(response, trajectories, flat_level(3))[trajectories.valid]
    found = dict(zip(trajectories.flat_rows.tolist(), walked.tolist(), strict=True))

    expected, held, last = {}, flat_level(3), None
    for k in range(n):
        if math.isnan(case["next_return"][k]) or not case["weight"][k]:
            last = None
            continue
        if last is None or case["index"][k] != last + 1:
            held = flat_level(3)
        expected[k] = held
        held, last = int(response[k, held]), case["index"][k]
    assert found == expected
