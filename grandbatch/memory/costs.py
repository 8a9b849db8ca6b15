"""What processes hold before they do anything, as measured."""

from __future__ import annotations

BASE_BYTES = 392 * 2**20
"""Interpreter, numpy, pandas, pyarrow, dask, numba, zarr, and the kernels of a set, compiled."""

WORKER_BYTES = 280 * 2**20
"""One more process of a LocalCluster, and the scheduler's share in the first."""
