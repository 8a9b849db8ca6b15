"""Rows that travel to a device once, and the windows cut from them there.

A GPU works off what it is given in order, and later than it is given. Each buffer of rows has a
`Mirror` there. Who fills rows says which; before windows are cut, what was filled since is sent.
All that one iteration asks of the device is in one lane (a stream, in CUDA's words), so that rows
are never replaced before the windows that need them were cut. What is outside of it is waited for:

- page-locked memory that bytes are sent from is filled again once they have left it;
- whoever is handed a batch lets the device finish its slab before anything else that he asks of it;
- a slab that was dropped is used again once the device has done all that was asked of it by then.

Where a device is no GPU everything is done at once, by the same code.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch

from grandbatch.values.arrays import Array, Int64, UInt8

_STAGES, _STAGE_BYTES = 8, 2**20
"""Pieces of page-locked memory that bytes are sent from; each carries one piece at a time."""

STAGED_BYTES = _STAGES * _STAGE_BYTES

_ALIGNED = 16
"""Bytes; more than any number in an array has."""

_AMORTISED = 16
"""A GPU is given so many times as many windows at once: asking it costs microseconds each time."""


class Mark(Protocol):
    """A place in a lane."""

    def synchronize(self) -> None:
        """Wait until the device has got there."""


class Lane(Protocol):
    """What a device is to do, in order. One thread at a time."""

    slab_factor: int
    """How many times as many windows as usual are best cut at once."""

    def host_memory(self, n_bytes: int) -> torch.Tensor:
        """Return memory of the CPU that the device can read by itself, (n_bytes,) uint8."""

    def memory(self, n_bytes: int) -> torch.Tensor:
        """Return memory of the device, (n_bytes,) uint8, for what is done in this lane."""

    def run(self, work: Callable[[], object]) -> None:
        """Let the device do something."""

    def mark(self) -> Mark:
        """Return the place behind all that it was given so far."""

    def meet(self, mark: Mark, tensors: Sequence[torch.Tensor]) -> None:
        """Let what the calling thread asks of the device from here on come behind a mark.

        The tensors' memory is used again only behind all that it asks until they are dropped.
        """


class DirectLane:
    """Does at once what it is given."""

    slab_factor = 1

    def __init__(self, device: torch.device):
        self._device = device

    def host_memory(self, n_bytes: int) -> torch.Tensor:
        """As of `Lane`."""
        return torch.empty(n_bytes, dtype=torch.uint8, device="cpu")

    def memory(self, n_bytes: int) -> torch.Tensor:
        """As of `Lane`."""
        return torch.empty(n_bytes, dtype=torch.uint8, device=self._device)

    def run(self, work: Callable[[], object]) -> None:
        """As of `Lane`."""
        work()

    def mark(self) -> Mark:
        """As of `Lane`."""
        return self

    def synchronize(self) -> None:
        """Wait for nothing: whatever it was given is done."""

    def meet(self, mark: Mark, tensors: Sequence[torch.Tensor]) -> None:
        """As of `Lane`."""


class CudaLane:
    """A stream of a GPU."""

    slab_factor = _AMORTISED

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def _entered(self) -> Iterator[None]:
        # also makes the GPU the thread's current one, which another thread's choice does not
        with torch.cuda.stream(self._stream):
            yield

    def host_memory(self, n_bytes: int) -> torch.Tensor:
        """As of `Lane`."""
        with self._entered():
            return torch.empty(n_bytes, dtype=torch.uint8, device="cpu", pin_memory=True)

    def memory(self, n_bytes: int) -> torch.Tensor:
        """As of `Lane`."""
        with self._entered():
            return torch.empty(n_bytes, dtype=torch.uint8, device=self._device)

    def run(self, work: Callable[[], object]) -> None:
        """As of `Lane`."""
        with self._entered():
            work()

    def mark(self) -> Mark:
        """As of `Lane`."""
        # who waits for a blocking one sleeps, where others keep a core busy
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def meet(self, mark: Mark, tensors: Sequence[torch.Tensor]) -> None:
        """As of `Lane`."""
        assert isinstance(mark, torch.cuda.Event)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(mark)
        for tensor in tensors:
            tensor.record_stream(current)


def lane_of(device: torch.device) -> Lane:
    """Return a new lane of a device."""
    return CudaLane(device) if device.type == "cuda" else DirectLane(device)


@dataclass(frozen=True, eq=False)
class Arrival:
    """What a batch waits for on its device, and the memory that it is in."""

    lane: Lane
    mark: Mark
    tensors: Sequence[torch.Tensor]

    def meet(self) -> None:
        """Let what the calling thread asks of the device from here on come behind it."""
        self.lane.meet(self.mark, self.tensors)


class _Stage(NamedTuple):
    """Memory that bytes are sent from, and where they have left it."""

    memory: torch.Tensor
    free: Mark


class Bus:
    """The way to a device, for one iteration. One thread at a time.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device):
        self.lane = lane_of(device)
        self._stages: deque[_Stage] = deque()

    def send(self, host: UInt8, there: torch.Tensor) -> None:
        """Copy bytes to the device; they may be changed as soon as this returns.

        Parameters
        ----------
        host : (n,) uint8
        there : (n,) uint8 tensor
        """
        for first in range(0, len(host), _STAGE_BYTES):
            piece = host[first : first + _STAGE_BYTES]
            memory = self._stage()
            source, target = memory[: len(piece)], there[first : first + len(piece)]
            np.copyto(source.numpy(), piece)
            self.run(partial(target.copy_, source, non_blocking=True))
            self._stages.append(_Stage(memory, self.lane.mark()))

    def _stage(self) -> torch.Tensor:
        """Return memory to send from that nothing is sent from any more."""
        if len(self._stages) < _STAGES:
            return self.lane.host_memory(_STAGE_BYTES)
        memory, free = self._stages.popleft()
        free.synchronize()
        return memory

    def carry(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Copy arrays to the device, all at once; they may be changed as soon as this returns."""
        sizes = [-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays]
        stops = np.cumsum(sizes).tolist()
        packed = np.empty(sum(sizes), np.uint8)
        there = self.memory(len(packed))
        carried = []
        for array, size, stop in zip(arrays, sizes, stops, strict=True):
            here = slice(stop - size, stop - size + array.nbytes)
            packed[here].view(array.dtype).reshape(array.shape)[...] = array
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            carried.append(there[here].view(dtype).view(array.shape))
        self.send(packed, there)
        return carried

    def memory(self, n_bytes: int) -> torch.Tensor:
        """Return memory of the device, (n_bytes,) uint8."""
        return self.lane.memory(n_bytes)

    def run(self, work: Callable[[], object]) -> None:
        """Let the device do something, behind all that it was given before."""
        self.lane.run(work)

    def arrival(self, tensors: Sequence[torch.Tensor]) -> Arrival:
        """Return what those wait for who are handed tensors that were made by now."""
        return Arrival(self.lane, self.lane.mark(), tensors)


class Mirror:
    """The rows of a buffer on a device.

    Any thread may say that it filled some; one at a time cuts windows.

    Parameters
    ----------
    bus : Bus
    host : (n_rows * row_bytes,) uint8
        The buffer's memory.
    window : tuple of int
        (L, F).
    dtype : torch.dtype
    """

    def __init__(self, bus: Bus, host: UInt8, window: tuple[int, int], dtype: torch.dtype):
        self._bus, self._host, self._window, self._dtype = bus, host, window, dtype
        L, F = window
        self._row_bytes = F * dtype.itemsize
        self._there = bus.memory(len(host))
        n_rows = len(host) // self._row_bytes
        self._windows = self._there.view(dtype).as_strided((n_rows - L + 1, L * F), (F, 1))
        self._filled: deque[tuple[int, int]] = deque()

    def filled(self, first: int, stop: int) -> None:
        """Take note of rows that were filled, and stay as they are until windows are cut."""
        self._filled.append((first, stop))

    def slab(self, n: int) -> torch.Tensor:
        """Return memory for n windows, (n, L, F), with arbitrary contents."""
        n_bytes = n * math.prod(self._window) * self._dtype.itemsize
        return self._bus.memory(n_bytes).view(self._dtype).view(n, *self._window)

    def cut_into(self, starts: Int64, out: torch.Tensor) -> None:
        """Let the device copy windows to a given place.

        Parameters
        ----------
        starts : (n,) int64
            Their first rows.
        out : (n, L, F) tensor
        """
        self._send_filled()
        (there,) = self._bus.carry([starts])
        flat = out.view(len(starts), -1)
        self._bus.run(partial(torch.index_select, self._windows, 0, there, out=flat))

    def _send_filled(self) -> None:
        """Send what was filled since, neighbours together."""
        ranges: list[tuple[int, int]] = []
        for first, stop in sorted(self._filled.popleft() for _ in range(len(self._filled))):
            begin, end = ranges.pop() if ranges and first <= ranges[-1][1] else (first, stop)
            ranges.append((begin, max(end, stop)))
        for first, stop in ranges:
            here = slice(first * self._row_bytes, stop * self._row_bytes)
            self._bus.send(self._host[here], self._there[here])
