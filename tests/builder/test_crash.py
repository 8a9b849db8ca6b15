"""A build that is killed at any instant, or runs out of disk, is finished by the same command."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from crash_server import CrashServer
from simulated import write_bars

import grandbatch as gb
from grandbatch.store.file_records import read_record
from grandbatch.store.publish import builder_lock, has_leftovers, staging_folder
from grandbatch.store.staging import Staging

N_ROWS = 9_000
MODES = ("fresh", "replacing", "extending")
NO_ROOM = re.compile(r"error: (?=.*no room)(?=.*/).* [\d,]+ (bytes )?are free.*\n")


def tree(folder: Path) -> dict[str, str]:
    """sha256 of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def argv(store: Path, source: Path, *more: str, overlap: int = 47) -> list[str]:
    """Build a store with many files of 2.5 MB, in tasks that each write one or two."""
    return [
        "build", "strategic", str(source), "--store", str(store), "--overlap", str(overlap),
        "--codec", "none", "--chunk-windows", "64", "--partition-bars", "1500",
        "--targets", "forward_return:5,triple_barrier:0.01:0.02:60", "--json", *more,
    ]  # fmt: skip


def assert_clean(work: Path) -> None:
    """Nothing but stores, locks and the cache of bars is there, and nothing half-done in it."""
    beside = {path.name for path in (work / ".grandbatch").iterdir()}
    # a build killed after it published leaves no record of what it took
    assert beside - {"builds"} == {"bars", "locks"}
    assert not list(work.rglob("*.partial"))
    cache = work / ".grandbatch" / "bars"
    folders = [path.name for path in cache.iterdir() if path.is_dir()]
    assert all(name == "inputs" or len(name) == 64 for name in folders)
    assert all(path.suffix == ".json" for path in (cache / "inputs").iterdir())


def staging_of(path: Path, whole: gb.MatrixStore) -> Staging:
    """What a build of the same store at a path has staged."""
    return Staging(staging_folder(path, whole.fingerprint), whole.spec, durable=False)


class Scene:
    """Inputs, the store that is wanted of them, and what stands there before, for each mode."""

    def __init__(self, folder: Path, server: CrashServer):
        self.folder = folder
        self.server = server
        self.source = write_bars(folder / "b.csv", N_ROWS)
        lines = self.source.read_text().splitlines(keepends=True)
        (folder / "young").mkdir()
        young = folder / "young" / "b.csv"
        young.write_text("".join(lines[:6_000]))
        before = {"replacing": write_bars(folder / "other.csv", 3_000, seed=4), "extending": young}
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, str] = {}
        # kernels that nobody compiled yet would make the first build, and so its kills, come late
        assert server.run(argv(folder / "compiled.zarr", self.source)).code == 0
        for mode in MODES:
            start = self._start(mode)
            start.mkdir()
            if mode in before:
                assert server.run(argv(start / "s.zarr", before[mode])).code == 0
            work = self.begin(mode)
            outcome = server.run(self.command(work, mode))
            assert not outcome.result["reused"]
            self.seconds[mode] = outcome.seconds
            found = tree(work / "s.zarr")
            self.wanted = self.wanted or found
            assert found == self.wanted
        self.store = gb.MatrixStore.open(work / "s.zarr")

    def _start(self, mode: str) -> Path:
        return self.folder / f"start-{mode}"

    def begin(self, mode: str) -> Path:
        """Return a folder in the state that a build of this mode finds."""
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._start(mode), work)
        return work

    def command(self, work: Path, mode: str = "fresh") -> list[str]:
        return argv(work / "s.zarr", self.source, *["--overwrite"] * (mode == "replacing"))

    def staging(self, work: Path) -> Staging:
        return staging_of(work / "s.zarr", self.store)

    def finish(self, work: Path, mode: str = "fresh") -> dict:
        """Run the command to its end, and check all that was promised of it."""
        staged = sum(self.staging(work).finished().values())
        result = self.server.run(self.command(work, mode)).result
        assert result["resumed_chunks"] == (0 if result["reused"] else staged)
        assert result["n_chunks"] == self.store.n_chunks
        assert tree(work / "s.zarr") == self.wanted
        assert_clean(work)
        return result


@pytest.fixture(scope="module")
def server():
    with CrashServer() as running:
        yield running


