"""Commands print what they promise, and every mistake is one line and the right exit code."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from crash_server import CrashServer
from simulated import write_bars

import grandbatch as gb
from grandbatch.cli.main import _Plain, main

SERVER = CrashServer("grandbatch.mappo")


@pytest.fixture(scope="module", autouse=True)
def server():
    with SERVER:
        yield


def run(*arguments, check=None):
    """Run the command line in a process of its own."""
    done = SERVER.run([str(argument) for argument in arguments])
    if check is not None:
        assert done.code == check, done.err
        assert "Traceback" not in done.err
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with bars and a finished store of each set."""
    path = tmp_path_factory.mktemp("cli")
    write_bars(path / "bars.csv", 1500)
    for name in ("strategic", "tactical"):
        gb.build_store(path / "bars.csv", path / f"{name}.zarr", feature_set=name)
    return path


def as_json(done):
    value = json.loads(done.out)
    assert done.out.count("\n") == 1
    return value


@pytest.mark.slow
def test_help_names_every_command():
    out = run("--help", check=0).out
    commands = ["simulate", "plan", "build", "inspect", "verify", "stream", "train", "demo"]
    assert all(command in out for command in commands)


def test_simulate_then_plan_then_build_then_reuse(tmp_path):
    bars, store = tmp_path / "b.csv", tmp_path / "s.zarr"
    made = as_json(run("simulate", bars, "--rows", 2000, "--seed", 3, "--json", check=0))
    assert made == {"rows": 2000, "bytes": bars.stat().st_size}
    again = tmp_path / "c.csv"
    run("simulate", again, "--rows", 2000, "--seed", 3, check=0)
    assert again.read_bytes() == bars.read_bytes()

    planned = as_json(run("plan", "strategic", bars, "--store", store, "--json", check=0))
    assert not store.exists()
    assert planned["fits"] is True
    assert planned["n_rows"] == 2000

    built = as_json(run("build", "strategic", bars, "--store", store, "--json", check=0))
    expected = {
        "n_rows": 2000,
        "n_symbols": 1,
        "n_windows": planned["n_windows"],
        "n_chunks": planned["n_chunks"],
        "reused": False,
        "resumed_chunks": 0,
        "quarantined": {},
        "fingerprint": gb.MatrixStore.open(store).fingerprint,
        "first_time": "2020-01-01T00:00:00+00:00",
    }
    assert {key: built[key] for key in expected} == expected
    assert {"last_time", "seconds", "rows_per_second"} <= built.keys()
    reused = as_json(run("build", "strategic", bars, "--store", store, "--json", check=0))
    assert reused["reused"] is True
    assert reused["fingerprint"] == built["fingerprint"]


def test_a_plan_takes_the_flags_of_the_build_that_follows_it(tmp_path):
    source = write_bars(tmp_path / "b.csv", 300)
    source.write_text(source.read_text().replace("low", "Llow", 1))
    same = ("strategic", source, "--store", tmp_path / "s.zarr", "--columns", "low=Llow", "--json")
    planned = as_json(run("plan", *same, check=0))
    built = as_json(run("build", *same, check=0))
    assert planned["n_windows"] == built["n_windows"]
    assert as_json(run("plan", *same, check=0))["exact"] is True


def test_a_plan_that_does_not_fit_exits_1_and_shows_the_arithmetic(folder):
    done = run(
        "plan", "strategic", folder / "bars.csv", "--store", folder / "x.zarr",
        "--memory-limit", "10MiB", "--json", check=1,
    )  # fmt: skip
    assert as_json(done)["fits"] is False
    assert "may use 10,485,760 (--memory-limit)" in done.err


def test_inspect_shows_the_attributes(folder):
    shown = as_json(run("inspect", folder / "tactical.zarr", "--json", check=0))
    assert shown == gb.MatrixStore.open(folder / "tactical.zarr").attrs


def test_brackets_in_a_path_are_shown_as_they_are(folder, tmp_path):
    store = tmp_path / "es[cash]" / "[" / "s].zarr"
    shutil.copytree(folder / "strategic.zarr", store)
    assert "es[cash]/[/s].zarr" in run("verify", store, check=0).out.replace("\n", "")


def test_stream_counts_every_window(folder):
    shown = as_json(
        run("stream", folder / "strategic.zarr", "--batch-size", 7, "--shuffle", "--epochs", 2,
            "--json", check=0)
    )  # fmt: skip
    assert shown["windows"] == 2 * len(gb.MatrixStore.open(folder / "strategic.zarr"))
    assert {"seconds", "windows_per_second", "peak_rss_bytes"} <= shown.keys()


