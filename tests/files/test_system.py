"""What operating systems differ in: what is done where a call is missing is the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.files import system
from grandbatch.files.ordinary import append_to, overwrite, read_whole
from grandbatch.memory import own_bytes, process_tree_bytes, usage
from grandbatch.memory.limits import read_ceilings

LACKING = """
import os, sys
import psutil
psutil.PROCFS_PATH = os.path.abspath("proc")
import distributed, numba, pandas, torch, torchrl, zarr  # have other sides of their own
for name in ("preadv", "pread", "sched_getaffinity", "geteuid", "getuid", "posix_fadvise",
             "O_DIRECTORY"):
    delattr(os, name)
flags = {name: os.__dict__.pop(name) for name in ("O_NOFOLLOW", "O_NONBLOCK")}
import grandbatch.files.system
os.__dict__.update(flags)  # filelock asks for them
sys.modules["resource"] = None
"""
"""Takes from Python what Windows, or macOS, doesn't have."""


@pytest.fixture
def places(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    handle = os.open(path, os.O_RDONLY)
    yield handle
    os.close(handle)


@pytest.mark.parametrize("lacking", [[], ["preadv", "pread"]])
def test_bytes_are_read_at_a_place_whether_or_not_the_system_can(places, monkeypatch, lacking):
    for name in lacking:
        monkeypatch.delattr(os, name)
    first, second = bytearray(3), bytearray(5)
    assert system.read_into(places, [first, second], 10) == 8
    assert bytes(first + second) == bytes(range(10, 18))
    assert system.read_into(places, [first, second], 196) == 4
    assert first + second[:1] == bytes(range(196, 200))
    assert system.read_at(places, 4, 100) == bytes(range(100, 104))
    assert system.read_at(places, 40, 190) == bytes(range(190, 200))
    assert system.read_at(places, 4, 500) == b""


def test_a_process_that_has_ended_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert system.is_alive(process.pid)
    assert system.is_alive(1)
    process.communicate(b"\n")
    assert not system.is_alive(process.pid)


def test_files_are_written_where_links_can_not_be_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "WRITING", os.O_WRONLY)
    overwrite(tmp_path / "a", b"12345")
    overwrite(tmp_path / "a", b"123")
    with append_to(tmp_path / "a") as file:
        file.write("4")
    assert read_whole(tmp_path / "a", 10) == b"1234"


def test_memory_is_told_by_psutil_where_there_is_no_proc(monkeypatch):
    known, tree = own_bytes(), process_tree_bytes()
    monkeypatch.setattr(usage, "_HAS_PROC", False)
    assert own_bytes()[0] == pytest.approx(known[0], rel=0.2)
    assert own_bytes()[1] >= 0.8 * known[0]
    assert process_tree_bytes() == pytest.approx(tree, rel=0.2)
    child = subprocess.Popen(
        [sys.executable, "-c", "x = bytearray(2**26); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    assert process_tree_bytes() > own_bytes()[0] + 2**26
    child.communicate(b"\n")


def test_limits_that_a_system_does_not_have_are_left_out(monkeypatch):
    assert system.soft_limit("RLIMIT_NOFILE") > 0
    monkeypatch.setattr(system, "resource", None)
    assert {ceiling.limit.source for ceiling in read_ceilings()} <= {
        "RAM",
        *(c.limit.source for c in read_ceilings() if c.limit.source.startswith("cgroup")),
    }
    assert system.soft_limit("RLIMIT_NOFILE") is None


@pytest.mark.slow
def test_a_system_that_lacks_what_linux_has_builds_and_trains_the_same(tmp_path):
    """`/proc` lies where only psutil knows; the calls that Windows lacks are taken away."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    ):
        pytest.skip("no mount namespaces here")
    write_bars(tmp_path / "b.csv", 600)
    usual = gb.build_store(tmp_path / "b.csv", tmp_path / "usual.zarr")
    (tmp_path / "proc").mkdir()
    (tmp_path / "b2").mkdir()
    shutil.copy(tmp_path / "b.csv", tmp_path / "b2/b.csv")
    code = LACKING + (
        "assert not os.path.exists('/proc/self')\nfrom grandbatch.cli.main import main\nmain()\n"
    )
    hide = 'mount --rbind /proc proc && mount -t tmpfs none /proc && exec "$@"'

    def run(*arguments):
        call = ["unshare", "-rm", "sh", "-c", hide, "sh", sys.executable, "-c", code, *arguments]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("build", "strategic", "b2/b.csv", "--store", "other.zarr")
    run("verify", "other.zarr")
    other = gb.MatrixStore.open(tmp_path / "other.zarr")
    assert Path(other.path, "manifest.json").read_bytes() == (
        Path(usual.path, "manifest.json").read_bytes()
    )
    run("train", "strategic", "--store", "other.zarr", "--checkpoint-dir", "c", "--epochs", "1")
    run("doctor")
