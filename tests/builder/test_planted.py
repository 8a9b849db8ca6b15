"""In a folder that others may write to, nothing they planted leads to the user's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import StoreError
from grandbatch.files import refusals
from grandbatch.files.ordinary import append_to, overwrite
from grandbatch.files.whole import write_whole


def built(folder: Path, source: Path) -> gb.MatrixStore:
    return gb.build_store(source, folder / "s.zarr", durable=False, overwrite=True, codec="none")


def test_no_file_beside_a_store_is_written_through_a_link(tmp_path):
    source = write_bars(tmp_path / "b.csv", 300)
    (tmp_path / "plain").mkdir()
    built(tmp_path / "plain", source)
    beside = tmp_path / "plain" / ".grandbatch"
    written = [
        path.relative_to(beside)
        for path in beside.rglob("*")
        if path.is_file() and path.suffix == ".json" and path.parent.name in ("builds", "inputs")
    ]
    assert {path.parts[0] for path in written} == {"builds", "bars"}
    victim = tmp_path / "victim"
    victim.write_text("precious")
    hostile = tmp_path / "hostile"
    for name in written:
        for suffix in ("", ".partial"):
            link = hostile / ".grandbatch" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.with_name(link.name + suffix).symlink_to(victim)
    store = built(hostile, source)
    assert victim.read_text() == "precious"
    assert store.verify().ok
    assert not any(hostile.joinpath(".grandbatch", name).is_symlink() for name in written)


def test_a_lock_that_is_a_link_is_an_error_and_its_target_stays(tmp_path):
    source = write_bars(tmp_path / "b.csv", 300)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".grandbatch" / "locks").mkdir(parents=True)
    (tmp_path / ".grandbatch" / "locks" / "s.zarr.lock").symlink_to(victim)
    with pytest.raises((OSError, StoreError)):
        built(tmp_path, source)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("planted", [".grandbatch", ".grandbatch/bars", ".grandbatch/locks"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_belongs_to_someone_else_who_lets_all_write_is_refused_by_name(
    tmp_path, monkeypatch, planted, kind
):
    source = write_bars(tmp_path / "b.csv", 300)
    place = tmp_path / planted
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        (tmp_path / "else").mkdir()
        place.symlink_to(tmp_path / "else")
    else:
        place.mkdir()
    monkeypatch.chdir(tmp_path)
    built(tmp_path, source)  # of our own
    if kind == "folder":
        place.chmod(0o777)
    monkeypatch.setattr(refusals, "_is_trusted", lambda user: False)
    for use in (
        lambda: built(tmp_path, source),
        lambda: gb.read_bars(source, cache=tmp_path / ".grandbatch" / "bars"),
    ):
        with pytest.raises(StoreError, match=rf"{planted} belongs to user \d+, not to"):
            use()
    if kind == "folder":
        place.chmod(0o755)
        assert len(built(tmp_path, source))


def test_a_file_that_is_written_aside_is_never_one_that_a_link_leads_to(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.partial").symlink_to(victim)
    (tmp_path / "a").symlink_to(victim)
    write_whole(tmp_path / "a", b"new", durable=False)
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        append_to(tmp_path / "log")
    with pytest.raises(OSError, match="symbolic links"):
        overwrite(tmp_path / "log", b"x")
    assert victim.read_text() == "precious"
