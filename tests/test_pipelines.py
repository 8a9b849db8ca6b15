"""The pipelines run from bars to judged teams, go on where they ended, and repeat nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.checkpoint import read_checkpoint
from grandbatch.errors import UsageError

PIPELINES = Path(__file__).parent.parent / "pipelines"
SMALL = ["--folds", "2", "--batch-size", "32", "--embargo", "1h"]


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(PIPELINES))
    return import_module


@pytest.fixture
def train(module):
    def run(name, *arguments):
        config = getattr(gb.BatchConfig, name)()
        module("training").main(name, config, list(map(str, arguments)))

    return run


def checkpoints(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}


@pytest.mark.slow
def test_bars_become_a_judged_team_and_a_second_run_trains_nothing(train, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    bars, out = write_bars(tmp_path / "bars.csv", 1_600), tmp_path / "run"
    flags = [
        bars,
        "--out",
        out,
        *SMALL,
        "--seeds",
        "2",
        "--overlap",
        "59",
        "--tensorboard",
        tmp_path / "log",
    ]
    train("tactical", *flags)
    first = json.loads((out / "evaluation.json").read_text())
    assert first["verdict"]["n_seeds"] == 2
    assert first["n_bars"] > 800
    assert "which can't be below 0.25: train more" in capsys.readouterr().out
    saved = checkpoints(out)
    folders = {path.parent.relative_to(out).as_posix() for path in saved}
    assert folders == {f"fold-{fold}/seed-{seed}" for fold in (0, 1) for seed in (0, 1)}
    assert len(list((tmp_path / "log").rglob("events*"))) == 4
    train("tactical", *flags[:-2])
    assert checkpoints(out) == saved
    assert json.loads((out / "evaluation.json").read_text()) == first


@pytest.mark.slow
def test_one_file_of_bars_becomes_a_judged_team_that_sees_two_timeframes(module, tmp_path):
    bars, out = write_bars(tmp_path / "bars.csv", 3_000), tmp_path / "run"
    flags = [str(bars), "--out", str(out), "--folds", "1", "--seeds", "2", "--embargo", "1h"]
    main = module("train_hierarchical").main
    main(flags)
    found = (out / "evaluation.json").read_text()
    assert json.loads(found)["verdict"]["n_seeds"] == 2
    fast, slow = (
        gb.MatrixStore.open(out / name)
        for name in ("tactical-every-bar.zarr", "strategic-30min.zarr")
    )
    assert (fast.stride, slow.stride) == (1, 1)
    assert slow.attrs["bar_duration"] == 6 * fast.attrs["bar_duration"]
    saved = checkpoints(out)
    led = {path.parent.relative_to(out).as_posix() for path in saved}
    assert led == {f"fold-0/seed-{seed}{part}" for seed in (0, 1) for part in ("", "/leader")}
    main(flags)
    assert checkpoints(out) == saved
    assert (out / "evaluation.json").read_text() == found
    with pytest.raises(UsageError, match="--init-from is of trainings of one team"):
        main([*flags, "--init-from", str(out / "fold-0/seed-0")])


@pytest.mark.slow
def test_a_pipeline_ended_by_ctrl_c_goes_on_to_the_same_result(train, tmp_path):
    bars = write_bars(tmp_path / "bars.csv", 1_600)
    flags = [str(bars), *SMALL, "--seeds", "1", "--overlap", "47", "--checkpoint-frequency", "4"]
    command = [sys.executable, str(PIPELINES / "train_strategic.py"), *flags]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "ended")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        wait_until(
            lambda: list((tmp_path / "ended").glob("fold-*/*/*.ckpt")),
            lambda: child.poll() is not None,
            child.stderr.read,
        )
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "ended" / "evaluation.json").exists()
    for out in ("ended", "whole"):
        train("strategic", *flags, "--out", tmp_path / out)
    ended, whole = (tmp_path / out / "evaluation.json" for out in ("ended", "whole"))
    assert ended.read_text() == whole.read_text()


def test_prepare_builds_both_stores_and_reuses_them(module, tmp_path, capsys):
    bars = write_bars(tmp_path / "bars.csv", 400)
    bars.write_text(bars.read_text().replace("low", "Llow", 1))
    prepare = module("prepare")
    flags = ["strategic", str(bars), "--out", str(tmp_path / "run"), "--columns", "low=Llow"]
    prepare.main(flags)
    learning, every_bar = (
        gb.MatrixStore.open(tmp_path / "run" / name)
        for name in ("strategic-overlap-12.zarr", "strategic-every-bar.zarr")
    )
    assert (learning.stride, every_bar.stride, every_bar.layout) == (36, 1, "rows")
    built = every_bar.path.stat().st_mtime_ns
    prepare.main(flags)
    assert every_bar.path.stat().st_mtime_ns == built
    assert "313 windows of 48x13" in capsys.readouterr().out


@pytest.mark.slow
def test_a_set_of_ones_own_is_trained_on_by_its_name(tmp_path):
    write_bars(tmp_path / "bars.csv", 800)
    (tmp_path / "features.py").write_text(
        "import grandbatch as gb\n\nMINE = gb.FeatureSet('mine', [gb.ema(3), gb.ema(9)], 10)\n"
    )
    flags = ["features.py:MINE", "bars.csv", "--out", "run", *SMALL, "--seeds", "1"]
    done = subprocess.run(
        [sys.executable, str(PIPELINES / "train_own.py"), *flags],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["n_bars"] > 200


def test_a_yaml_file_sets_what_flags_set_and_flags_win(module, tmp_path):
    prepare, training = module("prepare"), module("training")
    parser = training.make_parser("strategic", gb.BatchConfig.strategic())
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "seeds: 2\ncost: 2e-4\nmax_gap: 1D\nout: elsewhere\ndayfirst: false\ncolumns: [low=Llow]\n"
    )
    flags = "b.csv --seeds 3 --cost 2e-4 --max-gap 1D --out elsewhere --no-dayfirst"
    wanted = parser.parse_args([*flags.split(), "--columns", "low=Llow"])
    found = prepare.parse(parser, ["b.csv", "--settings", str(settings), "--seeds", "3"])
    assert {**vars(found), "settings": None} == vars(wanted)
    settings.write_text("seed: 2\n")
    with pytest.raises(UsageError, match=r"unknown setting\(s\) seed$"):
        prepare.parse(parser, ["b.csv", "--settings", str(settings)])


@pytest.mark.slow
def test_two_processes_train_and_judge_each_team_together(train, tmp_path):
    bars, out = write_bars(tmp_path / "bars.csv", 1_200), tmp_path / "run"
    flags = [str(bars), "--out", str(out), *SMALL, "--seeds", "1", "--overlap", "47"]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *start, str(PIPELINES / "train_strategic.py"), *flags],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("windows to train on") == 2
    assert done.stdout.count("evaluation.html") == 1
    found, saved = (out / "evaluation.json").read_text(), checkpoints(out)
    train("strategic", *flags)
    assert checkpoints(out) == saved
    assert (out / "evaluation.json").read_text() == found


@pytest.mark.slow
def test_a_team_begins_with_the_weights_of_another(train, tmp_path):
    bars = write_bars(tmp_path / "bars.csv", 700)
    short = write_bars(tmp_path / "short.csv", 400)
    flags = ["--folds", "1", "--seeds", "1", "--overlap", "47", "--batch-size", "32"]

    def weights(name, bars, *more):
        train("strategic", bars, "--out", tmp_path / name, *flags, *more)
        folder = tmp_path / name / "fold-0" / "seed-0"
        path = gb.CheckpointManager(folder, content_id="").latest()
        return read_checkpoint(path).trainer_state["weights"]

    first = weights("one", short)
    warm = ("--init-from", tmp_path / "one" / "fold-0" / "seed-0")
    cold, begun = weights("cold", bars), weights("warm", bars, *warm)
    assert not all(torch.equal(cold[name], begun[name]) for name in cold)
    again = weights("one", short, "--init-from", tmp_path / "warm" / "fold-0" / "seed-0")
    assert all(torch.equal(first[name], again[name]) for name in first), "resumed, not begun anew"
    # weights that have seen what is to be traded
    with pytest.raises(UsageError, match="is to be judged by windows that read bars"):
        weights("two", short, "--init-from", tmp_path / "warm" / "fold-0" / "seed-0")
