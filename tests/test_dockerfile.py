"""The steps of the Dockerfile, in a fresh environment and folder: no image is built here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def instructions():
    """The Dockerfile's instructions with their words, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


@pytest.fixture
def environment(tmp_path):
    """An empty environment whose requirements come from the one that tests run in."""
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    there = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (packages / "requirements.pth").write_text("\n".join([*there, ""]))
    pip = folder / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {
        "PATH": f"{folder / 'bin'}:{kept['PATH']}",
        # nothing is fetched: what is there must be what constraints.txt wants
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round
        "PIP_CONFIG_FILE": os.devnull,
    }


def run(command, folder, variables):
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_end_in_a_command_that_builds(environment, tmp_path):
    root, folder, variables = tmp_path / "root", tmp_path / "root", environment
    for name, rest in instructions():
        if name == "ARG":
            variable, value = rest.split("=", 1)
            # as by --build-arg: without the index of wheels for CPUs
            variables = {variable: shlex.split(value)[0].split()[0], **variables}
        elif name == "WORKDIR":
            folder = root / rest.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                goal = folder / target / source if target.endswith("/") else folder / target
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, goal, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, goal)
        elif name == "RUN":
            run(["sh", "-euc", rest], folder, variables)
        else:
            assert name in ("FROM", "ENTRYPOINT"), name
    assert {path.name for path in (root / "opt" / "grandbatch").iterdir()} >= {"grandbatch"}
    assert not list(root.glob("opt/grandbatch/*.csv"))
    (entry,) = (json.loads(rest) for name, rest in instructions() if name == "ENTRYPOINT")
    run([*entry, "simulate", "bars.csv", "--rows", "500"], folder, variables)
    words = ["build", "strategic", "bars.csv", "--store", "bars.zarr", "--json"]
    assert json.loads(run([*entry, *words], folder, variables))["n_windows"] > 0
    where = ["python", "-c", "import grandbatch; print(grandbatch.__file__)"]
    assert str(tmp_path / "venv") in run(where, folder, variables)


def test_an_image_has_what_its_steps_copy_and_the_torch_of_the_constraints():
    named = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {part for name, rest in instructions() if name == "COPY" for part in rest.split()[:-1]}
    assert copied == named
    torch = re.search(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"torch==[\d.]+\d", dockerfile)) == {torch[0]}
    (base,) = (rest for name, rest in instructions() if name == "FROM")
    assert base == "python:3.11-slim", "constraints.txt is for Python 3.11"
