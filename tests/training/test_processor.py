"""A training run hands out every batch once, and goes on where it was left."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import (
    CheckpointError,
    MemoryLimitError,
    StoreMismatchError,
    TrainingError,
    UsageError,
)


class Recorder:
    """A trainer whose state is a number that every window it saw has changed."""

    def __init__(self):
        self.state = torch.zeros(1, dtype=torch.float64)
        self.fail_at = None
        self.calls = 0

    def train_batch(self, batch):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("broken")
        for value in batch.matrices[:, 0, 0].tolist():
            self.state = self.state * 1.0001 + value
        reward = float(torch.nan_to_num(batch.next_return).mean())
        return {"avg_reward": reward, "avg_loss": float(self.state)}

    def state_dict(self):
        return {"state": self.state.clone()}

    def load_state_dict(self, state):
        self.state = state["state"].clone()


@pytest.fixture
def store(make_store):
    return make_store(600, overlap=40, chunk_windows=8)


def config_of(store, **changes):
    return gb.BatchConfig(
        batch_size=5, sequence_length=48, overlap=store.overlap, checkpoint_frequency=4, **changes
    )


def run(store, folder, trainer=None, *, stop_after=None, epochs=2, **changes):
    """Train; return the windows of each batch, and the processor."""
    processor = gb.BatchProcessor(store, config_of(store, **changes), folder, epochs=epochs)
    seen = []
    results = processor.process_batches(trainer or Recorder())
    for result in results:
        seen.append(result["batch"].index.tolist())
        if len(seen) == stop_after:
            break
    results.close()
    return seen, processor


def test_every_window_of_every_epoch_is_trained_on_once(store, tmp_path):
    seen, processor = run(store, tmp_path / "c", epochs=3)
    flat = [window for batch in seen for window in batch]
    assert sorted(flat) == sorted(list(range(len(store))) * 3)
    assert processor.summary["windows"] == 3 * len(store)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7, 14, 15, 29])
def test_a_loop_left_early_goes_on_at_the_very_next_batch(store, tmp_path, stop_after):
    whole, plain = run(store, tmp_path / "whole")
    first, _ = run(store, tmp_path / "cut", stop_after=stop_after)
    rest, resumed = run(store, tmp_path / "cut", prefetch_batches=0, num_workers=1)
    assert first + rest == whole
    assert resumed.summary == plain.summary


def test_a_run_resumed_again_and_again_is_one_run(store, tmp_path):
    whole, plain = run(store, tmp_path / "whole")
    joined = []
    while len(joined) < len(whole):
        more, last = run(store, tmp_path / "cut", stop_after=3)
        joined += more
    assert joined == whole
    assert last.summary == plain.summary


def test_a_finished_training_has_nothing_left_and_keeps_its_summary(store, tmp_path):
    _, plain = run(store, tmp_path / "c")
    seen, again = run(store, tmp_path / "c")
    assert seen == []
    assert again.summary == plain.summary


def test_ctrl_c_during_a_step_is_answered_after_the_batch_was_handed_out(store, tmp_path):
    class Interrupted(Recorder):
        def train_batch(self, batch):
            if self.calls == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().train_batch(batch)

    whole, plain = run(store, tmp_path / "whole")
    seen = []
    processor = gb.BatchProcessor(store, config_of(store), tmp_path / "c", epochs=2)

    def train():
        seen.extend(
            result["batch"].index.tolist() for result in processor.process_batches(Interrupted())
        )

    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(seen) == 6
    rest, resumed = run(store, tmp_path / "c")
    assert seen + rest == whole
    assert resumed.summary == plain.summary


def test_a_failed_step_is_not_saved(store, tmp_path):
    whole, plain = run(store, tmp_path / "whole")
    trainer = Recorder()
    trainer.fail_at = 7
    with pytest.raises(RuntimeError, match="broken"):
        run(store, tmp_path / "c", trainer)
    rest, resumed = run(store, tmp_path / "c")
    assert rest == whole[4:]
    assert resumed.summary == plain.summary


def test_results_say_what_is_documented(store, tmp_path):
    processor = gb.BatchProcessor(store, config_of(store), tmp_path / "c")
    for number, result in enumerate(processor.process_batches(Recorder())):
        assert result["batch_idx"] == number
        assert result["batch_size"] == len(result["batch"])
        assert result["batch_time"] > 0
        assert 0 < result["memory_usage"] < 100
        assert result["position"] == result["batch"].position
        assert {"avg_reward", "avg_loss"} <= result["metrics"].keys()


def test_checkpoints_name_the_chunk_and_the_offset(store, tmp_path):
    run(store, tmp_path / "c", stop_after=6)
    info = gb.CheckpointManager(tmp_path / "c", content_id=store.content_id).list()[-1]
    assert info.step == 6
    assert 0 <= info.chunk_index < store.n_chunks
    assert info.offset >= 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_ends_the_training_and_is_in_no_checkpoint(
    store, tmp_path, value
):
    class Lost(Recorder):
        def train_batch(self, batch):
            return {**super().train_batch(batch), "extra": value if self.calls == 7 else 1.0}

    whole, plain = run(store, tmp_path / "whole")
    with pytest.raises(TrainingError, match=rf"Lost\.train_batch, at step 7, .*extra is {value}"):
        run(store, tmp_path / "c", Lost())
    kept = gb.CheckpointManager(tmp_path / "c", content_id=store.content_id).list()
    assert [info.step for info in kept] == [4]
    rest, resumed = run(store, tmp_path / "c")
    assert rest == whole[4:]
    assert resumed.summary["steps"] == plain.summary["steps"]


def test_no_resume_starts_again(store, tmp_path):
    first, _ = run(store, tmp_path / "c", stop_after=6)
    processor = gb.BatchProcessor(store, config_of(store), tmp_path / "c", resume=False)
    batch = next(iter(processor.process_batches(Recorder())))["batch"]
    assert batch.index.tolist() == first[0]


def test_the_checkpoint_of_another_store_is_refused(store, make_store, tmp_path):
    run(store, tmp_path / "c", stop_after=6)
    other = make_store(600, overlap=40, chunk_windows=8, seed=7)
    with pytest.raises(CheckpointError, match="another folder"):
        run(other, tmp_path / "c")


@pytest.mark.parametrize("stop_after", [None, 6])
def test_the_best_checkpoint_is_that_of_the_best_stretch(store, tmp_path, stop_after):
    steps = {"n": 0}

    class Peaking(Recorder):
        def train_batch(self, batch):
            metrics = super().train_batch(batch)
            steps["n"] += 1
            return {**metrics, "avg_reward": 1.0 if 5 <= steps["n"] <= 8 else -9.0}

    if stop_after:
        run(store, tmp_path / "c", Peaking(), stop_after=stop_after)
    _, processor = run(store, tmp_path / "c", Peaking())
    assert processor.summary["steps"] > 20
    kept = processor.checkpoints.list()
    assert max(kept, key=lambda info: info.metrics["recent_reward"]).step == 8
    assert kept[-1].metrics["avg_reward"] > -9


def test_the_other_layout_of_the_same_windows_goes_on(store, make_store, tmp_path):
    whole, _ = run(store, tmp_path / "whole")
    first, _ = run(store, tmp_path / "c", stop_after=6)
    rows = make_store(600, overlap=40, chunk_windows=8, layout="rows")
    rest, _ = run(rows, tmp_path / "c")
    assert first + rest == whole


def test_a_config_that_contradicts_the_store_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match="overlap"):
        gb.BatchProcessor(store, gb.BatchConfig(overlap=12), tmp_path)


def test_a_config_without_length_and_overlap_takes_the_stores(store, tmp_path):
    processor = gb.BatchProcessor(store, gb.BatchConfig(batch_size=5), tmp_path)
    assert (processor.config.sequence_length, processor.config.overlap) == (48, 40)
    assert processor.loader.config == processor.config


def test_what_is_no_trainer_is_refused(store, tmp_path):
    processor = gb.BatchProcessor(store, config_of(store), tmp_path)
    with pytest.raises(UsageError, match="no trainer"):
        next(processor.process_batches(object()))


def test_a_state_that_could_not_be_saved_is_refused_before_the_first_batch(store, tmp_path):
    trainer = Recorder()
    trainer.state_dict = lambda: {"weights": np.zeros(3)}
    with pytest.raises(UsageError, match=r"trainer_state\['weights'\] is a numpy\.ndarray"):
        run(store, tmp_path / "c", trainer)
    assert trainer.calls == 0


def test_parameters_that_get_their_shape_with_the_first_batch_are_no_mistake(store, tmp_path):
    layer = torch.nn.LazyLinear(2)
    trainer = Recorder()
    learn = trainer.train_batch

    def train_batch(batch):
        layer(batch.matrices[:, -1])
        return learn(batch)

    trainer.train_batch = train_batch
    trainer.state_dict = lambda: {"layer": layer.state_dict()}
    _, processor = run(store, tmp_path / "c", trainer, epochs=1)
    assert processor.checkpoints.load().trainer_state["layer"]["weight"].shape == (2, 13)


def test_a_finished_training_needs_no_folder_that_can_be_written(store, tmp_path, monkeypatch):
    _, first = run(store, tmp_path / "c")

    def refuse(self, trainer_state):
        raise UsageError("can't be written")

    monkeypatch.setattr(gb.CheckpointManager, "prepare", refuse)
    seen, again = run(store, tmp_path / "c")
    assert seen == []
    assert again.summary == first.summary
    with pytest.raises(UsageError):
        run(store, tmp_path / "c", epochs=3)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_batch(store, tmp_path):
    (tmp_path / "file").touch()
    trainer = Recorder()
    with pytest.raises(UsageError, match=r"checkpoints can't be saved in .*save into another"):
        run(store, tmp_path / "file" / "c", trainer)
    assert trainer.calls == 0


@pytest.mark.parametrize(
    "metrics", [None, [1.0], {"loss": "low"}, {"loss": torch.ones(2)}], ids=str
)
def test_metrics_that_are_no_numbers_by_name_are_refused(store, tmp_path, metrics):
    trainer = Recorder()
    trainer.train_batch = lambda batch: metrics
    with pytest.raises(UsageError, match=r"Recorder.train_batch.* must return a mapping .*, got"):
        run(store, tmp_path / "c", trainer)


def test_bars_get_a_store_beside_them_for_each_length_and_overlap(tmp_path):
    write_bars(tmp_path / "bars.csv", 400)
    folder = tmp_path / "c"
    configs = {
        "bars.strategic.zarr": gb.BatchConfig.strategic(),
        "bars.strategic-48-40.zarr": gb.BatchConfig(overlap=40),
        "bars.tactical-30-15.zarr": gb.BatchConfig(sequence_length=30, overlap=15),
    }
    for name, config in configs.items():
        chosen = name.split(".")[1].split("-")[0]
        for _ in range(2):
            processor = gb.BatchProcessor(tmp_path / "bars.csv", config, folder, feature_set=chosen)
            assert processor.store.path.name == name
            assert processor.store.sequence_length == config.sequence_length
    write_bars(tmp_path / "bars.csv", 400, seed=1)
    with pytest.raises(StoreMismatchError, match="overwrite=True"):
        gb.BatchProcessor(tmp_path / "bars.csv", None, folder)


@pytest.mark.slow
def test_a_run_over_its_memory_share_ends_before_work_with_the_figures(store, tmp_path):
    processor = gb.BatchProcessor(store, config_of(store, max_memory_percent=0.001), tmp_path / "c")
    with pytest.raises(MemoryLimitError, match=r"0\.001 % are allowed"):
        next(processor.process_batches(Recorder()))


def test_windows_arrive_as_they_are_stored(store, tmp_path):
    matrices = store.matrices[:]
    processor = gb.BatchProcessor(store, config_of(store), tmp_path / "c")
    for result in processor.process_batches(Recorder()):
        batch = result["batch"]
        np.testing.assert_array_equal(batch.matrices.numpy(), matrices[batch.index.numpy()])
