"""Batches made on a device, beside those that are made on the CPU and copied there.

The work is one shuffled epoch in batches of 1,024, page cache warm, at stride 1 in both layouts and
at stride 36, where windows share few rows. On a GPU rows are sent once and windows are cut there;
the peer makes batches in page-locked memory and copies them. The limit is the rate of the GPU's
own copies, of which half is the goal at stride 1. `host alone` is what this machine could hand over
if the device took no time: everything is done but for what the device is asked to. Notes say what
a window costs on the bus, in the first epoch and in later ones.

Where PyTorch sees no GPU the same code runs with the CPU as its device, in one thread, beside
batches that are made as ever, and a memcpy is the limit. That tells what the way costs, not what it
brings.

    python benchmarks/device.py [--json PATH] [--windows N] [--wide-windows N] [--rounds R]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loader import EPOCHS, LOOKBACK, WINDOW_BYTES, L, first_and_later, run_memcpy
from measuring import (
    Figures,
    Row,
    answer,
    in_turns,
    medians,
    metered,
    options_of,
    report,
    run_apart,
)

import grandbatch as gb
from grandbatch.loader import device as devices
from grandbatch.loader.device import Bus, CudaLane, DirectLane

COPY = "copy of the device"
PEER, HOST = ", made on the CPU", ", host alone"
GOAL, COPIED_BYTES = 0.5, 2**28


def epochs_of(loader: gb.SlidingWindowDataLoader, target: str) -> Iterator[Any]:
    """Go through an epoch; it ends when the device has done all that it was asked for."""
    for batch in gb.DataStreamer(loader):
        yield batch if loader.device else batch.to(target, non_blocking=True)
    if target == "cuda":
        torch.cuda.synchronize()


class Epochs:
    """Epochs of batches on a device, and the bytes that each of them sent there."""

    def __init__(self, loader: gb.SlidingWindowDataLoader, target: str):
        self._loader, self._target = loader, target
        self.sent: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        self.sent.append(0)
        return epochs_of(self._loader, self._target)


class IdleLane(DirectLane):
    """Stands for a GPU that takes no time: it is given all that a GPU is, and does none of it."""

    slab_factor = CudaLane.slab_factor

    def run(self, work: Callable[[], object]) -> None:
        """Leave it."""


def run_epochs(store: str, target: str, device: str | None) -> Figures:
    """Epochs of batches made on a device, or copied to the target."""
    if target != "cuda":
        torch.set_num_threads(1)
    if device == "meta":
        devices.lane_of = IdleLane
    opened = gb.MatrixStore.open(store)
    config = gb.BatchConfig(batch_size=1024, sequence_length=L, overlap=opened.overlap)
    pinned = device is None and target == "cuda"
    epochs = Epochs(
        gb.SlidingWindowDataLoader(opened, config, device=device, pin_memory=pinned), target
    )
    send = Bus.send

    def counted(bus: Bus, host: Any, there: torch.Tensor) -> None:
        epochs.sent[-1] += len(host)
        send(bus, host, there)

    Bus.send = counted  # type: ignore[method-assign]
    found = first_and_later(epochs)
    first, *_, later = (n_bytes / len(opened) for n_bytes in epochs.sent[:EPOCHS])
    return {**found, "sent_first": first, "sent_later": later}


def run_copy() -> Figures:
    """Copies of a GPU from its memory to its memory."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    found = medians([metered(copy) for _ in range(12)][2:])
    return {**found, "later": COPIED_BYTES / found["seconds"] / WINDOW_BYTES}


WORKS = {"epochs": run_epochs, "copy": run_copy, "memcpy": run_memcpy}


def build_stores(folder: Path, windows: int, wide_windows: int) -> dict[str, str]:
    """Build the stores; reuse what is there."""
    stores = {}
    for layout, overlap, count in (
        ("rows", 47, windows),
        ("windows", 47, windows),
        ("rows", 12, wide_windows),
    ):
        stride = L - overlap
        source = folder / f"bars-{stride}-{count}.csv"
        if not source.exists():
            gb.create_large_dataset_simulation(source, (count - 1) * stride + L + LOOKBACK)
        path = folder / f"{layout}-{stride}-{count}.zarr"
        built = gb.build_store(source, path, overlap=overlap, layout=layout)
        stores[f"{layout}, stride {stride}"] = str(built.path)
    return stores


def cases(stores: dict[str, str], target: str) -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {COPY: {"kind": "copy" if target == "cuda" else "memcpy"}}
    for name, store in stores.items():
        plain = {"kind": "epochs", "store": store, "target": target}
        chosen[name + PEER] = {**plain, "device": None}
        chosen[name] = {**plain, "device": target}
        chosen[name + HOST] = {**plain, "device": "meta"}  # whose memory takes none
    return chosen


def rows_of(results: dict[str, Figures], target: str) -> list[Row]:
    """Later epochs of each case, and the share of the device's own copies at stride 1."""
    copies = results[COPY]["later"] / 1e6
    rows = []
    for name, result in results.items():
        peer = results.get(name + PEER)
        notes = []
        if name != COPY:
            notes = [f"first epoch {result['first'] / 1e6:.2f}"]
        if result.get("sent_first"):
            first, later = (f"{result[which]:.0f}" for which in ("sent_first", "sent_later"))
            notes.append(f"{first} and {later} bytes sent for a window of {WINDOW_BYTES:,}")
        rows.append(
            Row(
                name,
                result["later"] / 1e6,
                "M windows/s",
                result,
                limit=copies,
                peer=peer["later"] / 1e6 if peer else None,
                note=", ".join(notes),
            )
        )
        if target == "cuda" and peer and "stride 1" in name:
            share = result["later"] / 1e6 / copies
            rows.append(Row(f"{name}: of the device's copies", share, "", result, goal=GOAL))
    return rows


def main() -> None:
    parser = options_of(__file__, __doc__, rounds=3)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--wide-windows", type=int, default=250_000)
    options = parser.parse_args()
    if options.case is not None:
        answer(options.case, WORKS)
        return
    target = "cuda" if torch.cuda.is_available() else "cpu"
    if target == "cpu":
        print("no GPU here: the CPU is the device, and nothing is told of a bus or a GPU")
    with tempfile.TemporaryDirectory() as folder:
        stores = build_stores(Path(folder), options.windows, options.wide_windows)
        todo = {
            name: partial(run_apart, __file__, case) for name, case in cases(stores, target).items()
        }
        results = in_turns(todo, options.rounds)
    report(__file__, rows_of(results, target), options, target=target, results=results)


if __name__ == "__main__":
    main()
