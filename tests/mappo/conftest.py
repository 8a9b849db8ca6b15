"""Batches made by hand, and simulated markets whose signal is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from grandbatch.batch import MatrixBatch
from grandbatch.position import Position

STRIDE = 36


def make_batch(
    matrices,
    next_return,
    *,
    index=None,
    first_row=None,
    symbol=None,
    weight=None,
) -> MatrixBatch:
    """A batch of windows that follow on each other, except where said otherwise."""
    n = len(matrices)
    index = torch.arange(n) if index is None else torch.as_tensor(index)
    return MatrixBatch(
        matrices=torch.as_tensor(matrices, dtype=torch.float32),
        index=index.to(torch.int64),
        end_time=index.to(torch.int64) * 300_000_000_000,
        symbol=torch.as_tensor([0] * n if symbol is None else symbol, dtype=torch.int32),
        close_price=torch.full((n,), 100.0, dtype=torch.float64),
        next_return=torch.as_tensor(next_return, dtype=torch.float64),
        first_row=index * STRIDE if first_row is None else torch.as_tensor(first_row),
        weight=torch.as_tensor([1.0] * n if weight is None else weight, dtype=torch.float32),
        position=Position(0, 0, 0, 0, 1, ((),)),
    )


def noise_batch(n, length=48, features=13, *, seed=0, run_length=None, **changes) -> MatrixBatch:
    """Random windows and returns, in runs of `run_length` (one run by default)."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(n)
    index = place if run_length is None else place + place // run_length
    return make_batch(
        torch.randn(n, length, features, generator=generator),
        1e-3 * torch.randn(n, generator=generator, dtype=torch.float64),
        **{"index": index, **changes},
    )


@dataclass
class Market:
    """Bars whose next return is `strength` times a persistent hidden state, plus noise."""

    strength: float
    n_bars: int
    length: int
    features: int
    seed: int
    noise: float = 1e-3
    persistence: float = 0.97

    def __post_init__(self):
        generator = torch.Generator().manual_seed(1000 + self.seed)
        shocks = torch.randn(self.n_bars, generator=generator, dtype=torch.float64)
        state, states = 0.0, []
        for shock in (shocks * (1 - self.persistence**2) ** 0.5).tolist():
            state = self.persistence * state + shock
            states.append(state)
        self.state = torch.tensor(states, dtype=torch.float64)
        blur = torch.randn(self.n_bars, generator=generator, dtype=torch.float64)
        self.next_return = self.noise * (self.strength * self.state + blur)
        rows = torch.randn(self.n_bars, self.features, generator=generator)
        rows[:, 1] = (self.state + 0.5 * rows[:, 1]).to(torch.float32)
        self.windows = rows.unfold(0, self.length, 1).transpose(1, 2)

    def batch(self, starts, run_length):
        at = (starts[:, None] + torch.arange(run_length)).flatten()
        last = at + self.length - 1
        return make_batch(self.windows[at], self.next_return[last], index=at, first_row=at)

    def batches(self, first, stop, *, count, runs, run_length, seed):
        """Random runs of windows from `first` up to `stop`."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            starts = torch.randint(first, stop - run_length, (runs,), generator=generator)
            yield self.batch(starts, run_length)

    def oracle_reward(self, first, stop, cost):
        """What one earns who knows the state: its sign, changed only when it pays."""
        last = torch.arange(first, stop) + self.length - 1
        state, earned = self.state[last], self.next_return[last]
        best = -1.0
        for band in (0.0, 0.25, 0.5, 1.0):
            exposure, held = [], 0.0
            for s in state.tolist():
                held = (1.0 if s > 0 else -1.0) if abs(s) > band else held
                exposure.append(held)
            e = torch.tensor(exposure, dtype=torch.float64)
            changed = e.diff(prepend=e.new_zeros(1)).abs()
            best = max(best, float((e * earned - cost * changed).mean()))
        return best


@pytest.fixture(scope="session")
def make():
    """`make_batch`, as a fixture."""
    return make_batch


@pytest.fixture(scope="session")
def noise():
    """`noise_batch`, as a fixture."""
    return noise_batch


@pytest.fixture(scope="session")
def changed():
    """A batch with some of its tensors replaced."""

    def change(batch, **tensors):
        return MatrixBatch(**{**batch.tensors(), **tensors}, position=batch.position)

    return change


@pytest.fixture(scope="session")
def market():
    """`Market`, as a fixture."""
    return Market
