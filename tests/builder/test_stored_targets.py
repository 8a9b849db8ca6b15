"""Stores with targets: their values, what depends on them, and what doesn't."""

from __future__ import annotations

import hashlib
import json
import logging

import fsspec
import numpy as np
import pandas as pd
import pytest
import target_oracle as oracle
import zarr
from simulated import write_bars, write_rows
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.builder.settings import make_settings
from grandbatch.cli.main import app
from grandbatch.errors import (
    ColumnError,
    DamagedStoreError,
    KernelError,
    StoreMismatchError,
    UsageError,
)
from grandbatch.features import Feature, FeatureSet
from grandbatch.kernels.compilation import compiled
from grandbatch.store.attributes import problem_of

TARGETS = (gb.forward_return(5), gb.triple_barrier(0.01, 0.02, 30), gb.forward_drawdown(1))
LOOPS = (
    lambda bars, t: oracle.forward_return(bars, t, 5),
    lambda bars, t: oracle.triple_barrier(bars, t, 0.01, 0.02, 30),
    lambda bars, t: oracle.forward_drawdown(bars, t, 1),
)
DAY = pd.Timedelta("1D")


@compiled
def last_close(close, first, out):
    for k in range(len(out)):
        out[k] = close[first + k]


CLOSES = FeatureSet("closes", [Feature("last_close", 2, last_close)], 4, 3)


def write_gappy(path, n_rows=700, symbols=2):
    """Bars of a few symbols, with gaps of days: segments of very different lengths."""
    bars = pd.read_csv(write_bars(path, n_rows, symbols=symbols), parse_dates=["timestamp"])
    gaps = np.isin(np.arange(len(bars)) % n_rows, [200, 209, 230, 600])
    bars["timestamp"] += pd.to_timedelta(np.cumsum(gaps) * 3, unit="D")
    bars.to_csv(path, index=False)
    return path


def contents(folder):
    """sha256 of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def wanted(path, store):
    """The targets of a store's windows, by loops over the bars of the input."""
    bars = pd.read_csv(path, parse_dates=["timestamp"])
    columns = {name: bars[name].to_numpy(float) for name in ("close", "high", "low")}
    starts = (bars["symbol"] != bars["symbol"].shift()) | (bars["timestamp"].diff() > DAY)
    last = store.first_row[:] + store.sequence_length - 1
    found = [
        oracle.expected(columns, np.flatnonzero(starts), loop, target.horizon)[last]
        for loop, target in zip(LOOPS, TARGETS, strict=True)
    ]
    return np.stack(found, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("chosen", "chunk", "layout", "engine", "partition", "order"),
    [
        ("strategic", 8, "windows", "overlap", 97, "symbol"),
        ("strategic", 8, "windows", "overlap", 97, "period"),
        ("strategic", 64, "rows", "direct", None, "symbol"),
        (CLOSES, 16, "rows", "overlap", 400, "symbol"),
        (CLOSES, 100, "windows", "direct", 50, "period"),
    ],
)
def test_targets_are_those_of_the_last_bar_and_nan_where_the_horizon_leaves_the_segment(
    tmp_path, monkeypatch, chosen, chunk, layout, engine, partition, order
):
    # the per-window values are read, and written, in several pieces
    monkeypatch.setattr("grandbatch.builder.labels.LABEL_READ_ROWS", 150)
    # and of a piece, ranges of bars
    monkeypatch.setattr("grandbatch.builder.labels._SKIPPED_ROWS", 20)
    monkeypatch.setattr("grandbatch.store.format.LABEL_CHUNK_WINDOWS", 200)
    path = write_gappy(tmp_path / "b.csv")
    store = gb.build_store(
        path,
        tmp_path / "s.zarr",
        feature_set=chosen,
        chunk_windows=chunk,
        layout=layout,
        engine=engine,
        partition_bars=partition,
        max_gap="1D",
        order=order,
        period="1D" if order == "period" else None,
        targets=TARGETS,
        scheduler="sync",
    )
    targets = store.targets[:]
    np.testing.assert_allclose(targets, wanted(path, store), rtol=1e-6, atol=1e-7)
    assert (np.isnan(targets[:, 2]) == np.isnan(store.next_return[:])).all()
    assert np.isnan(targets[:, 1]).any()
    assert (store.targets.shape, store.targets.dtype) == ((len(store), 3), np.float32)
    assert store.target_names == ("forward_return_5", "triple_barrier_0.01_0.02_30",
                                  "forward_drawdown_1")  # fmt: skip
    assert store.attrs["target_horizons"] == [5, 30, 1]
    assert store.attrs["target_versions"] == [1, 1, 1]
    for chunk in range(store.n_chunks):
        first, stop = store.chunk_range(chunk)
        np.testing.assert_array_equal(store.read_labels(chunk).targets, targets[first:stop])
    read = zarr.open_group(store.path, mode="r")["targets"]
    np.testing.assert_array_equal(read[:], targets)
    assert read.metadata.dimension_names == ("window", "target")
    assert store.verify().ok


