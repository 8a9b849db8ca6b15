"""Limits and usage are those of the operating system."""

from __future__ import annotations

import json
import math
import mmap
import resource
import subprocess
import sys
import threading
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from grandbatch.config import calculate_optimal_batch_size
from grandbatch.errors import MemoryLimitError, UsageError
from grandbatch.memory import (
    Level,
    MemoryMonitor,
    MemoryUsage,
    limits,
    memory_limit,
    own_bytes,
    peak_bytes,
    process_tree_bytes,
    read_usage,
)
from grandbatch.memory.limits import mapped_bytes
from grandbatch.memory.monitor import next_level
from grandbatch.memory.usage import device_memory, forget_peak
from grandbatch.training.sizing import BatchSizer


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


def test_of_a_limit_on_the_address_space_a_run_may_hold_what_no_library_only_maps():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31));"
        "from grandbatch.memory import memory_limit; found = memory_limit();"
        "print(found.limit_bytes, found.source, found.remedy(2**30))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kilobytes = (2**30 + mapped_bytes()) // 2**10
    assert out.stdout == f"{2**31 - mapped_bytes()} RLIMIT_AS ulimit -v {kilobytes} would fit\n"


def alone(code):
    """What a process without children of other tests tells: JSON."""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    return json.loads(told)


def test_usage_counts_child_processes():
    child = "x = bytearray(80_000_000); print(1, flush=True); input()"
    before, during = alone(
        "import subprocess, sys\n"
        "from grandbatch.memory import process_tree_bytes\n"
        "before = process_tree_bytes()\n"
        f"call = [sys.executable, '-c', {child!r}]\n"
        "pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}\n"
        "with subprocess.Popen(call, **pipes) as child:\n"
        "    child.stdout.readline()\n"
        "    print([before, process_tree_bytes()])\n"
        "    child.communicate(b'\\n')\n"
    )
    assert during - before > 75_000_000


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


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_memory_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(UsageError, match="memory_limit_gb"):
        calculate_optimal_batch_size(1000, limit)


def write_cgroup(folder, limit, used, pages, version):
    folder.mkdir(parents=True, exist_ok=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
             2: ("memory.max", "memory.current", "")}  # fmt: skip
    limit_file, used_file, prefix = names[version]
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    stat = f"{prefix}inactive_file {pages}\n{prefix}active_file {pages}\n"
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(
    ("version", "line", "root"), [(1, "4:memory:/a/b", "memory"), (2, "0::/a/b", "")]
)
def test_limits_of_all_cgroups_above_count_and_are_read_anew(
    tmp_path, monkeypatch, version, line, root
):
    lines, real = tmp_path / "cgroup", limits.Path
    lines.write_text(line + "\n")
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(
        limits, "Path", lambda path: lines if str(path) == "/proc/self/cgroup" else real(path)
    )
    unlimited = {1: 2**63 - 4096, 2: "max"}[version]
    write_cgroup(tmp_path / root / "a", 5_000_000, 4_500_000, 100_000, version)
    write_cgroup(tmp_path / root / "a" / "b", unlimited, 2_000_000, 0, version)
    assert memory_limit() == limits.MemoryLimit(5_000_000, "cgroup /a")
    # 4.5 MB are in use, of which the kernel can drop 0.2
    assert read_usage().available_bytes == 700_000
    write_cgroup(tmp_path / root / "a" / "b", 3_000_000, 2_000_000, 0, version)
    assert memory_limit() == limits.MemoryLimit(3_000_000, "cgroup /a/b")
    assert read_usage().available_bytes == 700_000


def test_what_others_hold_makes_the_usable_memory_smaller():
    alone = MemoryUsage(300, 1000, 700, "RAM")
    crowded = MemoryUsage(300, 1000, 200, "RAM")
    assert (alone.usable_bytes, crowded.usable_bytes) == (1000, 500)
    monitor = MemoryMonitor(80.0)
    assert (monitor.allowed_bytes(alone), monitor.allowed_bytes(crowded)) == (800, 400)
    assert alone.percent == crowded.percent == 30.0


def test_figures_agree_with_the_systems_to_two_percent():
    found = alone(
        "import json, psutil\n"
        "from grandbatch.memory import memory_limit, own_bytes, read_usage\n"
        "block = bytearray(50_000_000)\n"
        "free = lambda: psutil.virtual_memory().available\n"
        "before, (own, highest), usage, after = free(), own_bytes(), read_usage(), free()\n"
        "print(json.dumps({\n"
        "    'own': own, 'highest': highest, 'tree': usage.rss_bytes,\n"
        "    'seen': psutil.Process().memory_info().rss,\n"
        "    'limits': [usage.limit_bytes, memory_limit().limit_bytes],\n"
        "    'source': usage.source, 'free': usage.available_bytes, 'around': [before, after]}))\n"
    )
    assert found["own"] == pytest.approx(found["seen"], rel=0.02)
    assert found["tree"] == pytest.approx(found["seen"], rel=0.02)
    assert found["highest"] >= found["own"]
    assert found["limits"][0] == found["limits"][1]
    # other processes take and give back meanwhile
    least, most = min(found["around"]), max(found["around"])
    assert 0.9 * least <= found["free"] <= 1.1 * most or found["source"] != "RAM"


