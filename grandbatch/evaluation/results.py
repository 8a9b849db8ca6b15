"""What an evaluation found, as values that go to JSON and print as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from grandbatch.evaluation.chance import Verdict
from grandbatch.evaluation.performance import Market, Performance, equity_of
from grandbatch.values.arrays import Float64, Int64
from grandbatch.values.times import shown

_CURVE_POINTS = 500


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
    random : Performance
        The seeds' own exposures at random other times: means.
    verdict : Verdict
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
    random: Performance
    verdict: Verdict
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
        rows["buy and hold"] = self.buy_and_hold.performance
        rows["flat"], rows["random"] = self.flat.performance, self.random
        return {name: asdict(row) for name, row in rows.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all as JSON types, equity curves thinned to some 500 points."""
        kept = np.unique(np.linspace(0, len(self.times) - 1, _CURVE_POINTS).astype(np.int64))
        tracks = {f"seed {n}": track for n, track in enumerate(self.seeds)}
        tracks["buy and hold"] = self.buy_and_hold
        verdict = {**asdict(self.verdict), "beats_random": self.verdict.beats_random}
        return {
            "performance": self.table,
            "verdict": {**verdict, "text": str(self.verdict)},
            "bars_per_year": self.bars_per_year,
            "cost": self.cost,
            "n_windows": len(self.windows),
            "n_bars": len(self.times),
            "times": self.times[kept].tolist(),
            "equity": {name: track.equity[kept].tolist() for name, track in tracks.items()},
        }

    def __str__(self) -> str:
        names = list(Performance.__dataclass_fields__)
        lines = [" " * 12 + "".join(f"{name:>14}" for name in names)]
        for row, figures in self.table.items():
            shown = [figures[name] for name in names]
            cells = ["-" if value is None else f"{value:.4g}" for value in shown]
            lines.append(f"{row:<12}" + "".join(f"{cell:>14}" for cell in cells))
        unit = f"cost {1e4 * self.cost:g} bp per unit of exposure changed"
        span = _span(self.times)
        return "\n".join(
            [*lines, f"{span}; {self.bars_per_year:,.0f} bars a year; {unit}", str(self.verdict)]
        )


def _span(times: Int64) -> str:
    return f"{len(times):,} bars from {shown(int(times[0]))} to {shown(int(times[-1]))}"
