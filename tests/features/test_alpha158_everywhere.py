"""Alpha158 from the command line to a training, a report, and live bars."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import grandbatch as gb


def run(*arguments, check=0):
    done = subprocess.run(
        [sys.executable, "-m", "grandbatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check, done.stderr
    return done


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alpha158")
    run("simulate", folder / "bars.csv", "--rows", 3_000, "--symbols", 2)
    run("build", "alpha158", folder / "bars.csv", "--store", folder / "a.zarr", "--layout", "rows",
        "--overlap", 59)  # fmt: skip
    return folder / "a.zarr"


@pytest.mark.slow
def test_a_plan_and_a_build_take_the_set_by_its_name(store):
    planned = run("plan", "alpha158", store.parent / "bars.csv", "--store", store.parent / "b.zarr",
                  "--layout", "rows", "--overlap", 59, "--json")  # fmt: skip
    opened = gb.MatrixStore.open(store)
    assert json.loads(planned.stdout)["n_windows"] == len(opened) == 2 * (1_500 - 60 - 59)
    assert opened.feature_names == gb.ALPHA158.feature_names


def test_live_bars_give_the_matrices_of_the_store(store):
    opened = gb.MatrixStore.open(store)
    bars = gb.read_bars(store.parent / "bars.csv").compute()
    symbol = opened.symbols[0]
    live = gb.LiveFeatures("alpha158")
    got = []
    for bar in bars[bars.symbol == symbol].head(200).to_dict("records"):
        matrix = live.push(bar)
        got += [] if matrix is None else [matrix]
    np.testing.assert_array_equal(np.array(got), opened.matrices[: len(got)])
    assert len(got) == 200 - 60 - 59


def test_a_report_charts_some_and_tells_all(store):
    page = store.parent / "report.html"
    run("report", store, "-o", page)
    text = page.read_text()
    assert "… and 97 more features, in figures:" in text
    assert all(f">{name}<" in text for name in ("KMID", "VSUMD60"))
    assert len(text) < 2_000_000
    assert "all 1" in text


@pytest.mark.slow
def test_any_set_can_be_trained(store):
    pytest.importorskip("torchrl")
    done = run("train", "alpha158", "--store", store, "--checkpoint-dir", store.parent / "c",
               "--batch-size", 512, "--json")  # fmt: skip
    assert json.loads(done.stdout)["windows"] == len(gb.MatrixStore.open(store))


@pytest.mark.slow
def test_features_are_listed_with_what_they_cost():
    listed = json.loads(run("features", "--json").stdout)["features"]
    names = {row["set"]: [r["feature"] for r in listed if r["set"] == row["set"]] for row in listed}
    assert tuple(names["alpha158"]) == gb.ALPHA158.feature_names
    assert list(names) == ["strategic", "tactical", "alpha158", "indicators", "local time"]
    assert names["local time"][0] == "time_of_day_sin_UTC"
    assert names["indicators"] == [f.name for f in gb.indicators.catalogue()]
    assert all(0 < row["ns"] < 10_000 for row in listed)
    atr = next(row for row in listed if row["feature"] == "atr_14")
    assert (atr["lookback"], atr["inputs"]) == (281, ["high", "low", "close"])
    assert "rsi_14 " in run("features", "indicators").stdout
    assert "unknown feature set" in run("features", "nothing", check=2).stderr


@pytest.mark.slow
def test_compiling_is_told_while_it_lasts(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "grandbatch", "features", "alpha158"]
    told = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert told[0].count("compiling kernels") == 1
    assert told[1] == ""
