"""Training ended by Ctrl-C or kill -9, in processes of its own, ends as if never stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from object_servers import put_store
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.experiment.judging import Candidate

STEPS = 60
AHEAD = 10
"""Batches that a training which is to be ended early may be further than was asked for."""

# as the command, but that no line follows until there is a file, once as many are there as LINES
_NO_FURTHER = """
import sys, time
from pathlib import Path
from grandbatch.cli import main, training

write = training._write_trace

def write_no_further(file, result):
    write(file, result)
    while Path(file.name).read_text().count("\\n") >= LINES and not Path("GO-ON").exists():
        time.sleep(0.005)

training._write_trace = write_no_further
sys.argv[0] = "grandbatch"
main()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return gb.build_store(write_bars(folder / "b.csv", 2400), folder / "s.zarr", overlap=40)


def command(store, folder, *python):
    return [
        sys.executable, *(python or ("-m", "grandbatch")),
        "train", "strategic", "--store", str(store.path),
        "--checkpoint-dir", str(folder / "c"), "--epochs", "6", "--batch-size", "32",
        "--checkpoint-frequency", "8", "--trace", str(folder / "trace.jsonl"), "--json",
    ]  # fmt: skip


def finish(store, folder, *flags):
    """Run to the end; return the printed summary and the trace."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [*command(store, folder), *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    summary.pop("checkpoint_dir")
    return summary, trace(folder)


def trace(folder):
    path = folder / "trace.jsonl"
    if not path.exists():
        return []
    # the last one may be on its way
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]


def end_early(store, folder, after, with_signal, *flags):
    """Start a training and signal it once it has trained on `after` batches, or a few more."""
    folder.mkdir(exist_ok=True)
    go_on = folder / "go on"
    go_on.unlink(missing_ok=True)
    script = _NO_FURTHER.replace("LINES", str(after + AHEAD)).replace("GO-ON", str(go_on))
    with subprocess.Popen(
        [*command(store, folder, "-c", script), *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        wait_until(
            lambda: len(trace(folder)) >= after,
            lambda: child.poll() is not None,
            child.stderr.read,
        )
        child.send_signal(with_signal)
        go_on.touch()
        _, errors = child.communicate()
        return child.returncode, errors


@pytest.fixture(scope="module")
def uninterrupted(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    summary, lines = finish(store, folder)
    assert len(lines) >= STEPS
    return summary, lines, folder / "c"


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_after_ctrl_c_or_sigterm_the_very_next_batch_comes(
    store, tmp_path, uninterrupted, with_signal
):
    code, errors = end_early(store, tmp_path, 21, with_signal)
    assert code == 130
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    first = trace(tmp_path)
    summary, lines = finish(store, tmp_path)
    assert len(first) >= 21
    assert lines == uninterrupted[1]
    assert summary == uninterrupted[0]


@pytest.mark.slow
def test_after_kill_9_it_goes_on_from_the_last_checkpoint(store, tmp_path, uninterrupted):
    code, _ = end_early(store, tmp_path, 29, signal.SIGKILL)
    assert code == -signal.SIGKILL
    before = trace(tmp_path)
    manager = gb.CheckpointManager(tmp_path / "c", content_id=store.content_id)
    step = manager.load().step
    assert 16 <= step <= len(before)
    summary, lines = finish(store, tmp_path)
    assert lines[: len(before)] == uninterrupted[1][: len(before)]
    assert before[:step] + lines[len(before) :] == uninterrupted[1]
    assert summary == uninterrupted[0]


@pytest.mark.slow
def test_what_is_new_since_is_learnt_as_if_never_stopped_after_ctrl_c_and_kill_9(tmp_path):
    text = write_bars(tmp_path / "all.csv", 2400).read_text().splitlines(keepends=True)
    bars, grown = tmp_path / "b.csv", []
    for name in ("whole", "cut"):
        bars.write_text("".join(text[:1201]))
        store = gb.build_store(bars, tmp_path / "s.zarr", overlap=40, overwrite=True)
        finish(store, tmp_path / name, "--since-last")
        bars.write_text("".join(text))
        store = gb.build_store(bars, tmp_path / "s.zarr", overlap=40)
        before = len(trace(tmp_path / name))
        if name == "cut":
            code, _ = end_early(store, tmp_path / name, before + 5, signal.SIGINT, "--since-last")
            assert code == 130
            code, _ = end_early(store, tmp_path / name, before + 15, signal.SIGKILL, "--since-last")
            assert code == -signal.SIGKILL
        summary, lines = finish(store, tmp_path / name, "--since-last")
        grown.append((summary, {line["step"]: line for line in lines}))
    assert grown[0] == grown[1]
    assert grown[0][0]["epochs"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
def test_after_kill_9_it_goes_on_from_an_object_store_on_another_machine(
    store, bucket, tmp_path, uninterrupted
):
    put_store(store.path, f"{bucket}/s.zarr")
    there, checkpoints = gb.MatrixStore.open(f"{bucket}/s.zarr"), f"{bucket}/c"
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ("--checkpoint-dir", checkpoints)  # the last one counts
    code, _ = end_early(there, first, 29, signal.SIGKILL, *flags)
    assert code == -signal.SIGKILL
    before = trace(first)
    step = gb.CheckpointManager(checkpoints, content_id=store.content_id).load().step
    assert 16 <= step <= len(before)
    summary, lines = finish(there, second, *flags)
    assert before[:step] + lines == uninterrupted[1]
    assert summary == uninterrupted[0]
    assert not (second / "c").exists()
    team = Candidate.read(checkpoints, there)
    assert (team.step, str(team.path.parent)) == (summary["steps"], checkpoints)


@pytest.mark.slow
def test_a_training_begins_with_the_weights_of_another_but_is_never_resumed_with_them(
    store, tmp_path, uninterrupted
):
    _, first, checkpoints = uninterrupted
    weights = ("--init-from", str(checkpoints))
    _, warm = finish(store, tmp_path / "warm", *weights)
    assert [line["windows"] for line in warm] == [line["windows"] for line in first]
    assert warm[0]["avg_loss"] != first[0]["avg_loss"]
    end_early(store, tmp_path / "cut", 21, signal.SIGINT)
    _, lines = finish(store, tmp_path / "cut", *weights)
    assert lines == uninterrupted[1]
