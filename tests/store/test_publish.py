"""A store appears in one step, and only one process builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from grandbatch.errors import StoreBusyError
from grandbatch.store import publish as p

HOLD = """
import sys, pathlib
from grandbatch.store.publish import builder_lock
with builder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def staged(folder: Path, content: str) -> Path:
    path = folder / ".grandbatch" / "s.zarr.building" / "f" / "store"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(content)
    return path


@pytest.mark.parametrize("durable", [True, False])
def test_a_first_publication_is_one_rename(tmp_path, durable):
    store = tmp_path / "s.zarr"
    p.publish(staged(tmp_path, "new"), store, durable=durable)
    p.clean_staging(store)
    assert (store / "manifest.json").read_text() == "new"
    assert not p.has_leftovers(store)


def test_a_replacement_leaves_nothing_of_the_old_store(tmp_path):
    store = tmp_path / "s.zarr"
    store.mkdir()
    (store / "manifest.json").write_text("old")
    (store / "old").touch()
    p.publish(staged(tmp_path, "new"), store, durable=True)
    p.clean_staging(store)
    assert [f.name for f in store.iterdir()] == ["manifest.json"]
    assert (store / "manifest.json").read_text() == "new"
    assert [f.name for f in (tmp_path / ".grandbatch").iterdir()] == []


@pytest.mark.parametrize("renames_done", [0, 1, 2])
def test_a_replacement_cut_off_anywhere_is_finished_by_the_next_builder(tmp_path, renames_done):
    store, source = tmp_path / "s.zarr", staged(tmp_path, "new")
    store.mkdir()
    (store / "manifest.json").write_text("old")
    work = tmp_path / ".grandbatch" / "s.zarr.building"
    (work / "journal").write_text('{"staged": ".grandbatch/s.zarr.building/f/store"}')
    if renames_done >= 1:
        store.rename(work / "retired")
    if renames_done == 2:
        source.rename(store)
    assert p.has_leftovers(store)
    p.finish_replacement(store)
    p.clean_staging(store)
    assert (store / "manifest.json").read_text() == "new"
    assert not p.has_leftovers(store)
    assert [f.name for f in (tmp_path / ".grandbatch").iterdir()] == []


def test_a_second_builder_waits_or_is_told_who_holds_the_lock(tmp_path):
    store = tmp_path / "s.zarr"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(StoreBusyError, match=f"process {holder.pid}"),
            p.builder_lock(store, wait=False),
        ):
            pass
        told = []

        def free(message):
            told.append(message)
            holder.stdin.close()

        with p.builder_lock(store, on_wait=free):
            assert f"waiting for process {holder.pid}" in told[0]


def test_the_lock_dies_with_its_holder(tmp_path):
    store = tmp_path / "s.zarr"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        holder.kill()
        holder.wait()
    with p.builder_lock(store, wait=False):
        pass
