"""The notebooks run from top to bottom, and are kept with the outputs of their own cells."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def cells_digest(notebook):
    """Sha256 of a notebook's code, as `notebooks/make.py` notes it."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def test_there_is_one_for_each_trainer_and_one_to_begin_with():
    teams = ("hierarchical", "strategic", "tactical")
    wanted = {"quickstart", *(f"{team}_mappo_training" for team in teams)}
    assert {path.stem for path in NOTEBOOKS} == wanted


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_the_outputs_of_the_cells_that_it_has(path):
    """`make notebooks` runs them anew."""
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["outputs_of"] == cells_digest(notebook)
    assert path.stat().st_size < 500_000
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert all(len(picture["metadata"]["image/png"]["alt"]) > 20 for picture in pictures)
    assert not [output for output in outputs if output["output_type"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    pytest.importorskip("nbmake")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        str(path),
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "-o", "addopts="], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
