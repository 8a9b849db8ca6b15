"""What the memory monitor costs: its thread's own processor time, and a look before a batch.

The monitor runs beside a thread that keeps one core busy, in a process with so many other threads
as a trainer has. Its figures are held against those that psutil reads from /proc.

    python benchmarks/monitor.py [--seconds S] [--threads N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from grandbatch.memory import MemoryMonitor, own_bytes

GOAL_SHARE = 0.005
GOAL_DIFFERENCE = 0.02


def work(stop: threading.Event) -> None:
    block = np.random.default_rng(0).random(2_000_000)
    while not stop.is_set():
        np.sort(block)


def difference() -> float:
    """Share by which two readings of this process's memory, one after the other, differ."""
    ours, _ = own_bytes()
    theirs = psutil.Process().memory_info().rss
    return abs(ours - theirs) / theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("bench-results/monitor.json"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=16, help="idle threads beside the monitor")
    options = parser.parse_args()
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(options.threads)]
    threads.append(threading.Thread(target=work, args=(stop,)))
    for thread in threads:
        thread.start()
    samples: list[float] = []
    monitor = MemoryMonitor()
    monitor.heard = lambda sample: samples.append(sample.time)
    began = time.perf_counter()
    with monitor:
        time.sleep(options.seconds)
        seconds = time.perf_counter() - began
        share = monitor.cpu_seconds / seconds
        began = time.perf_counter()
        for _ in range(1000):
            monitor.look()
        look_us = (time.perf_counter() - began) * 1e3
    differs = max(difference() for _ in range(20))
    stop.set()
    for thread in threads:
        thread.join()
    record = {
        "benchmark": "monitor",
        "seconds": round(seconds, 2),
        "samples": len(samples),
        "thread_share_of_a_core": round(share, 5),
        "goal_share": GOAL_SHARE,
        "look_us": round(look_us, 1),
        "difference_from_proc": round(differs, 5),
        "goal_difference": GOAL_DIFFERENCE,
        "reached": share < GOAL_SHARE and differs < GOAL_DIFFERENCE,
    }
    print(
        f"{len(samples)} samples in {seconds:.1f} s: the thread took {share:.2%} of a core "
        f"(goal: below {GOAL_SHARE:.1%}); a look takes {look_us:.0f} us; figures differ from "
        f"/proc by at most {differs:.2%} (goal: {GOAL_DIFFERENCE:.0%})   "
        f"{'reached' if record['reached'] else 'MISSED'}"
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
