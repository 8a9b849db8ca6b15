"""A command loads what it needs itself, and nothing of the others."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest
import typer
from simulated import write_bars

from grandbatch.cli.main import app
from grandbatch.cli.running.commands import HOMES
from grandbatch.cli.running.loading import loading

HEAVY = ("asyncio", "crc32c", "dask", "filelock", "fsspec", "numba", "numcodecs", "pandas",
         "pyarrow", "torch", "yaml", "zarr")  # fmt: skip
ASK = """
import atexit, gc, json, sys
from grandbatch.__main__ import main
sys.argv = ["grandbatch", *sys.argv[2:]]
atexit.register(lambda: open(LOG, "w").write(json.dumps([sorted(sys.modules), gc.isenabled()])))
main()
"""


def loaded_by(folder, *arguments):
    """Modules that a command in a process of its own has loaded at its end."""
    log = folder / "loaded.json"
    done = subprocess.run(
        [sys.executable, "-c", f"LOG = {str(log)!r}\n{ASK}", "-", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modules, searches = json.loads(log.read_text())
    assert searches, "garbage is looked for again"
    return set(modules)


@pytest.mark.slow
def test_a_build_that_reuses_its_store_loads_no_heavy_library(tmp_path):
    bars = write_bars(tmp_path / "bars.csv", 300)
    flags = ("build", "strategic", bars, "--store", tmp_path / "s.zarr", "--no-durable")
    built = loaded_by(tmp_path, *flags)
    assert built >= {"dask", "numba", "pandas"}
    assert "zarr" not in built  # half a second, and nothing that it would do
    again = loaded_by(tmp_path, *flags)
    assert again & set(HEAVY) == set()
    others = {f"grandbatch.cli.{home.split('.')[0]}" for home in HOMES.values()}
    assert again & others == {"grandbatch.cli.building"}


def test_every_command_is_made_by_its_name():
    commands = typer.main.get_command(app).commands
    assert list(commands) == list(HOMES)
    assert all(command.name == name for name, command in commands.items())


def test_a_block_that_imports_leaves_the_search_for_garbage_as_it_was():
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
