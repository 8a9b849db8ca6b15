"""What the memory monitor costs: its thread's own processor time, and a look before a batch.

The monitor runs beside a thread that keeps one core busy, in a process with so many other threads
as a trainer has. Its figures are held against those that psutil reads from /proc.

    python benchmarks/monitor.py [--seconds S] [--threads N] [--json PATH]
"""

from __future__ import annotations

import threading
import time

import numpy as np
import psutil
from measuring import Row, metered, options_of, report

from grandbatch.memory import MemoryMonitor, own_bytes

GOAL_SHARE = 0.005
GOAL_DIFFERENCE = 0.02
LOOKS = 1000


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
    parser = options_of(__file__, __doc__, rounds=1)
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
    with monitor:
        watched = metered(lambda: time.sleep(options.seconds))
        share = monitor.cpu_seconds / watched["seconds"]
        looked = metered(lambda: [monitor.look() for _ in range(LOOKS)])
    differs = max(difference() for _ in range(20))
    stop.set()
    for thread in threads:
        thread.join()
    note = f"{len(samples)} samples"
    rows = [
        Row("the monitor's thread, of a core", 100 * share, "%", watched, goal=100 * GOAL_SHARE,
            is_cost=True, note=note),
        Row("a look before a batch", looked["seconds"] / LOOKS * 1e6, "us", looked, is_cost=True),
        Row("figures differ from /proc by", 100 * differs, "%", goal=100 * GOAL_DIFFERENCE,
            is_cost=True),
    ]  # fmt: skip
    report(__file__, rows, options)


if __name__ == "__main__":
    main()
