"""What the README shows runs as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_is_about_fifteen_lines():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.slow
def test_the_python_example_runs_as_written(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(1024, 48, 13)" in done.stdout.replace("torch.Size([1024, 48, 13])", "(1024, 48, 13)")


@pytest.mark.slow
def test_the_commands_run_as_written(tmp_path):
    (block,) = re.findall(r"```\n(grandbatch simulate.*?)```", README, re.DOTALL)
    for line in block.splitlines():
        words = line.split("#")[0].replace("1000000", "60000").split()
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