def test_every_way_of_building_gives_the_same_bytes(tmp_path):
    path = write_gappy(tmp_path / "b.csv", 300)
    ways = [
        {"engine": "overlap", "scheduler": "sync"},
        {"engine": "direct", "scheduler": "threads", "partition_bars": 60},
        {"engine": "overlap", "scheduler": "threads", "partition_bars": 101},
    ]
    found = [
        contents(
            gb.build_store(
                path, tmp_path / f"{n}.zarr", max_gap="1D", targets=TARGETS, chunk_windows=4, **way
            ).path
        )
        for n, way in enumerate(ways)
    ]
    assert found[0] == found[1] == found[2]


def test_targets_change_the_fingerprint_and_no_matrix(tmp_path):
    path = write_bars(tmp_path / "b.csv", 300)
    plain = gb.build_store(path, tmp_path / "plain.zarr")
    store = gb.build_store(path, tmp_path / "s.zarr", targets=TARGETS)
    ours, theirs = contents(store.path), contents(plain.path)
    for name in ("matrices", "end_time", "next_return", "first_row"):
        assert {k: v for k, v in ours.items() if k.startswith(f"{name}/")} == {
            k: v for k, v in theirs.items() if k.startswith(f"{name}/")
        }
    assert plain.targets is None
    assert plain.target_names == ()
    assert not [name for name in plain.attrs if name.startswith("target")]
    assert store.fingerprint != plain.fingerprint
    assert store.content_id != plain.content_id
    again = gb.build_store(path, tmp_path / "s.zarr", targets=list(TARGETS))
    assert again.fingerprint == store.fingerprint
    with pytest.raises(StoreMismatchError, match="built with other target_names"):
        gb.build_store(path, tmp_path / "s.zarr")
    with pytest.raises(StoreMismatchError, match=r"target_names .*forward_return_6"):
        gb.build_store(path, tmp_path / "s.zarr", targets="forward_return:6")


def test_the_order_and_the_version_of_targets_are_part_of_the_fingerprint():
    def of(*targets):
        made = make_settings(
            "strategic", None, None, "windows", None, "auto", None, targets=targets
        )
        return made.fingerprint("bars"), made.content_id("bars")

    plain = make_settings("strategic", None, None, "windows", None, "auto", None)
    assert "targets" not in plain.describe("bars")
    two = gb.Target("mine", 5, last_close, version=2)
    one = gb.Target("mine", 5, last_close)
    others = [of(), of(one), of(two), of(one, *TARGETS[:1]), of(TARGETS[0], one)]
    assert len({fingerprint for fingerprint, _ in others}) == 5
    assert len({content for _, content in others}) == 5


