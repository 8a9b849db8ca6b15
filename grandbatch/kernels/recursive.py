"""Recursive indicators in their finite form: each value from a window of its own.

An exponential average forgets: what came before the last n bars weighs (1 - alpha)**n. Cut there,
it no longer depends on where the series was started. The features state n.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.compilation import compiled

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

LARGEST = float(np.finfo(np.float32).max)
BLOCK = 248


@compiled
def ema_rows(x: F64, alpha: float, window: int, first: int, out: F32) -> None:
    """Average the `window` bars before t and t itself, started at the oldest of them."""
    average = np.empty(BLOCK)
    for t in range(first, x.size, BLOCK):
        m = min(BLOCK, x.size - t)
        for i in range(m):
            average[i] = x[t - window + i]
        for j in range(1, window + 1):
            lagged = x[t - window + j : t - window + j + m]
            for i in range(m):
                average[i] += alpha * (lagged[i] - average[i])
        for i in range(m):
            limited = average[i] if average[i] < LARGEST else LARGEST
            limited = limited if limited > -LARGEST else -LARGEST
            out[t - first + i] = 0.0 if math.isnan(average[i]) else limited


@compiled
def wilder_rsi_rows(x: F64, alpha: float, window: int, first: int, out: F32) -> None:
    """Gains / (gains + losses) of the last `window` differences; 1 where there is no loss."""
    gain = np.empty(BLOCK)
    loss = np.empty(BLOCK)
    for t in range(first, x.size, BLOCK):
        m = min(BLOCK, x.size - t)
        gain[:m] = 0.0
        loss[:m] = 0.0
        for j in range(window):
            before = x[t - window + j : t - window + j + m]
            after = x[t - window + j + 1 : t - window + j + 1 + m]
            for i in range(m):
                rise = after[i] - before[i]
                gain[i] += alpha * ((rise if rise > 0.0 else 0.0) - gain[i])
                loss[i] += alpha * ((-rise if rise < 0.0 else 0.0) - loss[i])
        for i in range(m):
            value = gain[i] / (gain[i] + loss[i]) if loss[i] > 0.0 else 1.0
            out[t - first + i] = 0.0 if math.isnan(value) else value
