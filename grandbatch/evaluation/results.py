"""What an evaluation found, as values that go to JSON and print as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from grandbatch.evaluation.chance import Verdict
from grandbatch.evaluation.performance import FIGURES, Market, Performance, equity_of, written
from grandbatch.values.arrays import Float64, Int64
from grandbatch.values.times import shown

BUY_AND_HOLD = "buy and hold"
"""What holding the market is called beside teams."""

_CURVE_POINTS = 500
_SHOWN_SYMBOLS = 20


@dataclass(frozen=True, eq=False)
class Track:
    """What one policy did.

    Parameters
    ----------
    exposure : (V,) float64
        Held over the bar after each of `Evaluation.windows`.
    returns : (T,) float64
        Of all capital after costs, over the bar after each of `Evaluation.times`.
    performance : Performance
    """

    exposure: Float64
    returns: Float64
    performance: Performance

    @classmethod
    def of(cls, market: Market, exposure: Float64) -> Track:
        """Judge exposures (V,)."""
        return cls(exposure, market.returns(exposure), market.perform(exposure))

    @cached_property
    def equity(self) -> Float64:
        """Value of a capital of 1 after each bar, (T,) float64."""
        return equity_of(self.returns)


@dataclass(frozen=True)
class SymbolResult:
    """What the policies earned on one symbol, as if all capital were its own."""

    symbol: str
    n_windows: int
    mean_return: float
    """Per bar after costs, mean over the seeds."""
    total_return: float
    """Last equity less 1, mean over the seeds."""
    buy_and_hold: float
    """The same of holding it throughout."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Policies of several seeds beside what anyone could have done, on the same V windows.

    Parameters
    ----------
    seeds : tuple of Track
        One policy each.
    buy_and_hold : Track
        Exposure 1 from the first window of each walk to its last.
    flat : Track
        Never anything.
    others : mapping of str to Track
        Policies they were evaluated against.
    random : Performance
        The seeds' own exposures at random other times: means.
    verdict : Verdict
    symbols : tuple of SymbolResult
        The best first.
    curve_bars : (P,) int64
        Places in `times` of the bars that curves are drawn by.
    chance : (3, P) float64
        Equity at these bars that 5 %, half, and 95 % of the random shifts stay below.
    windows : (V,) int64
        Numbers in the store.
    times : (T,) int64
        ns since 1970 UTC: when exposures are chosen. Returns are those of the bar that follows.
    bars_per_year : float
        Measured on these bars; Sharpe ratios are scaled by its root.
    cost : float
        Per unit of exposure changed, in return units.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> def half(windows, exposure):  # of the capital, always
    ...     return exposure * 0 + 0.5
    >>> result = gb.evaluate(half, store, draws=99)
    >>> result.flat.performance.total_return
    0.0
    """

    seeds: tuple[Track, ...]
    buy_and_hold: Track
    flat: Track
    others: Mapping[str, Track]
    random: Performance
    verdict: Verdict
    symbols: tuple[SymbolResult, ...]
    curve_bars: Int64
    chance: Float64
    windows: Int64
    times: Int64
    bars_per_year: float
    cost: float

    @property
    def performance(self) -> Performance:
        """Means over the seeds."""
        return Performance.mean_of([track.performance for track in self.seeds])

    @property
    def table(self) -> dict[str, dict[str, float | None]]:
        """The figures side by side: of each seed, their mean, and what to compare it with."""
        rows = {f"seed {n}": track.performance for n, track in enumerate(self.seeds)}
        rows["mean"] = self.performance
        rows |= {name: track.performance for name, track in self.others.items()}
        rows[BUY_AND_HOLD] = self.buy_and_hold.performance
        rows["flat"], rows["random"] = self.flat.performance, self.random
        return {name: asdict(row) for name, row in rows.items()}

    @property
    def curves(self) -> dict[str, Float64]:
        """Equity at `curve_bars`, (P,) each: the seeds' mean, the others, buy and hold."""
        mean = np.mean([track.equity[self.curve_bars] for track in self.seeds], axis=0)
        beside = {**self.others, BUY_AND_HOLD: self.buy_and_hold}
        return {
            "team": mean,
            **{name: track.equity[self.curve_bars] for name, track in beside.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return all as JSON types, equity curves thinned to some 500 points."""
        kept = self.curve_bars
        tracks = {f"seed {n}": track for n, track in enumerate(self.seeds)}
        tracks |= {**self.others, BUY_AND_HOLD: self.buy_and_hold}
        equity = {name: track.equity[kept].tolist() for name, track in tracks.items()}
        bounds = zip(("random, 5 %", "random", "random, 95 %"), self.chance.tolist(), strict=True)
        verdict = {**asdict(self.verdict), "beats_random": self.verdict.beats_random}
        return {
            "performance": self.table,
            "verdict": {**verdict, "text": str(self.verdict)},
            "symbols": [asdict(one) for one in self.symbols],
            "bars_per_year": self.bars_per_year,
            "cost": self.cost,
            "n_windows": len(self.windows),
            "n_bars": len(self.times),
            "times": self.times[kept].tolist(),
            "equity": {**equity, **dict(bounds)},
        }

    @property
    def best_and_worst(self) -> tuple[tuple[SymbolResult, ...], tuple[SymbolResult, ...]]:
        """The twenty symbols that earned most and the twenty that earned least, none in both."""
        rest = self.symbols[_SHOWN_SYMBOLS:]
        return self.symbols[:_SHOWN_SYMBOLS], rest[-_SHOWN_SYMBOLS:]

    def figures(self) -> list[list[str]]:
        """Return the figures as people read them: a head, then a row for each, with its unit."""
        table = self.table
        is_one = len(self.seeds) == 1
        # each seed has a line of its own, and nothing comes of holding nothing
        names = [name for name in table if not name.startswith("seed ") and name != "flat"]
        called = {"mean": "team" if is_one else f"mean of {len(self.seeds)} seeds"}
        head = ["", *(called.get(name, name) for name in names)]
        return [head, *(
            [said, *(written(figure, table[name][figure]) for name in names)]
            for figure, (said, _) in FIGURES.items()
        )]  # fmt: skip

    def context(self) -> str:
        """Say what period it is about, and at what cost."""
        unit = f"cost {1e4 * self.cost:g} bp per unit of exposure changed"
        return f"{_span(self.times)}; {self.bars_per_year:,.0f} bars a year; {unit}"

    def __str__(self) -> str:
        rows = self.figures()
        wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [
            row[0].ljust(wide[0])
            + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], wide[1:], strict=True))
            for row in rows
        ]
        if len(self.seeds) > 1:
            for number, track in enumerate(self.seeds):
                own = asdict(track.performance)
                said = (written(name, own[name]) for name in ("total_return", "sharpe"))
                lines.append(f"seed {number}: return {', Sharpe ratio '.join(said)}")
        return "\n".join([*lines, self.context(), str(self.verdict)])


def thinned(n_bars: int) -> Int64:
    """Choose the bars that curves are drawn by: some 500, spread evenly."""
    return np.unique(np.linspace(0, n_bars - 1, _CURVE_POINTS).astype(np.int64))


def _span(times: Int64) -> str:
    return f"{len(times):,} bars from {shown(int(times[0]))} to {shown(int(times[-1]))}"
