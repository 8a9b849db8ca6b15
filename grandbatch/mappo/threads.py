"""How many threads torch computes on, inside a team's own calls only.

Threads that share networks this small wait for each other more than they compute, and where
another process wants a core, all wait for the one that has none: a training came to a twelfth of
its rate there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch


class _Threaded(Protocol):
    torch_threads: int


Parameters = ParamSpec("Parameters")
Owner = TypeVar("Owner", bound=_Threaded)
Result = TypeVar("Result")


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch compute on so many threads; what was set before holds again afterwards."""
    before = torch.get_num_threads()
    if before == number:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_its_threads(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Run a method on as many threads as its owner's `torch_threads` says."""

    @functools.wraps(method)
    def run(self: Owner, /, *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with torch_threads(self.torch_threads):
            return method(self, *arguments, **options)

    return run
