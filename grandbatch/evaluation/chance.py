"""How easily chance does as well.

Two questions. *Timing*: would the same exposures have earned as much at other times? They are
shifted along the walk, round its end, all seeds alike: exposure, its persistence and (but for the
seams) turnover stay, what is lost is what they had to do with the returns. A policy that always
holds the same earns the same wherever it is shifted: that is no skill. *Seeds*: is what the seeds
earn above their own shifted exposures more than the luck of training? The signs of these surpluses
are flipped: Fisher's exact test of a mean of 0.

See Politis and Romano, "A circular block-resampling procedure for stationary data" (1992), and
Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses (2005), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.evaluation.performance import Market, Performance, equity_of
from grandbatch.values.arrays import Float64, Int64

_EXACT_SEEDS = 12
_FLIPS = 4095
_JUDGED_DRAWS = 20
_DRAWN_DRAWS = 200
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """Whether a result can be told from chance."""

    n_seeds: int
    draws: int
    """Shifts drawn."""
    level: float
    """Both p-values must be at most this."""
    timing_p: float
    """Share of shifts by which the mean over seeds earns as much: small is good."""
    seeds_p: float | None
    """Share of sign flips by which the seeds' mean surplus is as large: small is good. None for a
    single policy: it tells nothing of other seeds."""
    mean_return: float
    """Per bar after costs, mean over the seeds."""
    random_low: float
    """5 % of the shifts earn less."""
    random_mean: float
    random_high: float
    """5 % of the shifts earn more."""

    @property
    def beats_random(self) -> bool:
        """Whether the result is better than chance at this level, in time and over seeds."""
        return max(self.timing_p, self.seeds_p or 0.0) <= self.level

    def __str__(self) -> str:
        said = "better than random" if self.beats_random else "CAN'T BE TOLD FROM RANDOM"
        least = 0.5**self.n_seeds
        if self.seeds_p is None:
            over_seeds = "this is one policy, and tells nothing of other seeds"
        else:
            over_seeds = f"p = {self.seeds_p:.3g} over {self.n_seeds} seeds"
            if least > self.level:
                over_seeds += f", which can't be below {least:.3g}: train more"
        return (
            f"{said} at the {self.level:.0%} level: {1e4 * self.mean_return:+.3f} bp per bar after "
            f"costs, where the same exposures shifted in time earn {1e4 * self.random_low:+.3f} to "
            f"{1e4 * self.random_high:+.3f} (5 % and 95 %); p = {self.timing_p:.3g} over "
            f"{self.draws:,} shifts; {over_seeds}"
        )


def judge(
    market: Market, exposure: Float64, draws: int, seed: int, level: float
) -> tuple[Verdict, Performance]:
    """Compare seeds' exposures (S, V) with themselves at other times.

    Returns
    -------
    Verdict
    Performance
        Of random: means over the seeds and (at most 20) shifts.

    Raises
    ------
    UsageError
        If draws or level make no sense.
    """
    if draws < 1 or not 0 < level < 1:
        raise UsageError(
            f"draws must be at least 1 and level above 0 and below 1, got {draws} and {level}"
        )
    earned = _mean_return(market, exposure)
    shifted = np.empty((draws, len(exposure)))
    performances = []
    generator = np.random.default_rng(seed)
    for draw in range(draws):
        moved = exposure[:, _shift(market, generator.random())]
        shifted[draw] = _mean_return(market, moved)
        if draw < _JUDGED_DRAWS:
            performances += [market.perform(one) for one in moved]
    chance, surplus = shifted.mean(1), earned - shifted.mean(0)
    surplus[np.abs(surplus) <= _ROUNDING * np.abs(earned)] = 0.0
    low, high = np.quantile(chance, [0.05, 0.95])
    verdict = Verdict(
        n_seeds=len(exposure),
        draws=draws,
        level=level,
        timing_p=_share_as_large(chance, float(earned.mean())),
        seeds_p=flip_signs(surplus, generator) if len(exposure) > 1 else None,
        mean_return=float(earned.mean()),
        random_low=float(low),
        random_mean=float(chance.mean()),
        random_high=float(high),
    )
    return verdict, Performance.mean_of(performances)


def curves_of_chance(
    market: Market, exposure: Float64, draws: int, seed: int, bars: Int64
) -> Float64:
    """Return what a capital of 1 becomes by the shifts that `judge` draws first.

    Parameters
    ----------
    exposure : (S, V) float64
    bars : (P,) int64
        Places in `Market.times` to tell it at.

    Returns
    -------
    (3, P) float64
        Mean over the seeds: 5 %, half, and 95 % of (at most 200) shifts have less.
    """
    generator = np.random.default_rng(seed)
    curves = np.empty((min(draws, _DRAWN_DRAWS), len(bars)))
    for curve in curves:
        moved = exposure[:, _shift(market, generator.random())]
        curve[:] = np.mean([equity_of(market.returns(one))[bars] for one in moved], axis=0)
    found: Float64 = np.quantile(curves, [0.05, 0.5, 0.95], axis=0)
    return found


def flip_signs(surplus: Float64, generator: np.random.Generator) -> float:
    """Return the share of sign flips that give as large a mean: exact up to 12 values."""
    n = len(surplus)
    if n <= _EXACT_SEEDS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((signs @ surplus >= _threshold(surplus.sum(), surplus)).mean())
    signs = generator.choice([-1, 1], (_FLIPS, n))
    return _share_as_large(signs @ surplus, float(surplus.sum()))


def _mean_return(market: Market, exposure: Float64) -> Float64:
    """Return of all capital per bar, (S, V) to (S,)."""
    earned: Float64 = market.net(exposure).sum(-1) / (len(market.times) * market.n_symbols)
    return earned


def _shift(market: Market, share: float) -> Int64:
    """Window whose exposure each window is given: each symbol's are turned by the same share."""
    symbol = market.tape.symbol
    source = np.empty(len(symbol), np.int64)
    for number in np.unique(symbol):
        rows = np.flatnonzero(symbol == number)
        source[rows] = np.roll(rows, 1 + int(share * (len(rows) - 1)))
    return source


def _share_as_large(values: Float64, observed: float) -> float:
    """Return the p-value of a permutation test, the observation counted as one of the draws."""
    as_large = int((values >= _threshold(observed, values)).sum())
    return (1 + as_large) / (1 + len(values))


def _threshold(observed: float, values: Float64) -> float:
    # what is equal but for rounding must count as equal
    return observed - _ROUNDING * float(np.abs(values).max(initial=abs(observed)))
