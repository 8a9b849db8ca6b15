"""Every file of tests is run, however it was started, and nothing skips unseen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from skips import FLAG, LISTED

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PYTHONPATH = os.pathsep.join(map(str, (TESTS, TESTS / "helpers")))
TEST = re.compile(r"\btests/[\w/]*\btest_\w+\.py(?:::\w+)?")
SKIPS = {
    "test": "def test_it():\n    pytest.skip({!r})",
    "marked": "@pytest.mark.skipif(True, reason={!r})\ndef test_it():\n    pass",
    "fixture": "@pytest.fixture\ndef it():\n    pytest.skip({!r})\ndef test_it(it):\n    pass",
    "subtest": "def test_it(subtests):\n    with subtests.test():\n        pytest.skip({!r})",
    "file": "pytest.skip({!r}, allow_module_level=True)",
    "import": "pytest.importorskip('nowhere', reason={!r})",
}
INTERRUPTED = """
import os, signal

def test_it():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing came")
"""


def run(path, *flags, plugin="skips", **options):
    """Run pytest as from the shell, with a plugin of these tests, on tests anywhere."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", *flags, str(path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": PYTHONPATH}, capture_output=True,
        text=True, check=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def collected():
    """The names of all tests, without their parameters."""
    done = run(TESTS, "--collect-only", "-q", "-o", "addopts=")
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.split("[")[0] for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.slow
def test_pytest_collects_every_file_of_tests(collected):
    written = {str(path.relative_to(ROOT)) for path in TESTS.rglob("test_*.py")}
    assert {name.split("::")[0] for name in collected} == written


@pytest.mark.slow
def test_every_test_that_a_page_names_is_run(collected):
    known = collected | {name.split("::")[0] for name in collected}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in TEST.findall(page.read_text())}
    assert len(named) > 30
    assert named <= known


def test_git_ignores_no_file_of_tests(tmp_path):
    files = [str(path.relative_to(ROOT)) for path in TESTS.rglob("*.py")]
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *files, "demo/ignored.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "demo/ignored.py\n", done.stderr


@pytest.fixture
def skipping(tmp_path):
    """A folder of tests that skip, each in one way and for one reason."""
    for number, reason in enumerate([*LISTED, "no Chromium here"]):
        for way, code in SKIPS.items():
            file = tmp_path / f"test_{way}_{number}.py"
            file.write_text(f"import pytest\n\n{code.format(reason)}\n")
    (tmp_path / "test_xfail.py").write_text(
        "import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert 0\n"
    )
    return tmp_path


def test_in_ci_a_skip_fails_unless_its_reason_is_listed(skipping):
    done = run(skipping, FLAG, "--continue-on-collection-errors")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    named = re.findall(
        r"^(?:FAILED|ERROR|SUBFAILED\S*) .*/(test_\w+)\.py", done.stdout, re.MULTILINE
    )
    assert set(named) == {f"test_{way}_{len(LISTED)}" for way in SKIPS}
    assert done.stdout.count("skipped: no Chromium here") >= len(SKIPS)


def test_elsewhere_a_skip_is_told_in_the_last_lines(skipping):
    done = run(skipping, "-rs")
    assert done.returncode == 0, done.stdout
    for way in SKIPS.keys() - {"subtest"}:  # which pytest keeps to itself
        assert re.search(rf"SKIPPED.*test_{way}_\d\.py.*no Chromium here", done.stdout), way


def test_an_interrupt_that_the_shell_has_ignored_reaches_the_tests(tmp_path):
    path = tmp_path / "test_interrupted.py"
    path.write_text(INTERRUPTED)
    ignored = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    done = run(path, preexec_fn=ignored, restore_signals=False, plugin="conftest")
    assert done.returncode == 0, done.stdout
