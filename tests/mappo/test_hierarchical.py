"""A team that sees windows of coarser bars: it learns from them, and is resumed to the bit."""

from __future__ import annotations

import pytest
import torch
from conftest import make_batch

import grandbatch as gb
from grandbatch.batch import ContextWindows, MatrixBatch
from grandbatch.checkpoint import CheckpointManager
from grandbatch.errors import CheckpointError, TrainingError, UsageError
from grandbatch.mappo import (
    BatchHierarchicalTrainer,
    BatchStrategicTrainer,
    BatchTacticalTrainer,
    HierarchicalConfig,
    MappoConfig,
    Team,
)
from grandbatch.serving import LiveTeam


def pair_batch(n, seed, *, told=0.0):
    """Random windows with a context, whose row 24 from the end tells the return after it."""
    generator = torch.Generator().manual_seed(seed)
    slow = torch.randn(n, 48, 13, generator=generator)
    blur = torch.randn(n, generator=generator, dtype=torch.float64)
    returns = 1e-3 * (told * slow[:, -24, 0].sign().double() + blur)
    fast = torch.randn(n, 60, 7, generator=generator)
    plain = make_batch(fast, returns, index=2 * torch.arange(n))
    labels = plain.tensors()
    whole = ContextWindows(slow, torch.arange(n), torch.zeros(n, dtype=torch.int64))
    return MatrixBatch(**labels, position=plain.position, context={"strategic": whole})


def strategic(seed=5):
    return BatchStrategicTrainer(MappoConfig.strategic(seed=seed), feature_mean=[0.2] * 13)


def build(leader=None, **changes):
    return BatchHierarchicalTrainer(
        HierarchicalConfig.hierarchical(**{"minibatch_windows": 16, **changes}),
        context_mean=[0.1] * 13,
        context_std=[1.5] * 13,
        leader=leader,
    )


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("led", [False, True])
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(tmp_path, led):
    leader = strategic() if led else None
    batches = [pair_batch(32, seed) for seed in range(5)]
    whole, first = build(leader), build(leader)
    metrics = [whole.train_batch(batch) for batch in batches]
    for batch in batches[:2]:
        first.train_batch(batch)
    manager = CheckpointManager(tmp_path, content_id="a")
    manager.save(2, first.state_dict(), {"chunk_index": 0, "offset": 0}, {})
    second = build(strategic(seed=9) if led else None)
    second.load_state_dict(manager.load().trainer_state)
    assert [second.train_batch(batch) for batch in batches[2:]] == metrics[2:]
    assert same(second.state_dict(), whole.state_dict())


def test_a_team_decides_from_nothing_but_its_checkpoint():
    trainer, batch = build(strategic()), pair_batch(32, 1)
    trainer.train_batch(batch)
    team = Team.from_checkpoint(trainer.state_dict())
    context = {"strategic": batch.context["strategic"].matrices}
    assert team.config == trainer.config
    asked = (batch.matrices, None, context)
    assert torch.equal(team.act(*asked).actions, trainer.act(*asked).actions)
    assert torch.equal(team.predict(*asked).probabilities, trainer.predict(*asked).probabilities)


def test_a_leader_is_seen_as_what_it_expects_to_hold_and_learns_nothing_more():
    leader, batch = strategic(), pair_batch(32, 2)
    before = leader.state_dict()["weights"]
    trainer = build(leader)
    slow = batch.context["strategic"].matrices
    seen = trainer._summary(batch.matrices, {"strategic": slow})
    first = trainer._summary.own.size
    with torch.no_grad():
        odds = leader._actor(leader._observe(slow, None, None)).softmax(-1)
    expected = odds @ torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert torch.allclose(seen[:, first : first + 3], expected)
    for seed in range(3):
        trainer.train_batch(pair_batch(32, seed))
    own = {f"actor.{n}": p for n, p in trainer._summary.leader.actor.named_parameters()}
    assert own
    assert all(torch.equal(before[name], value) for name, value in own.items())


@pytest.mark.slow
def test_what_only_the_context_tells_is_found_by_the_team_that_sees_it():
    settings = {"schedule_batches": 60, "minibatch_windows": 256, "learning_rate": 3e-3}
    sees, does_not = build(**settings), BatchTacticalTrainer(MappoConfig.tactical(**settings))
    for seed in range(60):
        for trainer in (sees, does_not):
            trainer.train_batch(pair_batch(256, seed, told=2.0))
    judged = [pair_batch(1000, 10_000 + seed, told=2.0) for seed in range(3)]
    assert sees.evaluate(judged)["avg_reward"] > 3e-4
    assert does_not.evaluate(judged)["avg_reward"] < 0.5e-4


def test_windows_without_the_context_that_a_team_looks_at_are_refused():
    trainer, batch = build(), pair_batch(4, 0)
    with pytest.raises(UsageError, match="got none; give the loader"):
        trainer.train_batch(make_batch(batch.matrices, batch.next_return))
    with pytest.raises(UsageError, match=r"shape \(4, 48, 13\), got \(4, 40, 13\)"):
        trainer.act(batch.matrices, None, {"strategic": torch.zeros(4, 40, 13)})
    batch.context["strategic"].matrices[1, 3, 2] = torch.nan
    before = trainer.state_dict()
    with pytest.raises(TrainingError, match="context strategic of window 2"):
        trainer.train_batch(batch)
    assert same(trainer.state_dict(), before)


def test_states_and_leaders_of_other_windows_are_refused(tmp_path):
    with pytest.raises(UsageError, match="the leading team knows windows of 60 rows"):
        build(BatchTacticalTrainer())
    with pytest.raises(CheckpointError, match="leader_agents"):
        build().load_state_dict(build(strategic()).state_dict())
    with pytest.raises(CheckpointError, match="don't fit this trainer"):
        build().load_weights(BatchTacticalTrainer().state_dict())
    with pytest.raises(UsageError, match="looks at a context 'strategic'"):
        build().export(tmp_path / "team.pt")
    with pytest.raises(UsageError, match="looks at a context 'strategic'"):
        LiveTeam(build(), gb.LiveFeatures("tactical"))


def test_another_trainings_weights_bring_along_its_leader():
    led = build(strategic())
    other = build(strategic(seed=3), seed=7)
    other.load_weights(led.state_dict())
    batch = pair_batch(8, 0)
    context = {"strategic": batch.context["strategic"].matrices}
    answers = [team.act(batch.matrices, None, context).actions for team in (led, other)]
    assert torch.equal(*answers)
