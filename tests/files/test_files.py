"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import grandbatch as gb
from grandbatch.errors import DiskFullError, UsageError
from grandbatch.files.whole import TEMPORARY_SUFFIX, room_for, sync_tree, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_written_whole_and_nothing_else_stays(tmp_path, durable):
    write_whole(tmp_path / "a", b"x" * 100_000, durable=durable)
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    sync_tree(tmp_path)


def test_many_pieces_are_one_file_however_few_bytes_the_system_takes_at_once(tmp_path, monkeypatch):
    pieces = [bytes([number % 251]) * (number % 7) for number in range(3_000)]
    write_whole(tmp_path / "a", *pieces)
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)

    def write_little(file, some):
        assert len(some) <= 1024
        return os.write(file, b"".join(some)[:1_001])

    monkeypatch.setattr(os, "writev", write_little)
    write_whole(tmp_path / "b", *pieces)
    monkeypatch.delattr(os, "writev")
    write_whole(tmp_path / "c", *pieces)
    for name in "bc":
        assert (tmp_path / name).read_bytes() == b"".join(pieces)


def test_a_full_disk_names_the_file_and_its_size(tmp_path):
    with (
        pytest.raises(DiskFullError, match=r"no room for .*a: it takes 1,234 bytes"),
        room_for(tmp_path / "a", 1234),
    ):
        raise OSError(errno.ENOSPC, "no space left on device")


def test_other_errors_pass_through_as_they_are(tmp_path):
    with pytest.raises(PermissionError), room_for(tmp_path / "a", 1):
        raise PermissionError(errno.EACCES, "no")


def test_what_can_not_be_written_leaves_the_old_file_and_no_half_one(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", object())
    assert (tmp_path / "a").read_bytes() == b"old"
    assert not (tmp_path / f"a{TEMPORARY_SUFFIX}").exists()


def test_a_url_is_refused_by_name_where_only_a_disk_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.csv").write_text("timestamp,open,high,low,close,volume\n")
    for url in ("memory://c", "Memory:/c", Path("memory://c")):
        for take in (
            lambda url=url: gb.build_store("b.csv", "s.zarr", cache=url),
            lambda url=url: gb.read_bars("b.csv", cache=url),
        ):
            with pytest.raises(UsageError, match=r"--cache.* at a URL"):
                take()
    with pytest.raises(UsageError, match=r"--checkpoint-dir.* at memory://c; give a folder"):
        gb.CheckpointManager("memory://c", content_id="x")
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]
