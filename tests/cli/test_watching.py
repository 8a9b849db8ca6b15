"""A store that follows a folder: built as files come, whatever comes, and ended at any moment."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

import pytest
from advice import offers, words
from simulated import write_bars
from waiting import wait_until

import grandbatch as gb
from grandbatch.bars.inputs.files import standing_of_folder
from grandbatch.builder.reuse import Request
from grandbatch.cli.building import BuildFlags
from grandbatch.cli.options import SettingFlags
from grandbatch.cli.watching import Retrying, Settling, Watcher
from grandbatch.errors import (
    BadRowsError,
    DiskFullError,
    InputError,
    MemoryLimitError,
    StoreBusyError,
    StoreMismatchError,
    UsageError,
)

SETTLE = 30.0

# as the command, but that its time passes as it is told to, and that it counts its looks
_BY_ANOTHER_CLOCK = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from grandbatch.cli import main, watching

clock, looks = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
look = watching.Watcher.look

def counted(watcher):
    with looks.open("a") as file:
        file.write("x")
    return look(watcher)

watching.Watcher.look = counted
watching.time = SimpleNamespace(
    monotonic=lambda: float(clock.read_text()), sleep=time.sleep, time_ns=time.time_ns
)
sys.argv[0] = "grandbatch"
main()
"""


