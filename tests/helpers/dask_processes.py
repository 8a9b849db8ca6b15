"""A scheduler and workers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import grandbatch as gb

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1])}


def start(*arguments, prefix=(), environment=None):
    """Start a process of Dask's command line."""
    command = [*prefix, sys.executable, "-m", "distributed.cli.dask_" + arguments[0]]
    return subprocess.Popen(
        [*command, *arguments[1:]],
        env=ENVIRONMENT if environment is None else environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def processes():
    """Collect processes, and end those that still run."""
    started = []
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def start_scheduler(folder):
    file = folder / "scheduler.json"
    flags = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    process = start("scheduler", *flags, "--scheduler-file", str(file))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            return process, json.loads(file.read_text())["address"]
        except (OSError, ValueError):
            time.sleep(0.05)
    raise TimeoutError("the scheduler did not start")


def start_worker(address, folder, *, prefix=(), environment=None):
    flags = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "2GiB")
    where = ("--local-directory", str(folder))
    return start("worker", address, *flags, *where, prefix=prefix, environment=environment)
