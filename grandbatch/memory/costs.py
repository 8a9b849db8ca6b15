"""What processes hold before they do anything, as measured."""

from __future__ import annotations

BASE_BYTES = 392 * 2**20
"""Interpreter, numpy, pandas, pyarrow, dask, numba, zarr, and the kernels of a set, compiled."""

MAPPED_BYTES = 800 * 2**20
"""Address space that libraries, stacks and arenas of threads take, and no memory stands behind."""

MAPPED_CORE_BYTES = 48 * 2**20
"""The same for each core, up to 64: OpenBLAS has a thread with buffers for each."""

WORKER_BYTES = 280 * 2**20
"""One more process of a LocalCluster, and the scheduler's share in the first."""
