"""What every peer starts from: bars, their feature rows, and how to tell a window by its values.

A source folder holds `bars.csv` and `rows.npy`, float32 (N + L - 1, F): the feature rows of the N
windows at stride 1. Window i is rows i to i + L - 1. Peers that store windows cut them from the
rows; peers that compute features start from the bars.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

L, F, LOOKBACK = 48, 13, 40
BLOCK = 8192
PROBED_STEPS, PROBED_FEATURES = (0, 16, 32, 47), (0, 3)  # plain quotients of prices: no rounding


def load_rows(source: Path) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = np.load(source / "rows.npy", mmap_mode="r")
    return rows


def windows_of(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a view of all windows, (N, L, F)."""
    return np.lib.stride_tricks.sliding_window_view(rows, L, axis=0).transpose(0, 2, 1)


def window_blocks(source: Path) -> Iterator[npt.NDArray[np.float32]]:
    """Yield all windows in order, materialised, at most `BLOCK` at a time."""
    windows = windows_of(load_rows(source))
    for first in range(0, len(windows), BLOCK):
        yield np.ascontiguousarray(windows[first : first + BLOCK])


class WindowNumbers:
    """Finds the numbers of windows from a few of their values."""

    def __init__(self, source: Path):
        self.rows = load_rows(source)
        keys = _keys(windows_of(self.rows))
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]
        if len(np.unique(keys)) < len(keys):
            raise SystemExit("two windows look alike: simulate with another seed")

    def find(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the number of each window, -1 where there is no such window; windows (B, L, F)."""
        keys = _keys(windows)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)


def _keys(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    keys = np.zeros(len(windows), np.uint64)
    for step in PROBED_STEPS:
        for feature in PROBED_FEATURES:
            bits = np.ascontiguousarray(windows[:, step, feature]).view(np.uint32)
            keys = (keys ^ bits) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys
