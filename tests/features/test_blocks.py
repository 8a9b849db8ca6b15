"""Rows are written block by block: a fused kernel once a block, every number in its place."""

import numpy as np
import oracles
import pytest

from grandbatch import indicators
from grandbatch.features import (
    ALPHA158,
    STRATEGIC,
    TACTICAL,
    Feature,
    FeatureSet,
    alpha158,
    compute_rows,
)
from grandbatch.features import rows as rows_module
from grandbatch.features.fused import FusedColumn, FusedKernel
from grandbatch.features.rows import _block_rows
from grandbatch.kernels.layout import write_rows

NO_STARTS = np.empty(0, np.int64)


@pytest.mark.parametrize("width", [1, 2, 5, 7, 8, 9, 13, 16, 17, 157])
def test_columns_become_rows_whatever_their_numbers(width):
    rng = np.random.default_rng(width)
    for m in (1, 2, 7, 8, 9, 15, 16, 17, 100):
        columns = rng.normal(size=(width + 3, m)).astype(np.float32)
        order = rng.permutation(width + 3)[:width].astype(np.int64)
        around = np.full(m * width + 16, 7, np.float32)
        out = around[8:-8].reshape(m, width)
        write_rows(columns, order, out)
        np.testing.assert_array_equal(out, columns[order].T)
        assert (around[:8] == 7).all()
        assert (around[-8:] == 7).all()


def bar_range(high, low, first, out):
    out[:] = (high - low)[first:]


def test_a_set_that_mixes_features_has_the_bits_of_each_across_blocks():
    bars = oracles.random_bars(30_000, 3)
    mixed = FeatureSet(
        "mixed",
        [
            *TACTICAL.features[:3],
            Feature("bar_range", 0, bar_range, inputs=("high", "low")),
            *(f for f in STRATEGIC.features if f.name != "volume_ratio"),
        ],
        10,
    )
    assert len(bars["close"]) > 3 * _block_rows(mixed.production)
    got = compute_rows(mixed, bars, NO_STARTS)[mixed.lookback :]
    tactical = compute_rows(TACTICAL, bars, NO_STARTS)[mixed.lookback :]
    strategic = compute_rows(STRATEGIC, bars, NO_STARTS)[mixed.lookback :]
    np.testing.assert_array_equal(got[:, :3], tactical[:, :3])
    np.testing.assert_array_equal(
        got[:, 3], (bars["high"] - bars["low"]).astype(np.float32)[mixed.lookback :]
    )
    np.testing.assert_array_equal(got[:, 4:], np.delete(strategic, 1, axis=1))


def test_a_fused_kernel_runs_once_a_block_whichever_columns_are_taken():
    calls = []

    def run(close, first, out):
        calls.append(len(close) - first)
        for k in range(3):
            out[k] = close[first:] * k

    fused = FusedKernel(run, ("close",), 3, 5)
    columns = [Feature(f"x{k}", 2, FusedColumn(fused, k, ("close",))) for k in (2, 0)]
    between = Feature("bar_range", 0, bar_range, inputs=("high", "low"))
    mixed = FeatureSet("mixed", [columns[0], between, columns[1]], 4)
    bars = oracles.random_bars(20_000)
    rows = compute_rows(mixed, bars, NO_STARTS)
    assert sum(calls) == 20_000 - 2
    assert len(calls) == -(-(20_000 - 2) // _block_rows(mixed.production))
    np.testing.assert_array_equal(rows[2:, 0], (bars["close"] * 2).astype(np.float32)[2:])
    assert (rows[2:, 2] == 0).all()


def test_a_block_grows_with_the_lookback_but_not_without_limit():
    def rows_of(lookback, width=1):
        features = [Feature(f"x{k}", lookback, bar_range, ("high", "low")) for k in range(width)]
        return _block_rows(FeatureSet("x", features, 1).production)

    assert rows_of(0, 157) < rows_of(0, 13) <= rows_of(0)
    assert rows_of(3_000, 157) >= 6_000
    assert rows_of(10**6) < 20_000
    assert all(rows_of(0, width) % 1_024 for width in range(1, 300, 7))


def test_no_bits_depend_on_how_many_bars_are_done_together(monkeypatch):
    mixed = FeatureSet(
        "mixed",
        [*ALPHA158.features, *indicators.catalogue(), *alpha158((9,)).features[12:]],
        10,
    )
    bars = oracles.random_bars(5_000, 9)
    wanted = compute_rows(mixed, bars, NO_STARTS)
    for block_rows in (40, 1_001, 10_000):
        monkeypatch.setattr(rows_module, "_block_rows", lambda _, n=block_rows: n)
        got = compute_rows(mixed, bars, NO_STARTS)
        np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))
