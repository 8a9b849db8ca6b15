"""Limits and usage are those of the operating system."""

from __future__ import annotations

import resource
import subprocess
import sys

import psutil
import pytest

from grandbatch.errors import MemoryLimitError, UsageError
from grandbatch.memory import (
    MemoryMonitor,
    calculate_optimal_batch_size,
    memory_limit,
    process_tree_bytes,
)


def test_the_limit_is_at_most_the_ram_and_names_its_source():
    limit = memory_limit()
    assert 0 < limit.limit_bytes <= psutil.virtual_memory().total
    assert limit.source


def test_a_setting_below_every_other_limit_wins():
    limit = memory_limit(123_456_789)
    assert (limit.limit_bytes, limit.source) == (123_456_789, "--memory-limit")


def test_a_resource_limit_below_the_ram_wins():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31));"
        "from grandbatch.memory import memory_limit; print(memory_limit())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"limit_bytes={2**31}" in out.stdout
    assert "RLIMIT_DATA" in out.stdout
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 2**31


def test_usage_counts_child_processes():
    before = process_tree_bytes()
    code = "x = bytearray(80_000_000); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert process_tree_bytes() - before > 75_000_000
        child.communicate(b"\n")


def test_the_monitor_raises_with_the_figures_when_over_its_share():
    monitor = MemoryMonitor(50.0, limit_bytes=1_000_000)
    assert monitor.is_over()
    with pytest.raises(MemoryLimitError, match="50 % are allowed"):
        monitor.check()
    assert MemoryMonitor(100.0).check().percent < 100


@pytest.mark.parametrize("percent", [0, -1, 101, float("nan")])
def test_a_share_that_makes_no_sense_is_refused(percent):
    with pytest.raises(UsageError):
        MemoryMonitor(percent)


@pytest.mark.parametrize(
    ("bars", "low", "high"), [(5_000, 8, 16), (50_000, 16, 32), (10**7, 32, 64)]
)
def test_the_optimal_batch_is_in_the_class_of_the_dataset(bars, low, high):
    assert calculate_optimal_batch_size(bars) == high
    assert calculate_optimal_batch_size(bars, memory_limit_gb=0.01) == low