def test_later_bars_change_only_the_targets_that_read_them(tmp_path):
    path = write_bars(tmp_path / "b.csv", 300)
    bars = pd.read_csv(path)
    bars.loc[250:, ["open", "high", "low", "close"]] *= 1.5
    bars.to_csv(tmp_path / "other.csv", index=False)
    options = {"feature_set": CLOSES, "targets": TARGETS}
    store = gb.build_store(path, tmp_path / "s.zarr", **options)
    other = gb.build_store(tmp_path / "other.csv", tmp_path / "o.zarr", **options)
    last = store.first_row[:] + store.sequence_length - 1
    kept = store.matrices[:][last < 250], other.matrices[:][last < 250]
    np.testing.assert_array_equal(*kept)
    for k, target in enumerate(TARGETS):
        reads = last + target.horizon >= 250
        ours, theirs = store.targets[:][:, k], other.targets[:][:, k]
        np.testing.assert_array_equal(ours[~reads], theirs[~reads])
    assert (store.targets[:] != other.targets[:])[(last < 250) & (last >= 245), 0].all()


def test_a_flipped_bit_is_found_and_named(tmp_path):
    path = write_bars(tmp_path / "b.csv", 300)
    store = gb.build_store(path, tmp_path / "s.zarr", targets=TARGETS)
    (file,) = (store.path / "targets" / "c").glob("0/0")
    data = bytearray(file.read_bytes())
    data[9] ^= 4
    file.write_bytes(data)
    with pytest.raises(DamagedStoreError, match="chunk 0 of targets is damaged"):
        store.targets[:]
    with pytest.raises(DamagedStoreError, match="chunk 0 of targets is damaged"):
        store.read_labels(0)
    assert [(array, chunk) for array, chunk, _ in store.verify().bad_chunks] == [("targets", 0)]


@pytest.mark.parametrize(
    "change",
    [
        {"target_horizons": [5]},
        {"target_versions": None},
        {"target_names": []},
        {"target_names": ["a", "a", "b"]},
    ],
)
def test_attributes_that_describe_no_targets_are_damage(tmp_path, change):
    path = write_bars(tmp_path / "b.csv", 300)
    store = gb.build_store(path, tmp_path / "s.zarr", targets=TARGETS)
    assert problem_of(store.attrs) is None
    assert "don't describe targets" in problem_of(store.attrs | change)


def test_a_remote_store_has_the_same_bytes(tmp_path, monkeypatch):
    path = write_bars(tmp_path / "b.csv", 300)
    local = gb.build_store(path, tmp_path / "s.zarr", targets=TARGETS)
    monkeypatch.chdir(tmp_path)
    store = gb.build_store(path, "memory://stored-targets/s.zarr", targets=TARGETS)
    np.testing.assert_array_equal(store.targets[3:9], local.targets[3:9])
    system = fsspec.filesystem("memory")
    there = {
        name.partition("s.zarr/")[2]: hashlib.sha256(system.cat(name)).hexdigest()
        for name in system.find("/stored-targets/s.zarr")
    }
    assert there == contents(local.path)


def peeks(close, first, out):
    m = len(out)
    out[:] = np.append(close, close[-1])[first + 6 : first + 6 + m]


def blows_up(close, first, out):
    if len(out) and close[first] == 77.0:
        raise ValueError("77")
    out[:] = 0.0


def test_a_wrong_target_is_refused_before_anything_is_read(tmp_path):
    wrong = gb.Target("mine", 5, peeks)
    with pytest.raises(KernelError, match="target 'mine' reads bars beyond its horizon of 5"):
        gb.build_store(write_bars(tmp_path / "b.csv", 300), tmp_path / "s.zarr", targets=wrong)
    assert not (tmp_path / "s.zarr").exists()
    store = gb.build_store(tmp_path / "b.csv", tmp_path / "s.zarr", targets=wrong, check=False)
    assert store.target_names == ("mine",)


def test_a_target_that_raises_ends_the_build_with_its_name(tmp_path):
    path = write_rows(tmp_path / "b.csv", [(77, 77, 77, 77, 1)] * 100)
    mine = gb.Target("mine", 2, blows_up)
    with pytest.raises(KernelError, match=r"target '?mine'? raised ValueError"):
        gb.build_store(path, tmp_path / "s.zarr", targets=mine)
    with pytest.raises(KernelError, match=r"target mine raised ValueError \(77\)"):
        gb.build_store(path, tmp_path / "s.zarr", targets=mine, check=False)


