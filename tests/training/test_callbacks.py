"""Callbacks hear of every batch, every checkpoint and the end, however a run ends."""

from __future__ import annotations

import pytest

import grandbatch as gb
from grandbatch.training import Callback, TensorBoard


class Still:
    """A trainer that learns nothing, and may break."""

    def __init__(self, breaks_at=None):
        self.left = breaks_at

    def train_batch(self, batch):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("broken")
        return {"avg_reward": 0.5, "avg_loss": 2.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Notes(Callback):
    def __init__(self):
        self.heard = []

    def on_batch(self, result):
        self.heard.append(("batch", result["batch_idx"]))

    def on_checkpoint(self, path, metrics):
        assert path.exists()
        self.heard.append(("checkpoint", path.name, metrics["steps"]))

    def on_end(self, summary):
        self.heard.append(("end", summary["steps"]))


@pytest.fixture
def store(make_store):
    return make_store(300, overlap=40, chunk_windows=8)


def processor_of(store, folder, *callbacks):
    config = gb.BatchConfig(batch_size=8, overlap=40, checkpoint_frequency=2)
    return gb.BatchProcessor(store, config, folder, callbacks=callbacks)


def test_each_hears_of_batches_checkpoints_and_the_end_in_their_order(store, tmp_path):
    notes, more = Notes(), Notes()
    for number, _ in enumerate(processor_of(store, tmp_path, notes, more).process_batches(Still())):
        assert notes.heard[-1] == ("batch", number)
    steps = -(-len(store) // 8)
    wanted = []
    for step in range(1, steps + 1):
        wanted.append(("batch", step - 1))
        if step % 2 == 0 or step == steps:
            wanted.append(("checkpoint", f"step-{step:09d}.ckpt", step))
    assert notes.heard == more.heard == [*wanted, ("end", steps)]


def test_a_run_that_is_left_ends_with_its_checkpoint(store, tmp_path):
    notes = Notes()
    results = processor_of(store, tmp_path, notes).process_batches(Still())
    next(results)
    results.close()
    assert notes.heard == [("batch", 0), ("checkpoint", "step-000000001.ckpt", 1), ("end", 1)]


def test_a_run_that_breaks_ends_without_one(store, tmp_path):
    notes = Notes()
    with pytest.raises(RuntimeError, match="broken"):
        list(processor_of(store, tmp_path, notes).process_batches(Still(breaks_at=1)))
    assert notes.heard == [("batch", 0), ("end", 1)]


def test_tensorboard_shows_the_metrics_of_every_step(store, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoard(tmp_path / "log")
    steps = len(list(processor_of(store, tmp_path / "c", log).process_batches(Still())))
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("avg_loss")]
    assert found == [(step, 2.0) for step in range(steps)]
