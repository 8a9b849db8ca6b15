"""What all ranks of a training settle on, at stated steps, by an all-reduce."""

from __future__ import annotations

import logging

from grandbatch.errors import GrandbatchError

_log = logging.getLogger("grandbatch")

AGREE_STEPS = 8
"""Ranks settle on a batch size before the first batch and then every so many steps."""


class Agreement:
    """The ranks of one training; each makes its own, at the same time, and calls it as often.

    Figures go through a gloo group, whatever moves the gradients: a GPU is not waited for.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self._group = dist.new_group(backend="gloo")

    def settle(self, size: int, *, stop: bool) -> tuple[int, bool]:
        """Return the smallest of all ranks' sizes, and whether any of them must stop.

        Raises
        ------
        GrandbatchError
            If a rank is gone.
        """
        import torch

        figures = torch.tensor([size, 0 if stop else 1], dtype=torch.int64)
        try:
            self._dist.all_reduce(figures, op=self._dist.ReduceOp.MIN, group=self._group)
        except RuntimeError as error:
            raise GrandbatchError(
                f"another rank is gone, or does not answer ({error}); its own log says why; "
                "start all ranks again with the same command to go on"
            ) from None
        return int(figures[0]), not int(figures[1])


def agreement(world_size: int) -> Agreement | None:
    """Return how the ranks of a training settle; None where there is one, or no way to ask."""
    if world_size == 1:
        return None
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() == world_size:
        return Agreement()
    _log.warning(
        "%d ranks without torch.distributed can't agree: the batch size stays as it is",
        world_size,
    )
    return None
