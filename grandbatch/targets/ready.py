"""The targets that come with the package.

In their formulas c, h and l are close, high and low; a value reads bars t to t + horizon, and is
NaN where fewer than `horizon` bars follow in the segment, or where it is not finite.
"""

from __future__ import annotations

import numpy as np

from grandbatch import windows as w
from grandbatch.targets.target import ForwardFormula, Target
from grandbatch.values.arrays import Float64
from grandbatch.values.checks import number, whole


def forward_return(horizon: int) -> Target:
    """Return the target (c[t+horizon] - c[t]) / |c[t]|, of the sign of the move.

    Raises
    ------
    UsageError
        If the horizon is no whole number of at least 1.
    """
    return _target(f"forward_return_{horizon}", horizon, _returns)


def forward_log_return(horizon: int) -> Target:
    """Return the target ln(c[t+horizon] / c[t]); NaN unless both are above 0.

    Raises
    ------
    UsageError
        If the horizon is no whole number of at least 1.
    """
    return _target(f"forward_log_return_{horizon}", horizon, _log_returns)


def forward_volatility(horizon: int) -> Target:
    """Return the target of the population standard deviation of the log returns after t.

    There are `horizon` of them, the first from t to t + 1. NaN where a price isn't above 0.

    Raises
    ------
    UsageError
        If the horizon is no whole number of at least 1.
    """
    return _target(f"forward_volatility_{horizon}", horizon, _volatility, version=2)


def forward_drawdown(horizon: int) -> Target:
    """Return the target of how far the low falls below c[t]: at most 0.

    It is (min l[t+1..t+horizon] - c[t]) / |c[t]|, or 0 where no low is below c[t].

    Raises
    ------
    UsageError
        If the horizon is no whole number of at least 1.
    """
    return _target(f"forward_drawdown_{horizon}", horizon, _drawdown, inputs=("close", "low"))


def triple_barrier(up: float, down: float, horizon: int) -> Target:
    """Return the target of which barrier is reached first in the bars t+1 to t+horizon: 1, -1, 0.

    1 where a high reaches c[t] * (1 + up) first; -1 where a low reaches c[t] * (1 - down) first,
    or in the same bar; 0 where neither does.

    Parameters
    ----------
    up, down : float
        Distance of the barriers as shares of the price, above 0: 0.01 is one per cent.
    horizon : int
        Bars until the vertical barrier.

    Raises
    ------
    UsageError
        If a distance or the horizon makes no sense.

    Notes
    -----
    M. López de Prado, Advances in Financial Machine Learning (2018), section 3.4.
    """
    number("up", up, above=0)
    number("down", down, above=0)
    shares = float(up), float(down)
    return _target(
        f"triple_barrier_{shares[0]}_{shares[1]}_{horizon}",
        horizon,
        _barriers,
        *shares,
        inputs=("high", "low", "close"),
    )


def _target(
    name: str,
    horizon: int,
    function: object,
    *parameters: float,
    inputs: tuple[str, ...] = ("close",),
    version: int = 1,
) -> Target:
    whole("horizon", horizon, 1)
    return Target(name, horizon, ForwardFormula(function, horizon, parameters), inputs, version)  # type: ignore[arg-type]  # any of the functions below


def _returns(m: int, horizon: int, close: Float64) -> Float64:
    now = close[:m]
    found: Float64 = (close[horizon : horizon + m] - now) / np.abs(now)
    return found


def _log_returns(m: int, horizon: int, close: Float64) -> Float64:
    # the quotient of two prices below 0 would have a logarithm, of the wrong sign
    now, then = close[:m], close[horizon : horizon + m]
    return np.where((now > 0) & (then > 0), np.log(then / now), np.nan)


def _volatility(m: int, horizon: int, close: Float64) -> Float64:
    moves = _log_returns(len(close) - 1, 1, close)
    return w.std(moves, horizon, ddof=0)[horizon - 1 :]


def _drawdown(m: int, horizon: int, close: Float64, low: Float64) -> Float64:
    deepest = w.lowest(low[1:], horizon)[horizon - 1 :]
    return np.minimum(deepest - close[:m], 0.0) / np.abs(close[:m])


def _barriers(
    m: int, horizon: int, high: Float64, low: Float64, close: Float64, up: float, down: float
) -> Float64:
    from grandbatch.kernels.barriers import first_barriers

    return first_barriers(high, low, close, up, down, horizon, m)
