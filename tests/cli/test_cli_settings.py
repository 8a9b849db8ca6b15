"""What reaches other machines, or runs code, is only taken from files that the user chose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import grandbatch as gb

OUTWARD = [
    "scheduler: tcp://10.0.0.1:8786",
    "build: {scheduler: 'evil:8786'}",
    "doctor: {scheduler: tls://10.0.0.1:8786}",
    "cache: s3://key:secret@bucket/c",
    "store: s3://bucket/s.zarr",
    "store: 'simplecache::https://evil/s.zarr'",
    "train: {init-from: 'memory://x'}",
    "build: {columns: ['low=Llow', 'ftp://a/b']}",
    "codec: evil:SET",
    "codec: ./evil.py:SET",
]


@pytest.fixture
def run(tmp_path):
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()

    def run(*arguments, **variables):
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GRANDBATCH_", "XDG_"))},
            "PYTHONPATH": str(Path(gb.__file__).parents[1]), "HOME": str(home), **variables,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "grandbatch", *arguments], cwd=work, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    run.home, run.work = home, work
    return run


@pytest.mark.slow
@pytest.mark.parametrize("text", OUTWARD)
def test_a_file_that_only_lies_in_the_working_folder_reaches_nobody_and_runs_nothing(run, text):
    (run.work / "grandbatch.yaml").write_text(text)
    for command in (("config",), ("simulate", "x.csv", "--rows", "10")):
        ran = run(*command)
        assert ran.returncode == 2
        assert "only found in the working folder" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert "secret" not in ran.stderr
    assert not (run.work / "x.csv").exists()
    for given in (
        ("--config", "grandbatch.yaml", "config"),
        ("config", "--config=grandbatch.yaml"),
    ):
        assert run(*given).returncode == 0
    assert run("config", GRANDBATCH_CONFIG="grandbatch.yaml").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("place", [".config/grandbatch/grandbatch.yaml", "grandbatch.yaml"])
def test_the_home_is_the_users_own_and_config_tells_each_values_source(run, place):
    file = run.home / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("scheduler: tcp://10.0.0.1:8786\nlayout: rows\ncodec: lz4\n")
    (run.work / "grandbatch.yaml").write_text("codec: zstd\nscheduler: threads\n")

    def told(*flags, **variables):
        ran = run("config", "build", "--json", *flags, **variables)
        assert ran.returncode == 0, ran.stderr
        return {s["flag"]: (s["value"], s["source"]) for s in json.loads(ran.stdout)["settings"]}

    found = told()
    assert found["--layout"] == ("rows", str(file))
    assert found["--codec"] == ("zstd", "grandbatch.yaml")
    assert found["--scheduler"] == ("threads", "grandbatch.yaml")
    assert found["--engine"] == ("auto", "default")
    (run.work / "grandbatch.yaml").unlink()
    assert told()["--scheduler"] == ("tcp://10.0.0.1:8786", str(file))
    (run.work / "mine.yaml").write_text("codec: none\n")
    found = told("--config", "mine.yaml", GRANDBATCH_BUILD_LAYOUT="windows")
    assert found["--codec"] == ("none", "mine.yaml")
    assert found["--layout"] == ("windows", "$GRANDBATCH_BUILD_LAYOUT")


@pytest.mark.slow
def test_config_is_taken_before_or_after_any_command(run):
    (run.work / "mine.yaml").write_text("simulate: {rows: 7}\ncache: {list: {json: true}}\n")
    for given in (
        ("--config", "mine.yaml", "simulate", "x.csv", "--json"),
        ("simulate", "--config", "mine.yaml", "x.csv", "--json"),
        ("simulate", "x.csv", "--json", "--config=mine.yaml"),
    ):
        ran = run(*given)
        assert json.loads(ran.stdout)["rows"] == 7, ran.stderr
    ran = run("cache", "list", "--config", "mine.yaml")
    assert json.loads(ran.stdout)["caches"] == []
    ran = run("simulate", "x.csv", "--config", "none.yaml")
    assert ran.returncode == 2
    assert "there is no file of settings none.yaml" in ran.stderr
    assert run("simulate", "--help").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 3000 + "]" * 3000,
        "a: &a [x]\nmemory-limit: *a",
        "build: &b {columns: *b}",
        "a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{x: *a, y: *a}}\n" for i in range(3)),
        "memory-limit: !!timestamp 2001-99-99",
        "sort: true\nsort: false",
        "build: {chunk-windows: 8, chunk_windows: 9}",
        "\ufffe",
    ],
)
def test_a_text_that_is_no_settings_takes_one_line(run, text):
    (run.work / "grandbatch.yaml").write_text(text)
    ran = run("config")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1), ran.stderr
    assert len(ran.stderr) < 500


def test_values_are_taken_as_they_are_written(run):
    """YAML's own reading makes False of a symbol NO, 448 of 0700, and 5400 of 1:30:00."""
    (run.work / "grandbatch.yaml").write_text(
        "build: {symbol: NO, resample: 1:30:00, header: yes, sort: ~, extra: [on, 0700]}\n"
    )
    ran = run("config", "--json")
    assert ran.returncode == 0, ran.stderr
    found = {one["flag"]: one["value"] for one in json.loads(ran.stdout)["settings"]}
    assert found == {
        "--symbol": "NO", "--resample": "1:30:00", "--header": "yes", "--extra": ["on", "0700"],
    }  # fmt: skip
