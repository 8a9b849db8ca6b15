"""Indicators that remember all history, offered as features with a finite lookback.

An exponential average with weight alpha gives what lies n bars back the weight (1 - alpha)**n. The
lookback here is the n where that is at most 1e-9, a sixtieth of float32's resolution: cut there,
the value differs from the infinite form by no more than 1e-9 of how far the old average was from
the price it is replaced with. Rounded to float32 the two agree to the last bit or its neighbour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.features.sets import Feature
from grandbatch.kernels import ema_kernel, wilder_rsi_kernel

FORGOTTEN = 1e-9
"""Weight below which a bar no longer counts."""

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Ema:
    alpha: float
    window: int

    def __call__(self, close: F64, first: int, out: F32) -> None:
        ema_kernel(close, self.alpha, self.window, first, out)


@dataclass(frozen=True)
class _WilderRsi:
    alpha: float
    window: int

    def __call__(self, close: F64, first: int, out: F32) -> None:
        wilder_rsi_kernel(close, self.alpha, self.window, first, out)


def ema(period: int) -> Feature:
    """Return the exponential average of the close, alpha = 2 / (period + 1), as a feature.

    Its lookback is ceil(ln 1e-9 / ln(1 - alpha)): 125 bars for a period of 12, 270 for 26.

    Parameters
    ----------
    period : int
        Bars, at least 2.

    Raises
    ------
    UsageError
        If the period is below 2.
    """
    alpha = 2.0 / (_period(period) + 1.0)
    window = _window(alpha)
    return Feature(f"ema_{period}", window, _Ema(alpha, window))


def wilder_rsi(period: int) -> Feature:
    """Return Wilder's RSI of the close, alpha = 1 / period, in 0..1, as a feature.

    Gains / (gains + losses), both averaged exponentially; 1 where no price in the lookback fell.
    Its lookback is ceil(ln 1e-9 / ln(1 - alpha)): 280 bars for a period of 14. The agreement with
    the infinite form is relative to what moved: after a lookback of hardly any movement the
    infinite form still shows moves older than that, and this one doesn't.

    Parameters
    ----------
    period : int
        Bars, at least 2.

    Raises
    ------
    UsageError
        If the period is below 2.
    """
    alpha = 1.0 / _period(period)
    window = _window(alpha)
    return Feature(f"wilder_rsi_{period}", window, _WilderRsi(alpha, window))


def _period(period: int) -> int:
    if isinstance(period, bool) or not isinstance(period, int) or period < 2:
        raise UsageError(f"a period must be a whole number of at least 2, got {period!r}")
    return period


def _window(alpha: float) -> int:
    return math.ceil(math.log(FORGOTTEN) / math.log1p(-alpha))
