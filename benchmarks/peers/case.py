"""One piece of work of one peer, in a process of its own: `python case.py JSON` prints JSON."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pickle
import statistics
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from protocol import Loader
from source import L, WindowNumbers, load_rows

EPOCHS, BUDGET_SECONDS = 3, 60.0
SEED = 7


def prepare(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    module.prepare(Path(work["source"]), Path(work["folder"]), **work["options"])
    return {"made_seconds": time.perf_counter() - begin}


def rate(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Windows per second of the first epoch, and the median of later ones; cut off if slow."""
    loader = _open(module, work)
    n = len(load_rows(Path(work["source"]))) - L + 1
    rates: list[float] = []
    started = time.perf_counter()
    while not rates or (len(rates) <= EPOCHS and time.perf_counter() - started < BUDGET_SECONDS):
        begin, seen, cut = time.perf_counter(), 0, False
        for batch in loader.epoch():
            seen += len(batch)
            cut = time.perf_counter() - begin > BUDGET_SECONDS
            if cut:
                break
        rates.append(seen / (time.perf_counter() - begin))
        if seen != n and not cut:
            raise SystemExit(f"an epoch had {seen} windows, not {n}")
    return {"first": rates[0], "later": statistics.median(rates[1:] or rates)}


def shuffle(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    """How well an epoch is shuffled, and that no window comes twice or is another."""
    numbers = WindowNumbers(Path(work["source"]))
    n, size = len(numbers.rows) - L + 1, work["batch"]
    found: list[Any] = []
    begin = time.perf_counter()
    for batch in _open(module, work).epoch():
        found.append(numbers.find(batch.numpy()))
        if time.perf_counter() - begin > BUDGET_SECONDS:
            break
    means = np.array([one.mean() for one in found if len(one) == size])
    perfect = (n * n - 1) / 12 / size * (1 - size / n)
    seen = np.concatenate(found)
    if (seen < 0).any() or len(np.unique(seen)) < len(seen):
        raise SystemExit("an epoch held windows twice, or windows that aren't the source's")
    vif = float(np.mean((means - (n - 1) / 2) ** 2) / perfect)
    return {"vif": vif, "windows_read": len(seen)}


def stop(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Take some batches of an epoch, then save the state."""
    loader: Any = _open(module, work)
    if not hasattr(loader, "state"):
        return {"can_resume": False}
    numbers = WindowNumbers(Path(work["source"]))
    begun = loader.epoch()
    taken = [numbers.find(batch.numpy()) for batch in islice(begun, work["batches"])]
    Path(work["state"]).write_bytes(pickle.dumps(loader.state()))
    return {"can_resume": True, "numbers": [one.tolist() for one in taken]}


def rest(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Read an epoch, or what a saved state leaves of it, as one of some ranks."""
    numbers = WindowNumbers(Path(work["source"]))
    loader: Any = _open(module, work)
    if "state" in work:
        # the file was written a moment ago by this program
        loader.restore(pickle.loads(Path(work["state"]).read_bytes()))
    return {"numbers": [numbers.find(batch.numpy()).tolist() for batch in loader.epoch()]}


def read(module: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Sum all bits of an epoch: the same in any order."""
    total = 0
    for batch in _open(module, work).epoch():
        bits = np.ascontiguousarray(batch.numpy()).view(np.uint32)
        total += int(bits.astype(np.uint64).sum())
    return {"sum": total}


def _open(module: Any, work: dict[str, Any]) -> Loader:
    options: dict[str, int] = {}
    rank, world = work.get("rank", 0), work.get("world", 1)
    if world > 1 and work["own"]:
        options = {"rank": rank, "world": world}
    elif world > 1:
        _join(rank, world, work["port"])
    loader: Loader = module.Loader(Path(work["folder"]), work["batch"] // world, SEED, **options)
    return loader


def _join(rank: int, world: int, port: int) -> None:
    """Be one of several ranks as torchrun would make them."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo")


def main() -> None:
    work = json.loads(sys.argv[1])
    try:
        module = importlib.import_module(work["module"])
    except ModuleNotFoundError as missing:
        print(json.dumps({"missing": str(missing.name)}))
        return
    actions = (prepare, rate, shuffle, stop, rest, read)
    result = {action.__name__: action for action in actions}[work["action"]](module, work)
    print("\n" + json.dumps({**result, "version": _version(work["package"])}), flush=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
