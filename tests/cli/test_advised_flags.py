"""What commands advise, typed behind the same command, does what it says."""

from __future__ import annotations

import json
import re

import pytest
from advice import offers, words
from crash_server import CrashServer
from simulated import write_bars

import grandbatch as gb

SERVER = CrashServer("grandbatch.mappo")


@pytest.fixture(scope="module", autouse=True)
def server():
    with SERVER:
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("advice")
    write_bars(path / "bars.csv", 700)
    gb.build_store(path / "bars.csv", path / "a.zarr", feature_set="tactical")
    return path


def run(*arguments):
    return SERVER.run([str(argument) for argument in arguments])


def followed(*command, advice, code=1):
    """Run a command that fails, and again with what its error advises."""
    done = run(*command)
    assert done.code == code, done.err
    [flags] = [flags for flags in offers(done.err) if flags.startswith(advice)]
    again = run(*command, *words(flags), "--json")
    assert again.code == 0, again.err
    return json.loads(again.out)


@pytest.mark.slow
def test_another_store_in_the_place_is_overwritten(folder, tmp_path):
    gb.build_store(folder / "bars.csv", tmp_path / "s.zarr", feature_set="tactical")
    build = "build", "tactical", folder / "bars.csv", "--store", tmp_path / "s.zarr"
    done = followed(*build, "--overlap", 0, advice="--overwrite")
    assert not done["reused"]
    assert gb.MatrixStore.open(tmp_path / "s.zarr").overlap == 0


@pytest.mark.parametrize("limit", ["1MiB", "150MiB"])
def test_a_memory_limit_that_would_fit_does(folder, tmp_path, limit):
    plan = "plan", "tactical", folder / "bars.csv", "--store", tmp_path / "s.zarr"
    command = [*plan, "--memory-limit", limit]
    for _ in range(3):  # reading, then building, may want another
        done = run(*command)
        if not done.code:
            break
        [flags] = offers(done.err)
        assert flags.startswith(("--memory-limit", "--partition-bars"))
        command += words(flags)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_chunks_of_the_size_that_would_fit_do(folder, tmp_path):
    build = "build", "tactical", folder / "bars.csv", "--store", tmp_path / "s.zarr"
    done = followed(*build, "--chunk-windows", 10**9, advice="--chunk-windows", code=2)
    assert done["n_windows"] > 0


def test_short_segments_are_built_as_windows(tmp_path):
    write_bars(tmp_path / "x.csv", 6000)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number == 0 or number % 83]
    (tmp_path / "x.csv").write_text("\n".join(kept))
    build = "build", "tactical", tmp_path / "x.csv", "--store", tmp_path / "s.zarr"
    flags = "--max-gap", "5min", "--overlap", 59, "--layout", "rows"
    done = followed(*build, *flags, advice="--layout", code=2)
    assert done["n_windows"] > 0


def test_threads_build_here(folder, tmp_path):
    build = "build", "tactical", folder / "bars.csv", "--store", tmp_path / "s.zarr"
    assert run(*build, *words("--scheduler threads")).code == 0


def test_a_period_wants_its_order(folder, tmp_path):
    build = "build", "tactical", folder / "bars.csv", "--store", tmp_path / "s.zarr"
    done = followed(*build, "--period", "1D", advice="--order", code=2)
    assert done["n_windows"] > 0


def test_a_checkpoint_of_another_store_is_passed_over_where_that_is_advised(folder, tmp_path):
    train = "train", "tactical", "--checkpoint-dir", tmp_path / "c", "--store"
    assert run(*train, folder / "a.zarr").code == 0
    gb.build_store(folder / "bars.csv", tmp_path / "b.zarr", feature_set="tactical", overlap=0)
    done = followed(*train, tmp_path / "b.zarr", advice="--no-resume")
    assert done["steps"] > 0


def test_a_training_on_a_store_that_grew_takes_its_weights_along(tmp_path):
    store = tmp_path / "s.zarr"
    train = "train", "strategic", "--store", store, "--json", "--checkpoint-dir"
    gb.build_store(write_bars(tmp_path / "bars.csv", 300), store)
    assert run(*train, tmp_path / "c").code == 0
    gb.build_store(write_bars(tmp_path / "bars.csv", 400), store, overwrite=True)
    refused = run(*train, tmp_path / "c")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
    [flags] = [flags for flags in offers(refused.err) if flags.startswith("--init-from")]
    done = run(*train, tmp_path / "d", *words(flags))
    assert json.loads(done.out)["steps"] > 0
    assert "--since-last" in offers(refused.err)
    since = json.loads(run(*train, tmp_path / "c", "--since-last").out)
    assert since["epochs"] == 2


def test_a_training_that_is_finished_goes_on_with_more_epochs(folder, tmp_path):
    train = "train", "tactical", "--store", folder / "a.zarr", "--checkpoint-dir", tmp_path / "c"
    first = json.loads(run(*train, "--json").out)
    told = offers(run(*train).err)
    more, anew, *_ = [flags for flags in told if flags.startswith(("--epochs", "--no-resume"))]
    assert json.loads(run(*train, *words(more), "--json").out)["epochs"] > first["epochs"]
    assert json.loads(run(*train, *words(anew), "--json").out)["steps"] == first["steps"]


@pytest.mark.slow
def test_a_training_of_few_steps_is_followed_by_one_of_enough(folder, tmp_path):
    train = "train", "tactical", "--store", folder / "a.zarr", "--checkpoint-dir", tmp_path / "c"
    few = run(*train).err
    [*_, enough] = [flags for flags in offers(few) if flags.startswith("--epochs")]
    done = run(*train, *words(enough), "--json")
    assert "aim at" in few
    assert "aim at" not in done.err
    assert json.loads(done.out)["steps"] >= 2_000


def test_training_with_splits_keeps_a_test(folder, tmp_path):
    gb.build_store(folder / "bars.csv", tmp_path / "a.zarr", feature_set="tactical", overlap=58)
    train = "train", "tactical", "--store", tmp_path / "a.zarr", "--checkpoint-dir", tmp_path / "c"
    [split] = [flags for flags in offers(run(*train).err) if flags.startswith("--split")]
    elsewhere = *train[:-1], tmp_path / "d"
    done = run(*elsewhere, *words(split), "--json")
    assert done.code == 0, done.err
    assert "test" in json.loads(done.out)["splits"]


@pytest.mark.parametrize("command", ["build", "nothing"])
def test_the_help_that_errors_name_is_there(command):
    [named] = re.findall(r"grandbatch[a-z ]* --help", run(command).err)
    assert run(*named.split()[1:]).code == 0


@pytest.mark.slow
def test_weights_of_single_windows_want_single_windows(folder, tmp_path):
    train = "train", "tactical", "--store", folder / "a.zarr", "--checkpoint-dir", tmp_path / "c"
    done = followed(*train, "--weights", "close_price", advice="--run-length", code=2)
    assert done["steps"] > 0
