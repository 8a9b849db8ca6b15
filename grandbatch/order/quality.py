"""How well an order is shuffled, against the memory that costs."""

from __future__ import annotations

REFERENCE_BATCH = 1024
"""Batch size that the default is chosen for. The order must not depend on the batch size."""

TARGET_VIF = 2.0
MIXED_BYTES = 64_000_000
"""Memory that two buffers of decoded chunks may take by default."""

UNSHUFFLED_BYTES = 4_000_000


def shuffle_vif(
    batch_size: int,
    shuffle_chunks: int,
    n_chunks: int,
    *,
    run_length: int = 1,
    shuffle: bool = True,
) -> float:
    """Variance of a batch's mean store position, relative to a perfect shuffle.

    A batch of B windows comes from K random chunks out of n. The mean position of those chunks
    varies by s²/K·(1 - K/n), and that of B/r runs drawn from them by s²·r/B, where a perfect
    shuffle gives s²/B. So VIF = r + (B/K)(1 - K/n). 1 is perfect; store order gives B.

    Parameters
    ----------
    batch_size : int
    shuffle_chunks, n_chunks : int
        K and n.
    run_length : int
        r, consecutive windows that stay together.
    shuffle : bool

    Returns
    -------
    float
        From 1 to `batch_size`, where the batch is no larger than a block.
    """
    if not shuffle or n_chunks < 1:
        return float(batch_size)
    mixed = min(shuffle_chunks, n_chunks)
    return min(run_length, batch_size) + batch_size / mixed * (1 - mixed / n_chunks)


def default_shuffle_chunks(n_chunks: int, chunk_bytes: int, *, shuffle: bool) -> int:
    """Choose how many chunks to mix.

    As few as give a VIF of 2 for batches of 1,024, and no more than fit twice into 64 MB. In the
    order of the store, as many as make blocks of 4 MB.

    Parameters
    ----------
    n_chunks : int
        Chunks that take part.
    chunk_bytes : int
        Bytes of the distinct rows of a chunk. They are the same in both layouts, so that the
        order is too.
    shuffle : bool
    """
    if not shuffle:
        return max(1, UNSHUFFLED_BYTES // chunk_bytes)
    affordable = max(1, MIXED_BYTES // 2 // chunk_bytes)
    # 1 + (B/K)(1 - K/n) ≤ v  ⇔  K ≥ B·n / (n·(v - 1) + B)
    needed = -(-REFERENCE_BATCH * n_chunks // int(n_chunks * (TARGET_VIF - 1) + REFERENCE_BATCH))
    return max(1, min(needed, affordable))
