"""The lists of requirements agree with each other, and the project speaks of itself alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "TA-Lib": "ta-lib",
    "torch": "pytorch",
    "tzdata": "python-tzdata",  # conda's tzdata is the system's
    "universal-pathlib": "universal_pathlib",
}


def split(requirement):
    """Name, extras and the rest of a requirement."""
    name, extras, rest = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?(.*)", requirement).groups()
    return name, extras, rest


def test_the_conda_environment_names_the_same_requirements():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    listed = {line.strip()[2:] for line in lines if line.startswith("  - ")}
    extras = PROJECT["optional-dependencies"]
    wanted = {"conda-forge", "pip", f"python{PROJECT['requires-python']}"}
    for requirement in (*PROJECT["dependencies"], *extras["rl"], *extras["test"]):
        name, extra, rest = split(requirement)
        wanted.add(CONDA_NAMES.get(name, name) + rest)
        if name == "dask" and "distributed" in extra:
            wanted.add("distributed" + rest)
    assert listed == wanted


def test_every_requirement_has_an_exact_constraint():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = (r for group in PROJECT["optional-dependencies"].values() for r in group)
    for requirement in (*PROJECT["dependencies"], *extras):
        assert split(requirement)[0].lower() in pinned, requirement
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize("name", ["grandbatch", "pipelines"])
def test_modules_stay_short(name):
    for path in (ROOT / name).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path


def test_the_readme_opens_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert -1 < text.index("make demo") < text.index("make test") < 1500
