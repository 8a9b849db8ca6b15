"""Hierarchical teams from bars to a judgement: nothing that is judged was seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from advice import offers, words
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.checkpoint import CheckpointManager
from grandbatch.cli.main import app
from grandbatch.cli.training import make_config
from grandbatch.errors import CheckpointError, StoreMismatchError, UsageError
from grandbatch.experiment import (
    coarser_split,
    judge_trainings,
    judge_walk_forward,
    wire_training,
    wiring,
)
from grandbatch.loader.context.pairing import Pairing
from grandbatch.mappo import BatchStrategicTrainer, HierarchicalConfig
from grandbatch.mappo.team import Team
from grandbatch.training.provenance import Provenance


def said(*arguments):
    """What a command prints as JSON."""
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    bars = folder / "bars.csv"
    gb.create_large_dataset_simulation(bars, 4_000, signal=0.5, signal_timeframe="30min")
    fast = gb.build_store(bars, folder / "fast.zarr", feature_set="tactical", overlap=59)
    slow = gb.build_store(
        bars, folder / "slow.zarr", feature_set="strategic", overlap=47, resample="30min"
    )
    return fast, slow


def config_of(store):
    return gb.BatchConfig(64, store.sequence_length, store.overlap)


def train(store, folder, split=None, **options):
    times = {"train": (None, "2020-01-09"), "test": ("2020-01-09", None)}
    splits = split or gb.split_store(store, times)
    processor, trainer = wire_training(store, config_of(store), folder, splits, **options)
    for _ in processor.process_batches(trainer):
        pass
    return trainer


def test_a_policy_is_shown_the_contexts_that_the_loader_gives(stores):
    fast, slow = stores
    test = gb.split_store(fast, {"train": 0.6, "test": 0.4})["test"]
    shown = {}

    def policy(windows, held, contexts):
        for window, context in zip(windows, contexts["strategic"], strict=True):
            shown[window.tobytes()] = context.copy()
        return held * 0

    result = gb.evaluate(policy, fast, test, context={"strategic": slow}, draws=9)
    loader = gb.SlidingWindowDataLoader(
        fast, config_of(fast), shuffle=False, subset=test, context={"strategic": slow}
    )
    given = {}
    for batch in loader:
        kept = ~batch.next_return.isnan()
        for window, context in zip(
            batch.matrices[kept], batch.context["strategic"].matrices[kept], strict=True
        ):
            given[window.numpy().tobytes()] = context.numpy().copy()
    assert len(result.windows) == len(given) == len(shown)
    assert all(np.array_equal(given[key], shown[key]) for key in given)


def test_a_led_team_is_trained_and_judged_on_what_neither_has_seen(stores, tmp_path):
    fast, slow = stores
    context = {"strategic": slow}
    train(slow, tmp_path / "slow")
    train(fast, tmp_path / "led", context=context, leader=tmp_path / "slow")
    train(fast, tmp_path / "alone")
    judged = judge_trainings(fast, [tmp_path / "led"], [tmp_path / "alone"], context, draws=19)
    assert set(judged.evaluation.others) == {str(tmp_path / "alone")}
    assert judged.candidates[0].team.config.leader_agents == ("mlmi", "nwrqk", "regime")
    with pytest.raises(UsageError, match=r"--context strategic=slow\.zarr"):
        judge_trainings(fast, [tmp_path / "led"])
    with pytest.raises(StoreMismatchError, match="trained with a context"):
        judge_trainings(fast, [tmp_path / "led"], context={"strategic": fast})


def test_a_leader_that_has_seen_the_test_is_refused(stores, tmp_path):
    fast, slow = stores
    late = {"train": (None, "2020-01-11"), "test": ("2020-01-11", None)}
    train(slow, tmp_path / "slow", gb.split_store(slow, late))
    with pytest.raises(UsageError, match="the same splits"):
        train(fast, tmp_path / "led", context={"strategic": slow}, leader=tmp_path / "slow")


def test_a_leader_that_does_not_say_what_it_has_seen_is_refused(stores, tmp_path):
    fast, slow = stores
    team = BatchStrategicTrainer.for_store(slow)
    CheckpointManager(tmp_path / "slow", content_id="").save(1, team.state_dict(), {}, {})
    with pytest.raises(CheckpointError, match="doesn't say which bars"):
        train(fast, tmp_path / "led", context={"strategic": slow}, leader=tmp_path / "slow")


@pytest.mark.slow
def test_a_validated_training_goes_on_where_it_ended(stores, tmp_path):
    fast, slow = stores
    splits = gb.split_store(fast, {"train": 0.4, "validation": 0.3, "test": 0.3})

    def run(folder, epochs):
        trainer = train(fast, folder, splits, context={"strategic": slow}, epochs=epochs)
        return trainer.state_dict()

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    again = run(tmp_path / "parts", 2)
    assert whole["batches"] == again["batches"]
    assert whole["sharpness"] == again["sharpness"] is not None
    for name, weight in whole["weights"].items():
        assert weight.equal(again["weights"][name]), name


def test_walk_forward_of_a_hierarchical_team(stores, tmp_path):
    fast, slow = stores
    result = judge_walk_forward(
        fast, fast, config_of(fast), tmp_path, folds=1, seeds=2, draws=9,
        context={"strategic": slow}, max_age="2h",
    )  # fmt: skip
    assert len(result.seeds) == 2


@pytest.mark.slow
def test_walk_forward_trains_a_leader_for_each_training_where_told_to(stores, tmp_path):
    fast, slow = stores
    pair = f"strategic={slow.path}"
    flags = ("walk-forward", str(fast.path), "--folds", "1", "--seeds", "1", "--draws", "9",
             "--context", pair, "--batch-size", "64")  # fmt: skip
    found = said(*flags, "--out", str(tmp_path / "walk"), "--train-leader")
    folder = tmp_path / "walk" / "fold-0" / "seed-0"
    led = Team.from_checkpoint(folder)
    assert led.config.leader_agents == ("mlmi", "nwrqk", "regime")
    # its leader is the one that lies below it, trained on the context's store
    leader = Team.from_checkpoint(folder / "leader")
    matrices = torch.from_numpy(slow.matrices[:4])
    odds = leader._actor(leader._observe(matrices, None, None)).softmax(-1)
    expected = odds @ torch.linspace(-1, 1, 5)
    assert torch.allclose(led._summary.leader(matrices), expected, atol=1e-6)
    wanted = judge_walk_forward(
        fast, fast, config_of(fast), tmp_path / "python", folds=1, seeds=1, draws=9,
        context={"strategic": slow}, leading=make_config(slow, None, None, 0), run_length=8,
    )  # fmt: skip
    assert found["performance"] == wanted.to_json()["performance"]


def test_a_leader_without_a_context_or_a_second_one_is_refused(stores, tmp_path):
    fast, slow = stores
    flags = ["walk-forward", str(fast.path), "--out", str(tmp_path), "--train-leader"]
    with pytest.raises(UsageError, match="give --context"):
        CliRunner().invoke(app, flags, catch_exceptions=False)
    pair = ["--context", f"strategic={slow.path}", "--leader", str(tmp_path)]
    with pytest.raises(UsageError, match="has one leader"):
        CliRunner().invoke(app, [*flags, *pair], catch_exceptions=False)


def test_a_leader_that_has_seen_what_is_walked_over_is_refused(stores, tmp_path):
    fast, slow = stores
    train(slow, tmp_path / "slow", gb.split_store(slow, {"train": 1.0}))
    with pytest.raises(UsageError, match="the same splits"):
        judge_walk_forward(
            fast, fast, config_of(fast), tmp_path / "walk", folds=1, seeds=1, draws=9,
            context={"strategic": slow}, leader=tmp_path / "slow",
        )  # fmt: skip


@pytest.mark.parametrize("cut", ["2020-01-08 06:10", "2020-01-08 06:25", "2020-01-08 06:30"])
def test_a_leader_reads_no_bar_but_those_of_the_training_that_it_leads(stores, cut):
    fast, slow = stores
    minute = 60 * 10**9
    split, _ = gb.split_store(fast, {"train": (None, cut), "test": (cut, None)}).values()
    led = coarser_split(split, fast, {"strategic": slow})["strategic"]
    config = config_of(slow)
    last = max(
        int(batch.end_time.max())
        for batch in gb.SlidingWindowDataLoader(slow, config, shuffle=False, subset=led)
    )
    # the bar after the last begins at + 30, and its own last bar at + 55
    assert last + 55 * minute < split.reads_until <= last + 85 * minute
    seen = Provenance.of(slow, {"train": led}, None)
    finer = wiring._in_finer_bars(seen, Pairing("strategic", fast, slow, None))
    assert finer.seen_until <= split.reads_until


@pytest.mark.slow
def test_a_planted_slow_signal_is_found_by_the_team_that_sees_its_scale_alone(tmp_path):
    """`benchmarks/timeframes.py` has it over seeds, at the size that it takes."""
    bars = tmp_path / "bars.csv"
    gb.create_large_dataset_simulation(bars, 24_000, seed=5, signal=0.5, signal_timeframe="30min")
    sets = {"fast": ("tactical", 59, {}), "slow": ("strategic", 47, {"resample": "30min"})}
    fast, slow = (
        gb.build_store(bars, tmp_path / f"{name}.zarr", feature_set=one, overlap=overlap, **more)
        for name, (one, overlap, more) in sets.items()
    )
    splits, context = gb.split_store(fast, {"train": 0.7, "test": 0.3}), {"strategic": slow}
    settings = HierarchicalConfig.hierarchical(schedule_batches=260).to_plain()
    learning = ("learning_rate", "entropy_coefficient", "gamma", "lambda_", "schedule_batches")
    teams = {}
    for name, seen in (("both", context), ("alone", None)):
        config = gb.BatchConfig(256, fast.sequence_length, fast.overlap)
        processor, teams[name] = wire_training(
            fast, config, tmp_path / name, splits, context=seen, epochs=4, run_length=4,
            trainer_options={key: settings[key] for key in learning},
        )  # fmt: skip
        for _ in processor.process_batches(teams[name]):
            pass

    def rule(windows, held, contexts):
        return np.sign(contexts["strategic"][:, -24, 0])

    others = {"alone": teams["alone"], "rule": rule}
    result = gb.evaluate(teams["both"], fast, splits["test"], context=context, against=others)
    alone, best = (result.others[name].performance.mean_return for name in others)
    assert result.verdict.beats_random
    assert result.verdict.mean_return > 0.4 * best > 0
    assert alone < 0.1 * best


def test_the_commands_train_and_judge_a_hierarchical_team(stores, tmp_path, monkeypatch):
    fast, slow = stores
    pair = ["--context", f"strategic={slow.path}"]
    run = ["--store", str(fast.path), "--checkpoint-dir", str(tmp_path / "run")]
    assert said("train", "hierarchical", *run, *pair, "--split", "0.6,0.4")["steps"] > 0
    judge = ["evaluate", str(fast.path), "--checkpoint-dir", str(tmp_path / "run"), "--draws", "9"]
    assert said(*judge, *pair)["n_windows"] > 0
    for flags, wanted in (
        (["hierarchical"], "--context strategic=slow.zarr"),
        (["tactical", *pair], "grandbatch train hierarchical"),
        (["hierarchical", "--context", "slow.zarr"], "a name and a store"),
    ):
        done = CliRunner().invoke(app, ["train", *flags, *run])
        assert isinstance(done.exception, UsageError)
        assert wanted in str(done.exception)
    done = CliRunner().invoke(app, judge)
    assert isinstance(done.exception, UsageError)
    monkeypatch.chdir(slow.path.parent)
    [flags] = offers(str(done.exception))
    assert said(*judge, *words(flags))["n_windows"] > 0