def test_verify_finds_a_flipped_byte_and_train_does_not_train_on_it(tmp_path):
    store = gb.build_store(write_bars(tmp_path / "b.csv", 800), tmp_path / "s.zarr")
    assert as_json(run("verify", store.path, "--json", check=0)) == {
        "ok": True,
        "checked_chunks": 6,
        "bad_chunks": [],
    }
    path = store.path / "matrices/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    found = as_json(run("verify", store.path, "--json", check=1))
    assert found["ok"] is False
    assert (found["bad_chunks"][0]["array"], found["bad_chunks"][0]["chunk"]) == ("matrices", 0)
    done = run("train", "strategic", "--store", store.path, "--checkpoint-dir", tmp_path / "c",
               check=1)  # fmt: skip
    assert "chunk 0 of matrices is damaged" in done.err


def test_an_unknown_header_names_the_column_and_the_flag_which_then_works(tmp_path):
    bars = write_bars(tmp_path / "b.csv", 300)
    bars.write_text(bars.read_text().replace("low", "Llow", 1))
    build = ("build", "strategic", bars, "--store", tmp_path / "s.zarr")
    assert "--columns low=Llow" in run(*build, check=1).err
    run(*build, "--columns", "low=Llow", check=0)


def mistakes(folder):
    bars, store, new = folder / "bars.csv", folder / "strategic.zarr", folder / "new.zarr"
    (folder / "empty.csv").touch()
    (folder / "header.csv").write_text("timestamp,open,high,low,close,volume\n")
    (folder / "some-folder").mkdir(exist_ok=True)
    (folder / "some-folder" / "notes.txt").touch()
    checkpoints = folder / "foreign"
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / "step-000000001.ckpt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    train = ("--checkpoint-dir", folder / "checkpoints")
    return [
        (1, "there is no such file", ("build", "strategic", folder / "no.csv", "--store", new)),
        (1, "empty", ("build", "strategic", folder / "empty.csv", "--store", new)),
        (1, "header", ("build", "strategic", folder / "header.csv", "--store", new)),
        (2, "unknown feature set", ("build", "strategc", bars, "--store", new)),
        (1, "--overwrite", ("build", "strategic", bars, "--store", store, "--overlap", 0)),
        (1, "no grandbatch store", ("build", "strategic", bars, "--store", folder / "some-folder")),
        (2, "layout", ("build", "strategic", bars, "--store", new, "--layout", "cube")),
        (2, "--overlap", ("build", "strategic", bars, "--store", new, "--overlap", "some")),
        (2, "No such option", ("build", "strategic", bars, "--store", new, "--fast")),
        (2, "'bild' (did you mean 'build'?); see grandbatch --help", ("bild",)),
        (2, "Missing argument", ("build",)),
        (1, "there is no store", ("inspect", new)),
        (1, "no finished grandbatch store", ("verify", folder / "some-folder")),
        (2, "batch_size", ("stream", store, "--batch-size", 0)),
        (1, "tactical", ("train", "tactical", "--store", store, *train)),
        (1, "not other; run grandbatch train strategic", ("train", "other", "--store", store,
                                                          *train)),
        (2, "no such file", ("train", "other.py:SET", "--store", store, *train)),
        (1, "step-000000001.ckpt", ("train", "strategic", "--store", store, "--checkpoint-dir",
                                    checkpoints)),
        (2, "--workers", ("build", "strategic", bars, "--store", new, "--workers", 0)),
        (2, "is a folder", ("report", store, "-o", folder / "some-folder")),
        (1, "bars.csv", ("build", "strategic", bars, "--store", bars / "new.zarr")),
        (2, "checkpoint_frequency", ("train", "strategic", "--store", store, *train,
                                     "--checkpoint-frequency", 0)),
        (2, "grandbatch inspect STORE", ("inspect", "--store", store)),
        (2, "see grandbatch train --help", ("train", "strategic", store)),
        (2, "is a folder", ("report", store, "-o", ".")),
        (2, "is a folder", ("simulate", ".")),
        (2, "no scheduler answers at tls://", ("build", "strategic", bars, "--store", new,
                                               "--scheduler", "tls://127.0.0.1:1")),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(26))
def test_a_mistake_is_one_line_that_says_what_to_do(folder, number):
    code, text, arguments = mistakes(folder)[number]
    done = run(*arguments, check=code)
    assert text in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.slow
