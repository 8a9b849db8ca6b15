"""Run the notebooks and keep their outputs, each under the digest of the cells that made them.

python notebooks/make.py [NAME …]
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def cells_digest(notebook: Any) -> str:
    """Sha256 of a notebook's code."""
    code = (cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return hashlib.sha256("\0".join("".join(source) for source in code).encode()).hexdigest()


def make(path: Path) -> None:
    """Run a notebook from top to bottom and write it anew."""
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": FOLDER}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "outputs_of": cells_digest(notebook),
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    names = sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    for name in names:
        make(FOLDER / f"{name}.ipynb")
