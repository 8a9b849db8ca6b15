"""Compiled kernels where little can be written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch

PACKAGE = Path(grandbatch.__file__).parent


@pytest.fixture(scope="module")
def build_in_a_container(tmp_path_factory):
    """Return a function that builds, as user 0, where the package is read-only and no home is."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    ):
        pytest.skip("no mount namespaces here")
    folder = tmp_path_factory.mktemp("container")
    package = folder / "site" / "grandbatch"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    write_bars(folder / "b.csv", 400)

    def build(name, temporary):
        site = package.parent
        script = f'mount --bind {site} {site} && mount -o remount,bind,ro {site} && exec "$@"'
        code = (
            f"import grandbatch as gb; assert gb.__file__.startswith({str(site)!r}), gb.__file__;"
            f"gb.build_store('b.csv', {name!r}, durable=False)"
        )
        call = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", code]
        environ = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        environ |= {
            "PYTHONPATH": str(site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/proc/1/nowhere",
            "XDG_CACHE_HOME": "/proc/1/nowhere",
            "TMPDIR": str(temporary),
        }
        return subprocess.run(
            call, cwd=folder, env=environ, capture_output=True, text=True, check=False
        )

    build.folder = folder
    return build


@pytest.mark.slow
def test_a_read_only_package_without_a_home_builds_and_keeps_its_kernels(build_in_a_container):
    folder = build_in_a_container.folder
    temporary = folder / "tmp"
    temporary.mkdir()
    done = build_in_a_container("kept.zarr", temporary)
    assert done.returncode == 0, done.stderr
    kept = list(temporary.glob("grandbatch-kernels-*/**/*.nbc"))
    assert any("row_moments" in path.name for path in kept)
    assert (temporary / "grandbatch-kernels-0").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_kernels_are_never_taken_from_a_folder_that_others_may_write(build_in_a_container):
    folder = build_in_a_container.folder
    temporary = folder / "shared"
    planted = temporary / "grandbatch-kernels-0"
    planted.mkdir(parents=True)
    planted.chmod(0o777)
    done = build_in_a_container("anew.zarr", temporary)
    assert done.returncode == 0, done.stderr
    assert list(planted.iterdir()) == []


def test_every_kernel_goes_by_the_decorators_of_the_package():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "compilation.py":
            assert not re.search(r"\bnjit\b|\bnumba\.jit\b|import jit\b", path.read_text()), path