def test_flags_for_more_and_less_to_read_stand_before_a_command_or_after_it(folder, tmp_path):
    build = ("build", "strategic", folder / "bars.csv", "--store")
    assert "writing chunks" in run(*build, tmp_path / "a", check=0).err
    assert run("-q", *build, tmp_path / "b", "--workers", 1, check=0).err == ""
    assert run(*build, tmp_path / "c", "--quiet", check=0).err == ""


def test_training_that_is_finished_says_how_to_go_on(folder, tmp_path):
    train = ("train", "strategic", "--store", folder / "strategic.zarr", "--checkpoint-dir",
             tmp_path / "c")  # fmt: skip
    assert "nothing was left" not in run(*train, check=0).err
    again = run(*train, "--json", check=0)
    assert "nothing was left to train on; --epochs 2 would go on" in again.err
    assert as_json(again)["steps"] > 0
    run(*train, "--epochs", 3, check=0)
    fewer = run(*train, "--epochs", 2, "--json", check=0)
    assert "--epochs 4 would go on" in fewer.err
    assert as_json(fewer)["epochs"] == 3


def test_training_by_weights_goes_on_under_the_same_only(folder, tmp_path):
    train = ("train", "strategic", "--store", folder / "strategic.zarr", "--checkpoint-dir",
             tmp_path / "c")  # fmt: skip
    assert as_json(run(*train, "--weights", "symbol", "--json", check=0))["windows"] > 0
    refused = run(*train, "--epochs", 2, check=1).err
    assert "weights is None here and '" in refused
    assert "no per-window array" in run(*train, "--weights", "volume", check=2).err


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(folder, tmp_path):
    import torch

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    directory = tmp_path / "c"
    store = gb.MatrixStore.open(folder / "strategic.zarr")
    manager = gb.CheckpointManager(directory, content_id=store.content_id)
    manager.save(1, {"x": torch.zeros(1)}, {}, {"avg_reward": 0.0})
    torch.save({"x": Code()}, manager.latest())
    done = run("train", "strategic", "--store", store.path, "--checkpoint-dir", directory, check=1)
    assert done.err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def modules_after(folder, *arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['grandbatch', *{[str(a) for a in arguments]!r}]\n"
        "from grandbatch.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stderr.splitlines()[-1]  # fmt: skip


@pytest.mark.slow
def test_commands_import_no_more_than_they_need(folder):
    bars, store = folder / "bars.csv", folder / "strategic.zarr"
    reading = {"'pandas'", "'numba'"}  # a plan reads the header as a build does
    for arguments, allowed in (
        (("--help",), set()),
        (("inspect", store), set()),
        (("build", "strategic", bars, "--store", store), set()),
        (("plan", "strategic", bars, "--store", folder / "new.zarr"), reading),
    ):
        modules = modules_after(folder, *arguments)
        assert not ({"'torch'", "'dask'", "'zarr'"} | reading) - allowed & set(
            modules.strip("[]").split(", ")
        ), arguments


def test_the_store_of_a_csv_made_by_the_processor_lies_beside_it(tmp_path):
    bars = write_bars(tmp_path / "b.csv", 400)
    processor = gb.BatchProcessor(bars, gb.BatchConfig.tactical(), tmp_path / "c")
    assert processor.store.path == tmp_path / "b.tactical.zarr"
    assert np.isfinite(processor.store.matrices[:]).all()


def test_another_librarys_traceback_is_not_shown():
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(_Plain("%(message)s"))
    for name in ("distributed.utils", "grandbatch.build"):
        logger = logging.Logger(name)
        logger.addHandler(handler)
        try:
            raise ConnectionRefusedError("refused")
        except OSError:
            logger.exception("lost by %s", name)
    lines = told.getvalue().splitlines()
    assert lines[:3] == [
        "lost by distributed.utils",
        "lost by grandbatch.build",
        "Traceback (most recent call last):",
    ]


@pytest.mark.slow
def test_memory_that_runs_out_where_python_can_not_raise_takes_one_line(monkeypatch, capsys):
    class Held:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    def ends(**options):
        Held(MemoryError())
        Held(ValueError("another fault"))
        return 0

    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    monkeypatch.setitem(main.__globals__, "app", ends)
    with pytest.raises(SystemExit) as ended:
        main()
    told, other = capsys.readouterr().err.split("\n", 1)
    assert (ended.value.code, told[:38]) == (0, "warning: no memory could be had in <fu")
    assert "Held.__del__" in told
    assert "ValueError: another fault" in other
