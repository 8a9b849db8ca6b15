"""Damaged caches: every byte that a second build reads is compared with what was written."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.bars import BarRules, open_bars, prepare_bars
from grandbatch.bars.cache import bars as cache
from grandbatch.bars.cache import keeping
from grandbatch.bars.cache.upkeep import cache_problems, clear_caches, iter_bad_rows
from grandbatch.builder.estimate import estimate_build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import DamagedBarsError, GrandbatchError, InputError
from grandbatch.scheduling import Schedule

HERE = Schedule.local("sync")
FLIPS_PER_FILE = 60


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << random.Random(at).randrange(8)
    path.write_bytes(raw)


def contents(store):
    return {
        path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }


def values(store):
    labels = (store.end_time, store.symbol, store.close_price, store.next_return, store.first_row)
    return [array[:] for array in (store.matrices, *labels)]


@pytest.fixture
def csv(tmp_path):
    path = write_bars(tmp_path / "b.csv", 40_000, symbols=2)
    with path.open("a") as file:
        file.write("torn\n")
    return path


@pytest.fixture
def bars(csv, tmp_path):
    return prepare_bars(csv, tmp_path / ".grandbatch" / "bars", BarRules(), HERE)


def test_a_flipped_byte_of_a_part_is_an_error_that_names_it_or_changes_nothing(bars):
    whole = bars.read(0, bars.n_rows)
    chance = random.Random(0)
    for part in bars.parts:
        path = bars.path / part.path
        raw = path.read_bytes()
        n_silent = 0
        for at in sorted(chance.sample(range(len(raw)), FLIPS_PER_FILE)):
            flip(path, at)
            (problem,) = cache_problems(bars.path)[1]
            assert part.path in problem
            with suppress(DamagedBarsError):
                found = bars.read(0, bars.n_rows)
                for name, values in whole.items():
                    np.testing.assert_array_equal(found[name], values)
                n_silent += 1
            path.write_bytes(raw)
        assert n_silent < FLIPS_PER_FILE / 10
    assert cache_problems(bars.path) == (len(bars.parts), [])


def test_any_flipped_byte_of_the_manifest_makes_it_no_cache(bars):
    path = bars.path / "bars.json"
    raw = path.read_bytes()
    for at in random.Random(1).sample(range(len(raw)), 300):
        flip(path, at)
        assert open_bars(bars.path) is None, f"byte {at}"
        path.write_bytes(raw)


def test_the_manifest_of_other_bars_is_no_manifest(bars, tmp_path):
    other = prepare_bars(write_bars(tmp_path / "o.csv", 500), bars.path.parent, BarRules(), HERE)
    for path in other.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.copytree(bars.path, other.path, dirs_exist_ok=True)
    assert open_bars(other.path) is None


def test_any_flipped_byte_of_the_quarantine_is_an_error(bars):
    path = bars.quarantine_path
    raw = path.read_bytes()
    assert [row.text for row in iter_bad_rows(bars.path)] == ["torn"]
    for at in random.Random(2).sample(range(len(raw)), FLIPS_PER_FILE):
        flip(path, at)
        with pytest.raises(DamagedBarsError, match="quarantine"):
            list(iter_bad_rows(bars.path))
        path.write_bytes(raw)


def test_what_is_no_file_in_the_place_of_a_record_or_a_manifest_is_damage(csv, tmp_path):
    first = contents(gb.build_store(csv, tmp_path / "s.zarr", durable=False).path)
    folder = tmp_path / ".grandbatch" / "bars"
    (record,) = (folder / "inputs").iterdir()
    (manifest,) = folder.glob("*/bars.json")
    other = folder / "other" / "bars.json"
    build = tmp_path / ".grandbatch" / "builds" / "t.zarr.json"
    other.parent.mkdir()
    for place in (record, manifest, other, build):
        for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")):
            place.unlink(missing_ok=True)
            make(place)
            os.utime(csv)
            again = gb.build_store(csv, tmp_path / "t.zarr", durable=False)
            assert contents(again.path) == first
            shutil.rmtree(again.path)
            if place.is_dir():
                place.rmdir()
    assert clear_caches(folder)[0]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["part", "cut", "gone", "manifest"])
@pytest.mark.parametrize("engine", ["overlap", "direct"])
def test_a_build_throws_a_damaged_cache_away_says_so_and_reads_anew(
    csv, tmp_path, caplog, harm, engine
):
    first = gb.build_store(csv, tmp_path / "a.zarr", durable=False)
    (folder,) = (tmp_path / ".grandbatch" / "bars").glob("*/bars.json")
    part = max(folder.parent.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    raw = part.read_bytes()
    if harm == "part":
        flip(part, 600_000)  # a close
    elif harm == "cut":
        part.write_bytes(raw[:-1])
    elif harm == "gone":
        part.unlink()
    else:
        flip(folder, 40)
    again = gb.build_store(csv, tmp_path / "b.zarr", durable=False, engine=engine)
    assert contents(again.path) == contents(first.path)
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "is damaged" in told[0]
    assert "thrown away" in told[0]
    assert part.read_bytes() == raw
    assert not list((tmp_path / ".grandbatch" / "bars").glob(".removed*"))


@pytest.mark.slow
def test_sampled_flips_of_every_file_that_a_build_or_an_epoch_reads_are_never_silent(tmp_path):
    csv = write_bars(tmp_path / "b.csv", 700, symbols=2)
    clean = gb.build_store(csv, tmp_path / "clean.zarr", chunk_windows=4, durable=False)
    expected = contents(clean.path)
    whole = values(clean)
    beside = tmp_path / ".grandbatch"
    others = [path for path in beside.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.parent.name for path in others} > {"inputs", "builds"}
    assert any(path.name == "bars.json" for path in others)
    chance = random.Random(3)
    for path in others:
        raw = path.read_bytes()
        for at in chance.sample(range(len(raw)), min(6, len(raw))):
            flip(path, at)
            again = gb.build_store(csv, tmp_path / "again.zarr", chunk_windows=4, durable=False)
            assert contents(again.path) == expected, f"byte {at} of {path}"
            shutil.rmtree(again.path)
            if path.exists():
                path.write_bytes(raw)
    for path in (path for path in clean.path.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        for at in chance.sample(range(len(raw)), min(4, len(raw))):
            flip(path, at)
            try:
                store = gb.MatrixStore.open(clean.path)
                found = values(store)
            except (GrandbatchError, OSError):
                continue
            finally:
                path.write_bytes(raw)
            for one, other in zip(found, whole, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_verify_and_doctor_find_a_flipped_byte(bars, tmp_path):
    def run(*words):
        call = [sys.executable, "-m", "grandbatch", *map(str, words), "--json"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    code, found = run("verify", bars.path)
    assert (code, found["ok"], found["checked_parts"]) == (0, True, len(bars.parts))
    part = bars.path / bars.parts[-1].path
    flip(part, 5_000)
    code, found = run("verify", bars.path)
    assert (code, found["ok"]) == (1, False)
    assert bars.parts[-1].path in found["problems"][0]
    code, found = run("doctor")
    assert code == 1
    assert any(bars.parts[-1].path in problem for problem in found["problems"])


def test_the_remedy_of_a_damaged_frame_works_while_the_frame_is_there(bars, csv):
    frame = bars.frame()
    flip(bars.path / bars.parts[0].path, 5_000)
    with pytest.raises(DamagedBarsError) as told:
        frame.compute(scheduler="sync")
    command = str(told.value).partition("run: grandbatch ")[2].partition(",")[0]
    done = subprocess.run(
        f"{sys.executable} -m grandbatch {command}", shell=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not bars.path.exists()
    again = prepare_bars(csv, csv.parent / ".grandbatch" / "bars", BarRules(), HERE)
    assert len(again.frame()) == bars.n_rows


def test_a_plan_does_without_a_damaged_cache(bars, csv, tmp_path):
    flip(bars.path / bars.parts[0].path, 5_000)
    settings = make_settings("strategic", None, None, "windows", None, "auto", "1h")
    target = Request.of(csv, tmp_path / "s.zarr", settings, BarRules())
    assert estimate_build(target).plan.n_rows == bars.n_rows


def test_a_quarantine_without_its_cache_is_one_line(bars):
    (bars.path / "bars.json").unlink()
    with pytest.raises(InputError, match="build again"):
        list(iter_bad_rows(bars.path))


# who may remove what


def test_clearing_leaves_what_a_process_uses_and_takes_it_afterwards(csv, tmp_path):
    folder = tmp_path / ".grandbatch" / "bars"
    bars = prepare_bars(csv, folder, BarRules(), HERE)
    other = prepare_bars(write_bars(tmp_path / "o.csv", 300), folder, BarRules(), HERE)
    unused = other.path
    del other
    code = (
        "import sys; from pathlib import Path;"
        "from grandbatch.bars.cache.upkeep import clear_caches;"
        "removed, used = clear_caches(Path(sys.argv[1]));"
        "print(*[e.path.name for e in removed], '|', *[e.path.name for e in used])"
    )
    call = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [unused.name, "|", bars.path.name]
    assert len(bars.read(0, 5)["close"]) == 5
    path = bars.path
    del bars
    removed, used = clear_caches(folder)
    assert ([entry.path for entry in removed], used) == ([path], [])


@pytest.mark.slow
def test_builds_that_are_cleared_all_the_time_end_well(csv, tmp_path):
    folder = tmp_path / ".grandbatch" / "bars"
    ended = threading.Event()

    def clear():
        while not ended.is_set():
            clear_caches(folder)
            time.sleep(0.002)

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        for number in range(6):
            gb.build_store(csv, tmp_path / f"{number}.zarr", durable=False)
    finally:
        ended.set()
        thread.join()
    first = contents(tmp_path / "0.zarr")
    assert all(contents(tmp_path / f"{number}.zarr") == first for number in range(6))


def test_a_killed_clear_leaves_nothing_that_the_next_look_does_not_remove(
    csv, tmp_path, monkeypatch
):
    folder = tmp_path / ".grandbatch" / "bars"
    path = prepare_bars(csv, folder, BarRules(), HERE).path

    class Killed(BaseException):
        pass

    def die(*args, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(keeping.shutil, "rmtree", die)
        with pytest.raises(Killed):
            clear_caches(folder)
    assert open_bars(path) is None
    assert len(list(folder.glob(".removed-*"))) == 1
    clear_caches(folder)
    assert [entry.name for entry in folder.iterdir()] == ["inputs"]


def test_locks_lie_in_their_folder_and_do_not_pile_up(tmp_path):
    for number in range(5):
        csv = write_bars(tmp_path / f"{number}.csv", 300, seed=number)
        gb.build_store(csv, tmp_path / "s.zarr", overwrite=True, durable=False)
    locks = sorted(path.name for path in (tmp_path / ".grandbatch" / "locks").iterdir())
    assert locks == ["bars.lock", "s.zarr.lock"]
    assert not list((tmp_path / ".grandbatch" / "bars").glob("*.lock"))


def test_locks_of_a_killed_process_go_with_the_next(csv, tmp_path):
    folder = tmp_path / ".grandbatch" / "bars"
    code = (
        "import os, sys, signal; from grandbatch.bars import prepare_bars;"
        "bars = prepare_bars(sys.argv[1], sys.argv[2]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(csv), str(folder)], check=False)
    left = list(keeping.locks_folder(folder).glob("bars-use-*"))
    assert len(left) == 1
    bars = prepare_bars(csv, folder, BarRules(), HERE)
    assert left[0] not in set(keeping.locks_folder(folder).iterdir())
    assert bars.n_rows
    assert cache.open_bars(bars.path) is not None
    assert isinstance(bars.path, Path)


def test_a_cache_on_a_read_only_disk_is_used(csv, tmp_path):
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    ):
        pytest.skip("no mount namespaces here")
    folder = tmp_path / "shared"
    path = prepare_bars(csv, folder, BarRules(), HERE).path
    script = f'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec "$@"'
    code = (
        "import sys; from grandbatch.bars import building, prepare_bars;"
        "building.build_bars = None;"
        "print(prepare_bars(sys.argv[1], sys.argv[2]).path)"
    )
    call = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", code]
    done = subprocess.run(
        [*call, str(csv), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(path)
