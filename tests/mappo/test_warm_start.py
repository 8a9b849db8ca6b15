"""Weights that go from one training to another, and nothing else with them."""

from __future__ import annotations

import pytest
import torch

import grandbatch as gb
from grandbatch.errors import CheckpointError
from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer


def weights(trainer):
    return trainer.state_dict()["weights"]


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def learnt(noise):
    trainer = BatchStrategicTrainer(feature_mean=[0.3] * 13, feature_std=[2.0] * 13, stride=36)
    trainer.train_batch(noise(32, run_length=4))
    return trainer


def test_only_the_weights_and_their_normalisation_come_along(learnt, noise):
    config = BatchStrategicTrainer.default_config(seed=9, learning_rate=5e-4, cost=3e-4)
    other = BatchStrategicTrainer(config, stride=1)
    before = other.state_dict()
    other.train_batch(noise(32, seed=2))
    other.load_weights(learnt.state_dict())
    matrices = noise(40, seed=1).matrices
    assert torch.equal(other.act(matrices).actions, learnt.act(matrices).actions)
    after = other.state_dict()
    assert equal(after["weights"], weights(learnt))
    assert after["optimizer"] == before["optimizer"] == {}
    assert after["config"] == config.to_plain()


def test_a_checkpoint_of_one_store_starts_a_training_on_another(make_store, tmp_path):
    old, new = make_store(900, overlap=40), make_store(1200, overlap=40, seed=4)
    first = BatchStrategicTrainer.for_store(old, seed=1)
    processor = gb.BatchProcessor(old, checkpoint_dir=tmp_path / "c", run_length=8)
    assert len(list(processor.process_batches(first))) > 1
    for source in (tmp_path / "c", processor.checkpoints.latest(), str(tmp_path / "c")):
        second = BatchStrategicTrainer.for_store(new, seed=2)
        second.load_weights(source)
        assert equal(weights(second), weights(first))
    processor = gb.BatchProcessor(new, checkpoint_dir=tmp_path / "d", run_length=8)
    assert list(processor.process_batches(second))
    assert not equal(weights(second), weights(first))


def test_other_features_are_refused_by_name(learnt):
    names = list(BatchStrategicTrainer.default_config().features)
    names[4] = "rsi:2"
    config = BatchStrategicTrainer.default_config(features=tuple(names))
    other = BatchStrategicTrainer(config)
    before = weights(other)
    with pytest.raises(CheckpointError, match=r"features: saved .*'rsi:1'.*, now .*'rsi:2'"):
        other.load_weights(learnt.state_dict())
    with pytest.raises(
        CheckpointError, match=r"don't fit this trainer .*n_features: saved 13, now 7"
    ):
        BatchTacticalTrainer().load_weights(learnt.state_dict())
    assert equal(weights(other), before)


def test_other_networks_are_refused_by_name(learnt):
    config = BatchStrategicTrainer.default_config(hidden_sizes=(32,))
    with pytest.raises(CheckpointError, match=r"hidden_sizes: saved \[64, 64\], now \[32\]"):
        BatchStrategicTrainer(config).load_weights(learnt.state_dict())


def test_what_holds_no_weights_is_refused(learnt, tmp_path):
    trainer = BatchStrategicTrainer()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        trainer.load_weights(tmp_path)
    with pytest.raises(CheckpointError, match="can't be read"):
        trainer.load_weights(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="not a MAPPO trainer's state"):
        trainer.load_weights({"weights": {}})
    broken = {**learnt.state_dict(), "weights": {}}
    with pytest.raises(CheckpointError, match="weights have the shapes"):
        trainer.load_weights(broken)


def test_features_of_a_set_are_those_that_its_trainer_expects():
    for feature_set, kind in (
        (gb.STRATEGIC, BatchStrategicTrainer),
        (gb.TACTICAL, BatchTacticalTrainer),
    ):
        pairs = zip(feature_set.feature_names, feature_set.feature_versions, strict=True)
        config = kind.default_config()
        assert config.features == tuple(f"{name}:{version}" for name, version in pairs)
        assert config.sequence_length == feature_set.sequence_length
