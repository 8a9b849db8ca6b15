"""`next_return` is the move after a window's last bar, whatever the prices' sign."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated import write_rows

import grandbatch as gb
from grandbatch.errors import StoreMismatchError
from grandbatch.kernels.compilation import compiled


@compiled
def _closes(close, first, out):
    for i in range(len(out)):
        out[i] = close[first + i]


def _store(folder, closes, name="bars.csv", **rules):
    """Build a store whose windows end at every bar but the first."""
    path = write_rows(folder / name, [(c, c, c, c, 1) for c in closes])
    close = gb.Feature("own_close", 0, _closes, ("close",))
    return gb.build_store(
        path,
        folder / f"{name}.zarr",
        feature_set=gb.FeatureSet("closes", [close], sequence_length=2, overlap=1),
        rules=gb.BarRules(**rules),
    )


def test_below_zero_the_sign_is_that_of_the_move(tmp_path):
    store = _store(tmp_path, [10.0, 5.0, -5.0, -37.63, -20.0, 4.0], allow_non_positive=True)
    np.testing.assert_array_equal(
        store.next_return[:-1], [-2.0, -6.526000000000001, (37.63 - 20.0) / 37.63, 1.2]
    )
    assert math.isnan(store.next_return[len(store) - 1])


def test_from_a_price_of_zero_there_is_no_return(tmp_path):
    store = _store(tmp_path, [1.0, 0.0, -0.0, 2.0, 0.0, -1.0, 1.0], allow_non_positive=True)
    np.testing.assert_array_equal(
        store.next_return[:], [math.nan, math.nan, -1.0, math.nan, 2.0, math.nan]
    )


def test_above_zero_it_is_the_simple_return(tmp_path):
    closes = np.round(100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 200))), 2)
    store = _store(tmp_path, closes.tolist())
    expected = closes[2:] / closes[1:-1] - 1
    np.testing.assert_allclose(store.next_return[:-1], expected, rtol=0, atol=1e-15)


def test_a_store_of_another_version_of_it_is_named_as_such(tmp_path, monkeypatch):
    for module in ("settings", "plan"):
        monkeypatch.setattr(f"grandbatch.builder.{module}.NEXT_RETURN_VERSION", 1)
    _store(tmp_path, [1.0, 2.0, 3.0])
    monkeypatch.undo()
    with pytest.raises(StoreMismatchError, match=r"next_return_version \(1, now 2\)"):
        _store(tmp_path, [1.0, 2.0, 3.0])
