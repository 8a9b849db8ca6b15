"""Moments of chunks are merged one after the other, to the bit as written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from grandbatch.kernels.statistics import merge_moments


def merged_plainly(count, mean, m2, n, mean_n, m2_n):
    if not n:
        return count, mean, m2
    total = count + n
    delta = mean_n - mean
    return total, mean + delta * (n / total), m2 + m2_n + delta * delta * (count * n / total)


@pytest.mark.parametrize("n_features", [1, 13, 158])
@pytest.mark.parametrize("before", [0, 10**10])
def test_moments_are_merged_as_written_plainly(n_features, before):
    rng = np.random.default_rng(n_features)
    n = rng.integers(0, 300, 500)
    means = rng.normal(size=(500, n_features)) * 10.0 ** rng.integers(-5, 5, n_features)
    squares = 100 * rng.random((500, n_features))
    expected = before, means[0], squares[0]
    mean, m2 = means[0].copy(), squares[0].copy()
    for rows, of_chunk, squares_of_chunk in zip(n.tolist(), means, squares, strict=True):
        expected = merged_plainly(*expected, rows, of_chunk, squares_of_chunk)
    count = 0
    for part in (slice(0, 7), slice(7, 7), slice(7, 500)):
        so_far = count or before
        count = merge_moments(so_far, mean, m2, n[part], means[part], squares[part])
    assert count == expected[0]
    assert type(count) is int
    np.testing.assert_array_equal(mean, expected[1])
    np.testing.assert_array_equal(m2, expected[2])
