"""What a loader is given, checked against its store before anything is read."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.data import get_worker_info

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


def device_of(given: object, *, pinned: bool) -> torch.device | None:
    """Return the device that windows are to be cut on, if any; tensors can be made there."""
    if given is None:
        return None
    if pinned:
        raise UsageError(
            f"pin_memory is for batches on the CPU, and device={str(given)!r} cuts them there; "
            "leave one of them out"
        )
    try:
        device = torch.device(given)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"device must be one that PyTorch knows, such as cuda, cuda:1 or cpu, got {given!r}; "
            "leave it out for batches on the CPU"
        ) from error
    try:
        if device.type == "cuda" and device.index is None:
            # threads that decode and prepare have another current one
            device = torch.device("cuda", torch.cuda.current_device())
        torch.empty(0, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise UsageError(
            f"no tensor can be made on device={str(given)!r} here ({reason:.120}); give one that "
            "PyTorch sees on this machine, or leave it out for batches on the CPU"
        ) from error
    assert isinstance(device, torch.device)
    return device


def check_process(device: torch.device | None) -> None:
    """Make sure that batches of a device are not to be made in a DataLoader's worker process."""
    worker = get_worker_info()
    if device is not None and worker is not None:
        raise UsageError(
            f"device={str(device)!r} makes batches in the process that uses them, not in one of "
            f"{worker.num_workers} workers; give DataLoader num_workers=0 (chunks are decoded in "
            "threads), or leave device out"
        )


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
