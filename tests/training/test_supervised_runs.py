"""Trainings by any metrics: validated at the end of epochs, told of them, the best one kept."""

from __future__ import annotations

import json

import pytest
import torch

import grandbatch as gb
from grandbatch.errors import TrainingError, UsageError
from grandbatch.training import Callback
from grandbatch.training.totals import Means, Totals


class Regressor:
    """Learns the mean of a feature; its state is what every batch has changed."""

    def __init__(self):
        self.mean, self.validated = torch.zeros((), dtype=torch.float64), 0
        self.fails = False

    def train_batch(self, batch):
        target = batch.matrices[:, -1, 4].double().mean()
        self.mean = self.mean + 0.1 * (target - self.mean)
        return {"loss": float((target - self.mean) ** 2)}

    def validate_batch(self, batch):
        self.validated += 1
        if self.fails:
            raise KeyboardInterrupt
        error = batch.matrices[:, -1, 4].double() - self.mean
        return {"loss": error.square().mean(), "bias": error.mean()}

    def state_dict(self):
        return {"mean": self.mean.clone()}

    def load_state_dict(self, state):
        self.mean = state["mean"].clone()


class Heard(Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, epoch, metrics):
        self.epochs.append((epoch, dict(metrics)))


@pytest.fixture
def store(make_store):
    return make_store(600, overlap=40, chunk_windows=8)


@pytest.fixture
def loader(store):
    """Batches of 5 of the last windows."""
    config = gb.BatchConfig(batch_size=5)
    start = int(store.end_time[50])
    return gb.SlidingWindowDataLoader(store, config, shuffle=False, start=start)


def train(store, folder, trainer=None, *, stop_after=None, **options):
    heard = Heard()
    config = gb.BatchConfig(batch_size=5, checkpoint_frequency=4)
    processor = gb.BatchProcessor(
        store, config, folder, callbacks=[heard], **{"epochs": 3, **options}
    )
    results = processor.process_batches(trainer or Regressor())
    for number, _ in enumerate(results, start=1):
        if number == stop_after:
            break
    results.close()
    return heard.epochs, processor


def test_any_metrics_will_do_and_are_summed_up(store, tmp_path):
    losses = []

    class Telling(Callback):
        def on_batch(self, result):
            losses.append((result["metrics"]["loss"], result["batch_size"]))

    config = gb.BatchConfig(batch_size=5)
    processor = gb.BatchProcessor(store, config, tmp_path, callbacks=[Telling()])
    for _ in processor.process_batches(Regressor()):
        pass
    wanted = sum(loss * n for loss, n in losses) / len(store)
    assert processor.summary == {
        "steps": len(losses), "windows": len(store), "loss": pytest.approx(wanted, rel=1e-12),
    }  # fmt: skip


def test_each_epoch_ends_with_its_means_and_those_of_the_validation(store, loader, tmp_path):
    seen = []

    class Kept(Regressor):
        def validate_batch(self, batch):
            seen.extend(batch.index.tolist())
            return super().validate_batch(batch)

    epochs, processor = train(store, tmp_path, Kept(), validation=loader)
    assert [number for number, _ in epochs] == [0, 1, 2]
    assert seen == 3 * list(range(50, len(store)))
    last = processor.checkpoints.load()
    mean = last.trainer_state["mean"]
    values = torch.from_numpy(store.matrices[50:, -1, 4]).double()
    assert epochs[2][1]["val_loss"] == pytest.approx(float((values - mean).square().mean()))
    assert epochs[2][1]["val_bias"] == pytest.approx(float((values - mean).mean()))
    assert last.metrics["val_loss"] == epochs[2][1]["val_loss"]
    assert set(epochs[0][1]) == {"loss", "val_loss", "val_bias"}


def test_validations_come_every_so_many_epochs(store, loader, tmp_path):
    epochs, _ = train(store, tmp_path, epochs=5, validation=loader, validate_every=2)
    assert ["val_loss" in metrics for _, metrics in epochs] == [False, True, False, True, False]


@pytest.mark.parametrize("stop_after", [1, 13, 14, 15, 20, 28, 41])
def test_a_training_stopped_anywhere_ends_its_epochs_as_if_it_never_had(
    store, loader, tmp_path, stop_after
):
    whole, plain = train(store, tmp_path / "whole", validation=loader)
    first, _ = train(store, tmp_path / "c", validation=loader, stop_after=stop_after)
    rest, resumed = train(store, tmp_path / "c", validation=loader)
    assert first + rest == whole
    assert resumed.summary == plain.summary
    assert resumed.checkpoints.load().metrics == plain.checkpoints.load().metrics
    assert train(store, tmp_path / "c", validation=loader)[0] == []


