"""The replay market as an environment: K trajectories at once, window by window.

Trainers here need no environment: they walk all trajectories of a batch by table (`rollout`). This
is for other algorithms, by TorchRL's interface (`ReplayEnv`) or PettingZoo's
(`grandbatch.mappo.parallel`). Rewards are the same, by the same formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from grandbatch.batch import MatrixBatch
from grandbatch.errors import UsageError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import (
    EXPOSURES,
    cut_trajectories,
    exposure_of,
    flat_level,
    team_reward,
)


class ReplayMarket:
    """K walks through recorded trajectories, each with an exposure of its own.

    A walk starts flat at the first window of a trajectory and ends with its last: where the run
    of consecutive windows ends, or before a window without a next return. Walks take the
    trajectories in the order of the source, each the next one that is free, when they are begun.

    Parameters
    ----------
    source : iterable of MatrixBatch
        A loader (with `run_length`) or a list; it is gone through again when it ends.
    n_agents : int
        n, whose mean exposure the team holds.
    cost : float
        Per unit of exposure changed, in return units.
    n_walks : int
        K.
    stride : int, optional
        Bars between neighbouring windows, as of `cut_trajectories`.

    Attributes
    ----------
    done : (K,) bool
        Whether each walk has ended.
    exposure : (K,) float64
        What each team holds.

    Raises
    ------
    UsageError
        If the source can be gone through only once, or holds no window with a next return.
    """

    def __init__(
        self,
        source: Iterable[MatrixBatch],
        n_agents: int,
        cost: float,
        n_walks: int = 1,
        stride: int | None = None,
    ) -> None:
        if iter(source) is source:
            raise UsageError(
                f"a {type(source).__name__} can be gone through only once; "
                "give a loader, or a list of batches"
            )
        if n_walks < 1:
            raise UsageError(f"a market needs at least 1 walk, got {n_walks}")
        self.n_agents, self.cost = n_agents, cost
        self._trajectories = _endless(source, stride)
        self._level = torch.full((n_walks,), flat_level(n_agents))
        self._place = torch.zeros(n_walks, dtype=torch.int64)
        self._length = torch.zeros(n_walks, dtype=torch.int64)
        self._walk = torch.arange(n_walks)
        first = next(iter(source), None)
        if first is None:
            raise _nothing_to_trade()
        self._matrices = first.matrices.new_zeros((n_walks, 1, *first.matrices.shape[1:]))
        self._returns = torch.zeros((n_walks, 1), dtype=torch.float64)

    @property
    def done(self) -> torch.Tensor:
        """Whether each walk has ended, (K,) bool."""
        return self._place >= self._length

    @property
    def exposure(self) -> torch.Tensor:
        """What each team holds, (K,) float64."""
        return exposure_of(self._level, self.n_agents)

    @property
    def matrices(self) -> torch.Tensor:
        """The window that each walk stands at, (K, L, F) float32; its last one, if it is done."""
        return self._matrices[self._walk, self._stands_at]

    @property
    def _stands_at(self) -> torch.Tensor:
        return torch.minimum(self._place, self._length - 1).clamp_min(0)

    def begin(self, which: torch.Tensor | None = None) -> None:
        """Start walks (K,) bool, by default all, on the next trajectories."""
        which = torch.ones_like(self.done) if which is None else which
        for walk in which.nonzero().flatten().tolist():
            matrices, returns = next(self._trajectories)
            length = len(returns)
            if (missing := length - self._returns.shape[1]) > 0:
                self._matrices = _lengthened(self._matrices, missing)
                self._returns = _lengthened(self._returns, missing)
            self._matrices[walk, :length] = matrices
            self._returns[walk, :length] = returns
            self._length[walk] = length
        self._place[which] = 0
        self._level[which] = flat_level(self.n_agents)

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """Take the agents' actions (K, n) int64; return the teams' rewards (K,) float64.

        Walks that are done stay where they are, and earn 0.
        """
        live = ~self.done
        before = self.exposure
        self._level = torch.where(live, action.sum(-1), self._level)
        returns = self._returns[self._walk, self._stands_at]
        reward = team_reward(self.exposure, before, returns, self.cost)
        self._place = self._place + live
        return torch.where(live, reward, 0.0)


class ReplayEnv(EnvBase):  # type: ignore[misc]  # TorchRL is untyped
    """The replay market for TorchRL: a batch-locked environment of K trajectories.

    `action` (K, n) holds each agent's choice of -1, -1/2, 0, 1/2, 1 by number; `matrix`
    (K, L, F) is the window, `exposure` (K, 1) what the team holds, `reward` (K, 1) what it
    earned. Resetting a trajectory that has ended goes on with the next one of the source.

    Parameters
    ----------
    source : iterable of MatrixBatch
        As of `ReplayMarket`.
    config : MappoConfig
        Agents and cost.
    n_trajectories : int
        K.
    stride : int, optional
        Bars between neighbouring windows of the store.
    device : str or torch.device
        Where observations and rewards go.
    """

    def __init__(
        self,
        source: Iterable[MatrixBatch],
        config: MappoConfig,
        *,
        n_trajectories: int = 1,
        stride: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(device=device, batch_size=[n_trajectories])
        n_agents = len(config.agents)
        self.market = ReplayMarket(source, n_agents, config.cost, n_trajectories, stride)
        K, shape = n_trajectories, self.market.matrices.shape
        self.observation_spec = Composite(
            matrix=Unbounded(shape, dtype=torch.float32, device=device),
            exposure=Bounded(-1.0, 1.0, shape=(K, 1), dtype=torch.float32, device=device),
            shape=(K,),
            device=device,
        )
        self.action_spec = Categorical(len(EXPOSURES), shape=(K, n_agents), device=device)
        self.reward_spec = Unbounded((K, 1), dtype=torch.float32, device=device)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        which = None if tensordict is None else tensordict.get("_reset", None)
        self.market.begin(None if which is None else which.reshape(-1).cpu())
        return self._seen({})

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        reward = self.market.step(tensordict["action"].cpu())
        return self._seen({"reward": reward.to(torch.float32).unsqueeze(-1)})

    def _seen(self, more: dict[str, torch.Tensor]) -> TensorDict:
        market = self.market
        done = market.done.unsqueeze(-1)
        return TensorDict(
            {
                "matrix": market.matrices,
                "exposure": market.exposure.to(torch.float32).unsqueeze(-1),
                "done": done,
                "terminated": done.clone(),
                **more,
            },
            batch_size=self.batch_size,
        ).to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        """Do nothing: what comes is recorded, and its order is the source's."""


def _endless(
    source: Iterable[MatrixBatch], stride: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Matrices (T, L, F) and returns (T,) of the trajectories of a source, over and over."""
    while True:
        found = False
        for batch in source:
            cut = cut_trajectories(batch, stride)
            for row, valid in zip(cut.row, cut.valid, strict=True):
                found = True
                rows = row[valid]
                yield batch.matrices[rows], batch.next_return[rows]
        if not found:
            raise _nothing_to_trade()


def _nothing_to_trade() -> UsageError:
    return UsageError(
        "the source holds no window with weight and a next return, "
        "so there is nothing to trade; give other batches"
    )


def _lengthened(values: torch.Tensor, missing: int) -> torch.Tensor:
    """Add `missing` zeros along the second dimension."""
    return torch.cat([values, values.new_zeros((len(values), missing, *values.shape[2:]))], dim=1)
