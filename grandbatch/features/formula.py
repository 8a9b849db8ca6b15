"""Features from formulas over whole arrays: what all indicators are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import UsageError
from grandbatch.features.fused import FusedColumn, FusedKernel
from grandbatch.features.sets import Feature
from grandbatch.values.columns import TIMESTAMP

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Formula:
    """A kernel that calls ``function(*inputs, *parameters)`` and writes what it returns.

    Parameters
    ----------
    function : callable
        Of (n,) float64 arrays; returns one, or a tuple of several where `out` has several rows. It
        must be made of arithmetic and `grandbatch.windows` alone, so that no bits depend on where
        the arrays begin. Undefined values may be nan: they become 0.
    parameters : tuple
    """

    function: Callable[..., Any]
    parameters: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> None:
        """Write the values: called as ``kernel(*inputs, first, out)``."""
        from grandbatch.kernels.formulas import write_finite

        *arrays, first, out = arguments
        with np.errstate(all="ignore"):
            found = self.function(*arrays, *self.parameters)
        rows = out.reshape(-1, out.shape[-1])
        for values, row in zip((found,) if out.ndim == 1 else found, rows, strict=True):
            write_finite(values[first:], row)


def feature(
    name: str,
    lookback: int,
    function: Callable[..., Any],
    *parameters: Any,
    inputs: Sequence[str] = ("close",),
    version: int = 1,
) -> Feature:
    """Make a feature of a formula."""
    return Feature(name, lookback, Formula(function, parameters), tuple(inputs), version)


def features(
    names: Sequence[str],
    lookbacks: Sequence[int],
    function: Callable[..., Any],
    *parameters: Any,
    inputs: Sequence[str] = ("close",),
    version: int = 1,
) -> tuple[Feature, ...]:
    """Make features of a formula with several values, which a set computes together."""
    read = tuple(inputs)
    fused = FusedKernel(Formula(function, parameters), read, len(names), max(lookbacks))
    return tuple(
        Feature(name, lookback, FusedColumn(fused, column, read), read, version)
        for column, (name, lookback) in enumerate(zip(names, lookbacks, strict=True))
    )


def column(name: str) -> Feature:
    """Return a column of the bars as it is, such as an extra one, limited to float32's range.

    Lookback: 0. It is called column_vwap, since bars have a column vwap already.

    Raises
    ------
    UsageError
        If a kernel can't read it, or it is the timestamp.
    """
    if name == TIMESTAMP:
        raise UsageError(
            "a timestamp is no number to learn from; use time_of_day, day_of_week or day_of_year"
        )
    return feature(f"column_{name}", 0, _as_it_is, inputs=(name,))


def _as_it_is(x: F64) -> F64:
    return x


def whole(value: int, least: int = 2, name: str = "period") -> int:
    """Check a number of bars.

    Raises
    ------
    UsageError
        If it is no whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"a {name} must be a whole number of at least {least}, got {value!r}")
    return value


def named(name: str, source: str) -> str:
    """Tell a feature's source in its name, unless it is the close."""
    return name if source == "close" else f"{name}_{source}"


def ratio(x: F64, y: F64, otherwise: float = 0.0) -> F64:
    """Return x / y, and `otherwise` where y is 0; nan where either is."""
    out = np.full(np.broadcast(x, y).shape, otherwise)
    np.divide(x, y, out=out, where=y != 0.0)
    return out


def shifted(x: F64, n: int = 1) -> F64:
    """Return x of n bars before; nan for the first n."""
    out = np.empty(len(x))
    out[:n] = np.nan
    out[n:] = x[:-n]
    return out


def rises(x: F64) -> tuple[F64, F64]:
    """Return by how much x rose since the bar before, and by how much it fell, each at least 0."""
    change = x - shifted(x)
    return np.maximum(change, 0.0), np.maximum(-change, 0.0)


def true_ranges(high: F64, low: F64, close: F64) -> F64:
    """Return each bar's range, the close before it included."""
    before = shifted(close)
    return np.maximum(high, before) - np.minimum(low, before)
