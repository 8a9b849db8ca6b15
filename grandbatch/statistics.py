"""Statistics per feature, gathered batch by batch in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch

from grandbatch.errors import UsageError
from grandbatch.ranks import Ranks

_PARTS = ("count", "mean", "squares", "min", "max")


class _Windows(Protocol):
    """What is read of a `MatrixBatch`."""

    matrices: torch.Tensor

    @property
    def weight(self) -> torch.Tensor: ...


class FeatureStatistics:
    """Count, mean, deviation, minimum and maximum of each feature, of all rows seen so far.

    Values that are not finite are left out. Batches are combined by Chan, Golub and LeVeque's
    formula (Algorithms for computing the sample variance, 1983), in float64: nothing is lost by
    adding small numbers to large sums.

    Parameters
    ----------
    n_features : int
        F.

    Attributes
    ----------
    count, mean, min, max : (F,) float64 tensors
        nan, or infinities, where nothing was counted.
    """

    def __init__(self, n_features: int) -> None:
        self.count = torch.zeros(n_features, dtype=torch.float64)
        self.mean = torch.zeros(n_features, dtype=torch.float64)
        self.min = torch.full((n_features,), torch.inf, dtype=torch.float64)
        self.max = torch.full((n_features,), -torch.inf, dtype=torch.float64)
        self._squares = torch.zeros(n_features, dtype=torch.float64)

    @property
    def is_constant(self) -> torch.Tensor:
        """Whether all values of a feature were the same, (F,) bool."""
        return self.min == self.max

    @property
    def std(self) -> torch.Tensor:
        """The population's standard deviation, (F,) float64; nan where nothing was counted."""
        return (self._squares / self.count).sqrt()

    def update(self, rows: torch.Tensor) -> None:
        """Count rows (..., F).

        Raises
        ------
        UsageError
            If they have another number of features.
        """
        n_features = len(self.count)
        if rows.shape[-1] != n_features:
            raise UsageError(f"rows must have {n_features} features, got shape {tuple(rows.shape)}")
        together = rows.detach().cpu().contiguous()
        found = together.view(-1, n_features)
        if not len(found):
            return
        # one number that isn't finite makes the sum so: seldom there, and then looked for
        fine = None if found.sum().isfinite() else found.isfinite()

        def fill(values: torch.Tensor, number: float) -> torch.Tensor:
            return values if fine is None else values.where(fine, number)

        values = found.to(torch.float64)
        every = values.new_full((n_features,), len(values))
        count = every if fine is None else fine.sum(0).to(torch.float64)
        mean = fill(values, 0.0).sum(0) / count.clamp_min(1)
        squares = fill(values - mean, 0.0).square_().sum(0)
        least, most = fill(found, torch.inf), fill(found, -torch.inf)
        # windows first, whose rows lie side by side: torch compares few columns one by one
        least, most = least.view_as(together), most.view_as(together)
        while least.ndim > 1:
            least, most = least.amin(0), most.amax(0)
        self._combine(count, mean, squares, least.to(torch.float64), most.to(torch.float64))

    def merge(self, other: FeatureStatistics, ranks: Ranks | None = None) -> None:
        """Count what another has counted; with `ranks`, what the others of all ranks have."""
        found = other if ranks is None else other.over_ranks(ranks)
        self._combine(found.count, found.mean, found._squares, found.min, found.max)

    def over_ranks(self, ranks: Ranks) -> FeatureStatistics:
        """Return what all ranks have counted together."""
        if ranks.size == 1:
            return self
        found = FeatureStatistics(len(self.count))
        for parts in ranks.gather(torch.stack(list(self.state_dict().values()))):
            found._combine(*parts)
        return found

    def _combine(
        self,
        count: torch.Tensor,
        mean: torch.Tensor,
        squares: torch.Tensor,
        least: torch.Tensor,
        most: torch.Tensor,
    ) -> None:
        total = (self.count + count).clamp_min(1)
        delta = mean - self.mean
        self.mean = self.mean + delta * count / total
        self._squares = self._squares + squares + delta.square() * self.count * count / total
        self.count = self.count + count
        self.min = torch.minimum(self.min, least)
        self.max = torch.maximum(self.max, most)

    def describe(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return count, mean, std, min and max by feature name, as `MatrixStore.feature_stats`."""
        parts = {
            "count": self.count,
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
        }
        return {
            name: {part: float(values[place]) for part, values in parts.items()}
            for place, name in enumerate(names)
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return all of it as tensors."""
        parts = (self.count, self.mean, self._squares, self.min, self.max)
        return {name: part.clone() for name, part in zip(_PARTS, parts, strict=True)}

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor], n_features: int) -> FeatureStatistics:
        """Make one that goes on from `state_dict`.

        Raises
        ------
        ValueError
            If the state has other parts, or another number of features.
        """
        if set(state) != set(_PARTS) or any(part.shape != (n_features,) for part in state.values()):
            raise ValueError(f"not the statistics of {n_features} features: {state!r}")
        made = cls(n_features)
        parts = (state[name].to(torch.float64).clone() for name in _PARTS)
        made.count, made.mean, made._squares, made.min, made.max = parts
        return made


def feature_statistics(batches: Iterable[_Windows], stride: int | None = None) -> FeatureStatistics:
    """Gather the statistics of batches, such as those of a training split.

    Parameters
    ----------
    batches : iterable of MatrixBatch
        For example a `SlidingWindowDataLoader` with `subset=`: all of its epoch, and it stands
        afterwards where it stood before. Windows with weight 0 don't count.
    stride : int, optional
        Bars between neighbouring windows. With it only each window's last `stride` rows count, so
        that rows shared by neighbours count once (and the first rows of a segment, that are never
        among the last, not at all). Without it a row counts once for each window it is in.

    Returns
    -------
    FeatureStatistics

    Raises
    ------
    UsageError
        If there is no window.
    """
    found: FeatureStatistics | None = None
    for batch in getattr(batches, "whole_epoch", batches.__iter__)():
        found = found or FeatureStatistics(batch.matrices.shape[2])
        found.update(new_rows(batch, stride))
    if found is None:
        raise UsageError("there is no window to take statistics of; give at least one batch")
    return found


def new_rows(batch: _Windows, stride: int | None) -> torch.Tensor:
    """Return the rows of a batch's windows that no window `stride` bars before has, (V, S, F)."""
    rows = batch.matrices
    newest = rows if stride is None else rows[:, -min(stride, rows.shape[1]) :]
    counts = batch.weight > 0
    return newest if counts.all() else newest[counts]