def test_a_column_that_a_target_lacks_is_named_before_any_work(tmp_path):
    mine = gb.Target("mine", 2, blows_up, ("spread",))
    with pytest.raises(ColumnError, match=r"target 'mine' reads 'spread'.*--extra spread"):
        gb.build_store(tmp_path / "nowhere.csv", tmp_path / "s.zarr", targets=mine)


def test_more_targets_than_a_chunk_holds_are_refused():
    many = [gb.forward_return(n) for n in range(1, 8_193)]
    with pytest.raises(UsageError, match=r"may have 8,191 targets, got 8,192"):
        make_settings("strategic", None, None, "windows", None, "auto", None, targets=many)


def test_targets_on_the_command_line(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    path = write_bars(tmp_path / "b.csv", 300)
    store = tmp_path / "s.zarr"

    def run(command, *more):
        flags = ["strategic", str(path), "--store", str(store), "--json", *more]
        return CliRunner().invoke(app, [command, *flags])

    flags = "--targets", "forward_return:5,triple_barrier:0.01:0.01:60"
    plain, planned = (json.loads(run("plan", *some).stdout) for some in ((), flags))
    n_windows = planned["n_windows"]
    assert planned["decoded_bytes"] == plain["decoded_bytes"] + n_windows * 2 * 4
    own = tmp_path / "own_spread.py"
    own.write_text("import grandbatch as gb\nT = gb.Target('t', 2, print, ('volume', 'high'))\n")
    planned = json.loads(run("plan", "--targets", f"{own}:T").stdout)
    assert planned["inputs"] == ["high", "close", "volume"]
    assert not json.loads(run("build", *flags).stdout)["reused"]
    assert json.loads(run("build", *flags).stdout)["reused"]
    shown = json.loads(CliRunner().invoke(app, ["inspect", str(store), "--json"]).stdout)
    assert shown["target_names"] == ["forward_return_5", "triple_barrier_0.01_0.01_60"]
    assert shown["target_horizons"] == [5, 60]
    wrong = run("build", "--targets", "forward_retrun:5")
    assert "did you mean forward_return" in str(wrong.exception)


def paid(timestamp, funding, first, out):
    m = len(out)
    hours = (timestamp[first + 3 : first + 3 + m] - timestamp[first : first + m]) / 3.6e12
    out[:] = hours * (funding[first + 1 : first + 1 + m] + funding[first + 3 : first + 3 + m])


@pytest.mark.parametrize("engine", ["overlap", "direct"])
def test_a_target_reads_times_and_extra_columns_of_the_bars(tmp_path, engine):
    path = write_bars(tmp_path / "b.csv", 200, symbols=2)
    bars = pd.read_csv(path, parse_dates=["timestamp"])
    bars["funding"] = np.round(np.random.default_rng(0).normal(0, 1, len(bars)), 3)
    bars.loc[bars.index % 3 == 1, "funding"] = np.nan
    bars.to_csv(path, index=False)
    store = gb.build_store(
        path,
        tmp_path / "s.zarr",
        feature_set=CLOSES,
        rules=gb.BarRules(extra=("funding",), fill={"funding": "last"}),
        targets=gb.Target("paid", 3, paid, ("timestamp", "funding")),
        engine=engine,
    )
    by_symbol = bars.groupby("symbol")
    funding = by_symbol["funding"].ffill()
    ahead = [funding.groupby(bars["symbol"]).shift(-n) for n in (1, 3)]
    hours = (by_symbol["timestamp"].shift(-3) - bars["timestamp"]) / pd.Timedelta("1h")
    wanted = (hours * (ahead[0] + ahead[1])).to_numpy(np.float32)
    last = store.first_row[:] + store.sequence_length - 1
    np.testing.assert_allclose(store.targets[:][:, 0], wanted[last], rtol=1e-5, atol=1e-7)
