"""Parquet inputs that are damaged, change or shrink, and row groups of any size."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.reading.row_groups import OpenGroups, ParquetBlock
from grandbatch.errors import GrandbatchError, InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")


def write(path, n_rows, *, row_group_size=None, symbols=None, bad=(), **options):
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n_rows), unit="s")
    close = 100 + np.random.default_rng(0).random(n_rows)
    columns = {
        "timestamp": times,
        "open": close,
        "high": close + 1,
        "low": close - 1,
        "close": close.copy(),
        "volume": np.arange(n_rows, dtype=float),
    }
    columns["close"][list(bad)] = np.nan
    if symbols:
        columns["symbol"] = np.array(["A", "B"])[np.arange(n_rows) % 2]
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size or n_rows, **options)
    return columns


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [[0, 5, 90_000, 200_000], [70_000, 70_001, 131_072, 199_999]])
def test_rows_are_taken_from_anywhere_in_a_row_group(tmp_path, bounds):
    columns = write(tmp_path / "x.parquet", 200_000)
    with OpenGroups() as groups:
        for start, stop in pairwise(bounds):
            block = ParquetBlock(str(tmp_path / "x.parquet"), 0, start, stop, 1)
            table = groups.read(block, ("volume", "close"))
            assert table["volume"].to_pylist() == list(range(start, stop))
            np.testing.assert_array_equal(table["close"], columns["close"][start:stop])
        first = ParquetBlock(str(tmp_path / "x.parquet"), 0, 0, 2, 1)
        assert groups.read(first, ("volume", "close"))["volume"].to_pylist() == [0, 1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("symbols", [False, True])
def test_a_large_row_group_gives_the_bars_and_the_quarantine_of_small_ones(
    tmp_path, workers, symbols
):
    schedule = Schedule.local("threads", workers)
    found = []
    for size in (None, 1_000):
        path = tmp_path / str(size) / "x.parquet"
        path.parent.mkdir()
        write(path, 30_000, row_group_size=size, symbols=symbols, bad=(5, 12_345, 29_999))
        bars = prepare_bars(path, path.parent / "c", BarRules(), schedule, 150_000)
        rows = bars.read(0, bars.n_rows)
        found.append((rows, pq.read_table(bars.quarantine_path).to_pylist()))
    for name, values in found[0][0].items():
        np.testing.assert_array_equal(values, found[1][0][name])
    assert found[0][1] == found[1][1]
    assert [row["line"] for row in found[0][1]] == [6, 12_346, 30_000]


@pytest.mark.slow
def test_any_flip_or_cut_of_a_parquet_file_is_one_line_or_its_own_bars(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, 3_000, row_group_size=1_500, symbols=True)
    raw = path.read_bytes()
    chance = random.Random(0)
    footer = len(raw) - 3_000
    places = chance.sample(range(len(raw)), 60) + chance.sample(range(footer, len(raw)), 60)
    script = (
        "import sys; from grandbatch.bars import *; from grandbatch.errors import *\n"
        "from grandbatch.scheduling import Schedule\n"
        "import pathlib\n"
        "for line in sys.stdin:\n"
        "    path = line.strip()\n"
        "    try:\n"
        "        prepare_bars(path, path + '.cache', BarRules(), Schedule.local('sync'))\n"
        "        print('bars')\n"
        "    except GrandbatchError as error:\n"
        "        print('error', len(str(error)), sep=' ')\n"
        "    sys.stdout.flush()\n"
    )
    paths = []
    for at in places:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << chance.randrange(8)
        paths.append(tmp_path / f"flip-{at}.parquet")
        paths[-1].write_bytes(damaged)
    for at in chance.sample(range(len(raw)), 20):
        paths.append(tmp_path / f"cut-{at}.parquet")
        paths[-1].write_bytes(raw[:at])
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(map(str, paths)) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout.splitlines()
    assert done.returncode == 0, (paths[len(told)], done.stderr[-2000:])
    assert len(told) == len(paths)
    assert all(line == "error" or line.startswith(("error ", "bars")) for line in told)
    assert sum(line.startswith("error") for line in told[-20:]) == 20


def test_a_file_that_shrinks_while_it_is_read_is_one_line_and_no_signal(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, 400_000, row_group_size=400_000)
    whole = path.stat().st_size
    done = threading.Event()

    def shrink():
        at = whole
        while not done.wait(0.005):
            at = max(at - whole // 20, 100)
            os.truncate(path, at)

    thread = threading.Thread(target=shrink)
    thread.start()
    try:
        with pytest.raises(InputError, match=r"damaged|changed|shorter|empty") as told:
            prepare_bars(path, tmp_path / "c", BarRules(), HERE, 500_000)
    finally:
        done.set()
        thread.join()
    assert len(str(told.value).splitlines()) == 1


def test_a_footer_whose_counts_contradict_each_other_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    write(path, 100)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata

    class Liar:
        num_rows = 10**15
        num_row_groups = metadata.num_row_groups
        num_columns = metadata.num_columns
        row_group = metadata.row_group

    from grandbatch.bars.reading import parquet_rows

    with pytest.raises(GrandbatchError, match="contradicts itself"):
        parquet_rows._check_counts("x.parquet", Liar)