@pytest.fixture(scope="module")
def scene(tmp_path_factory, server):
    return Scene(tmp_path_factory.mktemp("scene"), server)


# kills


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_ten_kills_at_random_instants_change_nothing(scene, mode):
    rng = random.Random(f"kills of a {mode} build")
    kills = 0
    while kills < 10:
        work = scene.begin(mode)
        for _ in range(rng.choice([1, 1, 2])):
            after = rng.uniform(0, scene.seconds[mode])
            kills += scene.server.run(scene.command(work, mode), kill_after=after).code == -9
        scene.finish(work, mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "strike"),
    [
        ("fresh", {"event": "os.mkdir", "ends": "locks"}),
        ("fresh", {"event": "open", "ends": ".json"}),
        ("fresh", {"event": "os.rmdir", "ends": "pieces"}),
        ("fresh", {"event": "os.rename", "ends": "matrices/c/3/0/0"}),
        ("fresh", {"event": "os.rename", "ends": "00000003.record"}),
        ("fresh", {"event": "os.rename", "ends": "next_return/c/0"}),
        ("fresh", {"event": "os.rename", "ends": "matrices/zarr.json"}),
        ("fresh", {"event": "os.rename", "ends": "manifest.json"}),
        ("fresh", {"event": "os.rename", "ends": "/s.zarr"}),
        ("fresh", {"event": "os.rename", "ends": ".records"}),
        ("fresh", {"event": "os.rmdir", "ends": "s.zarr.building"}),
        ("replacing", {"event": "os.rename", "ends": "/journal"}),
        ("replacing", {"event": "os.rename", "ends": "/retired"}),
        ("replacing", {"event": "os.rename", "ends": "/s.zarr"}),
        ("replacing", {"event": "os.remove", "ends": "/journal"}),
        ("replacing", {"event": "os.rename", "ends": ".folders"}),
        ("replacing", {"event": "os.rmdir", "ends": "s.zarr.building"}),
        ("extending", {"event": "os.rename", "ends": "matrices/c/2/0/0"}),
        ("extending", {"event": "os.rename", "ends": "00000002.record"}),
        ("extending", {"event": "os.rename", "ends": "/s.zarr"}),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value['event']}{value['ends']}",
)
def test_a_kill_right_before_a_step_that_matters_changes_nothing(scene, mode, strike):
    work = scene.begin(mode)
    below = str(work)
    outcome = scene.server.run(
        scene.command(work, mode), strike={"below": below, "at": 1, **strike}
    )
    assert outcome.code == -9
    scene.finish(work, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_kills_all_over_the_changes_of_files_change_nothing(scene, mode):
    work = scene.begin(mode)
    changes = scene.server.run(scene.command(work, mode), strike={"below": str(work)}).changes
    for at in range(5, changes, changes // 10):
        work = scene.begin(mode)
        strike = {"below": str(work), "at": at}
        # threads that make the same folder differ a little in how often they try
        assert scene.server.run(scene.command(work, mode), strike=strike).code in (-9, 0)
        scene.finish(work, mode)


def test_between_the_renames_of_a_replacement_a_reader_sees_no_store(scene):
    work = scene.begin("replacing")
    strike = {"below": str(work), "at": 1, "event": "os.rename", "ends": "/s.zarr"}
    assert scene.server.run(scene.command(work, "replacing"), strike=strike).code == -9
    with pytest.raises(gb.errors.StoreNotFoundError):
        gb.MatrixStore.open(work / "s.zarr")
    assert scene.finish(work, "replacing")["reused"]


def test_what_a_kill_left_goes_when_the_inputs_are_others_by_then(scene):
    work = scene.begin("fresh")
    for event, ends in (("os.mkdir", "cache"), ("os.rename", "manifest.json")):
        source = write_bars(work / "b.csv", 700, seed=len(ends))
        strike = {"below": str(work), "at": 1, "event": event, "ends": ends}
        assert scene.server.run(argv(work / "s.zarr", source), strike=strike).code == -9
    assert has_leftovers(work / "s.zarr")
    scene.finish(work)


# builders side by side


def test_of_builders_of_one_store_one_builds_and_the_others_wait_and_reuse(scene):
    work = scene.begin("fresh")
    outcomes = scene.server.run_all([{"argv": scene.command(work)}] * 3)
    assert sorted(outcome.result["reused"] for outcome in outcomes) == [False, True, True]
    assert tree(work / "s.zarr") == scene.wanted
    assert_clean(work)


def test_a_builder_that_waits_goes_on_with_what_a_killed_one_has_done(scene):
    work = scene.begin("fresh")
    strike = {"below": str(work), "at": 1, "event": "os.rename", "ends": "manifest.json"}
    killed, waiting = scene.server.run_all(
        [{"argv": scene.command(work), "strike": strike}, {"argv": scene.command(work)}]
    )
    # whichever got the lock first
    if killed.code == -9:
        assert waiting.result["resumed_chunks"] == scene.store.n_chunks
    else:
        assert killed.result["reused"]
    assert tree(work / "s.zarr") == scene.wanted
    assert_clean(work)


def test_without_waiting_a_second_builder_says_who_holds_the_lock(scene):
    work = scene.begin("fresh")
    with builder_lock(work / "s.zarr"):
        outcome = scene.server.run([*scene.command(work), "--no-wait"])
    assert outcome.code == 1
    assert f"is being built by process {os.getpid()}" in outcome.err
    assert "Traceback" not in outcome.err
    scene.finish(work)


def test_builders_of_different_stores_never_disturb_each_other(scene):
    work = scene.begin("fresh")
    overlaps = {f"{n}.zarr": n for n in (44, 45, 46, 47)}
    for cache in ("shared", "own"):
        commands = [
            [*argv(work / f"{cache}-{name}", scene.source, overlap=overlap),
             *(["--cache", str(work / name / "cache")] if cache == "own" else [])]
            for name, overlap in overlaps.items()
        ]  # fmt: skip
        for outcome in scene.server.run_all([{"argv": command} for command in commands]):
            assert not outcome.result["reused"]
        # one read the bars, the others waited for them
        assert cache == "own" or len(list((work / ".grandbatch/bars").glob("*/bars.json"))) == 1
    for name in overlaps:
        assert tree(work / f"shared-{name}") == tree(work / f"own-{name}")
    assert tree(work / "own-47.zarr") == scene.wanted
    assert_clean(work)


# a full disk


class SmallDisk:
    """A tmpfs that can grow."""

    def __init__(self, path: Path):
        self.path = path

    def resize(self, size: str) -> None:
        self._run("mount", "-o", f"remount,size={size}", str(self.path))

    def mount(self, size: str) -> None:
        self._run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.path))

    def unmount(self) -> None:
        self._run("umount", str(self.path))

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def small_disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    disk.path.mkdir()
    try:
        disk.mount("64m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs can't be mounted here: {getattr(error, 'stderr', error)}")
    yield disk
    disk.unmount()


