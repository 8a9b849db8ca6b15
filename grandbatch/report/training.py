"""The page's section about a training: its curves, its memory, its checkpoints."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from grandbatch.checkpoint import require
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.memory.records import read_records
from grandbatch.report import charts, html
from grandbatch.store import MatrixStore
from grandbatch.training.metrics_log import read_metrics
from grandbatch.values.arrays import Float64
from grandbatch.values.texts import amount
from grandbatch.values.times import moment

_MOST_POINTS = 240
_MOST_CURVE_POINTS = 120
_MOST_METRICS = 18
_MOST_DECISIONS = 20
_MB = 10**6
_NEAR = 4
_LONG_SECONDS = 3_600

Record = dict[str, Any]


def training(store: MatrixStore, folder: Path | None) -> str:
    """Curves of the run whose checkpoints lie in a folder.

    Raises
    ------
    UsageError
        If there are neither checkpoints nor records.
    CheckpointError
        If the checkpoints are of a training on another store.
    """
    if folder is None:
        said = "No training was given: a report that is given its folder shows its curves here."
        return html.section("training", "Training", html.words(said))
    require(folder)
    checkpoints = _checkpoints(store, folder)
    metrics = [line for line in read_metrics(folder) if line["rank"] == 0]
    records = read_records(folder)
    if not (checkpoints or metrics or records):
        raise UsageError(
            f"nothing of a training in {folder}; name the folder that grandbatch train saved into"
        )
    parts = [_curves(metrics), _memory(records)]
    if checkpoints:
        parts += [
            "<h3>Checkpoints</h3>",
            html.table(("step", "bytes", "means of the whole training"), checkpoints),
        ]
    return html.section("training", "Training", *parts)


def _checkpoints(store: MatrixStore, folder: Path) -> list[tuple[int, int, str]]:
    from grandbatch.checkpoint import CheckpointManager

    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name the folder of a training")
    found = CheckpointManager(folder, content_id=store.content_id).list()
    for info in found:
        if info.content_id not in (None, store.content_id):
            raise CheckpointError(
                f"{info.path} is of a training on another store than {store.path}; "
                "name that store, or another folder"
            )
    return [
        (
            info.step,
            info.n_bytes,
            info.problem or ", ".join(f"{k} {html.number(v)}" for k, v in info.metrics.items()),
        )
        for info in found
    ]


def _curves(metrics: list[Record]) -> str:
    if not metrics:
        return html.words("No metrics were recorded.")
    # lines come by the second: points of equally many steps are equally noisy
    ends = np.array([line["step"] for line in metrics])
    edges = np.linspace(-1, ends[-1], min(len(metrics), _MOST_CURVE_POINTS) + 1)
    cuts = np.unique(np.searchsorted(ends, edges, side="right")).tolist()
    steps = ends[np.array(cuts[1:]) - 1].astype(np.float64)
    names = list(dict.fromkeys(name for line in metrics for name in line["metrics"]))
    # what a run is judged by comes first
    names.sort(key=lambda name: name not in ("avg_reward", "avg_loss"))
    labels = [f"step {int(step):,}" for step in (steps[0], (steps[0] + steps[-1]) / 2, steps[-1])]
    items = []
    for name in names[:_MOST_METRICS]:
        values = np.array([_mean(metrics[a:b], name) for a, b in pairwise(cuts)])
        last = html.number(values[-1])
        drawing = charts.lines(f"{name} by step", steps, {name: values}, labels)
        items.append((name, drawing, f"{last} at the end"))
    windows = sum(line["windows"] for line in metrics)
    return (
        html.words(
            f"Means of what the trainer returned (rank 0): {windows:,} windows in "
            f"{int(metrics[-1]['step']) + 1:,} steps, each point about "
            f"{max(1, windows // len(steps)):,} windows."
        )
        + html.figures(items)
    )  # fmt: skip


def _memory(records: list[Record]) -> str:
    samples = [r for r in records if r["kind"] == "sample" and r["rank"] == 0]
    if not samples:
        return html.words("No memory was recorded.")
    cuts = _cuts(len(samples))
    points = [samples[stop - 1] for _, stop in pairwise(cuts)]
    x = np.arange(len(points), dtype=np.float64)
    moments = _moments([points[place]["time"] for place in (0, len(points) // 2, -1)])
    # a peak must not vanish between points
    used = np.array([max(s["rss_bytes"] for s in samples[a:b]) for a, b in pairwise(cuts)])
    allowed = np.array([p["allowed_bytes"] for p in points], np.float64)
    memory = {"used": used / _MB}
    if allowed.min() < _NEAR * used.max():
        # a limit far above would leave nothing to see of what is used
        memory["allowed"] = allowed / _MB
    rates, waits = _rates(samples, cuts)
    size = np.array([p["batch_size"] for p in points], np.float64)
    items = [
        ("Memory, MB", charts.lines("memory", x, memory, moments, from_zero=True),
         f"{amount(float(used.max()))} at its peak (rank 0), {amount(float(allowed.min()))} "
         "allowed"),
        ("Batch size", charts.lines("batch size", x, {"windows": size}, moments, from_zero=True),
         "as it was in force"),
        ("Windows per second", charts.lines("rate", x, {"rate": rates}, moments, from_zero=True),
         f"{html.number(float(np.nanmedian(rates)))} in the middle" if np.isfinite(rates).any()
         else "too short to tell"),
        ("Waiting for data, %", charts.lines("waiting", x, {"%": waits}, moments, from_zero=True),
         "share of the trainer's time"),
    ]  # fmt: skip
    decisions = [r for r in records if r["kind"] == "decision"][-_MOST_DECISIONS:]
    rows = [
        (moment(int(d["time"] * 1e9)), d["rank"], d["what"],
         f"{d['before']} → {d['after']}" if d["before"] is not None else "", d["reason"])
        for d in decisions
    ]  # fmt: skip
    parts = ["<h3>Memory and pace</h3>", html.figures(items)]
    if rows:
        parts.append("<h3>What was done for want of memory</h3>")
        parts.append(html.table(("time", "rank", "what", "change", "reason"), rows))
    else:
        parts.append(html.words("Memory never ran short: nothing had to be done."))
    return "".join(parts)


def _moments(times: list[float]) -> list[str]:
    """Write three times of a run so that they differ where they do."""
    is_long = times[-1] - times[0] > _LONG_SECONDS
    part = slice(5, 16) if is_long else slice(11, 19)
    return [moment(int(time * 1e9))[part] for time in times]


def _rates(samples: list[Record], cuts: list[int]) -> tuple[Float64, Float64]:
    """Windows per second, and the percentage of time spent waiting, between points."""
    rates, waits = [np.nan], [np.nan]
    ends = [samples[stop - 1] for _, stop in pairwise(cuts)]
    for before, after in pairwise(ends):
        seconds = after["time"] - before["time"]
        windows = after["windows"] - before["windows"]
        wait = after["wait_seconds"] - before["wait_seconds"]
        busy = after["batch_seconds"] - before["batch_seconds"]
        # another run began in between: its counts start at zero
        known = windows >= 0 and seconds > 0 and before["pid"] == after["pid"]
        rates.append(windows / seconds if known else np.nan)
        waits.append(100 * wait / (wait + busy) if known and wait + busy > 0 else np.nan)
    return np.array(rates), np.array(waits)


def _mean(lines: list[Record], name: str) -> float:
    known = [line for line in lines if name in line["metrics"]]
    weight = sum(line["windows"] for line in known)
    total = sum(line["metrics"][name] * line["windows"] for line in known)
    return total / weight if weight else float("nan")


def _cuts(n: int) -> list[int]:
    """Cut n records into at most `_MOST_POINTS` runs of about one length."""
    return [int(cut) for cut in np.linspace(0, n, min(n, _MOST_POINTS) + 1)]
