"""A team that looks at two timeframes decides on live bars as it does over the stores."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.errors import UsageError
from grandbatch.evaluation.walking import decide, read_tape
from grandbatch.experiment import wire_training
from grandbatch.live import LiveFeatures
from grandbatch.loader.context.contexts import Contexts
from grandbatch.mappo import Team
from grandbatch.serving import LiveTeam

MAX_AGE = "40min"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bars with gaps, their stores, and a team trained a little on the pair."""
    path = tmp_path_factory.mktemp("pairs")
    gb.create_large_dataset_simulation(path / "whole.csv", 1_500)
    lines = (path / "whole.csv").read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number % 700 not in range(600, 640)]
    (path / "bars.csv").write_text("\n".join(kept) + "\n")
    made = {"durable": False, "timezone": "Asia/Kathmandu", "cache": path / "cache"}
    fast = gb.build_store(
        path / "bars.csv", path / "fast.zarr", feature_set="tactical", overlap=59,
        max_gap="1h", **made,
    )  # fmt: skip
    slow = gb.build_store(
        path / "bars.csv", path / "slow.zarr", feature_set="strategic", sequence_length=20,
        overlap=19, resample="20min", resample_offset="5min", **made,
    )  # fmt: skip
    processor, trainer = wire_training(
        fast, gb.BatchConfig(64), path / "run", gb.split_store(fast, {"train": 1.0}),
        context={"strategic": slow}, max_age=MAX_AGE,
    )  # fmt: skip
    for _ in processor.process_batches(trainer):
        pass
    return path


@pytest.fixture(scope="module")
def bars(folder):
    frame = gb.read_bars(
        folder / "bars.csv", cache=folder / "cache", timezone="Asia/Kathmandu"
    ).compute()
    return [
        {**bar, "timestamp": bar["timestamp"].isoformat(), "symbol": str(bar["symbol"])}
        for bar in frame.to_dict("records")
    ]


@pytest.fixture(scope="module")
def wanted(folder):
    fast, slow = (gb.MatrixStore.open(folder / f"{name}.zarr") for name in ("fast", "slow"))
    contexts = Contexts(fast, {"strategic": slow}, MAX_AGE)
    tape = read_tape(fast, None, contexts)
    team = Team.from_checkpoint(folder / "run")
    return dict(
        zip(tape.time.tolist(), decide([team], fast, tape, contexts)[0].tolist(), strict=True)
    )


def decided(team, bars):
    found = {}
    for bar in bars:
        answer = team.decide(bar)
        if answer["exposure"] is not None:
            found[team.live.last_times[bar["symbol"]]] = answer["exposure"]
        else:
            assert set(answer["contexts_missing"]) == {"strategic"}
    return found


def test_decisions_are_those_over_the_stores_from_the_checkpoint_alone(
    folder, bars, wanted, tmp_path
):
    team = LiveTeam.from_checkpoint(folder / "run")
    found = decided(team, bars[:1_100])
    team.save(tmp_path / "state")
    again = LiveTeam.from_checkpoint(folder / "run")
    again.load(tmp_path / "state")
    found |= decided(again, bars[1_100:])
    assert len(wanted) > 200
    # the last bar of a segment has a window too, but nothing to earn
    assert {time: found[time] for time in wanted} == wanted
    assert len(found) - len(wanted) in (1, 2, 3)


def test_the_command_serves_it_as_any_other(folder, bars, wanted):
    lines = "".join(json.dumps(bar) + "\n" for bar in bars)
    done = CliRunner().invoke(
        app, ["serve", "--checkpoint-dir", str(folder / "run")], input=lines, catch_exceptions=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    exposures = [one["exposure"] for one in answers if one["exposure"] is not None]
    assert len(answers) == len(bars)
    assert list(wanted.values())[:50] == exposures[:50]


def test_live_bars_without_the_context_are_refused(folder):
    team = Team.from_checkpoint(folder / "run")
    tactical = gb.TACTICAL.with_window(team.config.sequence_length)
    for context in (None, {"strategic": ("tactical", "20min")}, {"other": ("strategic", "20min")}):
        with pytest.raises(UsageError, match="looks at a context 'strategic'") as refused:
            LiveTeam(team, LiveFeatures(tactical, context=context))
        assert "\n" not in str(refused.value)


def test_a_context_of_bars_that_were_not_gathered_is_named(folder, tmp_path):
    fast = gb.MatrixStore.open(folder / "fast.zarr")
    processor, trainer = wire_training(
        fast, gb.BatchConfig(64), tmp_path / "own", gb.split_store(fast, {"train": 1.0}),
        context={"strategic": fast},
    )  # fmt: skip
    for _ in processor.process_batches(trainer):
        pass
    with pytest.raises(UsageError, match="of bars that weren't gathered"):
        LiveTeam.from_checkpoint(tmp_path / "own")
