"""Commands that look after things, and settings from flags, variables, a file and defaults."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.cli import main
from grandbatch.cli.main import app

BAD = {
    21: ("ohlc_inconsistent", "2024-01-01T01:35,S0,5,4,6,5,1"),
    31: ("unparseable", "2024-01-01T02:25,S0,[red]x,1,1,1,1"),
    41: ("ohlc_inconsistent", "2024-01-01T03:15,S0,5,4,6,5,1"),
}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in this process; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("grandbatch").level
    handlers = logging.getLogger().handlers[:]

    def run_it(*arguments, **variables):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["grandbatch", *map(str, arguments)])
            for name, value in variables.items():
                patch.setenv(name, str(value))
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    yield run_it
    logging.getLogger("grandbatch").setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def store(tmp_path):
    """A store of bars of which three rows are none."""
    path = write_bars(tmp_path / "b.csv", 400)
    lines = path.read_text().splitlines()
    for line, (_, text) in BAD.items():
        lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    return gb.build_store(path, tmp_path / "s.zarr", durable=False)


def as_json(result, code=0):
    assert result[0] == code, result[2]
    return json.loads(result[1])


def error(result, code):
    assert result[0] == code
    assert result[1] == ""
    assert result[2].startswith("error: ")
    assert result[2].count("\n") == 1
    return result[2]


def test_quarantine_lists_each_bad_row_by_store_folder_or_cache(run, store):
    expected = [
        {"file": "b.csv", "line": line, "text": text, "reason": reason}
        for line, (reason, text) in BAD.items()
    ]
    (cache,) = (store.path.parent / ".grandbatch" / "bars").glob("*/quarantine.parquet")
    for place in (store.path, store.path.parent, cache.parent, cache.parent.parent):
        found = as_json(run("quarantine", place, "--json"))
        assert found == {
            "rows": expected,
            "by_reason": {"ohlc_inconsistent": 2, "unparseable": 1},
            "total": 3,
        }
    found = as_json(run("quarantine", store.path, "--reason", "ohlc_inconsistent", "--limit", 1,
                        "--json"))  # fmt: skip
    assert found["rows"] == expected[:1]
    assert "[red]x" in run("quarantine", store.path)[1]
    assert "ohlc_inconsistent" in error(run("quarantine", store.path, "--reason", "late"), 2)


def test_a_cache_is_listed_with_its_stores_and_cleared(run, store):
    write_bars(Path("other.csv"), 200)
    gb.build_store("other.csv", "other.zarr", feature_set="tactical", durable=False)
    listed = as_json(run("cache", "list", "--json"))
    assert sorted((c["stores"], c["inputs"], c["n_rows"]) for c in listed["caches"]) == [
        (["other.zarr"], ["other.csv"], 200),
        (["s.zarr"], ["b.csv"], 397),
    ]
    on_disk = [p.stat().st_size for c in listed["caches"] for p in Path(c["path"]).rglob("*.*")
               if p.is_file()]  # fmt: skip
    assert listed["bytes"] == sum(on_disk)
    (own,) = (c for c in listed["caches"] if c["stores"] == ["s.zarr"])
    assert own["last_time"].replace("+00:00", "Z") in run("cache", "list")[1]
    error(run("cache", "clear", "--only", "no-such"), 2)
    cleared = as_json(run("cache", "clear", "--only", own["fingerprint"][:8], "--json"))
    assert cleared == {"removed": [own["fingerprint"]], "bytes": own["bytes"]}
    assert not Path(own["path"]).exists()
    assert store.verify().ok
    assert "bad rows aren't there any more" in error(run("quarantine", store.path), 1)
    assert len(as_json(run("cache", "clear", "--json"))["removed"]) == 1
    assert as_json(run("cache", "list", "--json")) == {"caches": [], "bytes": 0}
    again = gb.build_store("b.csv", "again.zarr", durable=False)
    assert again.fingerprint == store.fingerprint


def test_report_writes_the_page_and_tells_where(run, store):
    told = as_json(run("report", store.path, "-o", "pages/r.html", "--json"))
    assert told == {"path": "pages/r.html", "bytes": Path("pages/r.html").stat().st_size}
    assert "no folder" in error(run("report", store.path, "--checkpoint-dir", "none"), 2)


def test_doctor_sees_versions_limits_and_the_disk(run):
    found = as_json(run("doctor", "--json"))
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["versions"]["grandbatch"] == gb.__version__
    limits = [limit["limit_bytes"] for limit in found["limits"]["memory"]]
    assert limits == sorted(limits)
    assert found["limits"]["cores"] == len(os.sched_getaffinity(0))
    assert min(found["disk"].values()) > 0
    assert list(Path().iterdir()) == []
    assert "can't be written" in error(run("doctor", "--folder", "none"), 2)


def test_doctor_reports_in_a_folder_that_cannot_be_written(run):
    code, out, err = run("doctor", "--folder", "/proc", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["disk"] == {}
    assert found["versions"]["grandbatch"] == gb.__version__
    assert "/proc can't be written" in found["problems"][0]
    assert "/proc can't be written" in err
    code, out, err = run("doctor", "--folder", "/proc")
    assert code == 1
    assert gb.__version__ in out
    assert err.startswith("error: /proc can't be written")


@pytest.mark.slow
def test_doctor_tries_a_cluster(run):
    from distributed import LocalCluster

    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1"}
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, **options) as up:
        found = as_json(run("doctor", "--scheduler", up.scheduler_address, "--json"))
        address = up.scheduler_address
    assert (found["cluster"]["workers"], found["cluster"]["threads"]) == (1, 2)
    assert found["cluster"]["different"] == {}
    code, out, err = run("doctor", "--scheduler", address, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert "no scheduler answers" in err.splitlines()[-1]


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(run):
    def rows(*flags, **variables):
        return as_json(run("simulate", "b.csv", *flags, "--json", **variables))["rows"]

    own, shared = "GRANDBATCH_SIMULATE_ROWS", "GRANDBATCH_ROWS"
    file = Path("grandbatch.yaml")
    file.write_text("rows: 10\n")
    assert rows() == 10
    file.write_text("rows: 10\nsimulate:\n  rows: 20\n")
    assert rows() == 20
    assert rows(**{shared: 30}) == 30
    assert rows(**{shared: 30, own: 40}) == 40
    assert rows("--rows", 50, **{shared: 30, own: 40}) == 50
    Path("other.yml").write_text("simulate: {rows: 60}")
    assert rows(GRANDBATCH_CONFIG="other.yml") == 60
    file.unlink()
    assert rows(GRANDBATCH_SEED=1) == 100_000


def test_config_tells_every_setting_and_where_it_comes_from(run):
    Path("grandbatch.yaml").write_text("layout: rows\nbuild: {memory-limit: 2GiB}\n")
    found = as_json(run("config", "build", "--json", GRANDBATCH_BUILD_CODEC="lz4"))
    assert found["file"] == "grandbatch.yaml"
    told = {s["flag"]: (s["value"], s["source"]) for s in found["settings"]}
    assert told["--layout"] == ("rows", "grandbatch.yaml")
    assert told["--memory-limit"] == ("2GiB", "grandbatch.yaml")
    assert told["--codec"] == ("lz4", "$GRANDBATCH_BUILD_CODEC")
    assert told["--engine"] == ("auto", "default")
    assert {s["command"] for s in found["settings"]} == {"build"}
    assert "--store" in told
    all_set = as_json(run("config", "--json"))["settings"]
    assert [(s["command"], s["flag"]) for s in all_set] == [
        ("plan", "--layout"), ("build", "--layout"), ("build", "--memory-limit"),
        ("watch", "--layout"),
    ]  # fmt: skip
    assert "no command is called" in error(run("config", "bild"), 2)


def test_the_file_sets_flags_and_lists_of_commands_in_groups(run, store):
    Path("grandbatch.yaml").write_text("cache: {list: {json: true}}\nbuild: {columns: low=Llow}\n")
    assert len(as_json(run("cache", "list"))["caches"]) == 1
    path = Path("b2.csv")
    path.write_text(write_bars(path, 300).read_text().replace("low", "Llow", 1))
    assert run("build", "strategic", path, "--store", "s2.zarr")[0] == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bild: {layout: rows}", "did you mean build?"),
        ("build: {layot: rows}", "did you mean layout?"),
        ("layot: rows", "did you mean layout?"),
        ("cache: {lst: {}}", "did you mean list?"),
        ("cache: {list: 5}", "below it stand its flags"),
        ("build: {layout: [rows, windows]}", "wants one value"),
        ("[1, 2]", "names and values"),
        ("rows: [1", "no YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(run, text, problem):
    Path("grandbatch.yaml").write_text(text)
    assert problem in error(run("simulate", "b.csv", "--rows", 5), 2)
    assert not Path("b.csv").exists()


def test_a_file_that_is_not_there_is_an_error_only_where_it_was_asked_for(run):
    assert run("--config", "none.yaml", "simulate", "b.csv", "--rows", 5)[0] == 2
    assert run("simulate", "b.csv", "--rows", 5)[0] == 0


def test_quiet_says_nothing_and_verbose_says_no_less(run):
    write_bars(Path("b.csv"), 300)
    build = ("build", "strategic", "b.csv", "--json", "--store")
    assert run("--quiet", *build, "q.zarr")[2] == ""
    assert "writing chunks" in run("-v", *build, "v.zarr")[2]
    assert error(run("-q", "inspect", "none.zarr"), 1)


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_has_help_with_an_example():
    from typer.main import get_command

    for path, command in commands(get_command(app)):
        assert f"Example: grandbatch {' '.join(path)}" in command.help, path
        assert all(p.help for p in command.params), path


def test_shells_complete_commands():
    code = "import sys; sys.argv[0] = 'grandbatch'; from grandbatch.cli import main; main()"
    asked = {
        "_GRANDBATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "grandbatch qua",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == ["quarantine"]


def test_no_colour_is_written_where_none_is_wanted(store):
    arguments = [sys.executable, "-m", "grandbatch", "inspect", str(store.path)]
    plain = {**os.environ, "FORCE_COLOR": "1", "NO_COLOR": "1"}
    done = subprocess.run(arguments, env=plain, capture_output=True, text=True, check=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", done.stdout)