def test_a_forgotten_peak_is_still_known_here():
    block = b"1" * (peak_bytes() - own_bytes()[0] + 60_000_000)
    before = peak_bytes()
    del block
    forget_peak()
    assert own_bytes()[1] < before
    assert peak_bytes() >= before


def test_a_process_has_its_own_peak_not_that_of_the_one_that_started_it():
    code = (
        "from grandbatch.memory import own_bytes, peak_bytes; print(peak_bytes(), own_bytes()[1])"
    )
    starter = (
        "import subprocess, sys; block = bytearray(500_000_000);"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    out = subprocess.run(
        [sys.executable, "-c", starter, code], capture_output=True, text=True, check=True
    ).stdout
    assert all(int(value) < 400_000_000 for value in out.split())


class Rests(threading.Event):
    """Ends a thread once it has rested for a minute, which takes no time."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def wait(self, timeout):
        self.taken.append(timeout)
        return sum(self.taken) > 60


def test_the_thread_takes_less_than_half_a_percent_of_a_core():
    monitor = MemoryMonitor()
    rests = monitor._stopped = Rests()
    with monitor:
        pass
    assert 0 < monitor.cpu_seconds < 0.005 * sum(rests.taken)
    # no sample is older
    assert max(rests.taken) < 2.0


def test_levels_rise_at_their_share_and_fall_only_well_below():
    level, seen = Level.CALM, []
    for share in (0.5, 0.71, 0.69, 0.65, 0.63, 0.81, 0.76, 0.73, 0.97, 1.2, 0.97, 0.93, 0.5):
        level = next_level(share, level)
        seen.append(level)
    assert seen == [
        Level.CALM, Level.TRIM, Level.TRIM, Level.TRIM, Level.CALM, Level.PREFETCH, Level.PREFETCH,
        Level.TRIM, Level.HOLD, Level.STOP, Level.STOP, Level.HOLD, Level.CALM,
    ]  # fmt: skip


@given(st.lists(st.floats(0, 2), min_size=2, max_size=30))
def test_no_level_flickers_and_none_is_missed(shares):
    level = Level.CALM
    for share in shares:
        last, level = level, next_level(share, level)
        assert level >= next_level(share, Level.CALM)
        if level < last:
            assert next_level(share + 0.059, Level.CALM) <= level


@pytest.mark.slow
def test_a_monitor_samples_and_trims_and_tells():
    heard = []
    monitor = MemoryMonitor(100.0, limit_bytes=2 * process_tree_bytes())
    monitor.heard = heard.append
    with monitor:
        wait_until(lambda: heard)
    assert heard[0].usage.rss_bytes > 0
    assert monitor.trim() >= 0
    count = len(heard)
    time.sleep(0.3)
    assert len(heard) == count


def test_a_peak_between_two_looks_is_seen():
    monitor = MemoryMonitor()
    monitor.look()
    monitor.forget_peak()
    monitor.look()
    # not from the allocator, which may have kept as much of what tests before have freed
    with mmap.mmap(-1, 80_000_000) as block:
        block[::4096] = bytes(len(range(0, 80_000_000, 4096)))
    look = monitor.look()
    assert look.peak_bytes - look.rss_bytes > 60_000_000
    assert monitor.look().peak_bytes < look.peak_bytes


@given(
    st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 4096), st.floats(0, 1e6),
    st.integers(0, 10**9),
)  # fmt: skip
def test_sizes_stay_within_bounds_and_shrink_to_what_fits(one, two, three, window_bytes, room):
    smallest, start, largest = sorted((one, two, three))
    sizer = BatchSizer(start, smallest, largest)
    sizer.measured(0, int(window_bytes * start))
    smaller, larger = sizer.smaller(0, room), sizer.larger(0, room)
    assert smallest <= smaller <= start <= larger <= largest
    assert smaller < start or start == smallest
    assert smaller == smallest or (
        smaller.bit_count() == 1 and sizer.expected_bytes(0, smaller) <= room
    )
    assert larger == start or sizer.expected_bytes(0, larger) <= room
    assert larger in (start, largest) or larger.bit_count() == 1


def test_a_batch_grows_after_calm_and_waits_longer_after_each_shrink():
    sizer = BatchSizer(8, 1, 64)

    def calm_looks():
        for number in range(1, 200):
            sizer.count(calm=True)
            if sizer.is_patient:
                return number
        return None

    assert calm_looks() == 16
    sizer.set(4)
    assert calm_looks() == 32
    sizer.set(2)
    sizer.count(calm=False)
    assert calm_looks() == 64


class Cuda:
    """Two GPUs, of which this process uses the second."""

    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 2)
    memory_reserved = staticmethod(lambda number: (0, 300)[number])
    mem_get_info = staticmethod(lambda number: {1: (600, 1000)}[number])


def test_only_gpus_in_use_are_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", type("torch", (), {"cuda": Cuda}))
    (device,) = device_memory()
    assert (device.device, device.used_bytes) == ("cuda:1", 300)
    assert (device.free_bytes, device.total_bytes) == (600, 1000)
