"""From exposures to net returns, an equity curve and its figures.

Each symbol is given the same share of the capital. Exposure is a share of it, set anew at every
bar; a change costs, and so do taking up the first exposure of a walk and selling the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.evaluation.walking import Tape
from grandbatch.values.arrays import Float64, Int64

YEAR_NS = int(365.25 * 86_400 * 10**9)


@dataclass(frozen=True, eq=False)
class Market:
    """What trading a tape pays.

    Parameters
    ----------
    tapes : sequence of Tape
        Periods that follow each other; V windows in all.
    n_symbols : int
        That share the capital, whether or not they have bars all the time.
    cost : float
        Per unit of exposure changed, in return units (1e-4 is one basis point).

    Raises
    ------
    UsageError
        If the cost is not a number from 0 on, or a period has a single bar.
    """

    tapes: Sequence[Tape]
    n_symbols: int
    cost: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise UsageError(f"cost must be a number of at least 0, got {self.cost!r}")
        for tape in self.tapes:
            if tape.time.min() == tape.time.max():
                raise UsageError(
                    f"there are {len(tape)} windows that all end at the same bar: no period to "
                    "evaluate; give a longer one"
                )

    @cached_property
    def tape(self) -> Tape:
        """All periods' windows."""
        return Tape.joined(self.tapes)

    @cached_property
    def times(self) -> Int64:
        """When exposures are chosen, rising, (T,) int64 ns since 1970 UTC."""
        return np.unique(self.tape.time)

    @cached_property
    def _place(self) -> npt.NDArray[np.intp]:
        return np.searchsorted(self.times, self.tape.time)

    @cached_property
    def bars_per_year(self) -> float:
        """Bars that there are in 365.25 days of the periods: what Sharpe ratios are scaled by."""
        bars = elapsed = 0
        for tape in self.tapes:
            times = np.unique(tape.time)
            bars += len(times) - 1
            elapsed += int(times[-1] - times[0])
        return bars * YEAR_NS / elapsed

    def traded(self, exposure: Float64) -> Float64:
        """Exposure changed at each window, (..., V) to (..., V): the last of a walk is sold."""
        changed = np.abs(np.diff(exposure, prepend=0.0))
        changed[..., self.tape.begins] = np.abs(exposure[..., self.tape.begins])
        changed[..., self.tape.ends] += np.abs(exposure[..., self.tape.ends])
        return changed

    def net(self, exposure: Float64) -> Float64:
        """Earn, in return units: e_t · R_{t+1} - cost · |e_t - e_{t-1}|, (..., V) to (..., V)."""
        return exposure * self.tape.next_return - self.cost * self.traded(exposure)

    def returns(self, exposure: Float64) -> Float64:
        """Return of all capital over each bar, (V,) to (T,)."""
        return self._per_bar(self.net(exposure))

    def perform(self, exposure: Float64) -> Performance:
        """Judge exposures (V,)."""
        returns = self.returns(exposure)
        changed = self._per_bar(self.traded(exposure))
        bets = (exposure != 0) & (self.tape.next_return != 0)
        right = np.sign(exposure[bets]) == np.sign(self.tape.next_return[bets])
        equity = equity_of(returns)
        return Performance(
            mean_return=float(returns.mean()),
            total_return=float(equity[-1] - 1),
            sharpe=sharpe_of(returns, self.bars_per_year),
            max_drawdown=drawdown_of(equity),
            turnover=float(changed.mean()),
            exposure=float(self._per_bar(np.abs(exposure)).mean()),
            hit_rate=float(right.mean()) if len(right) else None,
            cost=float(self.cost * changed.sum()),
        )

    def by_symbol(self, exposure: Float64) -> list[tuple[int, int, float, float]]:
        """Judge each symbol by itself, as if all capital were its own: exposures (S, V).

        Returns
        -------
        list of (symbol, windows, return per bar, return in all)
            Means over the S.
        """
        order = np.argsort(self.tape.symbol, kind="stable")
        numbers, begins = np.unique(self.tape.symbol[order], return_index=True)
        net = self.net(exposure)
        found = []
        for number, rows in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True):
            own = net[:, rows]
            total = np.mean([equity_of(one)[-1] - 1 for one in own])
            found.append((number, len(rows), float(own.mean()), float(total)))
        return found

    def _per_bar(self, values: Float64) -> Float64:
        shares = values / self.n_symbols
        return np.asarray(np.bincount(self._place, shares, len(self.times)), np.float64)


@dataclass(frozen=True)
class Performance:
    """Figures of one equity curve, after costs."""

    mean_return: float
    """Per bar, in return units."""
    total_return: float
    """Last equity less 1."""
    sharpe: float | None
    """Mean over standard deviation of the bars' returns, a year's; None if they never vary."""
    max_drawdown: float
    """Largest fall from a peak, as a share of the peak."""
    turnover: float
    """Exposure changed per bar."""
    exposure: float
    """Mean |exposure|."""
    hit_rate: float | None
    """Share of windows with exposure whose market moved that way; None if there are none."""
    cost: float
    """Paid in all, in return units."""

    @classmethod
    def mean_of(cls, some: Sequence[Performance]) -> Performance:
        """Average each figure; None where one of them is."""

        def mean(name: str) -> float | None:
            values = [getattr(performance, name) for performance in some]
            return None if None in values else math.fsum(values) / len(values)

        return cls(**{field.name: mean(field.name) for field in fields(cls)})  # type: ignore[arg-type]  # None stays where it was


def _percent(value: float) -> str:
    return f"{100 * value:,.2f} %" if abs(value) < 1e4 else f"{100 * value:.2e} %"


def _signed_percent(value: float) -> str:
    return f"{'+' if value > 0 else ''}{_percent(value)}"


FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "total_return": ("return, all of it", _signed_percent),
    "mean_return": ("return per bar", lambda value: f"{1e4 * value:+.3f} bp"),
    "sharpe": ("Sharpe ratio, a year's", lambda value: f"{value:.2f}"),
    "max_drawdown": ("largest fall from a peak", _percent),
    "turnover": ("exposure changed per bar", lambda value: f"{value:.3f}"),
    "exposure": ("mean exposure, any side", lambda value: f"{value:.3f}"),
    "hit_rate": ("right about the side", _percent),
    "cost": ("costs paid, of capital", _percent),
}
"""What each field of `Performance` is called where people read it, and how it is written."""


def written(name: str, value: float | None) -> str:
    """Write a figure with its unit."""
    return "-" if value is None else FIGURES[name][1](value)


def equity_of(returns: Float64) -> Float64:
    """Compound returns (T,) from 1 on, (T,); what is lost in whole stays lost."""
    kept: Float64 = np.maximum(1 + returns, 0.0)
    return kept.cumprod()


def sharpe_of(returns: Float64, bars_per_year: float) -> float | None:
    """Return mean / deviation · sqrt(bars a year), of returns over one bar each, at no interest."""
    if len(returns) < 2 or returns.min() == returns.max():
        return None
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(bars_per_year))


def drawdown_of(equity: Float64) -> float:
    """Return the largest 1 - equity / highest equity before it; the start counts as 1."""
    return float((1 - equity / np.maximum.accumulate(np.maximum(equity, 1.0))).max())
