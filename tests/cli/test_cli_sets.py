"""A set of one's own goes through every command by its name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.cli.training import check_holds, make_config
from grandbatch.errors import StoreMismatchError

MODULE = """
import grandbatch as gb


def change(close, first, out):
    out[:] = close[first:] / close[first - 1 : -1] - 1


MINE = gb.FeatureSet("mine", [gb.Feature("change", 1, change), gb.STRATEGIC.features[4]], 20, 10)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with bars, and features of one's own."""
    path = tmp_path_factory.mktemp("sets")
    write_bars(path / "bars.csv", 1_000)
    (path / "features.py").write_text(MODULE)
    return path


def run(*arguments, folder):
    """Run a command in a folder, in a process of its own; return the JSON that it prints."""
    call = [sys.executable, "-m", "grandbatch", *map(str, arguments)]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_set_of_ones_own_is_planned_built_trained_and_reported_by_its_name(folder):
    bars = ("bars.csv", "--store", "mine.zarr", "--json")
    planned = run("plan", "features.py:MINE", *bars, folder=folder)
    built = run("build", "features.py:MINE", *bars, folder=folder)
    assert built["n_windows"] == planned["n_windows"] == (1_000 - 15 - 20) // 10 + 1
    again = run("build", "features:MINE", *bars, "--workers", 2, folder=folder)
    assert (again["reused"], again["fingerprint"]) == (True, built["fingerprint"])
    for name, epochs in (("features.py:MINE", 1), ("mine", 2)):
        train = ("train", name, "--store", "mine.zarr", "--checkpoint-dir", "c", "--json")
        trained = run(*train, "--epochs", epochs, folder=folder)
        assert trained["windows"] == epochs * built["n_windows"]
    assert run("report", "mine.zarr", "--json", folder=folder)["bytes"] > 10_000


@pytest.mark.slow
def test_worker_processes_find_a_module_of_the_working_folder(folder):
    build = ("build", "features.py:MINE", "bars.csv", "--json", "--store")
    threads = run(*build, "threads.zarr", folder=folder)
    workers = run(*build, "workers.zarr", "--workers", 1, folder=folder)
    assert workers["fingerprint"] == threads["fingerprint"]


def test_a_training_says_what_the_store_holds_where_that_is_another_set(
    folder, make_store, monkeypatch
):
    monkeypatch.chdir(folder)
    own = gb.FeatureSet("mine", [gb.ema(3), gb.ema(4)], 20, 10)
    store = make_store(feature_set=own, name="mine.zarr")
    check_holds(store, "mine")
    for name, words in (
        ("tactical", "holds mine matrices, not tactical; run grandbatch train mine, or"),
        ("features.py:MINE", "not those of features.py:MINE, which has other features or version"),
    ):
        with pytest.raises(StoreMismatchError, match=words):
            check_holds(store, name)
    config = make_config(store, None, None, 0)
    assert (config.sequence_length, config.overlap, config.batch_size) == (20, 10, 32)
