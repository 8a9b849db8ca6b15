"""Every file of tests is run: none lies where pytest doesn't look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_pytest_collects_every_file_of_tests():
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", str(TESTS)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    collected = {line.split("::")[0] for line in listed.splitlines() if "::" in line}
    written = {str(path.relative_to(TESTS.parent)) for path in TESTS.rglob("test_*.py")}
    assert collected == written
