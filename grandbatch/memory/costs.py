"""What processes hold before they do anything, as measured."""

from __future__ import annotations

BASE_BYTES = 392 * 2**20
"""Interpreter, numpy, pandas, pyarrow, dask, numba, zarr, and the kernels of a set, compiled."""

MAPPED_BYTES = 896 * 2**20
"""Address space that libraries, stacks and arenas of threads take, and no memory stands behind."""

WORKER_BYTES = 280 * 2**20
"""One more process of a LocalCluster, and the scheduler's share in the first."""
