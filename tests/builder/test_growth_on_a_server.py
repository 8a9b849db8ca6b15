"""Growth on a real server of objects: after processes that were killed, from other machines."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from growing import by_time, lines, small_files, text  # noqa: F401 (a fixture)
from test_growth import CORRECTING, corrected
from test_growth_at_urls import BY_DAY, GrowingThere
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.errors import StoreChangedError
from grandbatch.files.objects import Objects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("bucket", ["seaweed"], indirect=True),
]

KINDS = {
    "windows": {},
    "rows": {"layout": "rows"},
    "by day": {**BY_DAY, "layout": "rows"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bars_added_and_corrected_give_the_bytes_from_scratch(bucket, kind, tmp_path):
    first, second = lines(1600, symbols=2)
    growing = GrowingThere(tmp_path, bucket, **KINDS[kind], rules=CORRECTING)
    files = {
        "a": text(by_time(first[:1400], second[:1400])),
        "b": text(by_time(first[1400:], second[1400:])),
        "c": text([corrected(first[700])]),
    }
    growing.write(a=files["a"])
    growing.build()
    for names in ("ab", "abc"):
        reader = gb.MatrixStore.open(f"{growing.url}/s.zarr")
        growing.write(**{name: files[name] for name in names})
        result = growing.build()
        assert 0 < result.kept_chunks < result.store.n_chunks
        assert growing.there() == growing.here()
        assert result.store.verify().ok
        with pytest.raises(StoreChangedError):
            np.asarray(reader.matrices[:])
    assert result.store.attrs["differing_duplicates"] == 1
    left = [found.name for found in Objects(growing.url).list() if ".building" in found.name]
    assert not left


class Machine:
    """Processes that know nothing of others' disks: a home, a folder and temporary files apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def run(self, *command: object, dies_at: tuple[str, str, int] | None = None):
        """Run a command in a process; return how that ended, and what it printed as JSON."""
        said = self.folder.with_suffix(".said")
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=self._run, args=(command, dies_at, said))
        process.start()
        process.join()
        return process.exitcode, json.loads(said.read_text()) if said.exists() else None

    def _run(self, command, dies_at, said):
        os.chdir(self.folder)
        os.environ.update(HOME=str(self.folder), TMPDIR=str(self.folder))
        tempfile.tempdir = None
        if dies_at is not None:
            die_at(*dies_at)
        result = CliRunner().invoke(app, [*map(str, command), "--json"])
        if result.exit_code:
            os._exit(1)
        said.write_text(result.stdout)


def die_at(verb, place, times):
    """Be killed when a place is changed for so many times, the change done but not answered."""
    change, seen = getattr(Objects, verb), []

    def ask(objects, *args):
        done = change(objects, *args)
        if place in f"{objects.url}/{args[-1] if verb == 'copy' else args[0]}":
            seen.append(place)
            if len(seen) == times:
                os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(Objects, verb, ask)


def let_time_pass(url):
    """Have the leases of who was killed run out."""
    place = Objects(url)
    for found in place.list(".grandbatch"):
        if found.name.endswith((".lock", ".lease")):
            value = json.loads(place.read(found.name))
            place.write(found.name, json.dumps({**value, "seconds": 0.1}).encode())


WHEN = {
    "bars are read": ("write", "/.grandbatch/bars/", 2),
    "new files are put": ("write", "/store/matrices/c/", 3),
    "they take their places": ("copy", "/s.zarr/matrices/c/", 1),
}


def test_after_a_kill_the_same_command_goes_on_from_another_machine(bucket, tmp_path):
    (rows,) = lines(1000)
    growing = GrowingThere(tmp_path, bucket)
    growing.write(a=text(rows[:600]), b=text(rows[600:]))
    new = growing.here()
    place = Objects(bucket)
    place.write("in/a.csv", growing.inputs[0].read_bytes())
    flags = ("--store", f"{bucket}/s.zarr", "--overlap", 12, "--chunk-windows", 4)
    command = ("build", "strategic", f"{bucket}/in/*.csv", *flags)
    assert Machine(tmp_path / "first").run(*command)[0] == 0
    standing = {found.name: place.read(found.name) for found in place.list()}
    old = growing.there()
    place.write("in/b.csv", growing.inputs[1].read_bytes())
    for number, (what, dies_at) in enumerate(WHEN.items()):
        one, other = Machine(tmp_path / f"one-{number}"), Machine(tmp_path / f"other-{number}")
        assert one.run(*command, dies_at=dies_at) == (-signal.SIGKILL, None), what
        there = growing.there()
        if "manifest.json" in there:
            assert there == old, what
        else:
            assert what == "they take their places"
        let_time_pass(bucket)
        code, told = other.run(*command)
        assert code == 0, what
        assert growing.there() == new, what
        assert gb.MatrixStore.open(f"{bucket}/s.zarr").verify().ok
        assert told["reused"] == (what == "they take their places")
        assert (told["resumed_chunks"] > 0) == (what == "new files are put")
        assert not [found.name for found in place.list() if ".building" in found.name], what
        # what it left is in the bucket alone
        assert not list(other.folder.iterdir()), what
        place.delete([found.name for found in place.list() if found.name != "in/b.csv"])
        for name, data in standing.items():
            place.write(name, data)
