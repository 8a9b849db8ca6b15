"""What all ranks of a training settle on, at stated steps."""

from __future__ import annotations

from grandbatch.ranks import Ranks

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
