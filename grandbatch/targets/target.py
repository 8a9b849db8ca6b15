"""What a target is. Values only: computing is `rows.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.features.fused import Kernel
from grandbatch.features.sets import check_kernel
from grandbatch.features.trial import Subject
from grandbatch.values.checks import MOST_BARS, whole


@dataclass(frozen=True)
class Target:
    """One value per bar of what comes after it.

    Parameters
    ----------
    name : str
        Its name in stores and messages; unlike any column of bars.
    horizon : int
        Bars after t that its value at t reads, at least 1.
    kernel : callable
        ``kernel(*inputs, first, out)``: `inputs` are (n,) arrays of one segment, and
        ``out[k]``, float32, must become the value at bar ``first + k``; ``len(out)`` is
        ``n - first - horizon``: it is not asked where fewer bars follow in the segment, and the
        value there is NaN. It must read only bars t to ``t + horizon`` for the value at t, and
        carry nothing from bar to bar. What it makes that is not finite is stored as NaN. Make it
        a module-level function where it is to travel to other processes.
    inputs : tuple of str
        What it reads, in the order of its arguments: of open, high, low, close, volume and the
        extra columns of the bars, float64; and timestamp, int64 nanoseconds since 1970 UTC.
    version : int
        Part of every fingerprint: raise it when the values change.

    Raises
    ------
    UsageError
        If a field makes no sense; the message names it.

    Examples
    --------
    >>> import grandbatch as gb
    >>> def gain(close, first, out):
    ...     stop = first + len(out)
    ...     out[:] = close[first + 5 : stop + 5] / close[first:stop] - 1
    >>> gb.check(gb.Target("gain_5", horizon=5, kernel=gain))
    """

    name: str
    horizon: int
    kernel: Kernel
    inputs: tuple[str, ...] = ("close",)
    version: int = 1

    def __post_init__(self) -> None:
        check_kernel("target", self)
        whole(f"the horizon of target {self.name!r}", self.horizon, 1, MOST_BARS)

    @property
    def subject(self) -> Subject:
        """Its kernel, for `check`."""
        return Subject("target", self.name, self.kernel, self.inputs, 0, self.horizon)

    def describe(self) -> dict[str, Any]:
        """Return what determines the values, as JSON types, for fingerprints."""
        return {
            "name": self.name,
            "horizon": self.horizon,
            "inputs": list(self.inputs),
            "version": self.version,
        }


@dataclass(frozen=True)
class ForwardFormula:
    """A kernel of the package's own: ``function(m, horizon, *inputs, *parameters)``.

    The function returns m values, of the first m bars of its arrays; undefined ones may be
    anything that is not finite.
    """

    function: Callable[..., Any]
    horizon: int
    parameters: tuple[float, ...] = ()

    def __call__(self, *arguments: Any) -> None:
        """Write the values: called as ``kernel(*inputs, first, out)``."""
        *arrays, first, out = arguments
        bars = [x[first : first + len(out) + self.horizon] for x in arrays]
        with np.errstate(all="ignore"):
            out[:] = self.function(len(out), self.horizon, *bars, *self.parameters)


def own_targets(targets: Sequence[Target]) -> list[Target]:
    """Return the targets that are a user's own."""
    return [target for target in targets if not isinstance(target.kernel, ForwardFormula)]


def distinct(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return targets as they are.

    Raises
    ------
    UsageError
        If two of them share a name.
    """
    names = [target.name for target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two targets are named {', '.join(twice)}; leave one out, or rename it")
    return tuple(targets)
