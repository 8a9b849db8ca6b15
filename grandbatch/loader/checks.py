"""What a loader is given, checked against its store before anything is read."""

from __future__ import annotations

from dataclasses import replace

import torch

from grandbatch.config import BatchConfig, calculate_optimal_batch_size
from grandbatch.errors import UsageError
from grandbatch.memory import memory_limit
from grandbatch.order import OrderSettings, Selection, WeightedSelection, default_shuffle_chunks
from grandbatch.store import MatrixStore

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_store(store: object) -> None:
    """Make sure that a store is one."""
    if not isinstance(store, MatrixStore):
        raise UsageError(
            f"the loader needs a MatrixStore, got {str(store)!r:.200}; open one with "
            "grandbatch.MatrixStore.open(path)"
        )


def check_config(store: MatrixStore, config: BatchConfig) -> None:
    """Make sure that a config is one of the store's windows."""
    for name in ("sequence_length", "overlap"):
        want, got = getattr(store, name), getattr(config, name)
        if want != got:
            raise UsageError(
                f"the config says {name}={got}, the store {store.path} was built with {want}; "
                f"give BatchConfig({name}={want}), or build a store with {name} {got}"
            )


def check_settings(rank: int, world_size: int, dtype: torch.dtype, *, pinned: bool) -> None:
    """Make sure that the other settings make sense."""
    if world_size < 1 or not 0 <= rank < world_size:
        raise UsageError(
            f"rank must be from 0 to world_size - 1, got rank {rank} and world_size {world_size}"
        )
    if dtype not in _DTYPES:
        raise UsageError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    if pinned and not torch.cuda.is_available():
        raise UsageError("pin_memory needs a GPU, and PyTorch sees none here; leave it out")


def first_batch_size(config: BatchConfig, store: MatrixStore) -> int:
    """Return the batch size to begin with: the config's, or one that fits the memory."""
    if config.batch_size != "auto":
        return config.batch_size
    wanted = calculate_optimal_batch_size(
        store.attrs["n_rows"], memory_limit().limit_bytes / 2**30, store.sequence_length
    )
    return max(config.min_batch_size, min(wanted, config.max_batch_size or wanted))


def mixed(
    chosen: OrderSettings,
    store: MatrixStore,
    selection: Selection | WeightedSelection,
    context_bytes: int,
) -> OrderSettings:
    """Choose how many chunks are mixed, given the bytes of a chunk's context."""
    rows = (store.chunk_windows - 1) * store.stride + store.sequence_length
    slot_bytes = rows * store.n_features * 4 + context_bytes
    n_mixed = default_shuffle_chunks(len(selection.chunks), slot_bytes, shuffle=chosen.shuffle)
    return replace(chosen, shuffle_chunks=n_mixed)
