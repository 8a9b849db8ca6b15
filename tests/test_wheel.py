"""What is built from the tree installs clean, and works where nothing of the tree is in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from trove_classifiers import classifiers

import grandbatch as gb

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
slow = pytest.mark.slow


def run(*command, cwd, **variables):
    """Run without this tree on the path; return stdout."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    call = [str(part) for part in command]
    done = subprocess.run(
        call, cwd=cwd, env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    return done.stdout


def build(kind, tree, target):
    """Build a wheel or an sdist of a tree, without a network."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=tree)
    (made,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; the requirements come from the one that tests run in."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)
    # only now: pip would take a wheel that is installed there for this one. Folders on the path,
    # whose own .pth files (an editable install's) aren't followed
    there = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "requirements.pth").write_text("\n".join([*there, ""]))
    return folder / "bin"


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


@slow
def test_the_wheel_holds_the_whole_library_and_nothing_else(wheel):
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "grandbatch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"grandbatch-{gb.__version__}.dist-info"
    beside = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert contents(wheel).keys() == here | beside | {f"{info}/licenses/LICENSE"}
    assert "grandbatch/py.typed" in here


@slow
def test_the_sdist_gives_the_same_wheel(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "tests/test_wheel.py"):
        assert (tree / name).is_file(), name
    (tmp_path / "again").mkdir()
    assert contents(build("wheel", tree, tmp_path / "again")) == contents(wheel)


@slow
def test_what_is_installed_is_the_wheel_under_the_version_of_the_tree(environment, tmp_path):
    ask = "import grandbatch, importlib.metadata as m; print(grandbatch.__file__, m.version('{}'))"
    file, version = run(
        environment / "python", "-c", ask.format("grandbatch"), cwd=tmp_path
    ).split()
    assert Path(file).is_relative_to(environment.parent)
    assert version == gb.__version__


@slow
def test_both_ways_to_call_it_give_the_same_help(environment, tmp_path):
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    by_name = run(environment / "grandbatch", "--help", cwd=tmp_path, **wide)
    as_module = run(environment / "python", "-m", "grandbatch", "--help", cwd=tmp_path, **wide)
    assert "simulate" in by_name
    as_module = as_module.replace("python -m grandbatch", "grandbatch")
    assert as_module.split() == by_name.split()  # lines are padded to the width


@slow
def test_the_installed_commands_simulate_build_and_inspect(environment, tmp_path):
    def call(*words):
        command = (environment / "python", "-m", "grandbatch", *words, "--json")
        return json.loads(run(*command, cwd=tmp_path))

    assert call("simulate", "bars.csv", "--rows", "2000")["rows"] == 2000
    built = call("build", "strategic", "bars.csv", "--store", "bars.zarr")
    assert built["n_windows"] == (2000 - 40 - 48) // 36 + 1
    assert call("inspect", "bars.zarr")["n_windows"] == built["n_windows"]


@slow
def test_the_installed_demo_runs_to_its_end(environment, tmp_path):
    words = ("demo", "--rows", "100000", "--json")
    found = json.loads(run(environment / "grandbatch", *words, cwd=tmp_path))
    names = [stage["stage"] for stage in found["stages"]]
    assert names[0] == "simulate"
    assert names[-1] == "report"
    assert (tmp_path / "demo" / "report.html").is_file()


def test_the_version_stands_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    assert gb.__version__ in (ROOT / "grandbatch" / "version.py").read_text()
    for name in ("pyproject.toml", "CITATION.cff", "grandbatch/__init__.py"):
        assert f'"{gb.__version__}"' not in (ROOT / name).read_text(), name


def test_every_classifier_is_known_and_sorted():
    chosen = PROJECT["classifiers"]
    assert set(chosen) <= classifiers
    assert chosen == sorted(chosen)


def test_the_citation_has_what_the_format_demands():
    """https://github.com/citation-file-format/citation-file-format/blob/main/schema-guide.md."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
    assert citation["license"] == PROJECT["license"]
    assert set(citation["keywords"]) == set(PROJECT["keywords"])
