"""Stores of bars that are gathered from finer ones."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import StoreMismatchError


def build(source: Path, store: str, **options: object) -> gb.MatrixStore:
    return gb.build_store(
        source,
        source.parent / store,
        overlap=40,
        chunk_windows=8,
        durable=False,
        resample="30min",
        cache=source.parent / f"cache-{store}",
        **options,  # type: ignore[arg-type]
    )


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return not any(filecmp.cmpfiles(one, other, [str(name) for name in names], shallow=False)[1:])


def test_a_store_says_of_what_timeframe_it_is(tmp_path: Path) -> None:
    source = write_bars(tmp_path / "bars.csv", 1_200)
    coarse = build(source, "coarse.zarr")
    half_an_hour = 30 * 60 * 10**9
    assert (coarse.attrs["bar_duration"], coarse.attrs["bar_time"]) == (half_an_hour, "open")
    assert (coarse.attrs["n_rows"], coarse.attrs["incomplete"]) == (200, 0)
    assert not np.any(coarse.end_time[:] % half_an_hour)
    fine = gb.build_store(source, tmp_path / "fine.zarr", durable=False, bar_time="close")
    assert (fine.attrs["bar_duration"], fine.attrs["bar_time"]) == (half_an_hour // 6, "close")


def test_a_store_that_grows_is_that_of_a_build_from_scratch(tmp_path: Path) -> None:
    whole = write_bars(tmp_path / "whole.csv", 1_201).read_text().splitlines(keepends=True)
    (tmp_path / "a").mkdir()
    growing = tmp_path / "a" / "bars.csv"
    for rows in (900, 901, 905, 1_111, 1_201):
        growing.write_text("".join(whole[: rows + 1]))
        grown = build(growing, "grown.zarr")
        scratch = build(growing, f"scratch-{rows}.zarr")
        assert same_files(grown.path, scratch.path)
        assert grown.attrs["incomplete"] == (rows % 6 != 0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"resample": "4h"}, "bar rules: resample (30min, now 4h);"),
        ({"resample": None}, "bar rules: resample (30min, now None);"),
        ({"resample_offset": "90s"}, "bar rules: resample's shift (0ns, now 90s);"),
        ({"max_gap": "1D"}, "with other max_gap (None, now 1D);"),
    ],
)
def test_other_lengths_of_time_are_named_as_they_are_typed(
    tmp_path: Path, asked: dict[str, str], said: str
) -> None:
    source = write_bars(tmp_path / "bars.csv", 900)
    options = {"overlap": 40, "durable": False, "resample": "30min", "cache": tmp_path / "c"}
    gb.build_store(source, tmp_path / "s.zarr", **options)  # type: ignore[arg-type]
    with pytest.raises(StoreMismatchError) as caught:
        gb.build_store(source, tmp_path / "s.zarr", **{**options, **asked})  # type: ignore[arg-type]
    assert said in str(caught.value)


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_bars(tmp_path / "bars.csv", 1_200, symbols=3)
    here = build(source, "here.zarr")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        there = build(source, "there.zarr", client=client)
    assert same_files(here.path, there.path)
