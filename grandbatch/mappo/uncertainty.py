"""How sure a team is: Monte Carlo dropout, and confidence that means what it says.

Networks thinned at random (dropout) stand for networks that fit the training data as well. Where
they agree, what was learnt tells the action; where they differ, it doesn't. See Gal and
Ghahramani, "Dropout as a Bayesian Approximation", https://arxiv.org/abs/1506.02142.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from grandbatch.errors import UsageError
from grandbatch.mappo.market import EXPOSURES

LEVELS = (("HIGH", 0.8), ("MEDIUM", 0.6), ("LOW", -math.inf))
"""Levels of confidence, each with the confidence it lies above."""

_BINS = 10
_WINDOWS_AT_ONCE = 512
_MAX_SHARPNESS = 1e3
_LEAST_PROBABILITY = 1e-6


class Prediction(NamedTuple):
    """What a team would do in B windows, and how sure it is. On the CPU.

    Parameters
    ----------
    actions : (B, n) float64
        Each agent's likeliest exposure, over all samples.
    exposure : (B,) float64
        The team's: their mean.
    probabilities : (B, n, 5) float64
        Of each exposure: the mean over the samples.
    entropy : (B,) float64
        Predictive entropy, in nats: that of `probabilities`, 0 to ln 5; mean over the agents.
    mutual_information : (B,) float64
        Entropy less the samples' mean entropy, in nats: the part of it that comes from samples
        which differ, as they do on windows unlike those trained on.
    confidence : (B,) float64
        In 0.5 to 1: the calibrated probability that the market goes the way the team leans.
    """

    actions: torch.Tensor
    exposure: torch.Tensor
    probabilities: torch.Tensor
    entropy: torch.Tensor
    mutual_information: torch.Tensor
    confidence: torch.Tensor

    @property
    def levels(self) -> list[str]:
        """HIGH, MEDIUM or LOW for each window."""
        return [level_of(value) for value in self.confidence.tolist()]


def level_of(confidence: float) -> str:
    """Return HIGH for a confidence above 0.8, MEDIUM above 0.6, else LOW."""
    return next(name for name, least in LEVELS if confidence > least)


@dataclass(frozen=True)
class ReliabilityBin:
    """Windows whose confidence lies in one bin, and how often they were right."""

    confidence: float
    """Their mean confidence."""
    hit_rate: float
    """Share of them in which the market went the way the team leant."""
    windows: int


@dataclass(frozen=True)
class Calibration:
    """What fitting the confidence to a validation split gave.

    A sharpness of 0 says that the team's leaning told nothing about the market there: every
    confidence is then 0.5, and LOW.
    """

    sharpness: float
    """The log-odds are multiplied by this; the temperature is its inverse."""
    windows: int
    """How many windows it was fitted to: those after which the market moved."""
    ece_before: float
    """Expected calibration error of the confidence as the networks have it."""
    ece_after: float
    """The same with the sharpness, on the windows it was fitted to."""
    log_loss_before: float
    """Mean negative log-likelihood of the market's direction, in nats."""
    log_loss_after: float
    reliability_before: tuple[ReliabilityBin, ...]
    """The bins that hold any window, by rising confidence."""
    reliability_after: tuple[ReliabilityBin, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON types."""
        plain = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}


@torch.no_grad()
def sample_probabilities(
    actor: nn.Module, observation: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Ask S thinned networks at once about V windows.

    Parameters
    ----------
    actor : module
        From `build_actor`.
    observation : (V, n, D + 1) float32
        What each agent sees.
    kept : (S, n, H) float32
        From `draw_kept`: each sample is one network, the same for all windows.

    Returns
    -------
    (V, S, n, 5) float64
    """
    logits = actor(observation.unsqueeze(1), kept)
    probabilities: torch.Tensor = logits.to(torch.float64).softmax(-1)
    return probabilities


def summarise_samples(
    actor: nn.Module, observation: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the samples' mean probabilities (V, n, 5) and their mutual information (V, n).

    Parameters are those of `sample_probabilities`; windows are taken a few at a time, so that
    memory does not grow with their number times that of the samples.
    """
    parts = []
    for some in torch.split(observation, _WINDOWS_AT_ONCE):
        samples = sample_probabilities(actor, some, kept)
        parts.append((samples.mean(1).cpu(), mutual_information(samples).cpu()))
    probabilities, information = zip(*parts, strict=True)
    return torch.cat(probabilities), torch.cat(information)


def entropy_of(probabilities: torch.Tensor) -> torch.Tensor:
    """H(p) = -sum p ln p over the last dimension, in nats, with 0 ln 0 = 0."""
    entropy: torch.Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy


def mutual_information(samples: torch.Tensor) -> torch.Tensor:
    """I = H(mean_s p_s) - mean_s H(p_s): (V, S, n, 5) to (V, n), in nats, at least 0.

    See Houlsby et al., https://arxiv.org/abs/1112.5745, (2).
    """
    return (entropy_of(samples.mean(1)) - entropy_of(samples).mean(1)).clamp_min(0.0)


def leaning(probabilities: torch.Tensor) -> torch.Tensor:
    """Log-odds of a rise that a team acts on, (V, n, 5) to (V,).

    With E the exposure to expect under its probabilities, from -1 to 1, these are the odds
    (1 + E) : (1 - E).
    """
    exposures = torch.tensor(EXPOSURES, dtype=torch.float64, device=probabilities.device)
    up = (1 + (probabilities @ exposures).mean(-1)) / 2
    return up.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY).logit()


def confidence_of(log_odds: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Probability of the likelier direction, in 0.5 to 1, of log-odds times the sharpness."""
    return (log_odds.abs() * sharpness).sigmoid()


def calibrate(log_odds: torch.Tensor, next_return: torch.Tensor) -> Calibration:
    """Fit the sharpness by which confidence is as often right as it says.

    Temperature scaling: the log-odds times one number, chosen for the smallest log-loss on a
    validation split. See Guo et al., https://arxiv.org/abs/1706.04599.

    Parameters
    ----------
    log_odds : (V,) float64
        From `leaning`.
    next_return : (V,) float64
        What came; windows after which nothing moved are left out.

    Raises
    ------
    UsageError
        If no window is left.
    """
    moved = next_return != 0
    log_odds, up = log_odds[moved], (next_return[moved] > 0).to(torch.float64)
    if not len(up):
        raise UsageError(
            "there is no window whose next return is not 0 to calibrate on; "
            "give a longer validation split"
        )
    sharpness = _fit_sharpness(log_odds, up)
    right = (log_odds >= 0) == (up > 0)
    before, after = (reliability(confidence_of(log_odds, s), right) for s in (1.0, sharpness))
    return Calibration(
        sharpness=sharpness,
        windows=len(up),
        ece_before=expected_error(before),
        ece_after=expected_error(after),
        log_loss_before=_log_loss(log_odds, up),
        log_loss_after=_log_loss(log_odds * sharpness, up),
        reliability_before=before,
        reliability_after=after,
    )


def reliability(
    confidence: torch.Tensor, right: torch.Tensor, bins: int = _BINS
) -> tuple[ReliabilityBin, ...]:
    """Sort windows into bins of equal width over confidences from 0.5 to 1."""
    place = ((confidence - 0.5) * (2 * bins)).long().clamp(0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        if windows := int(inside.sum()):
            hits = float(right[inside].to(torch.float64).mean())
            found.append(ReliabilityBin(float(confidence[inside].mean()), hits, windows))
    return tuple(found)


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error: the mean over windows of |hit rate - confidence|."""
    windows = sum(entry.windows for entry in bins)
    return sum(abs(b.hit_rate - b.confidence) * b.windows for b in bins) / windows


def _log_loss(log_odds: torch.Tensor, up: torch.Tensor) -> float:
    loss = nn.functional.binary_cross_entropy_with_logits(log_odds, up)
    return float(loss)


def _fit_sharpness(log_odds: torch.Tensor, up: torch.Tensor) -> float:
    """Bisect for the root of the log-loss's slope, which rises with the sharpness."""

    def slope(sharpness: float) -> float:
        return float((((log_odds * sharpness).sigmoid() - up) * log_odds).mean())

    if slope(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while slope(high) < 0 and high < _MAX_SHARPNESS:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2
