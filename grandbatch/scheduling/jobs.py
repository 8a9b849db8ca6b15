"""Describe jobs wave by wave: of those that wait there are never more than of two waves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from grandbatch.scheduling.cluster import Wave

WAVE_JOBS = 2_048
"""Jobs that are described at once."""

T = TypeVar("T")


def waves_of(jobs: Iterable[T]) -> Iterator[list[T]]:
    """Gather jobs, as they come, into waves: so many that cores seldom wait for the last."""
    left = iter(jobs)
    while wave := list(islice(left, WAVE_JOBS)):
        yield wave


def call_waves(function: Callable[[T], Any], jobs: Iterable[T]) -> Iterator[Wave]:
    """Return the graphs, wave by wave, that call a function with each of some jobs."""
    for wave in waves_of(jobs):
        name = fresh(function.__name__)
        graph = {(name, number): (function, job) for number, job in enumerate(wave)}
        yield graph, list(graph)


def fresh(name: str) -> str:
    """Return a name for tasks that no other run has: a cluster runs equal keys only once."""
    return f"{name}-{secrets.token_hex(16)}"