def assert_full(outcome) -> None:
    """Exit code 1, and one line of error that names a path and bytes."""
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    (error,) = [line for line in outcome.err.splitlines(keepends=True) if "error" in line]
    assert NO_ROOM.fullmatch(error), error
    assert outcome.err.endswith(error)


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_done_and_the_rerun_goes_on(tmp_path, server, small_disk):
    source = write_bars(tmp_path / "b.csv", 32_000)
    assert server.run(argv(tmp_path / "whole.zarr", source)).code == 0
    whole = gb.MatrixStore.open(tmp_path / "whole.zarr")
    command = argv(small_disk.path / "s.zarr", source)
    for _ in range(2):
        outcome = server.run(command)
        assert_full(outcome)
        assert str(small_disk.path) in outcome.err
    finished = staging_of(small_disk.path / "s.zarr", whole).finished()
    assert len(finished) > 10
    assert not list(small_disk.path.rglob("*.partial"))
    small_disk.resize("256m")
    assert server.run(command).result["resumed_chunks"] == sum(finished.values())
    assert tree(small_disk.path / "s.zarr") == tree(whole.path)
    assert_clean(small_disk.path)


@pytest.mark.parametrize("size", ["4k", "16k", "300k", "1m"])
def test_a_disk_too_small_for_the_bars_is_an_error_and_leaves_no_half_cache(
    scene, small_disk, size
):
    small_disk.resize(size)
    work = small_disk.path
    assert_full(scene.server.run(scene.command(work)))
    cache = work / ".grandbatch" / "bars"
    assert not cache.exists() or not list(cache.glob(".staging*/"))
    small_disk.resize("256m")
    scene.finish(work)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.8, 0.85])
