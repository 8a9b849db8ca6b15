"""A build stays under its memory limit, also where the system would kill it otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil
import pytest
from cgroups import inside, memory_cgroup

import grandbatch as gb

LIMIT_BYTES = 700 * 2**20
HARD_LIMIT_BYTES = 2**30


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "bars.csv"
    gb.create_large_dataset_simulation(path, 10_000_000)
    return path


def tree_bytes(process):
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


@pytest.mark.slow
def test_ten_million_bars_build_under_700_mib_inside_a_cgroup_of_1_gib(bars, tmp_path):
    call = [
        sys.executable, "-m", "grandbatch", "build", "strategic", str(bars), "--store",
        str(tmp_path / "s.zarr"), "--memory-limit", "700MiB", "--no-durable", "--json",
    ]  # fmt: skip
    with (
        memory_cgroup(HARD_LIMIT_BYTES) as group,
        subprocess.Popen(
            inside(group, call), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child,
    ):
        process, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            peak = max(peak, tree_bytes(process))
            time.sleep(0.02)
        out, errors = child.communicate()
    assert child.returncode == 0, errors
    assert json.loads(out)["n_rows"] == 10_000_000
    assert peak <= LIMIT_BYTES


@pytest.mark.slow
def test_the_peak_is_no_more_than_planned(bars, tmp_path):
    call = [sys.executable, "-m", "grandbatch", "plan", "strategic", str(bars), "--store",
            str(tmp_path / "s.zarr"), "--json"]  # fmt: skip
    planned = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)
    code = (
        "import sys, grandbatch as gb; from grandbatch.memory import peak_bytes;"
        "gb.build_store(sys.argv[1], sys.argv[2], durable=False); print(peak_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bars), str(tmp_path / "s.zarr")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) <= planned["projected_bytes"]
