"""Weights as people give them, for the windows that take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, SupportsFloat

import numpy as np

from grandbatch.errors import UsageError
from grandbatch.loader.labels import STORED_LABELS
from grandbatch.loader.subset import some_of
from grandbatch.order import OrderSettings, Selection, WeightedSelection
from grandbatch.store import MatrixStore
from grandbatch.values.arrays import Array, Float64, Int64

Weights = str | Mapping[str, float] | Array
"""``"symbol"``, the weight of each symbol, or of each window: an array, or the name of one."""

_EVENLY = "symbol"
_SCANNED_WINDOWS = 2**20


def weigh(
    store: MatrixStore, selection: Selection, weights: Weights | None, settings: OrderSettings
) -> tuple[Selection | WeightedSelection, OrderSettings]:
    """Weigh the windows that take part, and say so in the settings of their order.

    Parameters
    ----------
    store : MatrixStore
    selection : Selection
        The windows that take part.
    weights : "symbol", mapping, (N,) array or str, optional
        As the loader describes them; nothing changes without.
    settings : OrderSettings

    Raises
    ------
    UsageError
        If weights are negative, not finite, all 0, too few or too many, of a symbol that is
        unknown, or don't go with the order.
    """
    if weights is None:
        return selection, settings
    if not settings.shuffle:
        raise UsageError("weights= draws windows at random: leave out shuffle=False, or weights=")
    if isinstance(weights, Mapping) or (isinstance(weights, str) and weights == _EVENLY):
        changes, values = _by_symbol(store, selection, weights)
    else:
        changes, values = _by_window(store, weights)
        if settings.run_length > 1:
            raise UsageError(
                f"weights= of single windows can't keep {settings.run_length} together: give "
                "run_length=1 (--run-length 1), or weights by symbol"
            )
    takes_part = _taking_part(store, selection, changes) > 0
    bad = ~((values >= 0) & (values < np.inf))
    if (bad & takes_part).any():
        at = int(np.argmax(bad & takes_part))
        raise UsageError(
            f"weights must be numbers from 0 on, got {values[at]} for window {changes[at]:,} of "
            f"{store.path}; give 0 for windows that are to stay out"
        )
    values[bad] = 0
    if not values[takes_part].any():
        raise UsageError(
            "weights= is 0 for every window that takes part; at least one must be above 0"
        )
    weighted = WeightedSelection.of(selection, changes, values)
    return weighted, replace(settings, weights=weighted.digest)


def _taking_part(store: MatrixStore, selection: Selection, changes: Int64) -> Int64:
    """Count the windows that take part in each of some stretches."""
    return np.diff(selection.before(np.append(changes, len(store))))


def _by_symbol(
    store: MatrixStore, selection: Selection, weights: str | Mapping[str, float]
) -> tuple[Int64, Float64]:
    changes, code = _stretches(len(store), lambda first, stop: store.symbol[first:stop])
    taking_part = _taking_part(store, selection, changes)
    windows = np.bincount(code, weights=taking_part, minlength=len(store.symbols))
    taking = [name for name, n in zip(store.symbols, windows, strict=True) if n]
    asked = dict.fromkeys(taking, 1.0) if isinstance(weights, str) else weights
    unknown = sorted({str(name) for name in asked} - set(store.symbols))
    if unknown:
        raise UsageError(
            f"weights= names {some_of(unknown)}, which {store.path} doesn't have; it has "
            f"{some_of(store.symbols)}"
        )
    missing = [name for name in taking if name not in asked]
    if missing:
        raise UsageError(
            f"weights= has none for {some_of(missing)}; give every symbol one (0 leaves it out), "
            "or choose them by symbols="
        )
    for name, value in asked.items():
        if not (isinstance(value, SupportsFloat) and 0 <= value < np.inf):
            raise UsageError(
                f"the weight of a symbol must be a number from 0 on, got {value!r} for {name}"
            )
    share = np.array([float(asked.get(name, 0.0)) for name in store.symbols])
    # so that shares of very different symbols stay within what a number can be
    share /= share.max() or 1.0
    each = np.divide(share, windows, out=np.zeros(len(share)), where=windows > 0)
    return changes, each[code]


def _by_window(store: MatrixStore, weights: Any) -> tuple[Int64, Float64]:
    if isinstance(weights, str):
        given = _named(store, weights)
    else:
        try:
            given = np.asarray(weights)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _no_numbers(store, weights) from error
        if given.ndim != 1 or given.dtype.kind not in "iuf":
            raise _no_numbers(store, weights)
    if len(given) != len(store):
        raise UsageError(
            f"weights= must have one number for each window of {store.path}, {len(store):,}, "
            f"also where only some take part; got {len(given):,}"
        )

    return _stretches(len(store), lambda first, stop: np.asarray(given[first:stop], np.float64))


def _named(store: MatrixStore, name: str) -> Any:
    if name in store.target_names and store.targets is not None:
        return store.targets[:][:, store.target_names.index(name)]
    arrays = [*(one for one in STORED_LABELS if one != _EVENLY), *store.target_names]
    if name not in arrays:
        raise UsageError(
            f'weights="{name}" is no per-window array of {store.path}: it has '
            f'{", ".join(arrays)}; "symbol" draws every symbol equally often'
        )
    return getattr(store, name)


def _no_numbers(store: MatrixStore, weights: Any) -> UsageError:
    return UsageError(
        f'weights= wants "symbol", a weight for each symbol, or an array of one number for each '
        f"of {len(store):,} windows, got {str(weights)!r:.100}"
    )


def _stretches(n: int, read: Callable[[int, int], Array]) -> tuple[Int64, Array]:
    """Find where values change: the first window of each stretch of equal ones, and its value."""
    changes, values = [], []
    last: Any = None
    for first in range(0, n, _SCANNED_WINDOWS):
        some = read(first, min(first + _SCANNED_WINDOWS, n))
        begins = np.flatnonzero(some[1:] != some[:-1]) + 1
        if last is None or some[0] != last:
            begins = np.concatenate([np.zeros(1, np.int64), begins])
        changes.append(begins + first)
        values.append(some[begins])
        last = some[-1]
    return np.concatenate(changes), np.concatenate(values)