def test_a_disk_that_fills_up_at_any_change_ends_in_one_line(scene, share):
    work = scene.begin("fresh")
    counted = scene.server.run(scene.command(work), strike={"below": str(work)}).changes
    work = scene.begin("fresh")
    strike = {"below": str(work), "at": 1 + int(counted * share), "act": "full"}
    assert_full(scene.server.run(scene.command(work), strike=strike))
    scene.finish(work)


# what is staged, and no longer what was written


@pytest.fixture(scope="module")
def staged(scene, tmp_path_factory):
    """A folder with a build that was killed when only its manifest was missing."""
    folder = tmp_path_factory.mktemp("staged")
    work = scene.begin("fresh")
    strike = {"below": str(work), "at": 1, "event": "os.rename", "ends": "manifest.json"}
    assert scene.server.run(scene.command(work), strike=strike).code == -9
    shutil.copytree(work, folder, dirs_exist_ok=True)
    return folder


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << (place % 8)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        (lambda file, record: flip(file(1), 1_000_000), [1]),
        (lambda file, record: cut(file(1)), [1]),
        (lambda file, record: file(1).write_bytes(b""), [1]),
        (lambda file, record: file(1).unlink(), [1]),
        (lambda file, record: shutil.rmtree(file(1).parents[1]), [1]),
        (lambda file, record: swap(file(0), file(2)), [0, 2]),
        (lambda file, record: shutil.copy(file(0), file(2)), [2]),
        (lambda file, record: flip(record(1), 5_000), [1]),
        (lambda file, record: cut(record(1)), [1]),
        (lambda file, record: record(1).unlink(), [1]),
        (lambda file, record: swap(record(0), record(2)), [0, 2]),
        (lambda file, record: shutil.rmtree(record(1).parent), slice(None)),
    ],
    ids=["flipped", "cut", "empty", "gone", "folder-gone", "swapped", "copied-over",
         "record-flipped", "record-cut", "record-gone", "records-swapped", "records-gone"],
)  # fmt: skip
def test_what_is_staged_and_damaged_is_written_anew_and_the_rest_is_kept(scene, staged, harm, lost):
    shutil.rmtree(scene.folder / "work", ignore_errors=True)
    work = Path(shutil.copytree(staged, scene.folder / "work"))
    staging, data = scene.staging(work), scene.store.spec.data
    harm(
        lambda number: staging.store / data.file(number),
        staging.record_path,
    )
    per_file = np.full(data.n_files, data.shard_chunks)
    per_file[-1] = data.n_chunks - (data.n_files - 1) * data.shard_chunks
    kept = per_file.sum() - per_file[lost].sum()
    assert scene.finish(work)["resumed_chunks"] == kept


def test_no_flipped_byte_of_a_record_goes_unseen(scene, staged, tmp_path):
    staging, data = scene.staging(staged), scene.store.spec.data
    path = staging.record_path(data.n_files - 1)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    try:
        for place in [*range(0, 200, 3), *rng.integers(0, len(good), 200).tolist()]:
            flip(path, place)
            with pytest.raises(gb.errors.DamagedStoreError):
                read_record(path)
            path.write_bytes(good)
    finally:
        path.write_bytes(good)


def test_a_stale_staging_folder_of_another_fingerprint_is_never_used(scene, staged):
    shutil.rmtree(scene.folder / "work", ignore_errors=True)
    work = Path(shutil.copytree(staged, scene.folder / "work"))
    other = argv(work / "s.zarr", scene.source, overlap=46)
    assert scene.server.run(other).result["resumed_chunks"] == 0
    assert gb.MatrixStore.open(work / "s.zarr").attrs["overlap"] == 46
    assert_clean(work)


@pytest.mark.slow
def test_overwriting_a_store_by_itself_mends_a_damaged_one_and_leaves_a_whole_one(scene):
    work = scene.begin("fresh")
    command = [*scene.command(work), "--overwrite"]
    assert not scene.server.run(command).result["reused"]
    assert scene.server.run(command).result["reused"]
    flip(work / "s.zarr" / scene.store.spec.data.file(1), 1_000_000)
    assert scene.server.run(scene.command(work)).result["reused"]
    assert not gb.MatrixStore.open(work / "s.zarr").verify().ok
    assert not scene.server.run(command).result["reused"]
    assert tree(work / "s.zarr") == scene.wanted
    assert_clean(work)
