"""What people read: whole flags and words at 80 columns, their units, and nothing when quiet."""

from __future__ import annotations

import errno
import json
import re

import pytest
import typer.main
from crash_server import CrashServer
from simulated import write_bars

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.cli.output import explain
from grandbatch.files.objects import WireError

SERVER = CrashServer("grandbatch.doctor")
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module", autouse=True)
def server():
    with SERVER:
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shown")
    write_bars(path / "bars.csv", 600)
    gb.build_store(path / "bars.csv", path / "s.zarr")
    return path


def run(*arguments):
    done = SERVER.run([str(argument) for argument in arguments])
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"cache"}))
def test_help_has_every_flag_whole_and_lines_of_at_most_80(name):
    text = run(name, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text.replace("path.py:NAME, …", "")
    for option in COMMANDS[name].params:
        for flag in option.opts if option.param_type_name == "option" else ():
            assert re.search(rf"{re.escape(flag)}\b", text), flag
    # beside the flags there is room to read
    widths = [len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()]
    assert max(widths) <= 34


def test_the_list_of_commands_says_what_each_does_to_the_end():
    cache, text = (" ".join(run(*group, "--help").out.split()) for group in (("cache",), ()))
    for shown in (cache, text):
        assert "..." not in shown.replace("[ARGS]...", "")
    for command in COMMANDS.values():
        if command.short_help:
            assert command.short_help in text


def test_plans_and_stores_are_shown_in_peoples_units_and_raw_as_json(folder):
    plan = ("plan", "strategic", folder / "bars.csv", "--store", folder / "x.zarr")
    raw = json.loads(run(*plan, "--json").out)
    shown = run(*plan).out
    assert isinstance(raw["limit_bytes"], int)
    assert re.search(rf"limit_bytes +{raw['limit_bytes'] / 1e9:.3g} GB", shown)
    assert re.search(r"disk_bytes +\d.* kB", shown)
    assert re.search(r"expected_seconds +\d.* s", shown)
    assert raw["expected_from"].startswith("the 1 build(s) recorded")
    assert raw["disk_free_bytes"] > 0
    inspected = run("inspect", folder / "s.zarr").out
    assert re.search(r"max_gap_ns +no limit", inspected)
    assert re.search(r"bar_duration +\d+ (min|s)\s", inspected)


def test_inspect_names_twenty_of_many_inputs_and_symbols_and_all_as_json(tmp_path):
    (tmp_path / "bars").mkdir()
    for number in range(24):
        write_bars(tmp_path / "bars" / f"N{number:02}.csv", 100)
    store = tmp_path / "s.zarr"
    run("build", "strategic", tmp_path / "bars", "--store", store, "--symbol-from", "filename")
    shown = " ".join(run("inspect", store).out.split())
    assert re.search(r" symbols N00, .* N19, and 4 more \(all by --json\)", shown)
    assert re.search(r" source N00\.csv .* N19\.csv \([\d,]+ bytes\), and 4 more", shown)
    raw = json.loads(run("inspect", store, "--json").out)
    assert len(raw["symbols"]) + len(raw["symbols_without_windows"]) >= 24
    assert len(raw["source"]) == 24


@pytest.mark.parametrize(("layout", "codec"), [("windows", "none"), ("rows", "none")])
def test_a_plans_disk_space_is_that_of_the_build(tmp_path, layout, codec):
    bars, store = write_bars(tmp_path / "bars.csv", 4000), tmp_path / "s.zarr"
    flags = ("strategic", bars, "--store", store, "--layout", layout, "--codec", codec)
    planned = json.loads(run("plan", *flags, "--overlap", 47, "--json").out)["disk_bytes"]
    run("build", *flags, "--overlap", 47)
    cache = tmp_path / ".grandbatch" / "bars"
    files = [path for part in (store, cache) for path in part.rglob("*") if path.is_file()]
    assert 0.8 < sum(path.stat().st_size for path in files) / planned < 1.3


def test_a_title_is_never_broken_inside_a_word(folder, tmp_path):
    long = tmp_path / ("a-folder-with-a-rather-long-name-" * 4) / "s.zarr"
    gb.build_store(folder / "bars.csv", long)
    assert str(long) in run("verify", long).out
    assert str(long) in run("inspect", long).out


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("simulate", "made.csv", "--rows", "500"),
        ("plan", "strategic", "bars.csv", "--store", "x.zarr"),
        ("build", "strategic", "bars.csv", "--store", "s.zarr"),
        ("inspect", "s.zarr"),
        ("verify", "s.zarr"),
        ("stream", "s.zarr"),
        ("report", "s.zarr", "-o", "r.html"),
        ("quarantine", "s.zarr"),
        ("doctor",),
        ("config",),
        ("features",),
    ],
)
def test_quiet_prints_nothing_but_errors(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    here = [str(folder / part) if "." in part else part for part in command]
    done = run(*here, "-q")
    assert (done.out, done.err) == ("", "")
    if command[0] not in ("features",):
        assert json.loads(run(*here, "-q", "--json").out)


@pytest.mark.slow
def test_doctor_says_which_gpus_there_are_or_that_there_is_none(monkeypatch, folder):
    import torch

    from grandbatch import doctor

    if not torch.cuda.is_available():
        assert "none that torch can use" in run("doctor", "--folder", folder).out
        assert json.loads(run("doctor", "--folder", folder, "--json").out)["gpus"] == []
    properties = type("Properties", (), {"name": "H200", "total_memory": 150_000_000_000})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    assert doctor.gpus() == [{"name": "H200", "memory_bytes": 150_000_000_000}]


def test_what_fails_at_a_url_is_told_with_a_remedy_for_urls():
    wire = WireError("s3://b/x: no whole answer in 38 s and 13 tries (reset); try again")
    assert explain(wire) == f"{wire}; what was finished is kept"
    refused = PermissionError(errno.EACCES, "the server refuses (AccessDenied)", "s3://b/x")
    assert explain(refused) == (
        "s3://b/x: the server refuses (AccessDenied); check the URL and what the credentials "
        "allow, and run the same command again"
    )
    assert explain(PermissionError(errno.EACCES, "Permission denied", "/x")) == (
        "/x: Permission denied; give another path, or check its rights"
    )
