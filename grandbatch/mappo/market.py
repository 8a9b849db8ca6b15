"""The replay market: what exposures earn on recorded returns, over many trajectories at once.

A trajectory is a run of consecutive windows of one segment. Exposure starts at 0, is kept from
window to window, and changing it costs. Team exposures form a small grid, so they are carried as
integers ("levels"): level k of n agents is the exposure (k - 2n)/(2n).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from grandbatch.batch import MatrixBatch

EXPOSURES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""What one agent may choose; a team holds the mean of its agents' choices."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Which windows of a batch follow on each other.

    Parameters
    ----------
    row : (K, T) int64
        For each of K trajectories the batch rows of its windows in order, padded with 0.
    valid : (K, T) bool
        False where `row` is padding.
    """

    row: torch.Tensor
    valid: torch.Tensor

    @cached_property
    def places(self) -> torch.Tensor:
        """Where in a flat (K · T) all windows stand, trajectory by trajectory, (V,) int64."""
        return self.valid.flatten().nonzero().squeeze(1)

    @cached_property
    def flat_rows(self) -> torch.Tensor:
        """Batch rows of all windows, trajectory by trajectory, (V,) int64."""
        return self.row.flatten().index_select(0, self.places)


def cut_trajectories(batch: MatrixBatch, stride: int | None = None) -> Trajectories:
    """Find the runs of consecutive windows in a batch.

    A window goes on from the one before it in the batch if its number is the next, its symbol the
    same, and its first bar `stride` bars later. Without a stride, 1 to L bars later will do, which
    can't happen across a segment's border, where the lookback lies in between. Padding (weight 0)
    and windows without a next return are in no trajectory: there is nothing to earn, and a
    trajectory ends before them.

    Parameters
    ----------
    batch : MatrixBatch
        B windows.
    stride : int, optional
        Bars between neighbouring windows of the store.

    Returns
    -------
    Trajectories
        K trajectories; every window with weight and return is in exactly one.
    """
    live = (batch.weight > 0) & ~torch.isnan(batch.next_return)
    risen = batch.first_row.diff()
    near = risen == stride if stride else (risen >= 1) & (risen <= batch.matrices.shape[1])
    follows = near & (batch.index.diff() == 1) & (batch.symbol.diff() == 0)
    follows = follows & live[1:] & live[:-1]
    row = torch.nonzero(live).squeeze(1)
    starts = live.clone()
    starts[1:] &= ~follows
    trajectory = (starts.cumsum(0) - 1)[row]
    first = torch.nonzero(starts).squeeze(1)
    step = row - first[trajectory]
    shape = (len(first), int(step.max()) + 1 if len(row) else 0)
    padded = row.new_zeros(shape)
    valid = torch.zeros(shape, dtype=torch.bool, device=row.device)
    padded[trajectory, step] = row
    valid[trajectory, step] = True
    return Trajectories(padded, valid)


def n_levels(n_agents: int) -> int:
    """How many different exposures a team of `n_agents` can hold."""
    return (len(EXPOSURES) - 1) * n_agents + 1


def flat_level(n_agents: int) -> int:
    """Return the level whose exposure is 0."""
    return (len(EXPOSURES) // 2) * n_agents


def exposure_of(level: torch.Tensor, n_agents: int) -> torch.Tensor:
    """Team exposure of a level: the mean of the agents' exposures.

    Parameters
    ----------
    level : (...) int64
        Sum of the agents' action numbers, 0 to 4n.
    n_agents : int
        n.

    Returns
    -------
    (...) float64
        In -1..1.
    """
    half = flat_level(n_agents)
    return (level - half).to(torch.float64) / half


def replay(response: torch.Tensor, trajectories: Trajectories, start: int) -> torch.Tensor:
    """Walk all trajectories at once and tell which level each window was met with.

    Parameters
    ----------
    response : (B, E) int64
        Level that the team takes at each window, for each level it may come with.
    trajectories : Trajectories
        K trajectories of up to T windows.
    start : int
        Level at the start of a trajectory.

    Returns
    -------
    (K, T) int64
        Level before each window; meaningless where padded.
    """
    answers = response.flatten()
    first = (trajectories.row * response.shape[1]).T.contiguous()
    before = torch.full_like(first, start)
    now = before.unbind()
    for asked, met, then in zip(first.unbind(), now, now[1:], strict=False):
        torch.index_select(answers, 0, asked + met, out=then)
    return before.T


def team_reward(
    exposure: torch.Tensor, previous: torch.Tensor, next_return: torch.Tensor, cost: float
) -> torch.Tensor:
    """Reward of holding an exposure over the bar after a window.

    r_t = e_t · R_{t+1} - cost · |e_t - e_{t-1}|, where R_{t+1} = (c_{t+1} - c_t)/|c_t|.

    Parameters
    ----------
    exposure, previous : (...) float64
        e_t and e_{t-1}, in -1..1.
    next_return : (...) float64
        R_{t+1}.
    cost : float
        Per unit of exposure changed, in return units.

    Returns
    -------
    (...) float64
        In return units.
    """
    return exposure * next_return - cost * (exposure - previous).abs()
