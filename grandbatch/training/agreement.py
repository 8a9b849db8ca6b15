"""What all ranks of a training settle on, at stated steps."""

from __future__ import annotations

import logging

from grandbatch.errors import UsageError
from grandbatch.ranks import Ranks
from grandbatch.training.trainer import Trainer

_log = logging.getLogger("grandbatch")

AGREE_STEPS = 8
"""Ranks settle on a batch size before the first batch and then every so many steps."""


def settle(ranks: Ranks, size: int, *, stop: bool) -> tuple[int, bool]:
    """Return the smallest of all ranks' batch sizes, and whether any of them must stop.

    Raises
    ------
    GrandbatchError
        If a rank is gone.
    """
    import torch

    figures = ranks.smallest(torch.tensor([size, 0 if stop else 1], dtype=torch.int64))
    return int(figures[0]), not int(figures[1])


def ranks_of(world_size: int) -> Ranks | None:
    """Return whom this rank can ask; None where there are others that it can't."""
    import torch.distributed as dist

    if world_size == 1:
        return Ranks()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() == world_size:
        return Ranks.connected()
    _log.warning(
        "%d ranks without torch.distributed can't agree: the batch size stays as it is, and "
        "figures are those of each rank",
        world_size,
    )
    return None


def check_ranks(trainer: Trainer, world_size: int) -> None:
    """Refuse what is no trainer, or one that learns with other ranks than batches are dealt to.

    Raises
    ------
    UsageError
        Saying which.
    """
    if not isinstance(trainer, Trainer):
        raise UsageError(
            f"{type(trainer).__name__} is no trainer: it needs train_batch, state_dict and "
            "load_state_dict (grandbatch.Trainer)"
        )
    ranks = getattr(trainer, "ranks", None)
    if isinstance(ranks, Ranks) and ranks.size != world_size:
        raise UsageError(
            f"the trainer learns with {ranks.size} rank(s), the batches are dealt to "
            f"{world_size}; give the trainer ranks=, and the processor rank=ranks.rank and "
            "world_size=ranks.size, as join_ranks gives them"
        )
