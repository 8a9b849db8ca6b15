"""Trainers: resumable to the bit, whole or not at all, and careful with what they are given."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torch

from grandbatch.checkpoint import CheckpointManager
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.mappo import (
    BatchStrategicTrainer,
    BatchTacticalTrainer,
    MappoConfig,
    TrainingError,
)
from grandbatch.mappo.networks import AgentNetworks
from grandbatch.training.trainer import Trainer

KINDS = {BatchStrategicTrainer: (48, 13), BatchTacticalTrainer: (60, 7)}


def build(kind=BatchStrategicTrainer, **changes):
    features = kind.default_config().n_features
    return kind(
        kind.default_config(minibatch_windows=16, **changes),
        feature_mean=[0.1] * features,
        feature_std=[1.5] * features,
        stride=36,
    )


def stream(noise, count, kind=BatchStrategicTrainer, first=0):
    length, features = KINDS[kind]
    return [
        noise(32, length, features, seed=seed, run_length=(1, 8)[seed % 2])
        for seed in range(first, first + count)
    ]


def assert_equal_states(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("kind", KINDS)
def test_a_trainer_is_a_trainer(kind):
    trainer = build(kind)
    assert isinstance(trainer, Trainer)
    assert trainer.agents == kind.default_config().agents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(noise, tmp_path, kind, stop):
    batches = stream(noise, 7, kind)
    whole = build(kind)
    metrics = [whole.train_batch(batch) for batch in batches]

    first = build(kind)
    for batch in batches[:stop]:
        first.train_batch(batch)
    manager = CheckpointManager(tmp_path, content_id="a")
    manager.save(stop, first.state_dict(), {"chunk_index": 0, "offset": 0}, {})
    second = build(kind)
    second.train_batch(stream(noise, 1, kind, first=99)[0])
    second.load_state_dict(manager.load().trainer_state)
    assert [second.train_batch(batch) for batch in batches[stop:]] == metrics[stop:]
    assert_equal_states(second.state_dict(), whole.state_dict())


def test_the_schedules_go_on_where_a_resumed_run_stood(noise):
    batches = stream(noise, 6)
    settings = {"schedule_batches": 5, "final_learning_rate": 1e-5}
    whole, rates = build(**settings), []
    for batch in batches:
        whole.train_batch(batch)
        rates.append(whole._learner.optimizer.param_groups[0]["lr"])
    assert rates == [whole.config.learning_rate_at(k) for k in range(6)]
    first = build(**settings)
    for batch in batches[:3]:
        first.train_batch(batch)
    second = build(**settings)
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        second.train_batch(batch)
    assert_equal_states(second.state_dict(), whole.state_dict())


def test_entropys_weight_keeps_choices_open(noise):
    batches = stream(noise, 8)
    entropies = []
    for weight in (0.0, 3.0):
        trainer = build(entropy_coefficient=weight, final_entropy_coefficient=weight)
        metrics = [trainer.train_batch(batch) for batch in batches]
        entropies.append(metrics[-1]["entropy"])
    assert entropies[1] > entropies[0]


def test_an_update_starts_from_the_odds_that_decisions_were_made_with(noise):
    trainer = build(dropout=0.5)
    batch = noise(32, run_length=8)
    rollout = trainer._trade(batch, trainer._draw_chance(32))
    assert float(rollout.log_prob.exp().min()) < 1
    with torch.no_grad():
        logits = trainer._actor(rollout.observation, rollout.kept)
        other = trainer._actor(rollout.observation)
    found = logits.log_softmax(-1).gather(-1, rollout.action[..., None])[..., 0]
    assert torch.allclose(found, rollout.log_prob, atol=1e-5)
    assert not torch.allclose(other, logits, atol=1e-2)


def test_a_cpu_computes_in_full_precision_whatever_is_set(noise):
    states = []
    for mixed in (True, False):
        trainer = build(mixed_precision=mixed)
        trainer.train_batch(noise(32, run_length=4))
        states.append(trainer.state_dict()["weights"])
    assert_equal_states(*states)


def test_mixed_precision_trains_nearly_alike_with_weights_in_float32(noise, monkeypatch):
    def bfloat16(self, device):
        return torch.autocast(device, torch.bfloat16, enabled=self.mixed_precision)

    monkeypatch.setattr(AgentNetworks, "_precision", bfloat16)
    entropies = []
    for mixed in (True, False):
        trainer = build(mixed_precision=mixed)
        metrics = [trainer.train_batch(batch) for batch in stream(noise, 3)]
        assert {w.dtype for w in trainer.state_dict()["weights"].values()} == {torch.float32}
        entropies.append(metrics[-1]["entropy"])
    assert entropies[0] != entropies[1]
    assert entropies[0] == pytest.approx(entropies[1], abs=0.02)


def test_a_saved_state_does_not_change_with_later_training(noise):
    one, two = stream(noise, 2)
    trainer = build()
    trainer.train_batch(one)
    saved, again = trainer.state_dict(), trainer.state_dict()
    trainer.train_batch(two)
    assert_equal_states(saved, again)
    other = build()
    other.load_state_dict(saved)
    other.train_batch(two)
    assert_equal_states(saved, again)
    assert_equal_states(other.state_dict(), trainer.state_dict())


def test_another_seed_is_another_run(noise):
    (batch,) = stream(noise, 1)
    assert build(seed=0).train_batch(batch) != build(seed=1).train_batch(batch)
    assert build(seed=1).train_batch(batch) == build(seed=1).train_batch(batch)


def test_the_global_generator_is_neither_used_nor_changed(noise):
    (batch,) = stream(noise, 1)
    with torch.random.fork_rng(devices=[]):
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            trainer = build()
            results.append(trainer.train_batch(batch))
            trainer.act(batch.matrices)
            assert torch.equal(torch.get_rng_state(), before)
        assert results[0] == results[1]


def test_the_state_is_plain(noise):
    trainer = build()
    trainer.train_batch(*stream(noise, 1))

    def check(value):
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            value = list(value.values())
        if type(value) is list:
            for item in value:
                check(item)
        else:
            assert type(value) in (torch.Tensor, bool, int, float, str, type(None))

    state = trainer.state_dict()
    check(state)
    assert state["generator"].dtype == torch.uint8


def test_what_padding_holds_does_not_matter(noise, changed):
    batch = noise(32, run_length=4)
    weight = torch.ones(32)
    weight[[7, 30, 31]] = 0
    wild = batch.next_return.clone(), batch.matrices.clone()
    wild[0][weight == 0], wild[1][weight == 0] = 9.0, 100.0
    padded = changed(batch, weight=weight)
    other = changed(padded, next_return=wild[0], matrices=wild[1])
    one, two = build(), build()
    assert one.train_batch(padded) == two.train_batch(other)
    assert_equal_states(one.state_dict(), two.state_dict())


def test_a_window_without_a_next_return_earns_nothing_and_ends_its_trajectory(noise, changed):
    batch, trainer = noise(8), build()
    returns = batch.next_return.clone()
    returns[3] = math.nan
    weights = [torch.zeros(8), torch.zeros(8)]
    weights[0][:3], weights[1][4:] = 1, 1
    before, after = (trainer.evaluate([changed(batch, weight=w)]) for w in weights)
    result = trainer.evaluate([changed(batch, next_return=returns)])
    assert result["windows"] == 8
    for name in ("avg_reward", "turnover", "exposure"):
        assert result[name] == pytest.approx((3 * before[name] + 4 * after[name]) / 8)


def test_a_batch_with_nothing_to_earn_changes_no_weight(noise, changed):
    trainer = build()
    before = trainer.state_dict()
    batch = changed(noise(8), weight=torch.zeros(8))
    metrics = trainer.train_batch(batch)
    assert set(metrics.values()) == {0.0}
    assert_equal_states(trainer.state_dict()["weights"], before["weights"])
    returns = torch.full((8,), math.nan, dtype=torch.float64)
    metrics = trainer.train_batch(changed(noise(8), next_return=returns))
    assert metrics.pop("feature_shift") > 0
    assert set(metrics.values()) == {0.0}


def test_batches_of_one_window_can_be_learnt_from(noise):
    metrics = build().train_batch(noise(1))
    assert all(math.isfinite(value) for value in metrics.values())


def test_metrics_are_those_promised(noise):
    metrics = build().train_batch(noise(32))
    assert set(metrics) == {
        "avg_reward", "avg_loss", "entropy", "turnover", "exposure", "feature_shift",
    }  # fmt: skip
    assert all(type(value) is float for value in metrics.values())
    assert 0 < metrics["entropy"] <= math.log(5) + 1e-6


def test_the_mean_over_batches_counts_windows_not_batches(noise):
    trainer = build()
    batches = [noise(30, seed=0), noise(6, seed=1)]
    alone = [trainer.evaluate([batch])["avg_reward"] for batch in batches]
    both = trainer.evaluate(batches)
    assert both["avg_reward"] == pytest.approx((30 * alone[0] + 6 * alone[1]) / 36)
    assert trainer.evaluate([])["windows"] == 0


@pytest.mark.parametrize("field", ["matrices", "next_return"])
def test_values_that_are_not_finite_are_refused_before_learning(noise, changed, field):
    batch = noise(8)
    values = getattr(batch, field).clone()
    values[5] = math.inf
    trainer = build()
    before = trainer.state_dict()
    with pytest.raises(TrainingError, match=f"{field} of window 5"):
        trainer.train_batch(changed(batch, **{field: values}))
    assert_equal_states(trainer.state_dict(), before)


@pytest.mark.parametrize("changes", [{"learning_rate": 3e37}, {"reward_scale": 1e45}])
def test_a_loss_that_is_not_finite_leaves_the_trainer_unharmed(noise, changes):
    trainer = build(**changes)
    before = trainer.state_dict()
    with pytest.raises(TrainingError, match="learning_rate"):
        trainer.train_batch(noise(32, run_length=4))
    assert_equal_states(trainer.state_dict(), before)


@pytest.mark.parametrize(
    "made", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))]
)
def test_a_copy_of_a_trainer_learns_by_itself_and_alike(noise, made):
    first, second = stream(noise, 2)
    trainer = build()
    trainer.train_batch(first)
    before = trainer.state_dict()
    copied = made(trainer)
    found = copied.train_batch(second)
    assert_equal_states(trainer.state_dict(), before)
    assert trainer.train_batch(second) == found
    assert_equal_states(copied.state_dict(), trainer.state_dict())
    assert copied.digest != build().digest


def test_an_interrupted_batch_has_not_happened(noise, monkeypatch):
    one, two = stream(noise, 2)
    trainer, other = build(), build()
    trainer.train_batch(one)
    other.train_batch(one)
    steps = []
    take_step = trainer._learner.optimizer.step

    def interrupted():
        steps.append(take_step())
        if len(steps) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer._learner.optimizer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train_batch(two)
    assert_equal_states(trainer.state_dict(), other.state_dict())
    assert trainer.train_batch(two) == other.train_batch(two)


def test_matrices_of_another_shape_are_refused(noise):
    with pytest.raises(UsageError, match=r"\(B, 48, 13\), got \(4, 60, 7\)"):
        build().train_batch(noise(4, 60, 7))
    with pytest.raises(UsageError, match="got"):
        build().act(torch.zeros(48, 13))


def test_normalisation_comes_with_the_state(noise):
    trainer = build()
    other = BatchStrategicTrainer(trainer.config, stride=36)
    other.load_state_dict(trainer.state_dict())
    matrices = noise(16).matrices
    assert torch.equal(trainer.act(matrices).actions, other.act(matrices).actions)
    assert_equal_states(trainer.state_dict(), other.state_dict())


def test_a_state_of_other_settings_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"learning_rate: saved 0\.002, now 0\.001"):
        build().load_state_dict(build(learning_rate=0.002).state_dict())


@pytest.mark.parametrize(
    "part",
    [
        "weights",
        "optimizer",
        "generator",
        "batches",
        "normalisation",
        "statistics",
        "sharpness",
    ],
)
def test_a_state_with_a_part_missing_or_wrong_is_refused(noise, part):
    trainer = build()
    trainer.train_batch(noise(8))
    before = trainer.state_dict()
    broken = build().state_dict()
    for wrong in ({}, "x", torch.zeros(3)):
        if part == "optimizer" and wrong == {}:
            continue
        with pytest.raises(CheckpointError):
            trainer.load_state_dict({**broken, part: wrong})
    with pytest.raises(CheckpointError):
        trainer.load_state_dict({k: v for k, v in broken.items() if k != part})
    assert_equal_states(trainer.state_dict(), before)


@pytest.mark.parametrize("change", ["one fewer", "another shape", "steps apart"])
def test_moments_of_other_weights_are_refused(noise, change):
    trainer = build()
    trainer.train_batch(noise(8))
    before = trainer.state_dict()
    broken = trainer.state_dict()
    if change == "one fewer":
        broken["optimizer"].pop("3")
    elif change == "another shape":
        broken["optimizer"]["3"]["exp_avg"] = torch.zeros(2, 64)
    else:
        broken["optimizer"]["3"]["step"] += 1
    with pytest.raises(CheckpointError, match="the optimizer"):
        trainer.load_state_dict(broken)
    assert_equal_states(trainer.state_dict(), before)


def test_a_foreign_state_is_refused():
    with pytest.raises(CheckpointError, match="not a MAPPO trainer's state"):
        build().load_state_dict({"weights": {}})


def test_a_users_own_shape_and_agents_are_welcome(noise):
    config = MappoConfig(
        agents=("solo",), sequence_length=5, n_features=2, spans=(1,), hidden_sizes=(8,)
    )
    trainer = BatchStrategicTrainer(config)
    metrics = trainer.train_batch(noise(16, 5, 2, run_length=4))
    assert math.isfinite(metrics["avg_loss"])
    assert trainer.act(torch.zeros(3, 5, 2)).actions.shape == (3, 1)


@pytest.mark.slow
def test_without_the_extra_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['torchrl'] = None\n"
        "try:\n import grandbatch.mappo\n"
        "except ImportError as error:\n"
        " from grandbatch.errors import UsageError\n"
        " print(isinstance(error, UsageError), error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True")
    assert 'pip install "grandbatch[rl]"' in done.stdout


@pytest.mark.slow
def test_mappo_imports_neither_dask_nor_zarr():
    code = "import sys, grandbatch.mappo; print({'dask', 'zarr', 'numba'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
