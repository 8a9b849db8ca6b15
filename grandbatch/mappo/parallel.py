"""The replay market for PettingZoo: one trajectory at a time, agents by name (the extra `marl`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from grandbatch.batch import MatrixBatch
from grandbatch.errors import MissingExtraError, UsageError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.environment import ReplayMarket
from grandbatch.mappo.market import EXPOSURES
from grandbatch.values.arrays import Float32

try:
    from gymnasium.spaces import Box, Discrete
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"grandbatch.mappo.parallel needs PettingZoo ({error}); "
        'install it with: pip install "grandbatch[marl]"'
    ) from error


class ParallelReplayEnv(ParallelEnv[str, Float32, int]):  # type: ignore[misc]  # untyped
    """The replay market as a `ParallelEnv`: each reset starts the next trajectory.

    Every agent sees the window with the team's exposure as one more column, (L, F + 1) float32,
    chooses one of -1, -1/2, 0, 1/2, 1 by number, and earns the team's reward.

    Parameters
    ----------
    source : iterable of MatrixBatch
        As of `ReplayMarket`.
    config : MappoConfig
        Agents and cost.
    stride : int, optional
        Bars between neighbouring windows of the store.
    """

    metadata = {"name": "grandbatch_replay_v0", "render_modes": []}  # noqa: RUF012

    def __init__(
        self, source: Iterable[MatrixBatch], config: MappoConfig, *, stride: int | None = None
    ) -> None:
        self.possible_agents = list(config.agents)
        self.agents: list[str] = []
        self.market = ReplayMarket(source, len(config.agents), config.cost, 1, stride)
        _, length, features = self.market.matrices.shape
        seen = (length, features + 1)
        self.observation_spaces = {
            agent: Box(-np.inf, np.inf, seen, np.float32) for agent in self.possible_agents
        }
        self.action_spaces = {agent: Discrete(len(EXPOSURES)) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> Box:
        """Return the space of what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        """Return the space of an agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, dict[str, Any]]]:
        """Start the next trajectory. Seed and options do nothing: what comes is recorded."""
        self.market.begin()
        self.agents = list(self.possible_agents)
        return self._seen(), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[
        dict[str, Float32],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Let the team act; return observations, rewards, terminations, truncations and infos.

        Raises
        ------
        UsageError
            If an agent's action is missing, or the trajectory has ended.
        """
        if not self.agents:
            raise UsageError("the trajectory has ended; call reset for the next one")
        if missing := [agent for agent in self.agents if agent not in actions]:
            raise UsageError(f"every agent must act at every step; there is no action of {missing}")
        chosen = [[int(actions[agent]) for agent in self.agents]]
        reward, live = float(self.market.step(torch.tensor(chosen))), list(self.agents)
        done = bool(self.market.done)
        if done:
            self.agents = []
        return (
            {agent: seen for agent, seen in self._seen().items() if agent in live},
            dict.fromkeys(live, reward),
            dict.fromkeys(live, done),
            dict.fromkeys(live, False),
            {agent: {} for agent in live},
        )

    def _seen(self) -> dict[str, Float32]:
        matrix = self.market.matrices[0].numpy()
        held = np.full((len(matrix), 1), float(self.market.exposure), np.float32)
        seen: Float32 = np.concatenate([matrix, held], axis=1)
        return {agent: seen.copy() for agent in self.possible_agents}
