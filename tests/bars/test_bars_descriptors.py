"""Any number of files, blocks and symbols, with few open at once."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

HEADER = "timestamp,symbol,open,high,low,close,volume"

READ = """
import json, resource, sys
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.scheduling import open_schedule

def main():
    folder, limit, workers, scheduler, rules, block_bytes = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with open_schedule(scheduler, workers) as schedule:
        bars = prepare_bars(folder, folder + "/cache", BarRules(**rules), schedule, block_bytes)
    closes = bars.read(0, bars.n_rows, ("close",))["close"]
    print(json.dumps([bars.n_rows, len(bars.symbols), closes.sum(), len(bars.parts)]))

if __name__ == "__main__":
    main()
"""


def read(folder, *, limit, workers=None, scheduler="threads", block_bytes=None, **rules):
    asked = json.dumps([str(folder), limit, workers, scheduler, rules, block_bytes])
    call = [sys.executable, "-c", READ, asked]
    if scheduler is None:
        script = folder.parent / "read.py"
        script.write_text(READ)
        call = [sys.executable, str(script), asked]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def daily_files(folder, n_files, symbol=lambda day: "A"):
    folder.mkdir()
    days = np.datetime64("2000-01-01") + np.arange(n_files)
    for day, date in enumerate(days):
        lines = [f"{date}T{hour:02}:00,{symbol(day)},10,12,9,{10 + day % 2},5" for hour in (9, 10)]
        (folder / f"{day:05}.csv").write_text("\n".join([HEADER, *lines, ""]))
    return 2 * n_files, 2 * sum(10 + day % 2 for day in range(n_files))


@pytest.mark.slow
@pytest.mark.parametrize("sort", [False, True])
def test_daily_files_of_one_symbol_are_joined_with_few_files_open(tmp_path, sort):
    n_rows, closes = daily_files(tmp_path / "days", 300)
    assert read(tmp_path / "days", limit=64, sort=sort) == [n_rows, 1, closes, 1]


@pytest.mark.slow
def test_files_of_a_symbol_each_are_read_with_few_files_open(tmp_path):
    n_rows, closes = daily_files(tmp_path / "all", 300, symbol=lambda day: f"S{day:05}")
    assert read(tmp_path / "all", limit=64) == [n_rows, 300, closes, 300]


@pytest.mark.slow
@pytest.mark.parametrize("sort", [False, True])
def test_interleaved_symbols_are_read_on_16_threads_with_few_files_open(tmp_path, sort):
    (tmp_path / "f").mkdir()
    times = np.datetime64("2000-01-01", "m") + np.arange(400)
    names = [f"S{number:02}" for number in range(50)]
    lines = [f"{time},{name},10,12,9,11,5" for time in times for name in names]
    (tmp_path / "f" / "x.csv").write_text("\n".join([HEADER, *lines, ""]))
    found = read(tmp_path / "f", limit=80, workers=16, block_bytes=4_000, sort=sort)
    assert found == [20_000, 50, 11 * 20_000, 50]


@pytest.mark.slow
def test_a_cluster_joins_daily_files_with_few_files_open(tmp_path):
    n_rows, closes = daily_files(tmp_path / "days", 1_200)
    found = read(tmp_path / "days", limit=256, workers=2, scheduler=None)
    assert found == [n_rows, 1, closes, 1]
