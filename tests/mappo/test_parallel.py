"""The replay market for PettingZoo."""

from __future__ import annotations

import subprocess
import sys

import pytest

from grandbatch.errors import UsageError
from grandbatch.mappo import MappoConfig

pytest.importorskip("pettingzoo", reason="needs the extra marl")


@pytest.fixture
def env(noise):
    from grandbatch.mappo.parallel import ParallelReplayEnv

    return ParallelReplayEnv([noise(12, run_length=4)], MappoConfig(), stride=36)


def test_pettingzoo_finds_nothing_wrong_with_it(env, capsys):
    from pettingzoo.test import parallel_api_test

    parallel_api_test(env, num_cycles=50)
    assert "Passed" in capsys.readouterr().out


def test_all_agents_see_window_and_exposure_and_earn_what_the_team_earns(env, noise):
    batch = noise(12, run_length=4)
    seen, infos = env.reset()
    assert env.agents == ["mlmi", "nwrqk", "regime"] == list(infos)
    actions, held = {"mlmi": 4, "nwrqk": 4, "regime": 3}, 0.0
    for k in range(4):
        for agent, matrix in seen.items():
            assert env.observation_space(agent).contains(matrix)
            assert (matrix[:, :-1] == batch.matrices[k].numpy()).all()
            assert matrix[:, -1] == pytest.approx(held)
        seen, rewards, terminated, truncated, _ = env.step(actions)
        wanted = 2.5 / 3 * float(batch.next_return[k]) - 1e-4 * (2.5 / 3 - held)
        assert list(rewards.values()) == pytest.approx([wanted] * 3)
        held = 2.5 / 3
    assert all(terminated.values())
    assert not any(truncated.values())
    assert env.agents == []


def test_actions_that_are_missing_or_late_are_refused(env):
    with pytest.raises(UsageError, match="call reset"):
        env.step({})
    env.reset()
    with pytest.raises(UsageError, match=r"no action of \['nwrqk', 'regime'\]"):
        env.step({"mlmi": 0})


@pytest.mark.slow
def test_without_the_extra_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['pettingzoo'] = None\n"
        "try:\n import grandbatch.mappo.parallel\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "grandbatch[marl]"' in done.stdout
