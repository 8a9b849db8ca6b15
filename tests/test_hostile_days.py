"""Traps for the user, and numbers that are none: one line each, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import GrandbatchError, KernelError, UsageError
from grandbatch.memory.costs import BASE_BYTES
from grandbatch.memory.limits import mapped_bytes
from grandbatch.values.texts import printable, strict_json

COMMAND = [sys.executable, "-m", "grandbatch"]
ESCAPE = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
UNSAFE = ("\x1b", "\x07", "\x9b", "\u202e")


def run(*arguments, folder, **options):
    environment = {
        **os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1]), "FORCE_COLOR": "",
        "TERM": "dumb",
    }  # fmt: skip
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, timeout=120,
        check=False, **options,
    )  # fmt: skip


def in_one_line(ran, code=1):
    told = ran.stderr.decode("utf-8", "replace").strip().splitlines()
    assert ran.returncode == code, ran.stderr.decode()[-2000:]
    assert "Traceback" not in "".join(told)
    assert told[-1].startswith("error: ")
    return told[-1]


@pytest.mark.parametrize("engine", ["direct", "overlap"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_at_build_by_feature_symbol_and_time(tmp_path, engine, value):
    def odd(close, first, out):
        for k in range(len(out)):
            out[k] = value if close[first + k] > 0 and first + k == 57 else 1.0

    source = write_bars(tmp_path / "b.csv", 400)
    mine = gb.FeatureSet("mine", (gb.Feature("odd", 0, odd, ("close",)),), 4, 0)
    wanted = r"feature odd of mine is (nan|-?inf) for .* at .* UTC, and a store holds finite"
    with pytest.raises(KernelError, match=wanted):
        gb.build_store(
            source, tmp_path / "s.zarr", feature_set=mine, engine=engine, scheduler="sync",
            durable=False, check=False,
        )  # fmt: skip
    assert not (tmp_path / "s.zarr").exists()


def test_json_is_strict_whatever_the_values():
    told = strict_json({"a": float("nan"), "b": [float("inf"), 1], "c": {"d": -np.inf}, "e": "NaN"})

    def refuse(name):
        raise ValueError(name)

    assert json.loads(told, parse_constant=refuse) == {
        "a": None, "b": [None, 1], "c": {"d": None}, "e": "NaN",
    }  # fmt: skip


def test_the_metadata_of_stores_is_strict_json(make_store):
    store = make_store(300, name="s.zarr")

    def refuse(name):
        raise ValueError(name)

    for path in store.path.rglob("*.json"):
        json.loads(path.read_bytes(), parse_constant=refuse)


@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_kept_inside_a_store(make_store, tmp_path, link):
    store = make_store(300, name="s.zarr")
    inside = store.path / "kept"
    if link:
        (tmp_path / "elsewhere").symlink_to(store.path)
        inside = tmp_path / "elsewhere" / "kept"
    around = tmp_path / "x" / ".." / "s.zarr" / "." / "deep" / "er"
    (store.path / "out").symlink_to(tmp_path / "outside")
    source = tmp_path / "bars-300-1-0.csv"
    for place in (inside, around, store.path, store.path / "out"):
        for keep in (
            lambda place=place: gb.CheckpointManager(place, content_id="x"),
            lambda place=place: gb.build_store(source, tmp_path / "t.zarr", cache=place),
        ):
            with pytest.raises(UsageError, match=r"inside the store .*"):
                keep()
    with pytest.raises(UsageError, match=r"inside the store"):
        gb.build_store(source, inside / "t.zarr")
    gb.CheckpointManager(store.path / ".." / "checkpoints", content_id="x")
    ran = run(
        "train", "strategic", "--store", "s.zarr", "--checkpoint-dir", "c", "--trace",
        "s.zarr/trace", folder=tmp_path,
    )  # fmt: skip
    assert "the trace (--trace) can't be at s.zarr/trace" in in_one_line(ran, 2)


def test_what_a_terminal_would_obey_is_written_out():
    assert printable(f"a{ESCAPE}\udcff\tb\n") == (
        "a\\x1b]0;owned\\x07\\x1b[31m\\x9b2J\\u202e\\udcff\tb\n"
    )
    assert not any(one in str(GrandbatchError(ESCAPE)) for one in UNSAFE)


@pytest.mark.slow
def test_escape_sequences_in_data_never_reach_a_terminal(tmp_path):
    source = write_bars(tmp_path / "b.csv", 400, symbols=2)
    lines = source.read_text().splitlines()
    symbols = {line.split(",")[1] for line in lines[1:]}
    changed = "\n".join(lines).replace(min(symbols), f"A{ESCAPE}")
    source.write_text(changed + "\n" + f"{ESCAPE},{ESCAPE},1,1,1,1,1\n" * 3)
    headed = tmp_path / "h.csv"
    headed.write_text(changed.replace("high", f"hi{ESCAPE}", 1))
    hostile = tmp_path / f"n{ESCAPE}.csv"
    hostile.write_text("timestamp,open\n1,2\n")
    for arguments in (
        ("build", "strategic", "b.csv", "--store", "s.zarr", "--max-bad-fraction", "0.5"),
        ("inspect", "s.zarr"),
        ("quarantine", "s.zarr"),
        ("cache", "list"),
        ("verify", "s.zarr"),
        ("plan", "strategic", "b.csv", "--store", "t.zarr"),
        ("build", "strategic", "b.csv", "--store", "u.zarr", "--on-bad-rows", "raise"),
        ("build", "strategic", "b.csv", "--store", "u.zarr", "--max-bad-fraction", "0"),
        ("build", "strategic", "h.csv", "--store", "u.zarr"),
        ("build", "strategic", hostile.name, "--store", "u.zarr"),
        ("inspect", f"no{ESCAPE}.zarr"),
        ("build", f"set{ESCAPE}", "b.csv", "--store", "u.zarr", f"--codec=x{ESCAPE}"),
        ("report", "s.zarr", "-o", "report.html"),
    ):
        ran = run(*arguments, folder=tmp_path)
        told = (ran.stdout + ran.stderr).decode("utf-8", "replace")
        assert told.strip()
        assert "Traceback" not in told, told
        assert not any(one in told for one in UNSAFE), (arguments, told)
    page = (tmp_path / "report.html").read_text()
    assert not any(one in page for one in UNSAFE)


@pytest.mark.slow
def test_file_names_that_are_no_utf8_take_one_line_or_work(tmp_path):
    write_bars(tmp_path / "b.csv", 400)
    odd = os.fsencode(tmp_path) + b"/b\xff.csv"
    Path(os.fsdecode(odd)).parent.joinpath("b.csv").rename(os.fsdecode(odd))
    for arguments in (
        ("build", "strategic", b"b\xff.csv", "--store", "s.zarr"),
        ("inspect", "s.zarr"),
        ("inspect", "s.zarr", "--json"),
        ("cache", "list"),
        ("quarantine", "s.zarr"),
        ("report", "s.zarr", "-o", "r.html"),
        ("inspect", b"no\xff.zarr"),
        ("build", "strategic", b"none\xff.csv", "--store", "t.zarr"),
        ("build", "strategic", b"b\xff.csv", "--store", b"t\xff.zarr"),
    ):
        ran = run(*arguments, folder=tmp_path)
        assert b"Traceback" not in ran.stderr, ran.stderr.decode("utf-8", "replace")
        if ran.returncode:
            in_one_line(ran, ran.returncode)


def limited(which, value):
    return lambda: resource.setrlimit(which, (value, value))


@pytest.mark.slow
def test_a_limit_of_file_sizes_takes_one_line(tmp_path):
    write_bars(tmp_path / "b.csv", 20_000)
    for arguments in (
        ("simulate", "large.csv", "--rows", "100000"),
        ("build", "strategic", "b.csv", "--store", "s.zarr"),
        ("build", "strategic", "b.csv", "--store", "s.zarr", "--overlap", "40", "--codec", "none"),
    ):
        ran = run(*arguments, folder=tmp_path, preexec_fn=limited(resource.RLIMIT_FSIZE, 300_000))
        assert "ulimit -f" in in_one_line(ran)


@pytest.mark.parametrize("megabytes", [600, 700, 1000, 1150])
@pytest.mark.parametrize("command", ["build", "plan"])
def test_an_address_space_too_small_for_the_libraries_is_told_before_anything_starts(
    tmp_path, megabytes, command
):
    write_bars(tmp_path / "b.csv", 400)
    ran = run(
        command, "strategic", "b.csv", "--store", "s.zarr", folder=tmp_path,
        preexec_fn=limited(resource.RLIMIT_AS, megabytes * 2**20),
    )  # fmt: skip
    said = in_one_line(ran)
    assert f"the address space is limited to {megabytes * 2**20:,} bytes" in said
    assert len(ran.stderr.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["b.csv"]


@pytest.mark.slow
def test_an_address_space_too_small_for_the_run_is_told_before_it_and_what_would_fit_fits(tmp_path):
    write_bars(tmp_path / "b.csv", 20_000)

    def build(kilobytes):
        limit = limited(resource.RLIMIT_AS, kilobytes * 2**10)
        arguments = ("build", "strategic", "b.csv", "--store", "s.zarr")
        return run(*arguments, folder=tmp_path, preexec_fn=limit)

    said = in_one_line(build((BASE_BYTES + mapped_bytes()) // 2**10 + 4096))
    while fits := re.search(r"ulimit -v (\d+) would fit", said):
        assert not (tmp_path / "s.zarr").exists()
        ran = build(int(fits[1]))
        said = in_one_line(ran) if ran.returncode else ""
    assert ran.returncode == 0
    assert len(gb.MatrixStore.open(tmp_path / "s.zarr")) > 500


@pytest.mark.slow
def test_a_limit_of_address_space_takes_one_line(tmp_path):
    write_bars(tmp_path / "b.csv", 20_000)
    ran = run(
        "build", "strategic", "b.csv", "--store", "s.zarr", folder=tmp_path,
        preexec_fn=limited(resource.RLIMIT_AS, 1400 * 2**20),
    )  # fmt: skip
    if ran.returncode and not ran.stderr.endswith(b"thread-local data: ABORT\n"):  # of libc itself
        in_one_line(ran)


@pytest.mark.slow
def test_a_trace_on_a_full_disk_and_output_to_one_take_one_line(make_store, tmp_path):
    make_store(300, overlap=12, name="s.zarr")
    ran = run(
        "train", "strategic", "--store", "s.zarr", "--checkpoint-dir", "c", "--trace", "/dev/full",
        folder=tmp_path,
    )  # fmt: skip
    assert "/dev/full" in in_one_line(ran)
    environment = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [*COMMAND, "inspect", "s.zarr", "--json"], cwd=tmp_path, env=environment, stdout=full,
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert "No space left" in in_one_line(told)
