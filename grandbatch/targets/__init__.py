"""Targets: named values per bar that read bars after it, kept apart from features everywhere.

| module | |
|---|---|
| `target` | what a target is, and a list of them |
| `ready` | those that come with the package |
| `named` | what a text such as forward_return:5 means |
| `rows` | values over arrays, segment by segment |
| `overlap` | `add_targets`, over a live Dask frame |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grandbatch.targets.named import resolve_targets
from grandbatch.targets.ready import (
    forward_drawdown,
    forward_log_return,
    forward_return,
    forward_volatility,
    triple_barrier,
)
from grandbatch.targets.rows import compute_targets, target_values
from grandbatch.targets.target import Target, own_targets

if TYPE_CHECKING:
    from grandbatch.targets.overlap import add_targets

__all__ = [
    "Target",
    "add_targets",
    "compute_targets",
    "forward_drawdown",
    "forward_log_return",
    "forward_return",
    "forward_volatility",
    "own_targets",
    "resolve_targets",
    "target_values",
    "triple_barrier",
]


def __getattr__(name: str) -> Any:
    # pandas takes a third of a second to import, and a store is reused without it
    if name == "add_targets":
        from grandbatch.targets.overlap import add_targets

        return add_targets
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
