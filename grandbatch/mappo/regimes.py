"""What kind of market a window ends in: volatile, rising, falling, or neither."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import torch

from grandbatch.batch import MatrixBatch
from grandbatch.errors import UsageError

_VOLATILITY, _MOMENTUM = 2, 3
_MOMENTUM_5 = 5
_RETURN_PER_UNIT = 0.05

RegimeSource = Literal["strategic", "tactical"]


class Regime(IntEnum):
    """The regimes, as numbered by `RegimeRules.classify`."""

    VOLATILE = 0
    BULL = 1
    BEAR = 2
    SIDEWAYS = 3


@dataclass(frozen=True)
class RegimeRules:
    """VOLATILE above `volatile`; else BULL above `bull` or BEAR below `bear`; else SIDEWAYS.

    The defaults suit daily bars. Returns grow with the bar's length, so that on bars of minutes
    they hardly ever fire: take `adaptive` there.

    Raises
    ------
    UsageError
        If a threshold is not finite, or `bear` is above `bull`.
    """

    volatile: float = 0.05
    """Volatility above which a window is VOLATILE."""
    bull: float = 0.02
    """Momentum above which a window is BULL."""
    bear: float = -0.02
    """Momentum below which a window is BEAR."""
    source: RegimeSource = "strategic"
    """The feature set whose matrices are judged."""

    def __post_init__(self) -> None:
        for name in ("volatile", "bull", "bear"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} must be a finite number, got {getattr(self, name)!r}")
        if self.bear > self.bull:
            raise UsageError(f"bear must be at most bull, got {self.bear:g} and {self.bull:g}")
        if self.source not in ("strategic", "tactical"):
            raise UsageError(f"source must be strategic or tactical, got {self.source!r}")

    @classmethod
    def adaptive(
        cls,
        batches: Iterable[MatrixBatch],
        source: RegimeSource = "strategic",
        *,
        volatile: float = 0.9,
        trend: float = 0.3,
    ) -> RegimeRules:
        """Take thresholds from the training split: only a share of its windows is beyond them.

        Parameters
        ----------
        batches : iterable of MatrixBatch
            Of the training split, in any order; windows with weight 0 don't count.
        source : "strategic" or "tactical"
            The feature set.
        volatile : float
            Quantile of volatility above which a window is VOLATILE.
        trend : float
            Share of windows above `bull`, and share below `bear`; at most a half.

        Raises
        ------
        UsageError
            If there is no window, or a share makes no sense.
        """
        if not (0 < volatile < 1 and 0 < trend <= 0.5):
            raise UsageError(
                f"volatile must be above 0 and below 1, trend above 0 and at most 0.5, "
                f"got {volatile!r} and {trend!r}"
            )
        found = [regime_values(b.matrices[b.weight > 0], source) for b in batches]
        if not sum(len(momentum) for _, momentum in found):
            raise UsageError("there is no window to take quantiles of; give at least one batch")
        volatility, momentum = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
        bear, bull = np.quantile(momentum, [trend, 1 - trend])
        return cls(float(np.quantile(volatility, volatile)), float(bull), float(bear), source)

    def classify(self, volatility: torch.Tensor, momentum: torch.Tensor) -> torch.Tensor:
        """Tell the regime of each pair of values (...), as (...) int64 of `Regime`."""
        regime = torch.full(momentum.shape, int(Regime.SIDEWAYS), device=momentum.device)
        regime[momentum > self.bull] = int(Regime.BULL)
        regime[momentum < self.bear] = int(Regime.BEAR)
        regime[volatility > self.volatile] = int(Regime.VOLATILE)
        return regime

    def label(self, matrices: torch.Tensor) -> torch.Tensor:
        """Tell the regime of each matrix (B, L, F) of the source, as (B,) int64 of `Regime`."""
        return self.classify(*regime_values(matrices, self.source))


def regime_values(
    matrices: torch.Tensor, source: RegimeSource
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return volatility and momentum at the end of matrices, (B,) float64 each.

    From strategic matrices they are the features of these names in the last row. Tactical ones
    hold neither: momentum is the return over 5 bars that `price_momentum_5` is made of (at most
    5 % either way), and volatility the standard deviation of these returns over the matrix.

    Parameters
    ----------
    matrices : (B, L, F) float32
        As stored, not normalised.
    source : "strategic" or "tactical"
        The feature set.
    """
    if source == "strategic":
        last = matrices[:, -1].to(torch.float64)
        return last[:, _VOLATILITY], last[:, _MOMENTUM]
    returns = _RETURN_PER_UNIT * matrices[:, :, _MOMENTUM_5].to(torch.float64)
    return returns.std(1, correction=0), returns[:, -1]