class Watched:
    """A `grandbatch watch` in a process of its own, whose time passes only as it is told to."""

    def __init__(self, folder, store, *flags):
        self.now = 0.0
        self.clock, self.looks = store.with_name("clock"), store.with_name("looks")
        self.looks.write_text("")
        self.let_pass(0)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BY_ANOTHER_CLOCK, str(self.clock), str(self.looks),
             "watch", "strategic", str(folder), "--store", str(store), "--every", "0.02",
             "--settle", str(SETTLE), "--scheduler", "sync", "--no-durable", "--json", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def let_pass(self, seconds):
        self.now += seconds
        partial = self.clock.with_suffix(".partial")
        partial.write_text(str(self.now))
        partial.rename(self.clock)

    def look(self):
        """Wait until a look at what stands there now is over, and all that came of it."""
        before = self.looks.stat().st_size
        wait_until(
            # one may have begun before
            lambda: self.looks.stat().st_size >= before + 3,
            lambda: self.process.poll() is not None,
            self.process.stderr.read,
        )

    def has_told(self):
        """Whether it has printed what `event` would return."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def event(self):
        """Wait for the next line that it prints."""
        wait_until(self.has_told)
        return json.loads(self.process.stdout.readline())

    def settled(self):
        """Let files come to rest as they stand, and wait for what comes of it."""
        self.look()
        self.let_pass(SETTLE)
        return self.event()

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate()
        assert out == b""
        return self.process.returncode, err.decode()


@pytest.fixture
def days(tmp_path):
    """A header, and the lines of a market in three parts."""
    text = write_bars(tmp_path / "all.csv", 1500).read_text()
    head, *rows = text.splitlines(keepends=True)
    return head, rows[:900], rows[900:1200], rows[1200:]


@pytest.mark.slow
def test_a_store_follows_a_folder_that_grows_past_a_bad_file_until_it_is_ended(tmp_path, days):
    head, *parts = days
    folder, store = tmp_path / "in", tmp_path / "s.zarr"
    folder.mkdir()
    with Watched(folder, store, "--chunk-windows", "4") as watched:
        (folder / "a.csv").write_text(head + "".join(parts[0]))
        first = watched.settled()
        assert (first["event"], first["new_files"], first["n_rows"]) == ("built", ["a.csv"], 900)
        # comes in pieces, as over a slow line: it is read once it is whole
        text = head + "".join(parts[1])
        with (folder / "b.csv").open("w") as file:
            for at in range(0, len(text), 3_000):
                file.write(text[at : at + 3_000])
                file.flush()
                watched.look()
                watched.let_pass(0.9 * SETTLE)
                watched.look()
                assert not watched.has_told()
        second = watched.settled()
        assert (second["event"], second["new_files"]) == ("built", ["b.csv"])
        assert second["n_rows"] == 1200
        assert second["new_windows"] == second["n_windows"] - first["n_windows"] > 0
        (folder / "c.csv").write_text("timestamp,open\nnothing\n")
        failed = watched.settled()
        assert failed["event"] == "failed"
        assert "c.csv" in failed["error"]
        assert gb.MatrixStore.open(store).fingerprint == second["fingerprint"]
        (folder / "c.csv").write_text(head + "".join(parts[2]))
        third = watched.settled()
        assert (third["event"], third["new_files"], third["n_rows"]) == ("built", ["c.csv"], 1500)
        code, err = watched.end(signal.SIGTERM)
    assert code == 130
    assert err.splitlines().count(failed["error"]) == 1
    assert "Traceback" not in err
    whole = gb.build_store(folder, tmp_path / "t.zarr", chunk_windows=4, durable=False)
    assert whole.fingerprint == third["fingerprint"]
    names = [path.relative_to(store) for path in store.rglob("*") if path.is_file()]
    assert len(names) > 5
    assert all((store / name).read_bytes() == (whole.path / name).read_bytes() for name in names)


@pytest.mark.slow
def test_a_watch_trains_on_what_is_new_and_goes_on_where_it_was_killed(tmp_path, days):
    head, *parts = days
    folder, store, run = tmp_path / "in", tmp_path / "s.zarr", tmp_path / "run"
    folder.mkdir()
    (folder / "a.csv").write_text(head + "".join(parts[0]))
    flags = ("--overlap", "47", "--train", "--checkpoint-dir", str(run), "--batch-size", "16",
             "--checkpoint-frequency", "2")  # fmt: skip
    with Watched(folder, store, *flags) as watched:
        first = watched.settled()
        wait_until(lambda: list(run.glob("*.ckpt")), lambda: watched.process.poll() is not None)
    # killed in the middle of its training, if not behind it: that is over before the store grows
    (folder / "b.csv").write_text(head + "".join(parts[1]))
    with Watched(folder, store, *flags) as watched:
        told = [watched.settled()]
        while told[-1]["event"] != "trained" or told[-1]["windows"] == first["n_windows"]:
            told.append(watched.event())
        assert watched.end(signal.SIGTERM)[0] == 130
    built = next(event for event in told if event["event"] == "built")
    assert built["new_files"] == ["b.csv"]
    assert built["new_windows"] > 0
    assert told[-1]["windows"] == built["n_windows"]


class Watch:
    """A watcher in this process, of which each look is one call."""

    def __init__(self, folder, store, capsys, leave_out=()):
        self.folder, self.capsys = folder, capsys
        request = Request.of(
            folder, store, SettingFlags(set_name="strategic").settings(), gb.BarRules()
        )
        how = BuildFlags(scheduler="sync", durable=False)
        self.watcher = Watcher(request, folder, how, 10.0, None, leave_out, as_json=True)

    def look(self):
        """Return what one look tells."""
        state = self.watcher.look()
        if state is not None:
            self.watcher.follow(state)
        return [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def watch(tmp_path, capsys, days):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text(days[0] + "".join(days[1]))
    return Watch(folder, tmp_path / "s.zarr", capsys)


def events(told):
    return [event["event"] for event in told]


def test_what_stands_as_it_did_is_not_built_again_and_a_later_watch_reuses_it(watch, tmp_path):
    assert events(watch.look()) == ["built"]
    assert watch.look() == []
    (again,) = Watch(watch.folder, tmp_path / "s.zarr", watch.capsys).look()
    assert (again["event"], again["new_files"], again["new_windows"]) == ("reused", [], 0)


@pytest.mark.parametrize("bad", ["", "no,bars\n1,2\n", "\0" * 50], ids=range(3))
def test_a_bad_file_is_told_once_and_its_going_goes_on(watch, days, bad):
    built = watch.look()[0]
    (watch.folder / "b.csv").write_text(bad)
    (failed,) = watch.look()
    assert failed["event"] == "failed"
    assert "b.csv" in failed["error"]
    assert "\n" not in failed["error"]
    assert watch.look() == []
    (watch.folder / "b.csv").unlink()
    (after,) = watch.look()
    assert (after["event"], after["fingerprint"]) == ("reused", built["fingerprint"])


def test_a_file_that_went_or_changed_is_told_and_keeps_the_store(watch, days):
    built = watch.look()[0]
    text = (watch.folder / "a.csv").read_text()
    for spoil in (
        lambda path: path.unlink(),
        lambda path: path.write_text(text.replace("\n20", "\n21", 1)),
        lambda path: path.rename(path.with_name("z.csv")),
    ):
        spoil(watch.folder / "a.csv")
        assert events(watch.look()) == ["failed"]
        for path in watch.folder.iterdir():
            path.unlink()
        (watch.folder / "a.csv").write_text(text)
        (after,) = watch.look()
        assert (after["event"], after["fingerprint"]) == ("reused", built["fingerprint"])


def test_a_folder_that_is_away_for_a_while_is_waited_for(watch):
    assert events(watch.look()) == ["built"]
    watch.folder.rename(watch.folder.with_name("away"))
    (failed,) = watch.look()
    assert "in: No such file or directory" in failed["error"]
    assert watch.look() == []
    watch.folder.with_name("away").rename(watch.folder)
    assert watch.look() == []


def test_a_store_of_other_settings_ends_a_watch_at_its_start(watch, tmp_path):
    gb.build_store(watch.folder, tmp_path / "s.zarr", overlap=30, durable=False)
    with pytest.raises(StoreMismatchError, match="overlap"):
        watch.look()


def test_only_what_time_may_mend_is_tried_again_after_growing_pauses():
    retrying = Retrying(10.0)
    for pause in (10, 20, 40, 80, 160, 320, 600, 600):
        retrying.after(DiskFullError("full"), 1000.0)
        assert retrying.at == 1000 + pause
    retrying.after(None, 2000.0)
    assert retrying.at == float("inf")
    for error in (MemoryLimitError(""), StoreBusyError(""), OSError()):
        Retrying.after(retrying, error, 0.0)
        assert retrying.at < float("inf")
    for error in (BadRowsError(""), InputError(""), StoreMismatchError(""), UsageError("")):
        retrying.after(error, 0.0)
        assert retrying.at == float("inf")


def test_files_are_at_rest_once_none_has_changed_for_as_long_as_asked(tmp_path):
    settling = Settling(30)
    path = tmp_path / "a.csv"
    (tmp_path / "notes.md").write_text("no bars")
    (tmp_path / ".a.csv").write_text("hidden")
    path.write_text("1")
    assert list(standing_of_folder(tmp_path)) == [str(path)]
    assert not settling.look(standing_of_folder(tmp_path), 100)
    assert not settling.look(standing_of_folder(tmp_path), 129)
    path.write_text("12")
    assert not settling.look(standing_of_folder(tmp_path), 131)
    os.utime(path, ns=(0, 10**18))
    assert not settling.look(standing_of_folder(tmp_path), 140)
    assert not settling.look(standing_of_folder(tmp_path), 169)
    assert settling.look(standing_of_folder(tmp_path), 170)
    (tmp_path / "b.csv").touch()
    assert not settling.look(standing_of_folder(tmp_path), 171)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--every", "0"], "--every must be above 0, got 0.0"),
        (["--settle", "-1"], "--settle must be at least 0, got -1.0"),
        (["--every", "nan"], "--every"),
        (["--train"], "--train and --checkpoint-dir belong together"),
        (["--checkpoint-dir", "run"], "--train and --checkpoint-dir belong together"),
    ],
)
def test_times_that_make_no_sense_are_wrong_usage(tmp_path, flags, words):
    from typer.testing import CliRunner

    from grandbatch.cli.main import app

    arguments = ["watch", "strategic", str(tmp_path), "--store", str(tmp_path / "s.zarr"), *flags]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, UsageError)
    assert words in str(error)


@pytest.mark.parametrize("name", ["notes.csv", "a [1] 'b'.csv"])
def test_a_file_that_holds_no_bars_is_told_once_with_what_leaves_it_out(
    watch, tmp_path, caplog, name
):
    caplog.set_level("INFO")
    assert events(watch.look()) == ["built"]
    caplog.clear()
    (watch.folder / name).write_text("hello\nworld\n")
    (failed,) = watch.look()
    assert caplog.text.count("have one field only") == 1
    flag, pattern = words(next(one for one in offers(failed["error"]) if "leave" in one))
    assert flag == "--leave-out"
    (again,) = Watch(watch.folder, tmp_path / "s.zarr", watch.capsys, [pattern]).look()
    assert (again["event"], again["new_windows"]) == ("reused", 0)
