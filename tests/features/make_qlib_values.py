"""Compute Alpha158 with Qlib's own operators, for `test_alpha158.py` to compare with.

Not a test: run once, where pyqlib 0.9.7 is installed, which the project doesn't need:

    python tests/features/make_qlib_values.py

It writes `qlib_alpha158.npz` beside itself: bars, names, and Qlib's values from bar 60 on. Qlib's
expressions are evaluated by Qlib, on bars that are handed to it instead of a data folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import base
from qlib.data.ops import Operators, OpsList
from qlib.utils import parse_field

OUT = Path(__file__).parent / "qlib_alpha158.npz"
N = 300


def bars() -> dict[str, np.ndarray]:
    """A walk on a grid of prices that float32 holds exactly, as Qlib keeps its fields."""
    rng = np.random.default_rng(7)
    close = np.round(6_400 * np.exp(np.cumsum(rng.normal(0, 3e-3, N)))) / 64
    open_ = np.concatenate([close[:1], close[:-1]])
    room = np.round(12 * np.abs(rng.normal(size=(2, N)))) / 64
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) + room[0],
        "low": np.minimum(open_, close) - room[1],
        "close": close,
        "volume": rng.integers(1, 10_000, N).astype(float),
    }
    assert all((x.astype(np.float32) == x).all() for x in columns.values())
    return columns


def main() -> None:
    given = bars()
    given["vwap"] = (given["high"] + given["low"] + given["close"]) / 3

    def load(self, instrument, start_index, end_index, *args):
        return self._load_internal(instrument, start_index, end_index, *args)

    def field(self, *_):
        return pd.Series(given[self._name].astype(np.float32))

    base.Expression.load = load
    base.Feature._load_internal = field
    Operators.register(OpsList)
    fields, names = Alpha158DL.get_feature_config()
    values = [eval(parse_field(text)).load("X", 0, N - 1, "day").to_numpy() for text in fields]
    table = np.array(values, np.float64).astype(np.float32)[:, 60:]
    np.savez_compressed(
        OUT, names=np.array(names), values=table, **{name: given[name] for name in given}
    )
    print(f"{OUT}: {table.shape}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
