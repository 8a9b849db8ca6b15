"""`Ranks`: the processes that learn together, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grandbatch.errors import GrandbatchError, UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Ranks:
    """The processes of one training; by default this one alone.

    All of them call the same methods in the same order, each with a tensor of the same shape and
    dtype. Tensors travel over gloo, by way of the CPU where they lie on a GPU, and what comes back
    is the same on all ranks to the bit.

    Parameters
    ----------
    rank, size : int
        Which of how many processes this is.
    group : ProcessGroup, optional
        Of torch.distributed, on gloo; None is its default group.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def connected(cls) -> Ranks:
        """Return the processes that torch.distributed was initialised with, at the same time.

        Raises
        ------
        UsageError
            If it was not initialised.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise UsageError(
                "torch.distributed is not initialised: start with torchrun inside join_ranks(), "
                "or call init_process_group"
            )
        own = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        return cls(dist.get_rank(), dist.get_world_size(), own)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks, of the same shape."""
        return self._reduce(values, "SUM")

    def smallest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the smallest of all ranks' values, place by place."""
        return self._reduce(values, "MIN")

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return all ranks' values in the order of the ranks, (size, *shape), on the CPU."""
        import torch
        import torch.distributed as dist

        own = values.detach().cpu().contiguous()
        if self.size == 1:
            return own.unsqueeze(0)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with _telling_who_is_gone():
            dist.all_gather(found, own, group=self.group)
        return torch.stack(found)

    def place(self, count: int) -> tuple[int, int]:
        """Where this rank's items begin among those of all ranks in order, and how many all are."""
        if self.size == 1:
            return 0, count
        import torch

        counts = self.gather(torch.tensor(count)).tolist()
        return sum(counts[: self.rank]), sum(counts)

    def _reduce(self, values: torch.Tensor, how: str) -> torch.Tensor:
        if self.size == 1:
            return values
        import torch.distributed as dist

        found = values.detach().cpu().clone()
        with _telling_who_is_gone():
            dist.all_reduce(found, op=getattr(dist.ReduceOp, how), group=self.group)
        return found.to(values.device)


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started; this one alone where it didn't.

    Yields
    ------
    Ranks
        To be given to the trainer, and by its `rank` and `size` to the `BatchProcessor`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield Ranks.connected()
    finally:
        dist.destroy_process_group()


@contextmanager
def _telling_who_is_gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise GrandbatchError(
            f"another rank is gone, or does not answer ({error}); its own log says why; "
            "start all ranks again with the same command to go on"
        ) from None