def test_a_validation_that_was_interrupted_comes_again(store, loader, tmp_path):
    whole, plain = train(store, tmp_path / "whole", validation=loader)
    trainer = Regressor()
    trainer.fails = True
    with pytest.raises(KeyboardInterrupt):
        train(store, tmp_path / "c", trainer, validation=loader)
    epochs, resumed = train(store, tmp_path / "c", validation=loader)
    assert epochs == whole
    assert resumed.summary == plain.summary


def test_the_best_checkpoint_is_that_of_the_best_validation(store, loader, tmp_path):
    class Swinging(Regressor):
        def validate_batch(self, batch):
            return {"loss": {0: 3.0, 1: 1.0}.get(len(rounds), 2.0)}

    rounds = []

    class Counting(Callback):
        def on_epoch_end(self, epoch, metrics):
            rounds.append(metrics)

    processor = gb.BatchProcessor(
        store, gb.BatchConfig(batch_size=5, checkpoint_frequency=4), tmp_path, epochs=6,
        callbacks=[Counting()], validation=loader, best_metric="-val_loss",
    )  # fmt: skip
    for _ in processor.process_batches(Swinging()):
        pass
    rated = {
        info.step: info.metrics["rating"]
        for info in processor.checkpoints.list()
        if "rating" in info.metrics
    }
    steps = len(processor.loader)
    assert rated[2 * steps] == -1.0
    assert max(rated.values()) == -1.0


@pytest.mark.parametrize(("name", "best"), [("up", 12), ("-up", 4)])
def test_the_best_checkpoint_is_that_of_the_best_stretch_by_any_metric(store, tmp_path, name, best):
    class Rising(Regressor):
        steps = 0

        def train_batch(self, batch):
            self.steps += 1
            return {"up": self.steps if self.steps <= 12 else 6.0}

    _, processor = train(store, tmp_path, Rising(), epochs=2, best_metric=name)
    kept = processor.checkpoints.list()
    assert max(kept, key=lambda info: info.metrics["rating"]).step == best
    assert len(kept) == 4


def test_what_can_not_be_validated_or_rated_is_refused(store, loader, tmp_path):
    class Untested(Regressor):
        validate_batch = None

    with pytest.raises(UsageError, match=r"Untested has no validate_batch\(batch\)"):
        train(store, tmp_path / "a", Untested(), validation=loader)
    with pytest.raises(UsageError, match="best_metric 'gain' is not among the metrics: loss"):
        train(store, tmp_path / "b", best_metric="gain")
    with pytest.raises(UsageError, match="'val_gain' is not among the metrics: val_bias, val_lo"):
        train(store, tmp_path / "c", best_metric="val_gain", validation=loader)
    with pytest.raises(UsageError, match=r"'-val_loss' is one of a validation; give validation="):
        train(store, tmp_path / "d", best_metric="-val_loss")
    with pytest.raises(UsageError, match="validate_every must be a whole number of at least 1"):
        train(store, tmp_path / "e", validation=loader, validate_every=0)
    with pytest.raises(UsageError, match="validation has no window"):
        train(store, tmp_path / "f", validation=[])


def test_a_validation_that_is_not_finite_ends_the_training(store, loader, tmp_path):
    class Lost(Regressor):
        def validate_batch(self, batch):
            return {"loss": float("nan")}

    with pytest.raises(TrainingError, match=r"Lost.validate_batch .*loss is nan"):
        train(store, tmp_path, Lost(), validation=loader)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1},
        {"steps": 1.0},
        {"epochs": None},
        {"whole": {"windows": True, "sums": {}}},
        {"whole": {"windows": 1}},
        {"epoch": {"windows": 1, "sums": {"loss": "low"}}},
        {"stretch": {"windows": 1, "sums": {"loss": float("nan")}}},
        {"stretch": None},
        {"validation": {"val_loss": [1.0]}},
        {"validated_step": -3},
    ],
    ids=str,
)
def test_sums_are_read_strictly(change):
    totals = Totals(3, 1, Means(5, {"loss": 2.5}), validation={"val_loss": 1}, validated_step=3)
    plain = json.loads(json.dumps(totals.to_json()))
    assert Totals.from_json(plain).to_json() == plain
    with pytest.raises((KeyError, TypeError, ValueError)):
        Totals.from_json({**plain, **change})
