"""A build stays under its memory limit, also where the system would kill it otherwise."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cgroups import run_within

import grandbatch as gb

LIMIT_BYTES = 700 * 2**20
HARD_LIMIT_BYTES = 2**30


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "bars.csv"
    gb.create_large_dataset_simulation(path, 10_000_000)
    return path


@pytest.mark.slow
def test_ten_million_bars_build_under_700_mib_inside_a_cgroup_of_1_gib(bars, tmp_path):
    call = [
        sys.executable, "-m", "grandbatch", "build", "strategic", str(bars), "--store",
        str(tmp_path / "s.zarr"), "--memory-limit", "700MiB", "--no-durable", "--json",
    ]  # fmt: skip
    done = run_within(HARD_LIMIT_BYTES, call)
    assert done.returncode == 0, done.errors
    assert json.loads(done.out)["n_rows"] == 10_000_000
    assert done.peak_bytes <= LIMIT_BYTES


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
