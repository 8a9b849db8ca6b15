"""How fast MAPPO trains from a store, how long it waits for its batches, what a step is made of.

*Courses*: one epoch of simulated bars at the sets' own settings, by `BatchProcessor`, with batches
prepared ahead and without. Their limit is the same trainer in a plain loop over tensors that lie in
memory, with nothing watched, recorded or saved. A wait is the time between asking for a batch and
having it; the first, in which the store's files are opened, is among them. The in-memory loop's
wait is the time that indexing takes.

*Steps*: processor time of one `train_batch`, beside the arithmetic of the networks written plainly:
the windows' means, the actors asked for every exposure, the critic, then for each minibatch of each
epoch both networks forward, the loss, back, the gradient's norm, and Adam. Nothing is checked,
walked, judged or copied there. All that the trainer does beyond is to be at most a fifth of its
time. `compiled` is the same arithmetic with networks and loss by `torch.compile`, where it runs.

    python benchmarks/training.py [--json PATH] [--windows N] [--rounds R] [--threads T]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measuring import Figures, Row, in_turns, metered, options_of, report
from torch import nn

import grandbatch as gb
from grandbatch.cli.training import make_config
from grandbatch.experiment.wiring import kind_of

SETS = ("strategic", "tactical")
RUN_LENGTH = 8
MEMORY = "tensors in memory"
WAYS = {MEMORY: None, "2 batches ahead": 2, "none ahead": 0}
"""How batches come: from memory, or from the store with so many prepared ahead."""
SIZES = (32, 1_024)
WAIT_GOAL, STEP_GOAL = 2.0, 0.8

Course = tuple[list[float], list[float], float]
"""Seconds waited for and spent on each batch, and those of the whole loop, checkpoints and all."""


def build(folder: Path, feature_set: str, windows: int) -> gb.MatrixStore:
    chosen = gb.STRATEGIC if feature_set == "strategic" else gb.TACTICAL
    rows = windows * (chosen.sequence_length - chosen.overlap) + 2 * chosen.sequence_length
    source = folder / f"{feature_set}.csv"
    gb.create_large_dataset_simulation(source, rows)
    return gb.build_store(source, folder / f"{feature_set}.zarr", feature_set=feature_set)


def shuffled(whole: gb.MatrixBatch, batch_size: int) -> Iterator[gb.MatrixBatch]:
    """Batches of runs of windows, in a random order, as a plain loop would cut them."""
    tensors = whole.tensors()
    runs = torch.split(torch.arange(len(whole)), RUN_LENGTH)
    order = torch.cat([runs[place] for place in torch.randperm(len(runs)).tolist()])
    for rows in torch.split(order, batch_size):
        cut = {name: tensor[rows] for name, tensor in tensors.items()}
        yield gb.MatrixBatch(**cut, position=whole.position)


def in_memory(store: gb.MatrixStore, threads: int) -> Course:
    config = make_config(store, len(store), None, 0)
    whole = next(iter(gb.SlidingWindowDataLoader(store, config, shuffle=False)))
    trainer = kind_of(store).for_store(store, seed=0, torch_threads=threads)
    waited, trained = [], []
    asked = time.perf_counter()
    for batch in shuffled(whole, make_config(store, None, None, 0).batch_size):
        began = time.perf_counter()
        trainer.train_batch(batch)
        ended = time.perf_counter()
        waited.append(began - asked)
        trained.append(ended - began)
        asked = time.perf_counter()
    return waited, trained, sum(waited) + sum(trained)


def from_store(store: gb.MatrixStore, threads: int, prefetch: int, checkpoints: Path) -> Course:
    config = make_config(store, None, None, 0)
    config = dataclasses.replace(config, prefetch_batches=prefetch)
    processor = gb.BatchProcessor(store, config, checkpoints, resume=False, run_length=RUN_LENGTH)
    trainer = kind_of(store).for_store(store, seed=0, torch_threads=threads)
    waited, trained = [], []
    begin = time.perf_counter()
    with closing(processor.process_batches(trainer)) as results:
        for result in results:
            waited.append(result["wait_time"])
            trained.append(result["batch_time"])
    return waited, trained, time.perf_counter() - begin


def course(store: gb.MatrixStore, threads: int, way: str, folder: Path) -> Figures:
    prefetch = WAYS[way]

    def run() -> Figures:
        if prefetch is None:
            return course_figures(in_memory(store, threads))
        with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
            return course_figures(from_store(store, threads, prefetch, Path(checkpoints)))

    found = metered(run)
    return {**found, "windows_per_second": len(store) / found["course_seconds"]}


def course_figures(found: Course) -> Figures:
    waited, trained, seconds = found
    return {
        "course_seconds": seconds,
        "waited_percent": 100 * sum(waited) / (sum(waited) + sum(trained)),
        "first_wait_ms": waited[0] * 1e3,
        "wait_ms": statistics.median(waited[1:]) * 1e3,
        "train_ms": statistics.median(trained) * 1e3,
    }


def course_rows(feature_set: str, found: dict[str, Figures]) -> list[Row]:
    rows = []
    for way, run in found.items():
        name = f"{feature_set}, {way}"
        limit = None if way == MEMORY else found[MEMORY]["windows_per_second"]
        note = f"{run['train_ms']:.2f} ms a batch"
        rows.append(Row(name, run["windows_per_second"], "windows/s", run, limit=limit, note=note))
        if way != MEMORY:
            note = f"first {run['first_wait_ms']:.1f} ms, then {run['wait_ms']:.3f} ms"
            waited = run["waited_percent"]
            rows.append(Row(f"{name}: waits", waited, "%", goal=WAIT_GOAL, is_cost=True, note=note))
    return rows


class PlainSteps:
    """The arithmetic of one training step of a team, and nothing else.

    Parameters
    ----------
    config : MappoConfig
        Agents, spans, hidden layers, epochs, minibatches.
    shape : (B, L, F)
        Of the windows.
    compiled : bool
        Whether networks and loss go through `torch.compile`.
    """

    def __init__(self, config: Any, shape: tuple[int, int, int], compiled: bool = False) -> None:
        torch.manual_seed(0)
        self.config, self.shape = config, shape
        self.agents = len(config.agents)
        inputs = len(config.spans) * shape[2] + 1
        hidden = config.hidden_sizes
        self.actor = layers(self.agents, (inputs, *hidden, 5))
        self.critic = layers(1, (inputs, *hidden, 1))
        self.parameters = [p for layer in (*self.actor, *self.critic) for p in layer]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4, foreach=True)
        self.matrices = torch.randn(shape)
        self.levels = torch.linspace(-1, 1, 4 * self.agents + 1)
        self.loss: Callable[..., torch.Tensor] = self.plain_loss
        if compiled:
            self.loss = torch.compile(self.plain_loss)

    def plain_loss(
        self, seen: torch.Tensor, kept: torch.Tensor, action: torch.Tensor, before: torch.Tensor,
        advantage: torch.Tensor, target: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        log_probs = forward(self.actor, seen, kept).log_softmax(-1)
        chosen = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        weight = (chosen - before).sum(-1).exp()
        clipped = weight.clamp(0.8, 1.2)
        gain = torch.minimum(weight * advantage, clipped * advantage)
        value = forward(self.critic, seen[:, :1])[:, 0, 0]
        errors = nn.functional.smooth_l1_loss(value, target)
        return errors - gain.mean() - 0.01 * entropy.mean()

    def step(self) -> None:
        B, n = self.shape[0], self.agents
        with torch.no_grad():
            rows = ((self.matrices - 0.1) / 1.1).clamp(-5, 5)
            means = torch.cat([rows[:, -span:].mean(1) for span in self.config.spans], 1)
            levels = self.levels.expand(B, -1).unsqueeze(-1)
            met = torch.cat([means.unsqueeze(1).expand(-1, levels.shape[1], -1), levels], -1)
            seen = met.unsqueeze(-2).expand(-1, -1, n, -1)
            kept = (torch.rand(B, 1, n, sum(self.config.hidden_sizes)) >= 0.05) / 0.95
            noise = -torch.log(-torch.log(torch.rand(B, 1, n, 5).clamp(1e-20, 1 - 1e-7)))
            logits = forward(self.actor, seen, kept)
            action = (logits + noise).argmax(-1)[:, 0]
            before = logits[:, 0].log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
            seen, kept = seen[:, 0].contiguous(), kept[:, 0]
            target = forward(self.critic, seen[:, :1])[:, 0, 0]
            data = (seen, kept, action, before, target - target.mean(), target)
        for _ in range(self.config.epochs):
            for part in torch.split(torch.randperm(B), self.config.minibatch_windows):
                self.optimizer.zero_grad()
                self.loss(*(tensor[part] for tensor in data)).backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()


def layers(n: int, sizes: tuple[int, ...]) -> list[tuple[nn.Parameter, nn.Parameter]]:
    return [
        (
            nn.Parameter((2 * torch.rand(n, wide, narrow) - 1) / math.sqrt(wide)),
            nn.Parameter(torch.zeros(n, narrow)),
        )
        for wide, narrow in pairwise(sizes)
    ]


def forward(
    network: list[tuple[nn.Parameter, nn.Parameter]],
    seen: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    factors = (
        None if kept is None else torch.split(kept, [w.shape[-1] for w, _ in network[:-1]], -1)
    )
    for number, (weight, bias) in enumerate(network):
        seen = torch.einsum("...ni,nio->...no", seen, weight) + bias
        if number < len(network) - 1:
            seen = seen.tanh()
            seen = seen if factors is None else seen * factors[number]
    return seen


def steps(work: Callable[[], Any], count: int) -> Figures:
    """Processor time of `count` steps, per step."""

    def run() -> None:
        for _ in range(count):
            work()

    found = metered(run)
    return {**found, "ms": found["processor"] / count * 1e3}


def steps_for(size: int) -> int:
    """How many steps are measured as one: about half a second's."""
    return max(4, 2_000 // size)


def team_and_batch(store: gb.MatrixStore, size: int, threads: int) -> tuple[Any, gb.MatrixBatch]:
    """A fresh trainer, and one shuffled batch of a store that stays in memory."""
    config = make_config(store, size, None, 0)
    first = next(iter(gb.SlidingWindowDataLoader(store, config, run_length=RUN_LENGTH)))
    own = {name: tensor.clone() for name, tensor in first.tensors().items()}
    trainer = kind_of(store).for_store(store, seed=0, torch_threads=threads)
    return trainer, gb.MatrixBatch(**own, position=first.position)


def step_rows(store: gb.MatrixStore, feature_set: str, size: int, options: Any) -> list[Row]:
    """One step of a trainer beside the plain arithmetic, compiled or not."""
    trainer, batch = team_and_batch(store, size, options.threads)
    shape = tuple(batch.matrices.shape)
    works: dict[str, Callable[[], Any]] = {
        "train_batch": lambda: trainer.train_batch(batch),
        "plain arithmetic": PlainSteps(trainer.config, shape).step,
    }
    missing = ""
    if options.compiled:
        compiled = PlainSteps(trainer.config, shape, compiled=True).step
        try:
            compiled()
            works["plain arithmetic, compiled"] = compiled
        except RuntimeError as error:  # what TorchDynamo raises is one
            missing = f"torch.compile doesn't run here: {str(error).splitlines()[0][:120]}"
    cases = {name: partial(steps, work, steps_for(size)) for name, work in works.items()}
    found = in_turns(cases, options.rounds, warm=1)
    bare = found["plain arithmetic"]["ms"]
    rows = []
    for name, run in found.items():
        ours = name == "train_batch"
        rows.append(
            Row(
                f"{feature_set}, {size:,} windows: {name}",
                run["ms"],
                "ms a step",
                run,
                goal=bare / STEP_GOAL if ours else None,
                limit=bare if ours else None,
                is_cost=True,
                note=missing if ours else "",
            )
        )
    return rows


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--windows", type=int, default=8_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    rows = []
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for feature_set in SETS:
            store = build(folder, feature_set, options.windows)
            ways = {way: partial(course, store, options.threads, way, folder) for way in WAYS}
            rows += course_rows(feature_set, in_turns(ways, options.rounds, warm=1))
            for size in SIZES:
                rows += step_rows(store, feature_set, size, options)
    report(__file__, rows, options)


if __name__ == "__main__":
    main()
