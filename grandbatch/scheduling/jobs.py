"""Describe jobs wave by wave: of those that wait there are never more than of two waves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from grandbatch.scheduling.cluster import Wave

WAVE_JOBS = 2_048
"""Jobs that are described at once."""

_SMALL = 4
"""What part of a wave is small: a key of a graph may stand for as many jobs."""

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


def fuller_waves(waves: Iterable[Wave]) -> Iterator[Wave]:
    """Run waves that are small with those behind, as one: no core waits for the end of each."""
    graph: dict[Any, Any] = {}
    keys: list[Any] = []
    for more, wanted in waves:
        graph.update(more)
        keys += wanted
        if len(keys) > WAVE_JOBS // _SMALL:
            yield graph, keys
            graph, keys = {}, []
    if keys:
        yield graph, keys


def fresh(name: str) -> str:
    """Return a name for tasks that no other run has: a cluster runs equal keys only once."""
    return f"{name}-{secrets.token_hex(16)}"
