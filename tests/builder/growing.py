"""Inputs that grow, and the store built from them: what the tests of extensions share."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.scheduling import Schedule

HEADER = "timestamp,symbol,open,high,low,close,volume\n"


@pytest.fixture(autouse=True, scope="module")
def small_files():
    """Files of a few chunks, so that few bars fill many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grandbatch.store.format._FILE_BYTES", 10_000)
        patch.setattr("grandbatch.store.format.LABEL_CHUNK_WINDOWS", 32)
        yield


@functools.cache
def lines(n_rows, symbols=1):
    """Lines of simulated bars, for each symbol."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_bars(Path(folder) / "b.csv", n_rows, symbols=symbols, seed=7)
        rows = path.read_text().splitlines(keepends=True)[1:]
    return [rows[s * n_rows : (s + 1) * n_rows] for s in range(symbols)]


def text(*runs):
    return HEADER + "".join(line for run in runs for line in run)


def by_time(*runs):
    return sorted((line for run in runs for line in run), key=lambda line: line.split(",")[:2])


class Growing:
    """A folder with inputs and the store built from them, each state beside one from scratch."""

    def __init__(self, folder: Path, **wanted: object) -> None:
        self.folder = folder
        self.wanted = {"overlap": 12, "layout": "windows", "codec": "auto", "chunk": 4, **wanted}
        self.rules = wanted.get("rules", gb.BarRules())
        self.scratch = 0
        self.inputs: list[Path] = []

    def target(self, store="s.zarr", cache=None):
        wanted = self.wanted
        made = make_settings(
            "strategic", None, wanted["overlap"], wanted["layout"], wanted["chunk"],
            wanted["codec"], wanted.get("max_gap"), wanted.get("order", "symbol"),
            wanted.get("period"), wanted.get("targets"),
        )  # fmt: skip
        return Request.of(self.inputs, self.folder / store, made, self.rules, cache)

    def write(self, **files: str):
        """Write the inputs, named so that they keep this order."""
        self.inputs = [self.folder / f"{name}.csv" for name in files]
        for path, content in zip(self.inputs, files.values(), strict=True):
            if not path.exists() or path.read_text() != content:
                path.write_text(content)

    def build(self, **options: object):
        chosen = {"schedule": Schedule.local("sync"), "durable": False, **options}
        return build(self.target(), BuildOptions(**chosen))

    def from_scratch(self):
        self.scratch += 1
        name = f"scratch-{self.scratch}"
        target = self.target(f"{name}.zarr", self.folder / name)
        return build(target, BuildOptions(durable=False)).store

    def grow(self, **files: str):
        """Build from other inputs; check the store against one from scratch."""
        old = inodes(self.folder / "s.zarr")
        self.write(**files)
        result = self.build()
        assert digest(result.store.path) == digest(self.from_scratch().path)
        assert result.store.verify().ok
        linked = old & inodes(result.store.path)
        assert len(linked) == files_of(result.store, result.kept_chunks)
        return result


def inodes(store: Path):
    """Of a store's files of matrices or rows."""
    files = (path for name in ("matrices", "features") for path in (store / name).rglob("*"))
    return {path.stat().st_ino for path in files if path.is_file()}


def files_of(store, chunks):
    return -(-chunks // store.spec.shard_chunks)


def digest(folder):
    """sha256 over the paths and bytes of all files in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def dated(rows, month_first):
    """Write the rows' dates with slashes."""
    out = []
    for row in rows:
        time, rest = row.split(",", 1)
        year, month, day = time[:10].split("-")
        date = f"{month}/{day}/{year}" if month_first else f"{day}/{month}/{year}"
        out.append(f"{date} {time[11:]},{rest}")
    return out
