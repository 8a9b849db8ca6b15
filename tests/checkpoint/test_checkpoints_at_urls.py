"""Checkpoints in an object store are those of a folder; the wire is told from damage."""

from __future__ import annotations

import pytest
import torch

import grandbatch as gb
from grandbatch.checkpoint import read_checkpoint, shelves
from grandbatch.errors import CheckpointError, DamagedCheckpointError, UsageError
from grandbatch.files import patience
from grandbatch.files.objects import Objects, Patience
from grandbatch.mappo.saving import chosen

pytestmark = pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
SAVES = [(4, 0.1), (8, 0.9), (12, 0.3), (16, 0.2), (20, 0.5), (16, 0.4)]


def save_all(manager):
    """Save as a run does that was given up at step 20 and went on from 12."""
    for step, reward in SAVES:
        state = {"weights": torch.full((50,), float(step)), "step": step}
        manager.save(step, state, {"position": {"chunk_index": step}}, {"avg_reward": reward})


@pytest.fixture
def manager(bucket):
    made = gb.CheckpointManager(f"{bucket}/run", content_id="of a store")
    made.prepare({})
    return made


def test_what_is_kept_listed_and_loaded_is_as_in_a_folder(bucket, manager, tmp_path, monkeypatch):
    local = gb.CheckpointManager(tmp_path / "run", content_id="of a store")
    save_all(local)
    save_all(manager)
    monkeypatch.setattr(shelves, "REQUEST_BYTES", 300)
    assert manager.load().trainer_state["weights"].tolist() == [16.0] * 50
    assert [path.name for path in (tmp_path / "run").iterdir()] != []
    assert {one.name for one in Objects(f"{bucket}/run").list()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }
    there, here = manager.list(), local.list()
    assert [info.path.name for info in there] == [info.path.name for info in here]
    for one, other in zip(there, here, strict=True):
        assert (one.step, one.metrics, one.chunk_index) == (
            other.step,
            other.metrics,
            other.chunk_index,
        )
    assert manager.best().name == local.best().name == "step-000000008.ckpt"
    assert str(manager.latest()) == f"{bucket}/run/step-000000016.ckpt"
    assert read_checkpoint(str(manager.best())).step == 8
    assert str(chosen(f"{bucket}/run")) == str(manager.latest())
    assert chosen(str(manager.best())) == manager.best()


def test_a_damaged_one_is_passed_over_but_not_one_that_cant_be_reached(bucket, manager, wire):
    save_all(manager)
    name = "run/step-000000016.ckpt"
    data = bytearray(Objects(bucket).read(name))
    data[-3] ^= 1
    Objects(bucket).write(name, bytes(data))
    found = manager.load()
    assert found.step == 12
    assert "is damaged" in found.skipped[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "PATIENCE", Patience(0.3, 0.2))
        wire.answer = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"
        with pytest.raises(CheckpointError, match="can't be reached") as told:
            manager.load()
        assert not isinstance(told.value, DamagedCheckpointError)
        with pytest.raises(CheckpointError, match=r"step-.*can't be read.*try again") as told:
            read_checkpoint(f"{bucket}/{name}")
        assert not isinstance(told.value, DamagedCheckpointError)
        with pytest.raises(CheckpointError, match="the same command goes on"):
            manager.save(24, {}, {}, {})
    wire.well()
    assert manager.load().step == 12
    Objects(bucket).delete([name])
    with pytest.raises(DamagedCheckpointError, match="no such object"):
        read_checkpoint(f"{bucket}/{name}")


def test_where_none_can_be_saved_is_told_before_the_first_batch(bucket, monkeypatch):
    with pytest.raises(UsageError, match=r"memory://x.*; give a folder on a disk, or an object"):
        gb.CheckpointManager("memory://x", content_id="")
    with pytest.raises(CheckpointError, match="no such bucket"):
        gb.CheckpointManager("s3://no-such-bucket/run", content_id="").load()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UsageError, match=r"can't be saved in s3://.*check the credentials"):
        gb.CheckpointManager(f"{bucket}/run", content_id="").prepare({})
