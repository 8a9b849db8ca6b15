"""`LiveSegment`: the end of a symbol's segment, as long as features and windows reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.features import FeatureSet, compute_rows
from grandbatch.features.inputs import BAR_INPUTS, dtype_of
from grandbatch.kernels.bars.bar_rules import NEVER
from grandbatch.values.arrays import Array, Float32
from grandbatch.values.columns import TIMESTAMP

BarValues = dict[str, float]
"""A bar's inputs by name; its timestamp is an int."""

_NO_STARTS = np.empty(0, np.int64)


def identity_of(feature_set: FeatureSet, max_gap_ns: int | None) -> dict[str, Any]:
    """Return what decides a segment's windows, as JSON types."""
    pairs = zip(feature_set.feature_names, feature_set.feature_versions, strict=True)
    return {
        "features": [f"{name}:{version}" for name, version in pairs],
        "sequence_length": feature_set.sequence_length,
        "lookback": feature_set.lookback,
        "max_gap_ns": max_gap_ns,
    }


class LiveSegment:
    """What is kept of a symbol: the end of its segment.

    Parameters
    ----------
    feature_set : FeatureSet
    max_gap_ns : int, optional
        A larger distance in time starts a new segment.
    """

    def __init__(self, feature_set: FeatureSet, max_gap_ns: int | None) -> None:
        self._set, self._max_gap_ns = feature_set, max_gap_ns
        self.last_time = NEVER
        self.last_extra: BarValues = {}
        self.is_first = False
        """Whether the bar taken last begins a segment."""
        self._bars = {
            n: Ring(feature_set.lookback + 1, (), dtype_of(n)) for n in feature_set.inputs
        }
        self._rows = Ring(feature_set.sequence_length, (feature_set.n_features,), np.float32)

    @property
    def missing(self) -> int:
        """Bars that are still to come until there is a matrix."""
        bars = max((ring.missing for ring in self._bars.values()), default=0)
        # the bar that fills the lookback gives the first row
        return bars + self._rows.missing - (bars > 0)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later windows depend on."""
        return {
            "last_time": self.last_time,
            "last_extra": dict(self.last_extra),
            "bars": {name: ring.last().copy() for name, ring in self._bars.items()},
            "rows": self._rows.last().copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off; raise ValueError or TypeError for another state."""
        if set(state["bars"]) != set(self._bars):
            raise ValueError(f"it has bars of {sorted(state['bars'])}")
        for ring, items in (
            *((ring, state["bars"][name]) for name, ring in self._bars.items()),
            (self._rows, state["rows"]),
        ):
            ring.fill(items)
        self.last_time = int(state["last_time"])
        self.last_extra = {str(n): float(value) for n, value in state["last_extra"].items()}

    def copy(self) -> LiveSegment:
        """Return one that goes on from here by itself."""
        twin = LiveSegment(self._set, self._max_gap_ns)
        twin.last_time, twin.last_extra = self.last_time, self.last_extra
        twin.is_first = self.is_first
        twin._bars = {name: ring.copy() for name, ring in self._bars.items()}
        twin._rows = self._rows.copy()
        return twin

    def remember(self, values: BarValues) -> None:
        """Keep what the next bar is judged and filled by."""
        self.last_time = int(values[TIMESTAMP])
        extra = {name: value for name, value in values.items() if name not in BAR_INPUTS}
        self.last_extra = {name: value for name, value in extra.items() if not math.isnan(value)}

    def take(self, values: BarValues) -> Float32 | None:
        """Add a bar; return the window that ends with it, if there is one."""
        if (
            self._max_gap_ns is not None
            and self.last_time != NEVER
            and values[TIMESTAMP] - self.last_time > self._max_gap_ns
        ):
            for ring in (*self._bars.values(), self._rows):
                ring.clear()
        is_first = all(ring.is_empty for ring in (*self._bars.values(), self._rows))
        for name, ring in self._bars.items():
            ring.append(values[name])
        try:
            columns = {name: ring.last() for name, ring in self._bars.items()}
            if all(ring.is_full for ring in self._bars.values()):
                self._rows.append(compute_rows(self._set, columns, _NO_STARTS, self._set.lookback))
        except BaseException:
            # a kernel of the user's own may fail: the bar then never came
            for ring in self._bars.values():
                ring.drop()
            raise
        self.remember(values)
        self.is_first = is_first
        return self._rows.last().copy() if self._rows.is_full else None


class Ring:
    """The last `keep` items that were appended, always contiguous.

    The array has twice the room, so that they are moved once in about `keep` times.
    """

    def __init__(self, keep: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._keep, self._stop = keep, 0
        self._data = np.empty((2 * keep, *shape), dtype)

    def copy(self) -> Ring:
        """Return one of its own with the same items."""
        twin = Ring(self._keep, self._data.shape[1:], self._data.dtype)
        twin.fill(self.last())
        return twin

    @property
    def is_full(self) -> bool:
        """Whether `keep` items are held."""
        return self._stop >= self._keep

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return self._stop == 0

    def append(self, item: Any) -> None:
        """Add an item; the oldest goes."""
        if self._stop == len(self._data):
            held = self._keep - 1
            self._data[:held] = self._data[self._stop - held :]
            self._stop = held
        self._data[self._stop] = item
        self._stop += 1

    @property
    def missing(self) -> int:
        """Items still to come until it is full."""
        return max(0, self._keep - self._stop)

    def fill(self, items: Any) -> None:
        """Hold these items, the last ones of those that were appended."""
        found = np.asarray(items)
        wanted = self._data.dtype, self._data.shape[1:]
        if (found.dtype, found.shape[1:]) != wanted or len(found) > self._keep:
            raise ValueError(
                f"{found.dtype} of shape {found.shape}, at most {self._keep} of {wanted} wanted"
            )
        self._data[: len(found)] = found
        self._stop = len(found)

    def drop(self) -> None:
        """Take the last append back."""
        self._stop -= 1

    def clear(self) -> None:
        """Forget all items."""
        self._stop = 0

    def last(self) -> Array:
        """Return the items held, oldest first, a view."""
        return self._data[max(0, self._stop - self._keep) : self._stop]
