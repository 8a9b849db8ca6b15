"""Checkpoints are whole or absent, damage is noticed, and nothing in them is executed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grandbatch.checkpoint import MAGIC, CheckpointManager
from grandbatch.errors import CheckpointError, DiskFullError, UsageError

STATE = {
    "weights": {"w": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([math.nan, -0.0])},
    "rng": torch.arange(16, dtype=torch.uint8),
    "steps": 7,
    "name": "mlmi",
    "lists": [1, 2.5, None, True, (3, "x")],
}
LOADER = {"position": {"epoch": 1, "chunk_index": 5, "offset": 96}, "order": {"seed": 0}}


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(tmp_path / "checkpoints", content_id="store-a")


def save(manager, step, reward=0.0, **state):
    return manager.save(step, {**STATE, **state}, LOADER, {"avg_reward": reward, "avg_loss": 1.0})


def assert_same(got, wanted):
    assert type(got) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert got.dtype == wanted.dtype
        assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            assert_same(got[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted)
        for g, w in zip(got, wanted, strict=True):
            assert_same(g, w)
    else:
        assert got == wanted


def names(manager):
    return sorted(path.name for path in manager.directory.iterdir())


def test_what_is_loaded_is_what_was_saved(manager):
    path = save(manager, 100, reward=0.5)
    loaded = manager.load()
    assert_same(loaded.trainer_state, STATE)
    assert loaded.loader_state == LOADER
    assert loaded.metrics == {"avg_reward": 0.5, "avg_loss": 1.0}
    assert (loaded.step, loaded.path, loaded.skipped) == (100, path, ())
    assert path.name == "step-000000100.ckpt"


def test_an_empty_or_missing_directory_holds_no_checkpoint(manager):
    assert manager.load() is None
    assert manager.latest() is None
    assert manager.list() == ()
    manager.directory.mkdir()
    (manager.directory / "notes.txt").write_text("not ours")
    assert manager.load() is None


def test_the_list_shows_chunk_and_offset_and_needs_no_torch(manager):
    save(manager, 3, reward=0.25)
    code = (
        "import sys; from grandbatch.checkpoint import CheckpointManager as M\n"
        f"(info,) = M({str(manager.directory)!r}, content_id='other').list()\n"
        "print(info.step, info.chunk_index, info.offset, info.content_id, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "5", "96", "store-a", "False"]


def test_the_header_is_json_that_any_reader_can_find(manager):
    data = save(manager, 3).read_bytes()
    magic, n_bytes, digest = struct.unpack_from("<8sQ32s", data)
    head = data[48 : 48 + n_bytes]
    assert magic == MAGIC
    assert hashlib.sha256(head).digest() == digest
    header = json.loads(head)
    assert header["position"] == {"chunk_index": 5, "offset": 96}
    assert header["sha256"] == hashlib.sha256(data[48 + n_bytes :]).hexdigest()


def test_metrics_may_be_nan_or_infinite(manager):
    manager.save(1, STATE, LOADER, {"a": math.nan, "b": -math.inf, "c": 1})
    metrics = manager.load().metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] == -math.inf
    assert metrics["c"] == 1.0


def test_the_last_ones_and_the_best_are_kept(manager):
    for step, reward in enumerate([0.1, 0.9, 0.2, math.nan, 0.3, 0.4]):
        save(manager, step, reward)
    assert [info.step for info in manager.list()] == [1, 3, 4, 5]
    assert manager.load().step == 5
    assert manager.latest() == manager.list()[-1].path


def test_without_keep_best_only_the_last_are_kept(tmp_path):
    manager = CheckpointManager(tmp_path, content_id="a", keep=1, keep_best=False)
    for step in range(4):
        save(manager, step, reward=-step)
    assert [info.step for info in manager.list()] == [3]


def test_a_run_started_again_replaces_the_later_steps_of_the_old_one(manager):
    for step in (100, 200, 300):
        save(manager, step, reward=step)
    save(manager, 50, reward=-1.0)
    assert [info.step for info in manager.list()] == [50]
    assert manager.load().step == 50


def test_stale_temporaries_go_and_strange_files_stay(manager):
    save(manager, 1)
    for name in ("step-000000002.ckpt.new", "step-000000002.ckpt.new.partial", "mine.txt"):
        (manager.directory / name).write_bytes(b"half")
    assert manager.load().step == 1
    save(manager, 3)
    assert names(manager) == ["mine.txt", "step-000000001.ckpt", "step-000000003.ckpt"]


def test_every_flipped_byte_is_noticed(manager):
    path = save(manager, 1)
    good = path.read_bytes()
    assert len(good) < 10_000
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            manager.load(path)
    path.write_bytes(good)
    assert_same(manager.load(path).trainer_state, STATE)


@pytest.mark.parametrize("length", [0, 1, 8, 47, 48, 60, -1000, -1])
def test_a_truncated_file_is_an_error(manager, length):
    path = save(manager, 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="step-000000001"):
        manager.load(path)


def test_a_file_with_bytes_too_many_is_an_error(manager):
    path = save(manager, 1)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="bytes, written were"):
        manager.load(path)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(MAGIC.__add__)))
def test_a_foreign_file_is_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("foreign") / "step-000000001.ckpt"
    path.write_bytes(data)
    manager = CheckpointManager(path.parent, content_id="a")
    with pytest.raises(CheckpointError):
        manager.load(path)
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        manager.load()
    assert manager.list()[0].problem


def test_a_missing_file_and_a_folder_are_errors(manager):
    with pytest.raises(CheckpointError, match="can't be read"):
        manager.load(manager.directory / "step-000000009.ckpt")
    (manager.directory / "step-000000001.ckpt").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="none of the 1"):
        manager.load()


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(manager, caplog):
    save(manager, 1)
    newest = save(manager, 2)
    newest.write_bytes(newest.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING, "grandbatch"):
        loaded = manager.load()
    assert loaded.step == 1
    assert len(loaded.skipped) == 1
    assert str(newest) in loaded.skipped[0]
    assert str(newest) in caplog.text


def test_where_none_is_good_each_is_named(manager):
    paths = [save(manager, step) for step in (1, 2)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"something else")
    with pytest.raises(CheckpointError) as caught:
        manager.load()
    for expected in (*map(str, paths), "--no-resume"):
        assert expected in str(caught.value)


def test_a_renamed_checkpoint_is_not_taken_for_another_step(manager):
    path = save(manager, 1)
    path.rename(manager.directory / "step-000000005.ckpt")
    with pytest.raises(CheckpointError, match="holds step 1"):
        manager.load()


def test_another_stores_checkpoint_is_refused_by_name(manager):
    save(manager, 1)
    other = CheckpointManager(manager.directory, content_id="store-b")
    with pytest.raises(
        CheckpointError, match=r"--init-from \S*1\.ckpt and another.*store-a.*store-b"
    ):
        other.load()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["BOMB"]),))


def with_payload(path, payload):
    """A checkpoint whose digests are right and whose payload is the attacker's."""
    data = path.read_bytes()
    _, n_bytes, _ = struct.unpack_from("<8sQ32s", data)
    header = json.loads(data[48 : 48 + n_bytes])
    header |= {"payload_bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    head = json.dumps(header).encode()
    digest = hashlib.sha256(head).digest()
    path.write_bytes(struct.pack("<8sQ32s", MAGIC, len(head), digest) + head + payload)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_payload_is_not_executed(manager, tmp_path, monkeypatch, form):
    target = tmp_path / "executed"
    monkeypatch.setenv("BOMB", str(target))
    buffer = io.BytesIO()
    if form == "torch":
        torch.save({"state": Bomb()}, buffer)
    else:
        pickle.dump({"state": Bomb()}, buffer)
    path = save(manager, 1)
    with_payload(path, buffer.getvalue())
    with pytest.raises(CheckpointError, match="not executed"):
        manager.load(path)
    assert not target.exists()


@pytest.mark.parametrize("payload", [b"", b"\x80\x04.", pickle.dumps([1], protocol=2)])
def test_a_payload_that_is_no_state_is_an_error(manager, payload):
    path = save(manager, 1)
    with_payload(path, payload)
    with pytest.raises(CheckpointError):
        manager.load(path)


def test_a_newer_format_is_refused_by_number(manager):
    path = save(manager, 1)
    data = path.read_bytes()
    n_bytes = struct.unpack_from("<8sQ32s", data)[1]
    head = data[48 : 48 + n_bytes].replace(b'"format": 1', b'"format": 9')
    digest = hashlib.sha256(head).digest()
    path.write_bytes(struct.pack("<8sQ32s", MAGIC, len(head), digest) + head + data[48 + n_bytes :])
    with pytest.raises(CheckpointError, match="format 9"):
        manager.load()


def test_states_that_could_not_be_read_back_are_refused_when_saved(manager):
    import numpy as np

    with pytest.raises(UsageError, match=r"trainer_state\['a'\]\[1\] is a numpy\.float32"):
        manager.save(1, {"a": [0, np.float32(1)]}, LOADER, {})
    with pytest.raises(UsageError, match="JSON"):
        manager.save(1, STATE, {"position": (1, 2)}, {})
    with pytest.raises(UsageError, match="JSON"):
        manager.save(1, STATE, {"position": math.nan}, {})
    assert manager.load() is None


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(UsageError, match="keep"):
        CheckpointManager(tmp_path, content_id="a", keep=0)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        CheckpointManager(tmp_path / "file", content_id="a")


def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(manager, monkeypatch):
    save(manager, 1)
    save(manager, 2)
    before = {path.name: path.read_bytes() for path in manager.directory.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for step in (3, 1):
            with pytest.raises(DiskFullError, match=f"step-00000000{step}"):
                save(manager, step)
    assert {path.name: path.read_bytes() for path in manager.directory.iterdir()} == before
    assert manager.load().step == 2


ENDLESS = """
import sys, torch
from grandbatch.checkpoint import CheckpointManager
manager = CheckpointManager(sys.argv[1], content_id="a")
found = manager.load()
step = found.step if found else 0
while True:
    step += 1
    state = {"step": step, "w": torch.full((50_000,), float(step))}
    manager.save(step, state, {"step": step}, {"avg_reward": (step * 7) % 11})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_a_loadable_directory(tmp_path):
    last = 0
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            process.stdout.readline()
            time.sleep(0.003 + 0.0137 * attempt)
            process.send_signal(signal.SIGKILL)
            acknowledged = process.stdout.read().split()
        loaded = CheckpointManager(tmp_path, content_id="a").load()
        assert loaded.skipped == ()
        assert loaded.step > last
        assert loaded.step >= int(acknowledged[-1] if acknowledged else 0)
        assert loaded.step == loaded.trainer_state["step"] == loaded.loader_state["step"]
        assert torch.equal(loaded.trainer_state["w"], torch.full((50_000,), float(loaded.step)))
        last = loaded.step
